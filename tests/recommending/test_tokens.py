"""Tokens read from a store: by id, whatever the order of the store, in memory or in a file."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from planted import EMPTY, MUTE, item_ids, planted, quick, watched, write_store

from fusion.token_table import RaggedTokens
from mmrec.errors import StoreError
from mmrec.recommending.recommender import Recommender
from mmrec.recommending.tokens import read_tokens, store_widths
from mmrec.store.feature_store import FeatureStore


def assert_same_tokens(ours: RaggedTokens, theirs: RaggedTokens) -> None:
    assert ours.widths == theirs.widths and len(ours) == len(theirs)
    rows = torch.arange(len(ours))
    one, other = ours.select(rows), theirs.select(rows)
    for modality in one.tokens:
        assert torch.equal(one.tokens[modality], other.tokens[modality])
        assert torch.equal(one.masks[modality], other.masks[modality])
        assert torch.equal(one.times[modality], other.times[modality])


def test_tokens_are_those_of_the_items(store: FeatureStore) -> None:
    names, tokens = read_tokens(store)
    assert names == sorted(item_ids()) and tokens.widths == store_widths(store) == {"visual": 12, "audio": 8}
    table = tokens.select(torch.arange(len(names)))
    for features in planted(item_ids()):
        row, lacks = names.index(features.item.item_id), features.item.item_id in (MUTE, EMPTY)
        assert bool(table.masks["audio"][row].any()) != lacks
        assert bool(table.masks["visual"][row].any()) == (features.item.item_id != EMPTY)
        if not lacks:
            assert np.array_equal(table.tokens["audio"][row], features.tokens["audio"].vectors_TD)
            assert table.times["audio"][row].tolist() == [0.5, 1.5]


def test_the_order_of_the_store_does_not_matter(store: FeatureStore, tmp_path: Path) -> None:
    names, tokens = read_tokens(store)
    items = list(store.features())
    shuffled = write_store(tmp_path, [items[row] for row in np.random.default_rng(0).permutation(len(items))])
    again, others = read_tokens(shuffled)
    assert again == names
    assert_same_tokens(tokens, others)


def test_named_items_and_modalities(store: FeatureStore) -> None:
    names, tokens = read_tokens(store, ["sport-01", "jazz-00", MUTE], {"audio": 8})
    assert names == ["jazz-00", MUTE, "sport-01"] and list(tokens.parts) == ["audio"]
    assert tokens.there_I.tolist() == [True, False, True]
    with pytest.raises(StoreError, match="no item 'nix', nor 1 others"):
        read_tokens(store, ["jazz-00", "nix", "nox"])


def test_many_tokens_lie_in_a_file(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    """What a model learns of them, and what a new item gets, is the same."""
    _, expected = read_tokens(store)
    later = write_store(tmp_path / "later", planted(["jazz-77", "rain-77"], seed=3))
    models = []
    for limit in (2**29, 100):
        monkeypatch.setattr("mmrec.recommending.tokens.BYTES_IN_MEMORY", limit)
        _, tokens = read_tokens(store)
        in_files = [not isinstance(part.values, np.ndarray) for part in tokens.parts.values()]
        assert in_files == [limit == 100] * 2
        assert_same_tokens(tokens, expected)
        models.append(quick(store, watched()[0]))
        models[-1].embed_items(later, ["rain-77", "jazz-77"])
    assert np.allclose(models[0].item_vectors[1], models[1].item_vectors[1], atol=1e-5)


def test_the_file_goes_with_the_tokens(store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmrec.recommending.tokens.BYTES_IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    _, tokens = read_tokens(store)
    assert len(tokens) == 40 and not list(tmp_path.iterdir())  # it has no name


def test_no_space_for_the_file_is_told(store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmrec.recommending.tokens.BYTES_IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(StoreError, match=r"no space for the tokens .* TMPDIR"):
        read_tokens(store)


def test_a_store_of_failures_alone_has_nothing_to_fit(tmp_path: Path) -> None:
    store = write_store(tmp_path, planted(item_ids(4), without=("visual", "audio")))
    with pytest.raises(StoreError, match="no tokens"):
        read_tokens(store)
    with pytest.raises(StoreError, match="no tokens"):
        Recommender.fit(store)
