"""Rankings joined into one by reciprocal rank fusion.

Place r in a ranking of weight w is worth w / (60 + r): Cormack, Clarke and Büttcher, "Reciprocal rank fusion
outperforms Condorcet and individual rank learning methods", SIGIR 2009.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmrec.searching.query import Query, Taste

RANK_CONSTANT = 60

Found = tuple[str, float]
"""An item and its score."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """One of those that are joined: items, the best first, and the vectors that were asked for."""

    name: str
    item_ids: Sequence[str]
    wanted_TD: NDArray[np.float32] | None = None


def join(query: Query, rankings: Iterable[Ranking]) -> list[Found]:
    """The items of all rankings, and by the taste of the query, if it has one; equal scores in the order of the ids."""
    scores: dict[str, float] = {}
    for ranking in rankings:
        if query.weight(ranking.name):
            _add(scores, ranking.item_ids, query.weight(ranking.name))
    if query.taste is not None and scores:
        _add(scores, _by_taste(query.taste, list(scores)), query.weight("user"))
    return sorted(scores.items(), key=lambda found: (-found[1], found[0]))


def _add(scores: dict[str, float], item_ids: Iterable[str], weight: float) -> None:
    for place, item_id in enumerate(item_ids, start=1):
        scores[item_id] = scores.get(item_id, 0.0) + weight / (RANK_CONSTANT + place)


def _by_taste(taste: Taste, item_ids: Sequence[str]) -> list[str]:
    """Those whose score is known, the best liked first; equal scores in the order of the ids."""
    liked = zip(item_ids, np.asarray(taste(item_ids), np.float64).tolist(), strict=True)
    return [item_id for item_id, score in sorted(liked, key=lambda pair: (-pair[1], pair[0])) if not np.isnan(score)]
