"""The stages of a job that stand between its parts: which items are to be embedded, and what becomes of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from mmrec.catalog import Catalog, Item
from mmrec.embedding.decoding import DecodeLimits
from mmrec.embedding.presets import Preset
from mmrec.embedding.report import EmbedReport
from mmrec.embedding.tasks import Policy, Task, keep_what_is_lost, tasks_of
from mmrec.store import Features, FeatureStore, Findings, Modality, StoredKeys

if TYPE_CHECKING:
    from mmrec.embedding.preset_encoders import PresetEncoders

Progress = Callable[[EmbedReport], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What the stages of a job go by, the same for all its items, in every process that runs some of them."""

    store: FeatureStore
    preset: Preset
    fingerprints: Mapping[Modality, str]
    limits: DecodeLimits
    batch_size: int | None
    policy: Policy


@dataclass(frozen=True, slots=True)
class Telling:
    """What a job tells while it runs: its report, with the seconds since its `start`."""

    report: EmbedReport
    start: float
    progress: Progress

    def started(self) -> None:
        self.ready()
        self.progress(self.report)

    def ready(self) -> None:
        """The encoders are loaded: what comes now is work."""
        self.report.stage_seconds["start"] = time.perf_counter() - self.start

    def went_on(self) -> None:
        self.report.seconds = time.perf_counter() - self.start
        self.progress(self.report)


class Engine(Protocol):
    """Who runs the stages of a job. `begin` comes first: it looks at what the store holds."""

    @property
    def fingerprints(self) -> Mapping[Modality, str]: ...

    def begin(self, store: FeatureStore) -> None: ...

    def num_leaving(self, manifest: Catalog) -> int:
        """How many of the rows that were there when it began are not in the manifest."""

    def embed(self, manifest: Catalog, work: Work, telling: Telling) -> None:
        """Let all items that are new or changed go through the stages, and be stored."""

    def prune(self, store: FeatureStore, manifest: Catalog) -> int:
        """Delete the rows that are not in the manifest; returns how many."""

    def compact(self, store: FeatureStore, keep_versions: timedelta) -> None:
        """Merge what was written in many pieces, and drop versions older than that."""


def unfinished(
    items: Iterable[Item],
    work: Work,
    keys: StoredKeys,
    words: Mapping[str, str],
    report: EmbedReport,
    put: Callable[[Features], None],
) -> Iterator[Task]:
    """The tasks with anything to embed; of the others, the rows are put where they change.

    An item that stands twice, in a catalog that changes while it is read, is written once.
    """
    written: set[int] = set()
    for task in tasks_of(items, work.preset, work.fingerprints, keys, work.policy, words, work.limits.access):
        if (task.todo or task.changes_the_row) and (number := hash(task.item.item_id)) in written:
            continue
        if task.todo:
            written.add(number)
            yield task
            continue
        report.skipped += 1
        report.lost += task.is_lost
        if task.changes_the_row:
            written.add(number)
            put(task.features(task.item))


def settled(
    finished: Iterable[Features], work: Work, loaded: PresetEncoders, report: EmbedReport
) -> Iterator[Features]:
    """Encoded items as they are to be stored, counted."""
    for features in finished:
        row = keep_what_is_lost(features, work.policy)
        report.count(row, accept_missing=work.policy.accept_missing)
        if "text" in row.tokens and not loaded.reads(row.language or None):
            report.unread_languages[row.language] += 1
        yield row


def word_digests(work: Work, items: Iterable[Item] | None = None) -> Mapping[str, str]:
    """A hash of the words that are heard and seen in items, of all or of these, where text is embedded."""
    if "text" not in work.fingerprints:
        return {}
    return Findings(work.store).word_digests(None if items is None else [item.item_id for item in items])
