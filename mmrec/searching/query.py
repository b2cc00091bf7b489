"""What is asked of a store."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrec.errors import SearchError
from mmrec.searching.folding import Copies
from mmrec.store import MODALITIES, Modality

WEIGHTS: Mapping[str, float] = {"visual": 1.0, "audio": 1.0, "text": 1.0, "words": 1.0, "user": 1.0}
"""Of the rankings that are joined: by the tokens of each modality, by full text (`words`), and by a taste (`user`)."""

Taste = Callable[[Sequence[str]], NDArray[np.floating]]
"""How much somebody likes items: ids -> scores `(N,)`, NaN where that is not known."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """Parts of one question: what is sought is near to all of them, and far from what `without` says.

    Args:
        words: sought in the titles, descriptions and tags, and through each encoder of the store that has words.
        media: files of pictures, sound or both, which need not be in the catalog.
        items: ids of items of the store; they are not among the answers.
        vectors: `(D,)` or `(T, D)` each, made by one of the encoders of the store.
        without: words for what is not wanted.
        where: which items may be found at all, as in `year >= 2001 and language = 'zh'`.
        modalities: what is compared; None is all that the store has, and full text.
        weights: of the rankings that are joined, where not those of `WEIGHTS`.
        taste: of somebody, as `Recommender.taste` makes it: ranks what was found, and is joined as one more ranking.
        fold: copies of items, of which only the best one is shown.
        diversity: from 0, by score alone, to 1, which avoids what is like an item before it in the list; by maximal
            marginal relevance (`mmrec.ranking.diversify`) and the mean vectors of the items in what is compared.

    >>> import mmrec
    >>> mmrec.Query(words=["rain"], items=["piano-0"], without=["thunder"]).parts
    ["'rain'", 'piano-0']
    """

    words: Sequence[str] = ()
    media: Sequence[str | os.PathLike[str]] = ()
    items: Sequence[str] = ()
    vectors: Sequence[NDArray[Any]] = ()
    without: Sequence[str] = ()
    where: str = ""
    modalities: Sequence[Modality] | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    taste: Taste | None = None
    fold: Copies | None = None
    diversity: float = 0.0

    def __post_init__(self) -> None:
        for text in (*self.words, *self.without):
            if not any(map(str.isalnum, text)):
                raise SearchError(f"there are no words in {text!r}: say what to look for")
        if not self.parts:
            raise SearchError("the search is empty: give words, a file, an item or a vector to look for")
        for modality in self.modalities or ():
            if modality not in MODALITIES:
                raise SearchError(f"modality {modality!r}: expected {', '.join(MODALITIES)}")
        for name, weight in self.weights.items():
            if name not in WEIGHTS or not (weight >= 0 and np.isfinite(weight)):
                raise SearchError(f"weight {name}={weight}: expected 0 or more, for one of {', '.join(WEIGHTS)}")
        if not 0 <= self.diversity <= 1:
            raise SearchError(f"diversity is {self.diversity}: expected 0 to 1")
        for vector in self.vectors:
            shape = np.shape(vector)
            if len(shape) not in (1, 2) or not all(shape) or not np.issubdtype(np.asarray(vector).dtype, np.number):
                raise SearchError(f"a vector of shape {shape}: expected numbers, (D,) or (T, D)")
            if not np.all(np.isfinite(vector)) or not np.all(np.any(np.atleast_2d(vector), axis=1)):
                raise SearchError("a vector has values that are not finite, or is zero: it is near to nothing")

    @property
    def parts(self) -> list[str]:
        """What is sought, each by its name."""
        vectors = [f"vector {number}" for number in range(1, len(self.vectors) + 1)]
        return [*map(repr, self.words), *map(str, self.media), *self.items, *vectors]

    def weight(self, ranking: str) -> float:
        return float(self.weights.get(ranking, WEIGHTS[ranking]))
