"""Which pairs of items may be the same: those that have tokens which are alike, so that not all pairs are compared.

Letters: T tokens of all items, B tokens of a block, D width, S width of the search, I items, N pairs, K neighbours.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
from numpy.typing import NDArray

from mmrec.store import FeatureStore, Modality, token_matrix

SEARCH_WIDTH = 256
BLOCK_NUMBERS = 2**24
COMMON = 1000

Pair = tuple[str, str]


def alike_pairs(store: FeatureStore, modality: Modality, of: Collection[str], least: float) -> set[Pair]:
    """The pairs of items of which two pairs of tokens are alike, or one where an item has but one."""
    ids, owners_T, units_TD = _search_tokens(store, modality, of)
    matches: list[NDArray[np.int64]] = []
    for begin, matches_BT in _matches(units_TD, least):
        rows_B, columns_T = np.nonzero(matches_BT)
        firsts_N, seconds_N = owners_T[begin + rows_B], owners_T[columns_T]
        matches.append((firsts_N * len(ids) + seconds_N)[firsts_N < seconds_N])
    pairs_N, counts_N = np.unique(np.concatenate(matches), return_counts=True)
    firsts_N, seconds_N = np.divmod(pairs_N, len(ids))
    sizes_I = np.bincount(owners_T)
    enough_N = counts_N >= np.minimum(2, np.minimum(sizes_I[firsts_N], sizes_I[seconds_N]))
    return _named(ids, firsts_N[enough_N], seconds_N[enough_N])


def nearest_pairs(
    store: FeatureStore, modality: Modality, of: Collection[str], least: float, *, most_each: int, most: int
) -> set[Pair]:
    """Each item with the `most_each` that have a token most like one of its own, by `least`; at most `most` pairs."""
    ids, owners_T, units_TD = _search_tokens(store, modality, of)
    begins_I = np.searchsorted(owners_T, np.arange(len(ids) + 1))
    most_each = min(most_each, len(ids) - 1)
    keys: list[NDArray[np.int64]] = []
    scores: list[NDArray[np.float32]] = []
    for first, last in _blocks(begins_I):
        cosines_BT = units_TD[begins_I[first] : begins_I[last]] @ units_TD.T
        cosines_BI = np.maximum.reduceat(cosines_BT, begins_I[:-1], axis=1)
        cosines_NI = np.maximum.reduceat(cosines_BI, begins_I[first:last] - begins_I[first], axis=0)
        cosines_NI[np.arange(last - first), np.arange(first, last)] = -2.0
        nearest_NK = np.argpartition(cosines_NI, -most_each, axis=1)[:, len(ids) - most_each :]
        ones_NK = np.broadcast_to(np.arange(first, last)[:, None], nearest_NK.shape)
        keys.append((np.minimum(ones_NK, nearest_NK) * len(ids) + np.maximum(ones_NK, nearest_NK)).ravel())
        scores.append(np.take_along_axis(cosines_NI, nearest_NK, axis=1).ravel())
    keys_N, places_N = np.unique(np.concatenate(keys), return_index=True)
    scores_N = np.concatenate(scores)[places_N]
    kept_N = np.argsort(-scores_N, kind="stable")[: min(most, int((scores_N >= least).sum()))]
    return _named(ids, *np.divmod(keys_N[kept_N], len(ids)))


def units(vectors_TD: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors of length one."""
    units_TD: NDArray[np.float32] = vectors_TD / np.linalg.norm(vectors_TD, axis=1, keepdims=True).clip(1e-12)
    return units_TD


def _named(ids: list[str], firsts_N: NDArray[np.int64], seconds_N: NDArray[np.int64]) -> set[Pair]:
    pairs = zip(firsts_N.tolist(), seconds_N.tolist(), strict=True)
    return {(min(ids[a], ids[b]), max(ids[a], ids[b])) for a, b in pairs}


def _blocks(begins_I: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Items one after the other, as many as have some `BLOCK_NUMBERS` cosines with all tokens."""
    rows, first = max(1, BLOCK_NUMBERS // max(1, int(begins_I[-1]))), 0
    while first < len(begins_I) - 1:
        last = max(first + 1, int(np.searchsorted(begins_I, begins_I[first] + rows, side="right")) - 1)
        yield first, last
        first = last


def _matches(units_TD: NDArray[np.float32], least: float) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Blocks of tokens against all; one that is like very many, as a black frame is, tells nothing and is left out."""
    rows = max(1, BLOCK_NUMBERS // max(1, len(units_TD)))
    for begin in range(0, len(units_TD), rows):
        matches_BT = units_TD[begin : begin + rows] @ units_TD.T >= least
        matches_BT[matches_BT.sum(axis=1) > COMMON] = False
        yield begin, matches_BT


def _search_tokens(
    store: FeatureStore, modality: Modality, of: Collection[str]
) -> tuple[list[str], NDArray[np.int64], NDArray[np.float32]]:
    """The ids of the items, the place of each token's item, and the tokens, wide ones projected."""
    ids: list[str] = []
    owners: list[NDArray[np.int64]] = []
    blocks: list[NDArray[np.float32]] = []
    for batch in store.scan(["item_id", f"{modality}_tokens"]):
        batch = batch.filter([item_id in of for item_id in batch.column("item_id").to_pylist()])
        if batch.num_rows:
            starts_I, tokens_TD = token_matrix(batch.column(f"{modality}_tokens"))
            counts_I = np.diff([*starts_I, len(tokens_TD)])
            owners.append(len(ids) + np.repeat(np.arange(batch.num_rows), counts_I))
            ids += batch.column("item_id").to_pylist()
            blocks.append(units(_projected(units(tokens_TD))))
    return ids, np.concatenate(owners), np.concatenate(blocks)


def _projected(units_TD: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosines of .7 to 1 stay as they are but for a deviation of .03 or less."""
    if units_TD.shape[1] <= SEARCH_WIDTH:
        return units_TD
    rng = np.random.default_rng(0)
    projection_DS = rng.standard_normal((units_TD.shape[1], SEARCH_WIDTH), dtype=np.float32)
    projected_TS: NDArray[np.float32] = units_TD @ projection_DS
    return projected_TS
