"""Where items lie on a map, made once for each version of what it is made from."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmrec.reporting import project
from mmrec.service.model_users import LoadedModel
from mmrec.service.problems import not_found
from mmrec.store import MODALITIES, FeatureStore

Vectors = tuple[list[str], NDArray[np.float32], str]


@dataclass(frozen=True)
class PlacedItems:
    """Items and their places, from 0 to 1; `by` says by what they are alike."""

    item_ids: list[str]
    x: list[float]
    y: list[float]
    by: str


class ItemMaps:
    """The latest map of each model, and of the store."""

    def __init__(self) -> None:
        self._maps: dict[str, tuple[int, PlacedItems]] = {}
        self._lock = threading.Lock()

    def of_model(self, loaded: LoadedModel) -> PlacedItems:
        return self._map(f"model {loaded.name}", loaded.version, lambda: (*loaded.model.item_vectors, "fused"))

    def of_store(self, store: FeatureStore) -> PlacedItems:
        return self._map("", store.version, lambda: _most_vectors(store))

    def _map(self, name: str, version: int, vectors: Callable[[], Vectors]) -> PlacedItems:
        with self._lock:
            known = self._maps.get(name)
            if known is None or known[0] != version:
                item_ids, vectors_ID, by = vectors()
                x, y = project(vectors_ID).T.astype(float).round(4).tolist()
                known = self._maps[name] = version, PlacedItems(item_ids, x, y, by)
            return known[1]


def _most_vectors(store: FeatureStore) -> Vectors:
    """Those of the modality that most items have."""
    found = [(*store.vectors(modality), str(modality)) for modality in MODALITIES]
    best = max(found, key=lambda vectors: len(vectors[0]))
    if not best[0]:
        raise not_found("no item of the store has any vector to be placed by")
    return best
