"""What the job knows of one item: its tokens per modality, what is missing and why."""

from __future__ import annotations

from dataclasses import dataclass, field
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

    >>> import mmrec
    >>> mmrec.FeatureStore("store").status().statuses[mmrec.Status.OK]
    16
    """

    OK = "ok"
    PARTIAL = "partial"
    FAILED = "failed"


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


@dataclass(slots=True)
class Features:
    """One item with its tokens. A modality without tokens has a problem; one with both was read in part.

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
    content_key: str = ""
    catalog_key: str = ""

    def __repr__(self) -> str:
        tokens = [f"{modality} {_sizes(tokens)}" for modality, tokens in self.tokens.items()]
        problems = [f"{modality} {problem.reason}" for modality, problem in self.problems.items()]
        return f"Features({', '.join([repr(self.item.item_id), self.status, *tokens, *problems])})"

    @property
    def status(self) -> Status:
        if not self.tokens:
            return Status.FAILED
        faulty = any(problem.reason.is_fault for problem in self.problems.values())
        return Status.PARTIAL if faulty else Status.OK


def _sizes(tokens: Tokens) -> str:
    return " x ".join(map(str, np.shape(tokens.vectors_TD)))
