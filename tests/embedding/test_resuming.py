"""A job that runs again: what it skips, embeds anew, takes over, prunes and leaves when interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest
from embedding_jobs import (
    TEXT_PRESET,
    Children,
    by_id,
    copied,
    run,
    word_rows,
    write_catalog,
    write_preset,
)
from media_files import write_image, write_sound, write_video

from encoders.text import HashedNgrams
from mmrec.embedding.job import EmbedReport, embed
from mmrec.errors import CatalogError, MMRecError, StoreError
from mmrec.store.feature_store import FeatureStore


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
    assert {i: r.keys for i, r in after.items()} == {i: r.keys for i, r in before.items()}


def test_a_file_with_other_content_is_embedded_again(media_folder: Path, tmp_path: Path) -> None:
    folder = copied(media_folder, tmp_path)
    run(folder)
    write_image(folder / "none.mp4".replace("mp4", "png"))
    write_video(folder / "none.mp4")
    report = run(folder)
    assert (report.ok, report.skipped) == (2, 8)
    write_sound(folder / "tone.wav", seconds=2.0)
    report = run(folder)
    assert (report.ok, report.skipped) == (1, 9)
    assert by_id(folder / "store")["tone"].duration_seconds == pytest.approx(2.0, abs=0.1)
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
    with pytest.raises(StoreError, match=r"would delete 10 of the 40 items .* --max-pruned 1"):
        run(words, prune=True)
    assert len(FeatureStore(words / "store")) == 40
    report = run(words, prune=True, max_pruned=0.25)
    assert (report.pruned, report.skipped) == (10, 30)
    assert set(by_id(words / "store")) == {str(n) for n in range(30)}


def test_nothing_is_pruned_for_a_catalog_that_is_lost(words: Path) -> None:
    run(words)
    (words / "media").mkdir()
    (words / "header.csv").write_text("item_id,title\n")
    (words / "others.csv").write_text("item_id,title\nnew,somebody else's\n")
    for lost, message in (("media", "media file"), ("header.csv", "a row"), ("others.csv", "40 of the 40 items")):
        with pytest.raises(MMRecError, match=message):
            embed(words / lost, words / "store", preset=str(words / "small.yaml"), prune=True)
        assert set(by_id(words / "store")) == {str(n) for n in range(40)}, lost


def test_failed_items_are_tried_again_when_asked(media_folder: Path, tmp_path: Path) -> None:
    folder = copied(media_folder, tmp_path)
    run(folder)
    report = run(folder, retry_failed=True)
    assert (report.failed, report.skipped) == (2, 8)
    assert len(FeatureStore(folder / "store")) == 10


def test_another_preset_is_refused_or_replaces(words: Path) -> None:
    run(words)
    write_preset(words / "small.yaml", TEXT_PRESET + "text_template: '$title!'\n")
    with pytest.raises(StoreError, match=r"text tokens of hashed-ngrams, .* 'small'.* --replace .* --as NAME"):
        run(words)
    report = run(words, replace=True)
    assert (report.ok, report.skipped) == (40, 0)
    store = FeatureStore(words / "store")
    assert len(store.vectors("text")[0]) == 40
    assert len(store.encoders()) == 2
    assert run(words).skipped == 40


def test_an_interrupted_job_keeps_what_is_done(words: Path, own_children: Children) -> None:
    def interrupt(report: EmbedReport) -> None:
        if report.done >= 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(words, batch_size=4, progress=interrupt)
    stored = len(FeatureStore(words / "store"))
    assert 15 <= stored < 40
    assert own_children() == []
    report = run(words)
    assert (report.skipped, report.ok) == (stored, 40 - stored)


def test_an_interrupt_while_decoding_stops_the_workers(
    media_folder: Path, tmp_path: Path, own_children: Children
) -> None:
    def interrupt(report: EmbedReport) -> None:
        if report.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(media_folder, tmp_path / "store", preset=media_folder / "small.yaml", batch_size=1, progress=interrupt)
    assert own_children() == []
    assert len(FeatureStore(tmp_path / "store")) >= 1


def test_a_catalog_that_changes_during_the_job_is_noticed(words: Path) -> None:
    def grow(report: EmbedReport) -> None:
        write_catalog(words / "catalog.csv", word_rows(41))

    with pytest.raises(CatalogError, match="changed while it was read"):
        run(words, progress=grow)
    assert len(FeatureStore(words / "store")) >= 40, "all that was read is stored"
