"""The embedding job: every item accounted for, resumed, and the same whatever the batches and workers."""

from __future__ import annotations

import csv
import dataclasses
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from media_files import write_image, write_sound, write_video

import mmrec.embedding.job
from encoders.descriptors import Descriptors
from encoders.text import HashedNgrams
from mmrec.embedding.job import EmbedReport, embed
from mmrec.errors import CatalogError, EncoderError, MMRecError, Reason, StoreError
from mmrec.store.feature_store import FeatureStore
from mmrec.store.features import Features

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
OK = {"影片 🎬", "silent", "tone", "untitled", "words"}
PARTIAL = {"damaged", "missing", "outside"}
FAILED = {"gone", "empty"}


@pytest.fixture(scope="module")
def media_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("catalog")
    write_video(folder / "clip.mp4", sound_seconds=2.0)
    write_video(folder / "silent.mkv", frames=12)
    write_sound(folder / "tone.wav", seconds=3.0)
    write_image(folder / "photo.png")
    (folder / "damaged.mp4").write_bytes(b"no film at all")
    write_catalog(folder / "catalog.csv", MEDIA_ROWS)
    write_preset(folder / "small.yaml", PRESET)
    return folder


@pytest.fixture(scope="module")
def embedded(media_folder: Path) -> tuple[EmbedReport, Path]:
    """A report and a store of the catalog; the store is to be read only."""
    return run(media_folder), media_folder / "store"


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


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A folder with a catalog of 40 items that have words only, and a preset for words only."""
    write_catalog(tmp_path / "catalog.csv", word_rows(40))
    write_preset(tmp_path / "small.yaml", TEXT_PRESET)
    return tmp_path


def word_rows(count: int) -> list[dict[str, str]]:
    return [{"item_id": str(n), "title": f"title number {n}"} for n in range(count)]


# --- what a job leaves ------------------------------------------------------------------------------------------------


def test_every_item_has_its_status(embedded: tuple[EmbedReport, Path]) -> None:
    report, store = embedded
    statuses = {item_id: row.status.value for item_id, row in by_id(store).items()}
    assert statuses == dict.fromkeys(OK, "ok") | dict.fromkeys(PARTIAL, "partial") | dict.fromkeys(FAILED, "failed")
    assert (report.items, report.ok, report.partial, report.failed, report.skipped) == (10, 5, 3, 2, 0)
    assert report.done == 10
    assert report.failed_share == 0.2


def test_what_is_missing_has_its_reason(embedded: tuple[EmbedReport, Path]) -> None:
    report, store = embedded
    reasons = {
        item_id: {modality: problem.reason for modality, problem in row.problems.items()}
        for item_id, row in by_id(store).items()
    }
    assert reasons == {
        "影片 🎬": {},
        "silent": {"audio": Reason.NO_STREAM},
        "tone": {"visual": Reason.NO_STREAM},
        "untitled": {"audio": Reason.NO_STREAM, "text": Reason.NO_TEXT},
        "damaged": {"visual": Reason.NOT_MEDIA, "audio": Reason.NOT_MEDIA},
        "missing": {"visual": Reason.MISSING_FILE, "audio": Reason.MISSING_FILE},
        "gone": {"visual": Reason.MISSING_FILE, "audio": Reason.MISSING_FILE, "text": Reason.NO_TEXT},
        "words": {"visual": Reason.NO_MEDIA, "audio": Reason.NO_MEDIA},
        "empty": {"visual": Reason.NO_CONTENT, "audio": Reason.NO_CONTENT, "text": Reason.NO_TEXT},
        "outside": {"visual": Reason.FORBIDDEN_PATH, "audio": Reason.FORBIDDEN_PATH},
    }
    counts = {reason.value: 0 for of_item in reasons.values() for reason in of_item.values()}
    for of_item in reasons.values():
        for reason in of_item.values():
            counts[reason.value] += 1
    assert dict(report.reasons) == counts


def test_tokens_have_their_encoder_and_their_times(embedded: tuple[EmbedReport, Path]) -> None:
    report, store = embedded
    rows = by_id(store)
    encoders = {encoder.modality: encoder for encoder in FeatureStore(store).encoders()}
    for row in rows.values():
        assert row.tokens.keys() == row.fingerprints.keys()
        for modality, tokens in row.tokens.items():
            assert tokens.vectors_TD.shape == (len(tokens.spans_T2), report.encoders[modality]["dim"])
            assert row.fingerprints[modality] == report.encoders[modality]["fingerprint"]
            assert row.fingerprints[modality] == encoders[modality].fingerprint
    clip = rows["影片 🎬"]
    np.testing.assert_allclose(clip.tokens["visual"].spans_T2[:, 0], [4 / 12, 12 / 12, 20 / 12], atol=1e-3)
    np.testing.assert_allclose(clip.tokens["audio"].spans_T2, [(0.0, 1.0), (1.0, 2.0)], atol=1e-3)
    assert clip.item.metadata == {"year": "2020"}
    assert clip.item.tags == ("dog", "walk")
    assert clip.facts["video_codec"] == "h264"


def test_the_report_measures_the_job(embedded: tuple[EmbedReport, Path]) -> None:
    report, _ = embedded
    assert report.media_seconds == pytest.approx(2.0 + 1.0 + 3.0, abs=0.1)
    assert set(report.stage_seconds) == {"start", "decode", "visual", "audio", "text", "write", "wait"}
    assert all(seconds > 0 for seconds in report.stage_seconds.values())
    assert report.stage_seconds["start"] + report.stage_seconds["wait"] < report.seconds
    encoding = sum(report.stage_seconds[modality] for modality in ("visual", "audio", "text"))
    assert encoding < report.encoder_threads * report.seconds
    assert report.workers == 1
    assert 0 < report.efficiency <= 1
    assert report.as_dict()["efficiency"] == report.efficiency
    assert report.encoders["text"]["name"] == "hashed-ngrams"


def test_an_empty_catalog_makes_an_empty_store(words: Path) -> None:
    write_catalog(words / "catalog.csv", [])
    report = run(words)
    assert (report.items, report.done, report.failed_share) == (0, 0, 0.0)
    assert len(FeatureStore(words / "store")) == 0


def test_a_folder_of_media_is_a_catalog(media_folder: Path, tmp_path: Path) -> None:
    report = embed(media_folder, tmp_path / "store", preset=media_folder / "small.yaml", workers=1)
    rows = by_id(tmp_path / "store")
    assert set(rows) == {"clip.mp4", "silent.mkv", "tone.wav", "photo.png", "damaged.mp4"}
    assert (report.ok, report.failed) == (4, 1)


def test_a_preset_with_one_encoder_embeds_one_modality(media_folder: Path, tmp_path: Path) -> None:
    preset = write_preset(tmp_path / "words.yaml", TEXT_PRESET)
    report = embed(media_folder / "catalog.csv", tmp_path / "store", preset=preset, workers=1)
    rows = by_id(tmp_path / "store")
    assert rows["tone"].problems["audio"].reason is Reason.NOT_WANTED
    assert rows["tone"].status == "ok"
    assert report.media_seconds == 0.0


# --- resume -----------------------------------------------------------------------------------------------------------


def test_a_second_run_skips_all(
    media_folder: Path, embedded: tuple[EmbedReport, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = by_id(embedded[1])
    report = run(media_folder)
    assert (report.skipped, report.ok, report.partial, report.failed) == (10, 0, 0, 0)
    assert report.failed_share == 0.0
    assert dict(report.reasons) == {}
    monkeypatch.chdir(media_folder)
    report = embed("catalog.csv", "store", preset="small.yaml", workers=1)
    assert report.skipped == 10
    after = by_id(embedded[1])
    assert {i: r.content_key for i, r in after.items()} == {i: r.content_key for i, r in before.items()}


def test_a_touched_file_is_embedded_again(media_folder: Path, tmp_path: Path) -> None:
    folder = copied(media_folder, tmp_path)
    run(folder)
    os.utime(folder / "tone.wav", ns=(1, 1))
    report = run(folder)
    assert (report.ok, report.skipped) == (1, 9)
    write_image(folder / "none.mp4".replace("mp4", "png"))
    write_video(folder / "none.mp4")
    report = run(folder)
    assert (report.ok, report.skipped) == (2, 8)
    assert len(FeatureStore(folder / "store")) == 10


def test_changed_words_are_embedded_again(words: Path) -> None:
    run(words)
    before = by_id(words / "store")
    rows = word_rows(40)
    rows[3]["title"] = "another title"
    rows[5]["tags"] = "new"
    write_catalog(words / "catalog.csv", rows)
    report = run(words)
    assert (report.ok, report.skipped) == (2, 38)
    after = by_id(words / "store")
    changed = {i for i in after if (after[i].tokens["text"].vectors_TD != before[i].tokens["text"].vectors_TD).any()}
    assert changed == {"3", "5"}
    assert after["3"].item.title == "another title"


def test_changed_metadata_is_taken_over_without_embedding(words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(words)
    rows = word_rows(40)
    rows[3]["year"] = "1999"
    write_catalog(words / "catalog.csv", rows)
    monkeypatch.setattr(HashedNgrams, "encode", None)
    report = run(words)
    assert (report.ok, report.skipped) == (0, 40)
    assert by_id(words / "store")["3"].item.metadata == {"year": "1999"}
    assert by_id(words / "store")["4"].item.metadata == {}


def test_items_that_left_stay_unless_pruned(words: Path) -> None:
    run(words)
    write_catalog(words / "catalog.csv", word_rows(30))
    assert run(words).pruned == 0
    assert len(FeatureStore(words / "store")) == 40
    report = run(words, prune=True)
    assert (report.pruned, report.skipped) == (10, 30)
    assert set(by_id(words / "store")) == {str(n) for n in range(30)}


def test_failed_items_are_tried_again_when_asked(media_folder: Path, tmp_path: Path) -> None:
    folder = copied(media_folder, tmp_path)
    run(folder)
    report = run(folder, retry_failed=True)
    assert (report.failed, report.skipped) == (2, 8)
    assert len(FeatureStore(folder / "store")) == 10


def test_another_preset_embeds_all_again(words: Path) -> None:
    run(words)
    write_preset(words / "small.yaml", TEXT_PRESET + "text_template: '$title!'\n")
    report = run(words)
    assert (report.ok, report.skipped) == (40, 0)
    store = FeatureStore(words / "store")
    assert len(store.vectors("text")[0]) == 40
    assert len(store.encoders()) == 2


def test_an_interrupted_job_keeps_what_is_done(words: Path) -> None:
    def interrupt(report: EmbedReport) -> None:
        if report.done >= 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(words, batch_size=4, progress=interrupt)
    stored = len(FeatureStore(words / "store"))
    assert 15 <= stored < 40
    assert multiprocessing.active_children() == []
    report = run(words)
    assert (report.skipped, report.ok) == (stored, 40 - stored)


def test_an_interrupt_while_decoding_stops_the_workers(media_folder: Path, tmp_path: Path) -> None:
    def interrupt(report: EmbedReport) -> None:
        if report.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(media_folder, tmp_path / "store", preset=media_folder / "small.yaml", batch_size=1, progress=interrupt)
    assert multiprocessing.active_children() == []
    assert len(FeatureStore(tmp_path / "store")) >= 1


def test_a_catalog_that_changes_during_the_job_is_noticed(words: Path) -> None:
    def grow(report: EmbedReport) -> None:
        write_catalog(words / "catalog.csv", word_rows(41))

    with pytest.raises(CatalogError, match="changed while it was read"):
        run(words, progress=grow)
    assert len(FeatureStore(words / "store")) >= 40, "all that was read is stored"


# --- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 3, "workers": 2}])
def test_batches_and_workers_do_not_change_vectors(
    media_folder: Path, embedded: tuple[EmbedReport, Path], tmp_path: Path, options: dict[str, int]
) -> None:
    embed(media_folder / "catalog.csv", tmp_path / "store", preset=media_folder / "small.yaml", **options)  # type: ignore[arg-type]
    expected, found = by_id(embedded[1]), by_id(tmp_path / "store")
    assert found.keys() == expected.keys()
    for item_id, row in found.items():
        assert row.tokens.keys() == expected[item_id].tokens.keys()
        for modality, tokens in row.tokens.items():
            other = expected[item_id].tokens[modality]
            np.testing.assert_allclose(tokens.vectors_TD, other.vectors_TD, rtol=1e-4, atol=1e-5)
            np.testing.assert_array_equal(tokens.spans_T2, other.spans_T2)
        assert dataclasses.replace(row, tokens={}) == dataclasses.replace(expected[item_id], tokens={})


def poison_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = HashedNgrams.encode

    def poisoned(self: HashedNgrams, texts: list[str]) -> torch.Tensor:
        vectors_ND = encode(self, texts)
        for row, text in enumerate(texts):
            if "number 7" in text:
                vectors_ND[row, 0] = float("nan")
        return vectors_ND

    monkeypatch.setattr(HashedNgrams, "encode", poisoned)


def test_vectors_that_are_not_finite_are_never_stored(words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(words, "clean")
    poison_texts(monkeypatch)
    report = run(words)
    assert (report.ok, report.failed) == (39, 1)
    assert report.reasons["not_finite"] == 1
    clean, rows = by_id(words / "clean"), by_id(words / "store")
    assert rows["7"].tokens == {}
    assert rows["7"].problems["text"].detail == "1 of 1 vectors from the encoder are not finite"
    for item_id in rows.keys() - {"7"}:
        np.testing.assert_array_equal(rows[item_id].tokens["text"].vectors_TD, clean[item_id].tokens["text"].vectors_TD)


def test_the_finite_tokens_of_an_item_are_kept(
    media_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = Descriptors.encode

    def poisoned(self: Descriptors, frames_NFHWC: Any) -> torch.Tensor:
        vectors_ND = encode(self, frames_NFHWC).clone()
        vectors_ND[1] = float("inf")
        return vectors_ND

    monkeypatch.setattr(Descriptors, "encode", poisoned)
    folder = copied(media_folder, tmp_path)
    write_catalog(folder / "catalog.csv", MEDIA_ROWS[:1])
    report = run(folder)
    row = by_id(folder / "store")["影片 🎬"]
    assert report.partial == 1
    assert len(row.tokens["visual"].vectors_TD) == 2
    np.testing.assert_allclose(row.tokens["visual"].spans_T2[:, 0], [4 / 12, 20 / 12], atol=1e-3)
    assert row.problems["visual"].reason is Reason.NOT_FINITE


def limit_batches(monkeypatch: pytest.MonkeyPatch, largest: int) -> list[int]:
    """Make the text encoder run out of memory above a batch size; returns the sizes asked for."""
    encode = HashedNgrams.encode
    sizes: list[int] = []

    def limited(self: HashedNgrams, texts: list[str]) -> torch.Tensor:
        sizes.append(len(texts))
        if len(texts) > largest:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(self, texts)

    monkeypatch.setattr(HashedNgrams, "encode", limited)
    return sizes


def test_a_batch_too_large_for_the_device_is_halved_once(words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = limit_batches(monkeypatch, largest=5)
    report = run(words, batch_size=16)
    assert (report.ok, report.failed) == (40, 0)
    assert sizes[0] == 16
    assert max(sizes[sizes.index(4) + 1 :]) <= 8
    assert sum(1 for size in sizes if size > 5) <= 6, "every batch was tried at the size that had failed"
    ids, _ = FeatureStore(words / "store").vectors("text")
    assert len(ids) == 40


def test_a_device_too_small_for_one_part_is_a_clear_error(words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_batches(monkeypatch, largest=0)
    with pytest.raises(EncoderError, match="out of memory"):
        run(words, batch_size=4)


# --- errors -----------------------------------------------------------------------------------------------------------


def test_what_is_wrong_with_the_request_is_said_before_anything_is_made(words: Path) -> None:
    for options, kind in [
        ({"preset": "heavy"}, EncoderError),
        ({"batch_size": 0}, MMRecError),
        ({"workers": -1}, MMRecError),
        ({"media_root": words / "nowhere"}, CatalogError),
    ]:
        with pytest.raises(kind):
            run(words, **options)
    with pytest.raises(CatalogError):
        embed(words / "none.csv", words / "store")
    assert not (words / "store").exists()


def test_a_store_that_is_being_written_is_refused(words: Path) -> None:
    with FeatureStore(words / "store", create=True).lock(), pytest.raises(StoreError, match="another job"):
        run(words)


def test_an_error_of_the_store_ends_the_job(words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise StoreError("no space left on device")

    write_catalog(words / "catalog.csv", word_rows(400))
    monkeypatch.setattr(mmrec.embedding.job, "ROWS_PER_COMMIT", 8)
    monkeypatch.setattr(mmrec.embedding.job, "ROWS_WAITING_TO_BE_WRITTEN", 16)
    monkeypatch.setattr(FeatureStore, "write", fail)
    seen: list[int] = []
    with pytest.raises(StoreError, match="no space left"):
        run(words, batch_size=4, progress=lambda report: seen.append(report.done))
    assert max(seen) < 400


def test_an_error_of_the_last_commit_is_raised_too(words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise StoreError("no space left on device")

    monkeypatch.setattr(FeatureStore, "write", fail)
    with pytest.raises(StoreError, match="no space left"):
        run(words)


# --- real recordings --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[EmbedReport, Path]:
    catalog = Path(__file__).resolve().parents[2] / "shared" / "media" / "catalog.csv"
    if not catalog.is_file():
        pytest.skip("the folder of real media is not here")
    store = tmp_path_factory.mktemp("real") / "store"
    return embed(catalog, store, preset="light", workers=2), store


def similarities(store: Path, modality: Any) -> dict[tuple[str, str], float]:
    ids, vectors_ID = FeatureStore(store).vectors(modality)
    products_II = (vectors_ID - vectors_ID.mean(axis=0)) @ (vectors_ID - vectors_ID.mean(axis=0)).T
    return {(a, b): float(products_II[i, j]) for i, a in enumerate(ids) for j, b in enumerate(ids)}


def nearest(store: Path, modality: Any, item_id: str) -> str:
    found = {b: value for (a, b), value in similarities(store, modality).items() if a == item_id != b}
    return max(found, key=found.__getitem__)


def test_real_recordings_have_their_statuses(real: tuple[EmbedReport, Path]) -> None:
    report, store = real
    rows = by_id(store)
    assert report.items == report.ok + report.partial + report.failed == len(rows) == 19
    assert report.failed == 0
    partial = {item_id for item_id, row in rows.items() if row.status == "partial"}
    assert partial >= {"missing", "corrupted"}
    assert {rows["missing"].problems[m].reason for m in ("visual", "audio")} == {Reason.MISSING_FILE}  # type: ignore[index]
    assert rows["text_only"].problems.keys() == {"visual", "audio"}
    for item_id in ("waltz", "austen", "chivalry", "robin", "drum_bass", "trumpet", "dog_bark"):
        assert "audio" in rows[item_id].tokens
        assert rows[item_id].problems["visual"].reason is Reason.NO_STREAM
    for item_id in ("dog_walk", "weightlifting", "archery", "webb", "tenbit", "rotated", "upright", "dog_photo"):
        assert "visual" in rows[item_id].tokens, item_id


def test_a_rotated_clip_is_seen_upright(real: tuple[EmbedReport, Path]) -> None:
    _, store = real
    rotated, upright = (by_id(store)[item_id].tokens["visual"].vectors_TD for item_id in ("rotated", "upright"))
    assert nearest(store, "visual", "rotated") == "upright"
    cosines_T = (rotated * upright).sum(1) / np.linalg.norm(rotated, axis=1) / np.linalg.norm(upright, axis=1)
    assert cosines_T.min() > 0.98


def test_speech_is_nearer_to_speech_than_to_music(real: tuple[EmbedReport, Path]) -> None:
    _, store = real
    near = similarities(store, "audio")
    for music in ("waltz", "vibe_ace", "drum_bass", "trumpet"):
        assert near["austen", "chivalry"] > near["austen", music]
        assert near["austen", "chivalry"] > near["chivalry", music]


def test_the_dogs_are_found_by_words(real: tuple[EmbedReport, Path]) -> None:
    from mmrec.embedding.preset_encoders import load_preset_encoders
    from mmrec.embedding.presets import load_preset

    _, store = real
    ids, vectors_ID = FeatureStore(store).vectors("text")
    encoder = load_preset_encoders(load_preset("light")).encoders["text"]
    query_D = encoder.encode(["a dog"])[0].numpy()
    order = [ids[i] for i in np.argsort(-(vectors_ID @ query_D))]
    assert set(order[:3]) == {"dog_walk", "dog_bark", "dog_photo"}
