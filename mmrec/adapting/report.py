"""What adapting did."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrec.store import Modality


@dataclass(frozen=True, slots=True)
class AdaptReport:
    """What was adapted and how it went.

    `preset` is the file that names the encoders as they are now. `items` were learned from, of `catalog_items`;
    `reasons` counts why modalities are missing. `parameters` counts what was trained, by modality. `losses` are means
    over the steps of each epoch.

    >>> from pathlib import Path
    >>> from mmrec.adapting import AdaptReport
    >>> report = AdaptReport(Path("adapted/preset.yaml"), 16, 12, {"no_stream": 4}, {"text": 30_000}, [0.9, 0.4], 60.0)
    >>> report.as_dict()["preset"]
    'adapted/preset.yaml'
    """

    preset: Path
    catalog_items: int
    items: int
    reasons: Mapping[str, int]
    parameters: Mapping[Modality, int]
    losses: Sequence[float]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "preset": str(self.preset)}
