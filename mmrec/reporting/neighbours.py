"""Items near each other: the vectors of a store and of a model, their map, and the nearest of sample items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmrec.errors import StoreError
from mmrec.recommending import Recommender
from mmrec.reporting.items import Column, StoreItems
from mmrec.reporting.projection import method, project
from mmrec.store import MODALITIES, FeatureStore

Floats = NDArray[np.float32]

SPACES = {"visual": "pictures", "audio": "sound", "text": "words"}
FUSED = "fused"
MAX_POINTS = 20_000
LIST_LENGTH = 5


@dataclass(frozen=True, slots=True)
class Near:
    """The nearest items of one, by cosine, the best first."""

    item_id: str
    cosine: float


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """An item, and its nearest in each space: pictures, sound, words, and all fused."""

    item_id: str
    spaces: dict[str, list[Near]]


@dataclass(frozen=True, slots=True)
class ItemMap:
    """P items on a map: their rows, their places `(P, 2)` from 0 to 1, and the columns to colour by."""

    rows_P: NDArray[np.int64]
    places_P2: Floats
    columns: list[Column]
    vectors: str
    method: str


@dataclass(frozen=True, slots=True)
class Space:
    """What the vectors of one kind tell: those of the items on the map that have one, and who is near whom."""

    vectors_PD: Floats
    rows_P: NDArray[np.int64]
    near: dict[str, list[Near]]


def spaces_of(
    store: FeatureStore,
    model: Recommender | None,
    items: StoreItems,
    shown_P: NDArray[np.int64],
    samples: Sequence[str],
) -> tuple[dict[str, Space], list[str]]:
    """Each modality, and all fused, with what could not be compared and why.

    Fused are the vectors of the model; without a model those of the modalities side by side, each counting alike.
    """
    spaces, troubles = {}, []
    for modality in MODALITIES:
        try:
            ids, vectors_ID = store.vectors(modality)
        except StoreError as error:
            troubles.append(str(error))
            continue
        if len(ids):
            spaces[SPACES[modality]] = _space(ids, vectors_ID, items, shown_P, samples)
    if model is not None:
        spaces[FUSED] = _space(*model.item_vectors, items, shown_P, samples)
    elif len(spaces) > 1:
        spaces[FUSED] = _side_by_side(list(spaces.values()), items, shown_P, samples)
    return spaces, troubles


def neighbourhoods(spaces: dict[str, Space], samples: Sequence[str]) -> list[Neighbourhood]:
    """The nearest of each sample item in the spaces in which it has a vector."""
    found = {
        item_id: {name: space.near[item_id] for name, space in spaces.items() if item_id in space.near}
        for item_id in samples
    }
    return [Neighbourhood(item_id, near) for item_id, near in found.items() if near]


def item_map(spaces: dict[str, Space], columns: list[Column], seed: int) -> ItemMap | None:
    """The map of the fused vectors, or of the only ones that there are; None without any."""
    if not spaces:
        return None
    name = FUSED if FUSED in spaces else next(iter(spaces))
    space = spaces[name]
    return ItemMap(space.rows_P, project(space.vectors_PD, seed=seed), columns, name, method())


def _space(
    ids: Sequence[str], vectors_ID: Floats, items: StoreItems, shown_P: NDArray[np.int64], samples: Sequence[str]
) -> Space:
    places = {item_id: place for place, item_id in enumerate(ids)}
    shown = [(row, places[items.ids[row]]) for row in shown_P if items.ids[row] in places]
    rows_P, places_P = np.array(shown, np.int64).reshape(-1, 2).T
    known = [item_id for item_id in samples if item_id in places]
    near = _nearest(ids, vectors_ID, [places[item_id] for item_id in known])
    return Space(vectors_ID[places_P], rows_P, dict(zip(known, near, strict=True)))


def _nearest(ids: Sequence[str], vectors_ID: Floats, wanted: Sequence[int]) -> list[list[Near]]:
    lengths_I = np.maximum(np.linalg.norm(vectors_ID, axis=1), 1e-12)
    cosines_NI = (vectors_ID[wanted] / lengths_I[wanted, None]) @ vectors_ID.T / lengths_I
    cosines_NI[np.arange(len(wanted)), wanted] = -np.inf
    count = min(LIST_LENGTH, len(ids) - 1)
    best_NK = np.argsort(-cosines_NI, axis=1, kind="stable")[:, :count]
    return [
        [Near(ids[place], float(cosines_I[place])) for place in best_K]
        for best_K, cosines_I in zip(best_NK, cosines_NI, strict=True)
    ]


def _side_by_side(
    spaces: Sequence[Space], items: StoreItems, shown_P: NDArray[np.int64], samples: Sequence[str]
) -> Space:
    """One vector an item: those of its modalities one after the other, zeros where it has none; of the shown alone."""
    width = sum(space.vectors_PD.shape[1] for space in spaces)
    place = np.full(len(items), -1)
    place[shown_P] = np.arange(len(shown_P))
    joined_PD, start = np.zeros((len(shown_P), width), np.float32), 0
    for space in spaces:
        stop = start + space.vectors_PD.shape[1]
        joined_PD[place[space.rows_P], start:stop] = space.vectors_PD
        start = stop
    there_P = joined_PD.any(axis=1)
    ids = [items.ids[row] for row in shown_P[there_P]]
    return _space(ids, joined_PD[there_P], items, shown_P, samples)
