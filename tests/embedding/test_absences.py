"""What is away today stays as it was; what comes back, or lies elsewhere now, is recognised without decoding."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from embedding_jobs import MEDIA_ROWS, PRESET, TEXT_PRESET, by_id, copied, run, word_rows, write_catalog, write_preset
from numpy.testing import assert_array_equal

import mmrec.embedding.decoding
import mmrec.embedding.preset_encoders
from mmrec.embedding.identity import WHOLE_BYTES, content_hash
from mmrec.embedding.job import embed
from mmrec.errors import Reason, StoreError
from mmrec.store import Features, FeatureStore, Status

WITH_MEDIA = {"影片 🎬", "silent", "tone", "untitled"}


@pytest.fixture
def folder(media_folder: Path, embedded: Any, tmp_path: Path) -> Path:
    """The catalog of media, embedded, in a folder of its own where its files lie in `media`."""
    folder = copied(media_folder, tmp_path)
    (folder / "media").mkdir()
    rows = []
    for row in [*MEDIA_ROWS[:4], MEDIA_ROWS[7]]:
        if "media" in row:
            (folder / row["media"]).rename(folder / "media" / row["media"])
            row = {**row, "media": f"media/{row['media']}"}
        rows.append(row)
    write_catalog(folder / "catalog.csv", rows)
    run(folder)
    return folder


@contextmanager
def no_decoding() -> Iterator[None]:
    def refuse(*_: Any) -> None:
        raise AssertionError("something was decoded")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mmrec.embedding.decoding.DecodeWorkers, "_submit", refuse)
        yield


def assert_tokens(after: dict[str, Features], before: dict[str, Features]) -> None:
    for item_id, row in before.items():
        assert after[item_id].tokens.keys() == row.tokens.keys()
        for modality, tokens in row.tokens.items():
            assert_array_equal(after[item_id].tokens[modality].vectors_TD, tokens.vectors_TD)


def test_a_mount_that_is_away_for_nights_costs_nothing(folder: Path) -> None:
    before = by_id(folder / "store")
    (folder / "media").rename(folder / "elsewhere")
    for night in (1, 2):
        report = run(folder)
        assert (report.lost, report.failed) == (4, 0)
        assert (report.stale, report.skipped) == ((4, 1) if night == 1 else (0, 5))
        assert "4 of 5 items lack media" in report.problem and "--accept-missing" in report.problem
        after = by_id(folder / "store")
        assert_tokens(after, before)
        assert {i for i, row in after.items() if row.status == Status.STALE} == WITH_MEDIA
        assert after["tone"].problems["audio"].reason is Reason.MISSING_FILE
        assert after["tone"].problems["visual"].reason is Reason.NO_STREAM
    since = {i: row.stale_since for i, row in after.items()}
    assert set(since["影片 🎬"]) == {"visual", "audio"} and set(since["tone"]) == {"audio"}
    assert FeatureStore(folder / "store").status().statuses["stale"] == 4


def test_it_comes_back_without_decoding(folder: Path) -> None:
    before = by_id(folder / "store")
    (folder / "media").rename(folder / "elsewhere")
    run(folder)
    (folder / "elsewhere").rename(folder / "media")
    with no_decoding():
        report = run(folder)
    assert (report.skipped, report.lost, report.problem) == (5, 0, "")
    after = by_id(folder / "store")
    assert {row.status for row in after.values()} == {Status.OK}
    assert {i: row.problems for i, row in after.items()} == {i: row.problems for i, row in before.items()}
    assert all(not row.stale_since for row in after.values())


def test_words_change_while_the_media_are_away(folder: Path) -> None:
    before = by_id(folder / "store")
    (folder / "media").rename(folder / "elsewhere")
    run(folder)
    rows = [{**row, "media": f"media/{row['media']}"} for row in MEDIA_ROWS[:3]]
    write_catalog(folder / "catalog.csv", [{**row, "title": "new words"} for row in rows])
    report = run(folder)
    assert (report.stale, report.lost) == (3, 3)
    after = by_id(folder / "store")["tone"]
    assert after.item.title == "new words" and after.status == Status.STALE
    assert (after.tokens["text"].vectors_TD != before["tone"].tokens["text"].vectors_TD).any()
    assert_array_equal(after.tokens["audio"].vectors_TD, before["tone"].tokens["audio"].vectors_TD)


def test_what_is_gone_for_good_goes_when_that_is_said(folder: Path) -> None:
    shutil.rmtree(folder / "media")
    run(folder)
    report = run(folder, accept_missing=True)
    assert report.problem == ""
    after = by_id(folder / "store")
    assert set(after["tone"].tokens) == {"text"} and after["tone"].status == Status.PARTIAL
    assert after["untitled"].status == Status.FAILED
    assert run(folder, accept_missing=True).skipped == 5


def test_a_file_that_becomes_unreadable_keeps_what_it_gave(folder: Path) -> None:
    before = by_id(folder / "store")
    (folder / "media" / "clip.mp4").write_bytes(b"half of a copy")
    report = run(folder)
    assert (report.stale, report.lost, report.skipped) == (1, 1, 4)
    after = by_id(folder / "store")
    assert_tokens(after, before)
    assert after["影片 🎬"].problems["visual"].reason is Reason.NOT_MEDIA


def test_an_export_that_lost_its_columns_costs_nothing(folder: Path) -> None:
    before = by_id(folder / "store")
    rows = [{"item_id": i, "title": r.item.title, "tags": "|".join(r.item.tags)} for i, r in before.items()]
    write_catalog(folder / "catalog.csv", rows)
    assert run(folder).lost == 4
    write_catalog(folder / "catalog.csv", [{"item_id": i} for i in before])
    assert run(folder).lost == 5
    after = by_id(folder / "store")
    assert_tokens(after, before)
    assert {i: row.item.title for i, row in after.items()} == {i: row.item.title for i, row in before.items()}


def test_sound_that_was_taken_out_of_a_film_is_gone(folder: Path) -> None:
    shutil.copy(folder / "media" / "silent.mkv", folder / "media" / "clip.mp4")
    run(folder)
    row = by_id(folder / "store")["影片 🎬"]
    assert set(row.tokens) == {"visual", "text"} and row.problems["audio"].reason is Reason.NO_STREAM


def test_a_library_that_moved_is_recognised(folder: Path) -> None:
    before = by_id(folder / "store")
    shutil.copytree(folder / "media", folder / "moved")
    shutil.rmtree(folder / "media")
    for path in (folder / "moved").iterdir():
        os.utime(path, (1, 1))
    rows = [{**row, "media": f"moved/{row['media']}"} for row in MEDIA_ROWS[:4]]
    write_catalog(folder / "catalog.csv", [*rows, MEDIA_ROWS[7]])
    with no_decoding():
        report = run(folder)
    assert (report.skipped, report.lost) == (5, 0)
    after = by_id(folder / "store")
    assert_tokens(after, before)
    assert after["tone"].item.media == folder / "moved" / "tone.wav"
    assert after["untitled"].item.title == before["untitled"].item.title == "photo"


def test_a_changed_title_does_not_decode_again(folder: Path) -> None:
    rows = [{**row, "media": f"media/{row['media']}"} for row in MEDIA_ROWS[:4]]
    write_catalog(folder / "catalog.csv", [{**rows[0], "title": "another"}, *rows[1:], MEDIA_ROWS[7]])
    with no_decoding():
        report = run(folder)
    assert (report.ok, report.skipped) == (1, 4)
    assert by_id(folder / "store")["影片 🎬"].item.title == "another"


# --- sets of encoders -------------------------------------------------------------------------------------------------


def test_a_named_set_starts_from_what_it_shares(folder: Path) -> None:
    preset = write_preset(folder / "other.yaml", PRESET + "text_template: '$title!'\n")
    write_catalog(folder / "catalog.csv", [{**row, "media": f"media/{row['media']}"} for row in MEDIA_ROWS[:3]])
    with no_decoding():
        report = run(folder, preset=preset, encoder_set="shouting")
    assert (report.ok, report.not_in_catalog) == (3, 2)
    first, second = FeatureStore(folder / "store"), FeatureStore(folder / "store", encoder_set="shouting")
    assert first.sets() == ["", "shouting"]
    assert first.fingerprints()["visual"] == second.fingerprints()["visual"]
    assert first.fingerprints()["text"] != second.fingerprints()["text"]
    assert run(folder).skipped == 3
    with pytest.raises(StoreError, match="no encoder set 'whisper': it has the one without a name, shouting"):
        FeatureStore(folder / "store", encoder_set="whisper")
    with pytest.raises(StoreError, match="letters, digits"):
        FeatureStore(folder / "store", encoder_set="../x")


def test_a_preset_without_sound_needs_to_say_that_it_replaces(folder: Path) -> None:
    preset = write_preset(folder / "words.yaml", TEXT_PRESET)
    with pytest.raises(StoreError, match=r"visual tokens of .* asks for none.*--replace"):
        run(folder, preset=preset)
    run(folder, preset=preset, replace=True)
    assert set(FeatureStore(folder / "store").fingerprints()) == {"text"}


# --- nothing to do, runs, versions ------------------------------------------------------------------------------------


def test_a_job_with_nothing_to_do_loads_no_encoder(words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(words)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("encoders were loaded")

    with monkeypatch.context() as patch:
        patch.setattr(mmrec.embedding.preset_encoders, "load_preset_encoders", refuse)
        report = run(words)
    assert (report.skipped, report.encoders["text"]["name"]) == (40, "hashed-ngrams")
    write_preset(words / "small.yaml", TEXT_PRESET + "text_template: '$title!'\n")
    with pytest.raises(StoreError, match="--replace"):
        run(words)


def test_fingerprints_are_remembered_where_there_was_nothing_to_do(words: Path) -> None:
    run(words)
    (words / "store" / "encoders.json").unlink()
    assert run(words).skipped == 40
    assert FeatureStore(words / "store").fingerprints()["text"] in (words / "store" / "encoders.json").read_text()


def test_fingerprints_that_are_recalled_wrongly_are_found_out(words: Path) -> None:
    run(words)
    memory = words / "store" / "encoders.json"
    true = FeatureStore(words / "store").fingerprints()["text"]
    assert true in memory.read_text()
    write_catalog(words / "catalog.csv", word_rows(41))
    memory.write_text(memory.read_text().replace(true, "0" * 24))
    with pytest.raises(StoreError, match="--replace"):  # by what was recalled, the store is another's
        run(words)
    report = run(words, replace=True)
    assert (report.ok, report.skipped) == (1, 40)
    assert FeatureStore(words / "store").fingerprints()["text"] == true


def test_runs_are_recorded_and_undone(words: Path) -> None:
    run(words, command="mmrec embed catalog.csv")
    write_catalog(words / "catalog.csv", [{"item_id": str(n), "title": "overwritten"} for n in range(40)])
    run(words)
    (words / "catalog.csv").write_text("item_id,title\n0,a\n0,b\n")
    with pytest.raises(Exception, match="unique"):
        run(words)
    store = FeatureStore(words / "store")
    second, first = store.runs()
    assert first.command == "mmrec embed catalog.csv" and first.exit == second.exit == 0
    assert first.counts["ok"] == second.counts["ok"] == 40
    assert first.start < first.end <= second.start < second.end
    before = next(version for version in store.versions() if version.tag == second.run_id)
    store.restore(before.number)
    assert by_id(words / "store")["3"].item.title == "title number 3"
    with pytest.raises(StoreError, match="keeps no version 999"):
        store.restore(999)


def test_a_run_that_fails_says_why(words: Path) -> None:
    run(words)

    def interrupt(report: Any) -> None:
        raise KeyboardInterrupt

    write_catalog(words / "catalog.csv", word_rows(50))
    with pytest.raises(KeyboardInterrupt):
        run(words, progress=interrupt)
    last = FeatureStore(words / "store").runs()[0]
    assert (last.exit, last.message) == (1, "KeyboardInterrupt")


def test_the_hash_of_a_large_file_covers_head_middle_tail_and_size(tmp_path: Path) -> None:
    size = 4 * WHOLE_BYTES
    path = tmp_path / "large"
    hashes = set()
    for place in (None, 0, size // 2, size - 1, size):
        with path.open("wb") as file:
            file.truncate(size)
            if place is not None:
                file.seek(place)
                file.write(b"x")
        hashes.add(content_hash(path, path.stat().st_size))
    assert len(hashes) == 5


def test_a_pipe_in_place_of_a_file_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    write_catalog(tmp_path / "catalog.csv", [{"item_id": "a", "media": "pipe.mp4", "title": "words"}])
    write_preset(tmp_path / "small.yaml", PRESET)
    report = embed(tmp_path / "catalog.csv", tmp_path / "store", preset=tmp_path / "small.yaml", workers=1)
    assert (report.partial, report.lost) == (1, 1)
