"""Small catalogs, and jobs that embed them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from mmrec.embedding.job import EmbedReport, embed
from mmrec.store.feature_store import FeatureStore
from mmrec.store.features import Features

Children = Callable[[], list[BaseProcess]]

PRESET = """
visual: {kind: descriptors}
audio: {kind: log-mel}
text: {kind: hashed-ngrams}
frames: {count: 3}
sound: {window_seconds: 1, count: 2}
"""


TEXT_PRESET = "text: {kind: hashed-ngrams}\n"


COLUMNS = ("item_id", "media", "title", "tags", "year")


def write_catalog(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_preset(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


MEDIA_ROWS = [
    {"item_id": "影片 🎬", "media": "clip.mp4", "title": "走路的狗", "tags": "dog|walk", "year": "2020"},
    {"item_id": "silent", "media": "silent.mkv", "title": "without a sound"},
    {"item_id": "tone", "media": "tone.wav", "title": "a tone"},
    {"item_id": "untitled", "media": "photo.png"},
    {"item_id": "damaged", "media": "damaged.mp4", "title": "damaged"},
    {"item_id": "missing", "media": "none.mp4", "title": "missing"},
    {"item_id": "gone", "media": "none.mp4"},
    {"item_id": "words", "title": "only words"},
    {"item_id": "empty"},
    {"item_id": "outside", "media": "../clip.mp4", "title": "outside"},
]


def run(folder: Path, store: str = "store", **options: Any) -> EmbedReport:
    return embed(folder / "catalog.csv", folder / store, **{"preset": folder / "small.yaml", "workers": 1, **options})


def by_id(store: Path) -> dict[str, Features]:
    return {row.item.item_id: row for row in FeatureStore(store).features()}


def copied(media_folder: Path, tmp_path: Path) -> Path:
    """The same catalog in a folder of its own."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in media_folder.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    return folder


def word_rows(count: int) -> list[dict[str, str]]:
    return [{"item_id": str(n), "title": f"title number {n}"} for n in range(count)]


def words_only(folder: Path, count: int) -> Path:
    """The folder, with a catalog of items that have words only, and a preset for words only."""
    write_catalog(folder / "catalog.csv", word_rows(count))
    write_preset(folder / "small.yaml", TEXT_PRESET)
    return folder
