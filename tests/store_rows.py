"""Rows of a feature store, small and with known contents."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmrec.catalog.manifest import Item
from mmrec.errors import Problem, Reason
from mmrec.store.feature_store import FeatureStore
from mmrec.store.features import Features, Modality, Tokens

DIMS: dict[Modality, int] = {"visual": 5, "audio": 3, "text": 4}


def key(number: int) -> str:
    return f"{number + 1:016x}"


def tokens(modality: Modality, count: int, seed: int = 0) -> Tokens:
    rng = np.random.default_rng([seed, count])
    starts_T = np.arange(count) / 3
    return Tokens(
        rng.normal(size=(count, DIMS[modality])).astype(np.float32), np.column_stack([starts_T, starts_T + 0.5])
    )


def make(item_id: str, *, seed: int = 0, fingerprint: str = "f", content: int = 1, **counts: int) -> Features:
    """An item with `counts` tokens of each modality named."""
    modalities: list[Modality] = [modality for modality in DIMS if modality in counts]
    return Features(
        Item(item_id=item_id, title=f"title of {item_id}"),
        tokens={modality: tokens(modality, counts[modality], seed) for modality in modalities},
        problems={modality: Problem(Reason.NO_STREAM, "none") for modality in DIMS if modality not in counts},
        fingerprints={modality: f"{modality}-{fingerprint}" for modality in modalities},
        keys={modality: key(content) for modality in DIMS},
        catalog_key=key(1),
    )


def filled(folder: Path, rows: Sequence[Features]) -> FeatureStore:
    store = FeatureStore(folder, create=True)
    store.write(rows)
    return store


def by_id(store: FeatureStore) -> dict[str, Features]:
    rows = list(store.features())
    found = {row.item.item_id: row for row in rows}
    assert len(found) == len(rows)
    return found


def assert_same(left: Features, right: Features) -> None:
    assert left.tokens.keys() == right.tokens.keys()
    for modality, expected in right.tokens.items():
        found = left.tokens[modality]
        assert found.vectors_TD.dtype == np.float32
        np.testing.assert_array_equal(found.vectors_TD, expected.vectors_TD)
        np.testing.assert_array_equal(found.spans_T2, expected.spans_T2)
    assert dataclasses.replace(left, tokens={}) == dataclasses.replace(right, tokens={})
