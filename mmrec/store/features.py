"""What the job knows of one item: its tokens per modality, what is missing and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmrec.catalog import Item
from mmrec.errors import Problem

Modality = Literal["visual", "audio", "text"]
MODALITIES: tuple[Modality, ...] = ("visual", "audio", "text")


class Status(StrEnum):
    """`ok`: all that the item has was embedded. `partial`: some of it. `failed`: nothing.

    `stale`: a modality could not be read any more; the tokens that it had before are kept.

    >>> import mmrec
    >>> mmrec.FeatureStore("store").status().statuses[mmrec.Status.OK]
    16
    """

    OK = "ok"
    PARTIAL = "partial"
    FAILED = "failed"
    STALE = "stale"


@dataclass(slots=True)
class Tokens:
    """The tokens of one modality: `vectors_TD` float32, and the (start, end) seconds of each, `spans_T2` float64.

    >>> import numpy as np
    >>> import mmrec
    >>> mmrec.Tokens(np.ones((2, 420), np.float32), np.array([[0.0, 2.5], [2.5, 5.0]]))
    Tokens(2 x 420, 0.0 to 5.0 s)
    """

    vectors_TD: NDArray[np.float32]
    spans_T2: NDArray[np.float64]

    def __repr__(self) -> str:
        spans = f", {np.min(self.spans_T2):.1f} to {np.max(self.spans_T2):.1f} s" if np.any(self.spans_T2) else ""
        return f"Tokens({_sizes(self)}{spans})"


Kept = Literal["as it is", "stale", "fresh"]
"""What becomes of tokens that the store has: nothing, or they are marked as stale, or as stale no more."""


@dataclass(frozen=True, slots=True)
class StoredRow:
    """What a job needs to know of an item in the store: from what its tokens were made, and how they are."""

    keys: Mapping[Modality, str]
    with_tokens: frozenset[Modality]
    faulty: frozenset[Modality]
    stale: frozenset[Modality]
    worth_retrying: frozenset[Modality]
    catalog_key: str
    media_state: str
    media_hash: str


@dataclass(slots=True)
class Features:
    """One item with its tokens. A modality without tokens has a problem; one with both was read in part, or is stale.

    `classes` are what its pictures show, by the classes of the network that embedded them, with their probabilities,
    best first; `language` is that of its text, by the catalog or by the words themselves, as an ISO 639 code.

    `keys` are hashes of what the tokens were made from, `media_hash` is that of the media file's content. `kept` names
    the modalities that a write leaves as the store has them: those of `stored`.

    >>> import mmrec
    >>> features = next(mmrec.FeatureStore("store").features(["piano-1"]))
    >>> features
    Features('piano-1', ok, visual 2 x 16, audio 2 x 8, text 1 x 1024)
    >>> features.item.title, features.tokens["audio"].spans_T2.tolist()
    ('Slow piano at midnight, part 2', [[0.0, 1.0], [1.0, 2.0]])
    """

    item: Item
    tokens: dict[Modality, Tokens] = field(default_factory=dict)
    problems: dict[Modality, Problem] = field(default_factory=dict)
    fingerprints: dict[Modality, str] = field(default_factory=dict)
    duration_seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    classes: list[tuple[str, float]] = field(default_factory=list)
    language: str = ""
    keys: dict[Modality, str] = field(default_factory=dict)
    stale_since: dict[Modality, datetime] = field(default_factory=dict)
    catalog_key: str = ""
    media_hash: str = ""
    media_state: str = ""
    stored: StoredRow | None = None
    kept: dict[Modality, Kept] = field(default_factory=dict)

    def __repr__(self) -> str:
        tokens = [f"{modality} {_sizes(tokens)}" for modality, tokens in self.tokens.items()]
        problems = [f"{modality} {problem.reason}" for modality, problem in self.problems.items()]
        return f"Features({', '.join([repr(self.item.item_id), self.status, *tokens, *problems])})"

    @property
    def status(self) -> Status:
        if self.stale:
            return Status.STALE
        with_tokens, faulty = set(self.tokens), {m for m, problem in self.problems.items() if problem.reason.is_fault}
        if self.stored is not None:
            with_tokens |= self.stored.with_tokens & self.kept.keys()
            faulty = faulty - self.kept.keys() | self._kept_as_it_is & self.stored.faulty
        if not with_tokens:
            return Status.FAILED
        return Status.PARTIAL if faulty else Status.OK

    @property
    def stale(self) -> set[Modality]:
        """The modalities whose tokens are those of another day."""
        stored = self.stored.stale if self.stored is not None else frozenset()
        return (
            set(self.stale_since)
            | {m for m, kept in self.kept.items() if kept == "stale"}
            | (self._kept_as_it_is & stored)
        )

    @property
    def _kept_as_it_is(self) -> set[Modality]:
        return {modality for modality, kept in self.kept.items() if kept == "as it is"}


def _sizes(tokens: Tokens) -> str:
    return " x ".join(map(str, np.shape(tokens.vectors_TD)))
