"""What a store holds, what failed in it and why, and what ran on it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mmrec.errors import Reason
from mmrec.reporting.items import StoreItems
from mmrec.store import MODALITIES, FeatureStore, Run, StoreStatus, faults

MAX_FAULTS, MAX_RUNS, MAX_COUNTED = 50, 8, 8


@dataclass(frozen=True, slots=True)
class Overview:
    """What was embedded: the status of the store, and its media in total."""

    status: StoreStatus
    media_files: int
    media_seconds: float
    formats: list[tuple[str, int]]
    codecs: list[tuple[str, int]]
    absent: list[tuple[str, str, int]]
    """Modality, reason and number of items that do not have the modality, which is no fault."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What failed: items by reason and modality, and the first of them with the words of whoever found it."""

    counts: list[tuple[str, dict[str, int]]]
    rows: list[dict[str, str]]
    total: int


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run of a job."""

    start: datetime
    command: str
    seconds: float | None
    outcome: str
    counts: str


def overview(store: FeatureStore, items: StoreItems) -> Overview:
    """Counted over all items.

    >>> from mmrec import FeatureStore
    >>> from mmrec.reporting.items import read_items
    >>> from mmrec.reporting.overview import overview
    >>> store = FeatureStore("store")
    >>> overview(store, read_items(store)).status.items
    16
    """
    status = store.status()
    formats: Counter[str] = Counter()
    codecs: Counter[str] = Counter()
    for text in items.facts:
        facts: dict[str, Any] = json.loads(text or "{}")
        formats.update([facts["format"]] if "format" in facts else [])
        codecs.update(facts[name] for name in ("video_codec", "audio_codec") if name in facts)
    return Overview(
        status=status,
        media_files=sum(map(bool, items.media)),
        media_seconds=float(items.durations_I.sum()),
        formats=formats.most_common(MAX_COUNTED),
        codecs=codecs.most_common(MAX_COUNTED),
        absent=[
            (modality, reason.replace("_", " "), count)
            for modality, reasons in status.reasons.items()
            for reason, count in sorted(reasons.items())
            if not Reason(reason).is_fault
        ],
    )


def failures(store: FeatureStore) -> Faults:
    """The faults of all items, counted, and the first `MAX_FAULTS` of them."""
    counts: dict[str, Counter[str]] = {}
    rows: list[dict[str, str]] = []
    total = 0
    for fault in faults(store):
        counts.setdefault(fault["reason"].replace("_", " "), Counter())[fault["modality"]] += 1
        total += 1
        if len(rows) < MAX_FAULTS:
            rows.append(fault)
    by_frequency = sorted(counts.items(), key=lambda pair: -pair[1].total())
    named = [(reason, {str(modality): found[modality] for modality in MODALITIES}) for reason, found in by_frequency]
    return Faults(named, rows, total)


def run_rows(store: FeatureStore) -> tuple[list[RunRow], int]:
    """The latest runs, the newest first, and how many there are in all."""
    runs = store.runs()
    return [_row(run) for run in runs[:MAX_RUNS]], len(runs)


def _row(run: Run) -> RunRow:
    seconds = None if run.end is None else (run.end - run.start).total_seconds()
    outcome = "did not end" if run.exit is None else "done" if run.exit == 0 else f"failed: {run.message}"
    counts = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in run.counts.items() if value)
    return RunRow(run.start, run.command, seconds, outcome, counts)
