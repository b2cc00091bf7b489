"""A catalog for the tests of the page: clips that any browser plays, sound, a picture, damage, hostile names."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from media_files import write_image, write_sound, write_video

PRESET = """\
visual: {kind: efficientnet-lite}
audio: {kind: log-mel}
text: {kind: hashed-ngrams}
frames: {count: 4}
"""
HOSTILE_ID = 'a/b "c" <i>&amp; ü?#1'
HOSTILE_TITLE = "<script>window.broken = true</script><img src=x onerror='window.broken = true'>"
CLIP_SECONDS = 6
NUM_USERS = 12
TRANSCRIPT = "0:01 the harbour wakes\n0:04 and the boats leave\nno time is known of this"
FIRST_DAY, DAY = 1_735_689_600, 86_400


def write_page_catalog(folder: Path) -> Path:
    """Write `catalog.csv` of 24 items with media beside it, `interactions.csv`, `preset.yaml`; the catalog's path."""
    media = folder / "media"
    media.mkdir(parents=True)
    _write_clip(media / "harbour.webm", CLIP_SECONDS, sound_seconds=CLIP_SECONDS)
    _write_clip(media / "silent.webm", 3)
    shutil.copy(media / "silent.webm", media / "copy.webm")
    write_sound(media / "tone.wav", seconds=2)
    shutil.copy(media / "tone.wav", media / "again.wav")
    write_image(media / "grey.png", size=(96, 64))
    (media / "damaged.webm").write_bytes((media / "harbour.webm").read_bytes()[:200])
    items = [
        (
            "harbour",
            "media/harbour.webm",
            "Boats in the harbour",
            "Fishing boats at dawn.",
            "sea|boats",
            "film",
            TRANSCRIPT,
        ),
        ("silent", "media/silent.webm", "Grey without sound", "A film of greys.", "grey", "film", ""),
        ("copy", "media/copy.webm", "The same grey again", "A copy of a film.", "grey", "film", ""),
        ("tone", "media/tone.wav", "One long tone", "A tone, for tuning.", "music", "sound", ""),
        ("again", "media/again.wav", "The tone again", "The same tone.", "music", "sound", ""),
        ("grey", "media/grey.png", "A grey picture", "It shows nothing.", "grey", "picture", ""),
        ("damaged", "media/damaged.webm", "A damaged film", "It was cut short.", "", "film", ""),
        (HOSTILE_ID, "", HOSTILE_TITLE, "<b>not bold</b>", "<i>tag</i>", "words", ""),
        ("untitled", "", "", "Words alone, without a title.", "", "words", ""),
        *(
            (f"note{n:02}", "", f"Note {n} on boats", f"What was seen on day {n}.", "notes", "words", "")
            for n in range(15)
        ),
    ]
    _write_rows(folder / "catalog.csv", "item_id media title description tags kind transcript", items)
    _write_rows(folder / "interactions.csv", "user_id item_id timestamp", _interactions([item[0] for item in items]))
    (folder / "preset.yaml").write_text(PRESET, encoding="utf-8")
    return folder / "catalog.csv"


def _write_clip(path: Path, seconds: int, sound_seconds: float | None = None) -> None:
    write_video(
        path,
        frames=10 * seconds,
        rate=10,
        size=(96, 64),
        codec="libvpx",
        options={"deadline": "realtime", "cpu-used": "8"},
        sound_seconds=sound_seconds,
        sample_rate=48_000,
    )


def _interactions(item_ids: Sequence[str]) -> Iterable[tuple[str, str, int]]:
    for user in range(NUM_USERS):
        for step in range(5):
            item_id = item_ids[(user + 3 * step) % len(item_ids)]
            yield f"user{user:02}", item_id, FIRST_DAY + DAY * step + user


def _write_rows(path: Path, columns: str, rows: Iterable[Sequence[object]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns.split(), *rows])
