"""Batches: they change no vector, and one bad part or too small a device spoils no other."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from embedding_jobs import (
    MEDIA_ROWS,
    by_id,
    copied,
    run,
    word_rows,
    write_catalog,
)

from encoders.descriptors import Descriptors
from encoders.text import HashedNgrams
from mmrec.embedding.job import EmbedReport, embed
from mmrec.embedding.packing import MAX_REFUSED_IN_A_ROW
from mmrec.errors import EncoderError, Reason
from mmrec.store.feature_store import FeatureStore


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


def break_texts(monkeypatch: pytest.MonkeyPatch, is_broken: Callable[[str], bool]) -> None:
    encode = HashedNgrams.encode

    def broken(self: HashedNgrams, texts: list[str]) -> torch.Tensor:
        if any(is_broken(text) for text in texts):
            raise RuntimeError("cannot cache function 'f'")
        return encode(self, texts)

    monkeypatch.setattr(HashedNgrams, "encode", broken)


def test_an_encoder_that_fails_on_every_item_ends_the_job(words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(word_rows(40)) > MAX_REFUSED_IN_A_ROW
    with monkeypatch.context() as patched:
        break_texts(patched, lambda text: True)
        with pytest.raises(
            EncoderError, match=r"hashed-ngrams' failed on 32 items in a row.*cannot cache function 'f'"
        ):
            run(words)
    assert len(FeatureStore(words / "store")) == 0, "an item was blamed for what the machine did"
    assert run(words).ok == 40


def test_an_encoder_that_breaks_later_ends_the_job_and_what_is_done_is_stored(
    words: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_catalog(words / "catalog.csv", word_rows(60))
    last = 19

    def is_broken(text: str) -> bool:
        number = int(text.split()[-1])
        if number == last:
            time.sleep(0.01)  # beside the first that is refused, which it does not clear
        return number > last

    break_texts(monkeypatch, is_broken)
    with pytest.raises(EncoderError, match="in a row"):
        run(words, batch_size=1)
    stored = by_id(words / "store")
    assert all("text" in row.tokens for row in stored.values()), "an item was blamed for what the machine did"
    assert len(stored) >= 15


def test_an_encoder_without_any_finite_vector_ends_the_job(words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HashedNgrams, "encode", lambda self, texts: torch.full((len(texts), self.dim), float("nan")))
    with pytest.raises(EncoderError, match="not finite"):
        run(words)


def test_items_that_cannot_be_encoded_end_nothing(words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_catalog(words / "catalog.csv", word_rows(100))
    break_texts(monkeypatch, lambda text: int(text.split()[-1]) % 2 == 1)
    report = run(words)
    assert (report.ok, report.failed, report.reasons["not_encoded"]) == (50, 50, 50)
    assert by_id(words / "store")["7"].problems["text"].detail == "RuntimeError: cannot cache function 'f'"


def test_a_catalog_of_few_items_that_cannot_be_encoded(words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_catalog(words / "catalog.csv", word_rows(3))
    break_texts(monkeypatch, lambda text: True)
    assert run(words).reasons["not_encoded"] == 3
