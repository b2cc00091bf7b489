"""Media in a bucket and on web servers: the same result as from a disk, by as few bytes as it takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedding_jobs import by_id, write_catalog, write_preset
from media_files import write_sound
from object_stores import BUCKET, Site, Watched, times, upload, web_site

from mmrec.embedding import EmbedReport, embed
from mmrec.errors import Reason
from mmrec.media import SoundPlan, SoundSampling, container, decode_media
from mmrec.remote import Access, Url, objects
from mmrec.store import Features, FeatureStore

SOUND = SoundPlan(sampling=SoundSampling(window_seconds=1, count=2), sample_rate=16_000)


def at(key: str) -> str:
    return f"s3://{BUCKET}/{key}"


def embedded(catalog: str | Path, store: str | Path, preset: Path, **options: Any) -> EmbedReport:
    return embed(catalog, store, preset=preset, workers=1, max_failures=1.0, **options)


def shown(row: Features) -> Any:
    """What must be the same wherever an item was read from."""
    reasons = {modality: problem.reason for modality, problem in row.problems.items()}
    spans = {modality: tokens.spans_T2.tolist() for modality, tokens in row.tokens.items()}
    return row.status, reasons, spans, row.duration_seconds, row.facts, row.item.title, row.language


# --- the same result --------------------------------------------------------------------------------------------------


def test_a_bucket_gives_what_a_disk_gives(bucket: Watched, media_folder: Path, tmp_path: Path) -> None:
    upload(media_folder, "same/")
    preset = media_folder / "small.yaml"
    local_report = embedded(media_folder / "catalog.csv", tmp_path / "local", preset)
    report = embedded(at("same/catalog.csv"), at("same-store"), preset)
    assert report.counts() == local_report.counts() and report.reasons == local_report.reasons
    local = by_id(tmp_path / "local")
    remote = {row.item.item_id: row for row in FeatureStore(at("same-store")).features()}
    assert remote.keys() == local.keys()
    for item_id, row in remote.items():
        assert shown(row) == shown(local[item_id]), item_id
        for modality, tokens in row.tokens.items():
            np.testing.assert_array_equal(tokens.vectors_TD, local[item_id].tokens[modality].vectors_TD)
    bucket.clear()
    again = embedded(at("same/catalog.csv"), at("same-store"), preset)
    assert again.skipped == report.items
    read = {path.rpartition("/")[2] for path in bucket.num_bytes}
    assert not read & {"clip.mp4", "silent.mkv", "tone.wav", "photo.png"}, "ETags tell what is done"


def test_what_is_written_anew_is_embedded_anew(bucket: Watched, tmp_path: Path) -> None:
    preset = write_preset(tmp_path / "p.yaml", "audio: {kind: log-mel}\nsound: {window_seconds: 1, count: 2}\n")
    catalog = write_catalog(
        tmp_path / "c.csv",
        [{"item_id": name, "media": at(f"anew/{name}.wav")} for name in "ab"],
    )
    for name in "ab":
        objects.write(Url.parse(at(f"anew/{name}.wav")), write_sound(tmp_path / f"{name}.wav"))
    assert embedded(catalog, tmp_path / "store", preset).ok == 2
    objects.write(Url.parse(at("anew/b.wav")), write_sound(tmp_path / "b.wav", frequency=880.0))
    objects.write(Url.parse(at("anew/a.wav")), tmp_path / "a.wav")
    report = embedded(catalog, tmp_path / "store", preset)
    assert (report.skipped, report.ok) == (1, 1)
    objects.delete(Url.parse(at("anew/a.wav")))
    assert embedded(catalog, tmp_path / "store", preset).stale == 1
    assert by_id(tmp_path / "store")["a"].tokens.keys() == {"audio"}, "what is away today stays"


# --- ranges, and the cache --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """29 MB, with its index at the end."""
    path = tmp_path_factory.mktemp("large") / "large.mov"
    return write_sound(path, seconds=150, sample_rate=48_000, channels=2)


def test_of_a_file_with_a_trailing_index_little_is_fetched(bucket: Watched, large_file: Path) -> None:
    size = large_file.stat().st_size
    assert size > 28_000_000 and large_file.read_bytes().rindex(b"moov") > 0.9 * size
    objects.write(Url.parse(at("large.mov")), large_file)
    bucket.clear()
    media = decode_media(at("large.mov"), None, SOUND)
    local = decode_media(large_file, None, SOUND)
    assert media.audio_problem is None and media.window_spans == local.window_spans
    np.testing.assert_array_equal(media.windows, local.windows)
    assert bucket.num_bytes[f"/{BUCKET}/large.mov"] < size / 4


def test_what_must_be_read_whole_comes_through_the_cache(
    bucket: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "KEPT_BYTES", 1000)
    path = write_sound(tmp_path / "long.wav", seconds=60)
    objects.write(Url.parse(at("long.wav")), path)
    access = Access(cache=tmp_path / "cache", cache_bytes=10**7)
    local = decode_media(path, None, SOUND)
    for _ in range(2):
        media = decode_media(at("long.wav"), None, SOUND, access=access)
        assert media.audio_problem is None
        np.testing.assert_array_equal(media.windows, local.windows)
    kept = [file for file in access.cache.iterdir() if file.suffix == ".wav"]
    assert [file.stat().st_size for file in kept] == [path.stat().st_size]
    assert bucket.num_bytes[f"/{BUCKET}/long.wav"] < 1.8 * path.stat().st_size, "fetched once, but for its head"
    small = Access(cache=tmp_path / "small", cache_bytes=1000)
    problem = decode_media(at("long.wav"), None, SOUND, access=small).audio_problem
    assert problem is not None and problem.reason is Reason.TOO_LARGE and "--cache-size" in problem.detail


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_what_fails_for_an_item_is_its_own_problem(
    bucket: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = write_preset(tmp_path / "p.yaml", "audio: {kind: log-mel}\nsound: {window_seconds: 1, count: 2}\n")
    names = ["well", "shaky", "denied", "none"]
    rows = [{"item_id": name, "media": f"{name}.wav"} for name in names]
    rows += [{"item_id": "elsewhere", "media": "s3://no-such-bucket/a.wav"}]
    write_catalog(tmp_path / "c.csv", rows)
    for name in names[:-1]:
        write_sound(tmp_path / f"{name}.wav")
    upload(tmp_path, "faults/")
    shaky = times(2, "busy", of="shaky.wav")
    bucket.fault = lambda environ: "denied" if environ["PATH_INFO"].endswith("denied.wav") else shaky(environ)
    report = embedded(at("faults/c.csv"), tmp_path / "store", preset)
    assert (report.ok, report.failed) == (2, 3)
    problems = {item_id: row.problems.get("audio") for item_id, row in by_id(tmp_path / "store").items()}
    assert problems["well"] is problems["shaky"] is None
    told = {item_id: (problem.reason, problem.detail) for item_id, problem in problems.items() if problem}
    assert told["denied"][0] is Reason.NOT_READABLE and "access denied" in told["denied"][1]
    assert told["none"][0] is Reason.MISSING_FILE and "there is no object at" in told["none"][1]
    assert told["elsewhere"][0] is Reason.MISSING_FILE and "no bucket s3://no-such-bucket" in told["elsewhere"][1]
    bucket.clear()
    again = embedded(at("faults/c.csv"), tmp_path / "store", preset, retry_failed=True)
    assert (again.skipped, again.ok, again.failed) == (2, 1, 2), "what may pass is tried again"


def test_what_breaks_in_the_middle_is_not_taken_for_damage(bucket: Watched, large_file: Path) -> None:
    objects.write(Url.parse(at("breaking.mov")), large_file)
    asked = iter(range(1000))
    bucket.fault = lambda environ: "denied" if environ["REQUEST_METHOD"] == "GET" and next(asked) > 1 else None
    media = decode_media(at("breaking.mov"), None, SOUND)
    assert not media.windows
    assert media.audio_problem is not None and media.audio_problem.reason is Reason.NOT_READABLE


# --- web servers ------------------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Site, str]]:
    content = Site()
    with web_site(content, tmp_path, monkeypatch) as host:
        yield content, host


def test_media_of_web_servers(site: tuple[Site, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, host = site
    content.files["/a b.wav"] = write_sound(tmp_path / "a.wav").read_bytes()
    rows = ["item_id,media,title", "relative,a b.wav,", f"whole,https://{host}/a%20b.wav,"]
    rows += ["other,https://example.com/a.wav,", "plain,http://127.0.0.1/a.wav,", f"local,{tmp_path}/a.wav,"]
    content.files["/c.csv"] = "\n".join(rows).encode()
    preset = write_preset(tmp_path / "p.yaml", "audio: {kind: log-mel}\nsound: {window_seconds: 1, count: 2}\n")
    report = embedded(f"https://{host}/c.csv", tmp_path / "store", preset, allow_hosts=["127.0.0.1"])
    assert (report.ok, report.failed) == (2, 3), report.reasons
    problems = {item_id: row.problems.get("audio") for item_id, row in by_id(tmp_path / "store").items()}
    for item_id, told in (("other", "not allowed"), ("plain", "https://"), ("local", "only with a media root")):
        problem = problems[item_id]
        assert problem is not None and problem.reason is Reason.FORBIDDEN_PATH and told in problem.detail
    again = embedded(f"https://{host}/c.csv", tmp_path / "store", preset, allow_hosts=["127.0.0.1"])
    assert again.skipped == 5
