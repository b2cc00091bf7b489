"""What a job did, counted."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from mmrec.errors import Reason
from mmrec.store import MODALITIES, Features, Status, html_table


@dataclass(slots=True)
class EmbedReport:
    """What a job did. Every item of the catalog is `ok`, `partial`, `failed`, `stale` or `skipped` (already there).

    `lost` counts the items, skipped ones too, that lack a modality which they had before or the catalog promises,
    `accepted` the failed ones whose missing files were accepted, `not_in_catalog` those of the store that the catalog
    no longer has. `problem` is why the job is no success: so many are `failed` or `lost` that more than single items
    must be at fault.

    `unread_languages` counts the texts in languages that the text encoder does not know. `reasons` counts why
    modalities are missing or incomplete. `media_seconds` is how long the embedded video and sound last.
    `stage_seconds`: `start` is what passed until the encoders were loaded; `decode` is summed over the `workers`,
    `visual`, `audio` and `text` (encoding) over the `encoder_threads`; `write` and `wait` (for decoding) are those of
    one thread each. All stages but `start` run side by side.

    `efficiency` is the share of `seconds` in which the bottleneck worked: the decoding workers on average, or the
    encoder threads on average, whichever were busier. It estimates the job's throughput over the slower of bare
    decoding and bare encoding; where both compete for the same processors, each is slower than it would be alone, and
    the estimate is too high (`scripts/bench_embed.py` measures it). What it lacks to 1 is start, waiting and writing.

    >>> from mmrec import EmbedReport
    >>> EmbedReport(items=61, ok=58, partial=2, failed=1, seconds=24.9)
    EmbedReport(61 items: 58 ok, 2 partial, 1 failed; 24.9 s)
    """

    items: int = 0
    ok: int = 0
    partial: int = 0
    failed: int = 0
    stale: int = 0
    skipped: int = 0
    lost: int = 0
    accepted: int = 0
    pruned: int = 0
    not_in_catalog: int = 0
    problem: str = ""
    reasons: Counter[str] = field(default_factory=Counter)
    unread_languages: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    media_seconds: float = 0.0
    stage_seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(["start", "decode", *MODALITIES, "write", "wait"], 0.0)
    )
    workers: int = 1
    encoder_threads: int = 1
    encoders: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in self.counts().items() if count and name != "items")
        return f"EmbedReport({self.items} items{counts and f': {counts}'}; {self.seconds:.1f} s)"

    def _repr_html_(self) -> str:
        encoders = {
            name: f"{encoder.get('name')}, {encoder.get('dim')} wide" for name, encoder in self.encoders.items()
        }
        rows = {**self.counts(), **encoders, **self.reasons, "seconds": f"{self.seconds:.1f}"}
        return html_table(rows.items())

    def counts(self) -> dict[str, int]:
        names = ("items", "ok", "partial", "failed", "stale", "skipped", "lost", "pruned", "not_in_catalog")
        return {name: getattr(self, name) for name in names}

    @property
    def done(self) -> int:
        return self.ok + self.partial + self.failed + self.stale + self.skipped

    @property
    def failed_share(self) -> float:
        """The failed items' share of those that were not skipped, but for those whose absence was accepted."""
        return (self.failed - self.accepted) / max(1, self.items - self.skipped)

    @property
    def lost_share(self) -> float:
        """The share of all items that lost a modality."""
        return self.lost / max(1, self.items)

    @property
    def efficiency(self) -> float:
        encoding = sum(self.stage_seconds[modality] for modality in MODALITIES)
        busiest = max(self.stage_seconds["decode"] / self.workers, encoding / self.encoder_threads)
        return min(1.0, busiest / self.seconds) if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        reasons = dict(sorted(self.reasons.items()))
        return {**dataclasses.asdict(self), "reasons": reasons, "efficiency": self.efficiency}

    def count(self, features: Features, *, accept_missing: bool = False) -> None:
        match features.status:
            case Status.OK:
                self.ok += 1
            case Status.PARTIAL:
                self.partial += 1
            case Status.FAILED:
                self.failed += 1
                missing = any(p.reason is Reason.MISSING_FILE for p in features.problems.values())
                self.accepted += accept_missing and missing
            case Status.STALE:
                self.stale += 1
        self.reasons.update(problem.reason.value for problem in features.problems.values())
        self.media_seconds += features.duration_seconds
        lacking = (
            m for m, problem in features.problems.items() if problem.reason.is_fault and m not in features.tokens
        )
        self.lost += bool(features.stale) or any(m not in features.kept for m in lacking)

    def add(self, part: EmbedReport) -> None:
        """Count what another process did of the same job."""
        for name in ("ok", "partial", "failed", "stale", "skipped", "lost", "accepted", "media_seconds"):
            setattr(self, name, getattr(self, name) + getattr(part, name))
        self.reasons.update(part.reasons)
        self.unread_languages.update(part.unread_languages)
        for stage, seconds in part.stage_seconds.items():
            self.stage_seconds[stage] += seconds
        self.encoder_threads = max(self.encoder_threads, part.encoder_threads)

    def judge(self, max_failures: float, *, accept_missing: bool) -> None:
        """Set `problem` where more than a share of `max_failures` failed, or, unless that is accepted, was lost."""
        if self.failed_share > max_failures:
            self.problem = (
                f"{self.failed - self.accepted} of {self.items - self.skipped} items failed, more than max_failures "
                f"{max_failures:g} allows"
            )
        elif self.lost_share > max_failures and not accept_missing:
            self.problem = (
                f"{self.lost} of {self.items} items lack media or text that they had or that the catalog names, more "
                f"than max_failures {max_failures:g} allows: is everything mounted? What was there is kept; where it "
                "is gone for good, use --accept-missing"
            )
