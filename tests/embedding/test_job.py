"""The embedding job: every item accounted for, errors that are clear, and real recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedding_jobs import (
    TEXT_PRESET,
    by_id,
    run,
    word_rows,
    write_catalog,
    write_preset,
)

import mmrec.embedding.job
from mmrec.embedding.job import EmbedReport, embed
from mmrec.errors import CatalogError, EncoderError, MMRecError, Reason, StoreError
from mmrec.store.feature_store import FeatureStore

OK = {"影片 🎬", "silent", "tone", "untitled", "words"}


PARTIAL = {"damaged", "missing", "outside"}


FAILED = {"gone", "empty"}


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
        "untitled": {"audio": Reason.NO_STREAM},
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
    monkeypatch.setattr(mmrec.embedding.writing, "ROWS_PER_COMMIT", 8)
    monkeypatch.setattr(mmrec.embedding.writing, "ROWS_WAITING_TO_BE_WRITTEN", 16)
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
    catalog = Path(__file__).resolve().parents[3] / "shared" / "media" / "catalog.csv"
    if not catalog.is_file():
        pytest.skip("the folder of real media is not here")
    store = tmp_path_factory.mktemp("real") / "store"
    return embed(catalog, store, preset="light", workers=2, device="cpu"), store


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
    assert cosines_T.min() > 0.9


def test_pictures_are_classed(real: tuple[EmbedReport, Path]) -> None:
    from mmrec.embedding.preset_encoders import load_preset_encoders
    from mmrec.embedding.presets import load_preset

    _, store = real
    encoder: Any = load_preset_encoders(load_preset("light"), device="cpu").encoders["visual"]
    tokens = by_id(store)["dog_photo"].tokens["visual"]
    assert "retriever" in encoder.top_classes(tokens.vectors_TD)[0][0]


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
    encoder = load_preset_encoders(load_preset("light"), device="cpu").encoders["text"]
    for query_D in encoder.encode(["a dog", "一只狗", "собака"]).numpy():
        order = [ids[i] for i in np.argsort(-(vectors_ID @ query_D))]
        assert set(order[:3]) == {"dog_walk", "dog_bark", "dog_photo"}
