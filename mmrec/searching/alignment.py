"""Whether two items run alike: their tokens laid upon each other in time.

Letters: A, B tokens of the first and the second item, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_SHARE = 0.5
MOST_SPEED = 1.1
SECONDS_APART = 0.25
MOST_OFFSETS = 64
SLACK = 1.05


@dataclass(frozen=True, slots=True)
class Timeline:
    """Tokens of an item: `units_TD` of length one, `middles_T` in seconds, and how far each of them speaks for."""

    units_TD: NDArray[np.float32]
    middles_T: NDArray[np.float64]
    seconds: float
    reach: float


@dataclass(frozen=True, slots=True)
class Alignment:
    """Second t of the second item is second `offset + speed * t` of the first; `score` is the mean cosine there."""

    score: float
    offset: float
    speed: float


def align(first: Timeline, second: Timeline, least_score: float) -> Alignment | None:
    """The best way to lay the second item upon the first; None where none scores `least_score`.

    Every pair of tokens that are alike votes for an offset; those with the most votes are tried, and where the lengths
    differ by up to a tenth also a change of speed. The common part has at least half of the shorter item, and two
    tokens of each if there are two.

    >>> import numpy as np
    >>> from mmrec.searching.alignment import Timeline, align
    >>> units_TD, times_T = np.eye(8, dtype=np.float32), np.arange(8) + 0.5
    >>> whole, part = Timeline(units_TD, times_T, 8.0, 0.5), Timeline(units_TD[3:], times_T[:5], 5.0, 0.5)
    >>> align(whole, part, 0.9)
    Alignment(score=1.0, offset=3.0, speed=1.0)
    """
    cosines_AB = first.units_TD @ second.units_TD.T
    places_A, places_B = np.nonzero(cosines_AB >= least_score)
    votes = np.round((first.middles_T[places_A] - second.middles_T[places_B]) / SECONDS_APART)
    steps, counts = np.unique(votes, return_counts=True)
    ways = {(step * SECONDS_APART, 1.0) for step in steps[np.argsort(-counts, kind="stable")[:MOST_OFFSETS]].tolist()}
    if len(votes) and 1 / MOST_SPEED <= first.seconds / max(second.seconds, 1e-9) <= MOST_SPEED:
        ways |= {(0.0, 1.0), (0.0, first.seconds / second.seconds)}
    tried = [Alignment(_score(cosines_AB, first, second, *way), *way) for way in sorted(ways, key=_plainness)]
    best = max(tried, key=lambda alignment: round(alignment.score, 3), default=None)
    return best if best is not None and best.score >= least_score else None


def score_along(first: Timeline, second: Timeline, alignment: Alignment) -> float:
    """The mean cosine of two other timelines of the same items, along an alignment; 0 where nothing lies together."""
    return _score(first.units_TD @ second.units_TD.T, first, second, alignment.offset, alignment.speed)


def _plainness(way: tuple[float, float]) -> tuple[float, float]:
    offset, speed = way
    return abs(speed - 1), abs(offset)


def _score(cosines_AB: NDArray[np.float32], first: Timeline, second: Timeline, offset: float, speed: float) -> float:
    begin, end = max(0.0, offset), min(first.seconds, offset + speed * second.seconds)
    shorter = min(first.seconds, speed * second.seconds)
    if end - begin < LEAST_SHARE * shorter:
        return 0.0
    apart_AB = np.abs(first.middles_T[:, None] - (offset + speed * second.middles_T))
    near_AB = apart_AB <= SLACK * max(first.reach, second.reach) + 1e-6
    best_AB = np.where(near_AB, cosines_AB, -1.0)
    best_A, best_B = best_AB.max(axis=1)[near_AB.any(axis=1)], best_AB.max(axis=0)[near_AB.any(axis=0)]
    if min(len(best_A), len(best_B)) < min(2, *cosines_AB.shape):
        return 0.0
    return float(np.concatenate([best_A, best_B]).mean())
