"""The stretch of an item that answers a query best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmrec.store import Modality, SearchMoments

ALIKE = 0.95
"""Neighbours whose cosine is at least this share of the best one's belong to the same moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Seconds `start` to `end` of an item, found by its pictures, sound or words; `cosine` is that of its best token.

    >>> from mmrec.searching import Moment
    >>> Moment(item_id="a", modality="visual", start=192.4, end=196.8, cosine=0.9).when
    '03:12-03:17'
    """

    item_id: str
    modality: Modality
    start: float
    end: float
    cosine: float

    @property
    def when(self) -> str:
        return f"{_clock(np.floor(self.start))}-{_clock(np.ceil(self.end))}"


def best_moment(
    item_id: str, modality: Modality, tokens: SearchMoments, wanted_TD: NDArray[np.float32]
) -> Moment | None:
    """The best token of an item and its like neighbours; None where the tokens have no times."""
    if not np.any(tokens.spans_T2):
        return None
    timed_T = np.flatnonzero(tokens.spans_T2[:, 1]) if modality == "text" else np.arange(len(tokens.spans_T2))
    order = timed_T[np.argsort(tokens.spans_T2[timed_T, 0], kind="stable")]
    spans_T2 = tokens.spans_T2[order]
    cosines_T = (tokens.vectors_TD[order] @ wanted_TD.T).max(axis=1)
    best = int(np.argmax(cosines_T))
    alike_T = cosines_T >= ALIKE * cosines_T[best] if cosines_T[best] > 0 else np.arange(len(cosines_T)) == best
    first = last = best
    while first > 0 and alike_T[first - 1]:
        first -= 1
    while last + 1 < len(alike_T) and alike_T[last + 1]:
        last += 1
    start, end = spans_T2[first : last + 1, 0].min(), spans_T2[first : last + 1, 1].max()
    return Moment(item_id=item_id, modality=modality, start=start, end=end, cosine=float(cosines_T[best]))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"
