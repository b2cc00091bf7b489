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
    """`ok`: all that the item has was embedded. `partial`: some of it. `failed`: nothing."""

    OK = "ok"
    PARTIAL = "partial"
    FAILED = "failed"


@dataclass(slots=True)
class Tokens:
    """The tokens of one modality: `vectors_TD` float32, and the (start, end) seconds of each, `spans_T2` float64."""

    vectors_TD: NDArray[np.float32]
    spans_T2: NDArray[np.float64]


@dataclass(slots=True)
class Features:
    """One item with its tokens. A modality without tokens has a problem; one with both was read in part."""

    item: Item
    tokens: dict[Modality, Tokens] = field(default_factory=dict)
    problems: dict[Modality, Problem] = field(default_factory=dict)
    fingerprints: dict[Modality, str] = field(default_factory=dict)
    duration_seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    content_key: str = ""
    catalog_key: str = ""

    @property
    def status(self) -> Status:
        if not self.tokens:
            return Status.FAILED
        faulty = any(problem.reason.is_fault for problem in self.problems.values())
        return Status.PARTIAL if faulty else Status.OK
