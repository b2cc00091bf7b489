"""The embedding job: decode in workers, pack full batches across items, encode, write; and resume where it stopped."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain

from mmrec.catalog import Catalog, read_catalog
from mmrec.embedding.decoding import DecodeLimits, check_workers_may_start, decode_items
from mmrec.embedding.lazy_encoders import EncodersChanged, LazyEncoders
from mmrec.embedding.presets import load_preset
from mmrec.embedding.report import EmbedReport
from mmrec.embedding.tasks import (
    Policy,
    Reading,
    Task,
    check_encoders,
    keep_what_is_lost,
    num_leaving,
    start_from_another_set,
    tasks_of,
)
from mmrec.embedding.writing import Writer
from mmrec.errors import MMRecError, StoreError
from mmrec.remote import Access, to_place
from mmrec.store import FeatureStore, Findings, StoredKeys
from mmrec.tables import local_path

logger = logging.getLogger(__name__)

Progress = Callable[[EmbedReport], None]


def embed(
    catalog: str | os.PathLike[str],
    store: str | os.PathLike[str],
    *,
    preset: str | os.PathLike[str] = "base",
    device: str = "auto",
    precision: str = "auto",
    allow_pickle: bool = False,
    workers: int = 0,
    batch_size: int | None = None,
    timeout_seconds: float = 120.0,
    worker_memory_bytes: int = 4 * 2**30,
    media_root: str | os.PathLike[str] | None = None,
    allow_hosts: Sequence[str] = (),
    cache: str | os.PathLike[str] | None = None,
    cache_bytes: int = 20 * 10**9,
    encoder_set: str = "",
    replace: bool = False,
    retry_failed: bool = False,
    accept_missing: bool = False,
    max_failures: float = 0.1,
    prune: bool = False,
    max_pruned: float = 0.1,
    keep_days: float = 7.0,
    command: str = "",
    progress: Progress | None = None,
) -> EmbedReport:
    """Embed every item of `catalog` into the feature store at `store`, which is made where it does not exist.

    What the store holds already, made from the same content by the same encoder, is skipped: a file is recognised by
    its content, wherever it lies. What failed, or ran out of time or memory in part, is tried again with
    `retry_failed`. Nothing that the store holds is replaced by an absence: where a file, or a text, is missing today or
    cannot be read, its tokens stay, and the item is `stale`, until it comes back or `accept_missing` says that it is
    gone. Where the store holds tokens of other encoders, embedding refuses to start, unless `replace` says that new
    ones take their place, or `encoder_set` names a set to be kept beside the others, which starts from what they share.

    The catalog, its media and the store may be URLs (`s3://`, `gs://`, `az://`), and of `https` the first two: media
    only from `allow_hosts`. Such a file is recognised by its ETag and size, and read by ranges; one that can only be
    read whole lies in the folder `cache` meanwhile, which holds `cache_bytes` at most.

    The report has a `problem` where more than a share of `max_failures` of the items failed, or lost what they had or
    should have. `prune` deletes the rows of items that left the catalog, but refuses to, before anything is embedded,
    where they are more than a share of `max_pruned` of the store: a catalog may be cut off. Earlier versions of the
    store are kept for `keep_days` at least. `precision` is that of the encoders' weights. `workers` 0 is one decoding
    process per processor. `progress` is called now and then with the report; `command` is what the record of the run
    says was run.

    Raises `CatalogError`, `EncoderError` or `StoreError`; what was committed before stays in the store. A failing item
    raises nothing: its status and reasons are stored.

    >>> import mmrec
    >>> report = mmrec.embed("catalog.csv", "embedded", preset="preset.yaml", workers=1)
    >>> report
    EmbedReport(16 items: 16 ok; ... s)
    >>> report.reasons["no_media"]
    14
    >>> mmrec.embed("catalog.csv", "embedded", preset="preset.yaml").skipped
    16
    """
    start = time.perf_counter()
    kept = {} if cache is None else {"cache": local_path(cache, MMRecError)}
    access = Access(hosts=tuple(allow_hosts), cache_bytes=cache_bytes, **kept)
    limits = DecodeLimits(
        workers=workers, timeout_seconds=timeout_seconds, memory_bytes=worker_memory_bytes, access=access
    )
    for name, value in (("max_pruned", max_pruned), ("max_failures", max_failures)):
        if not 0 <= value <= 1:
            raise MMRecError(f"{name} is {value}: expected a share between 0 and 1")
    if batch_size is not None and batch_size < 1:
        raise MMRecError(f"the batch size is {batch_size}: expected 1 or more")
    if not keep_days >= 0:
        raise MMRecError(f"keep_days is {keep_days}: expected 0 or more")
    chosen = load_preset(preset)
    manifest = read_catalog(catalog, media_root=media_root, access=access)
    if (chosen.visual or chosen.audio) and any(item.media is not None for item in manifest.items()):
        check_workers_may_start()
    job = _Job(
        manifest=manifest,
        encoders=LazyEncoders(
            chosen, to_place(store, StoreError), device=device, precision=precision, allow_pickle=allow_pickle
        ),
        limits=limits,
        batch_size=batch_size,
        policy=Policy(retry_failed=retry_failed, accept_missing=accept_missing, replace=replace),
        max_pruned=max_pruned if prune else None,
        start=start,
        progress=progress or (lambda _: None),
    )
    target = FeatureStore(store, create=True, encoder_set=encoder_set)
    with target.lock(), target.run(command or f"mmrec.embed({str(catalog)!r}, {str(store)!r})") as run:
        report = EmbedReport()
        try:
            try:
                job.run(target, report)
            except EncodersChanged:
                report = EmbedReport()
                job.run(target, report)
            if report.skipped < report.items or report.pruned:
                target.compact(timedelta(days=keep_days))
            report.judge(max_failures, accept_missing=accept_missing)
        finally:
            report.seconds = time.perf_counter() - start
            run.counts, run.exit, run.message = report.counts(), int(bool(report.problem)), report.problem
    return report


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    manifest: Catalog
    encoders: LazyEncoders
    limits: DecodeLimits
    batch_size: int | None
    policy: Policy
    max_pruned: float | None
    start: float
    progress: Progress

    def run(self, store: FeatureStore, report: EmbedReport) -> None:
        report.items, report.workers = self.manifest.num_items, self.limits.num_workers
        start_from_another_set(store, self.encoders.fingerprints)
        if not self.policy.replace:
            check_encoders(store, self.encoders.fingerprints, self.encoders.preset.name)
        keys = store.keys()
        if self.max_pruned is not None:
            num_leaving(store, keys, self.manifest, self.max_pruned)
        reading = Reading(self.manifest)
        with Writer(store, keys, report) as writer:
            tasks = self._unfinished(store, reading, keys, writer, report)
            first = next(tasks, None)
            report.stage_seconds["start"] = time.perf_counter() - self.start
            self.progress(report)
            if first is not None:
                self._embed(chain([first], tasks), store, writer, report)
        self.encoders.remember()
        reading.check()
        report.not_in_catalog = num_leaving(store, keys, self.manifest, self.max_pruned)  # a folder may be lost by now
        if self.max_pruned is not None:
            report.pruned = store.prune(item.item_id for item in self.manifest.items())
            report.not_in_catalog -= report.pruned
        used = self.encoders.fingerprints
        report.encoders = {
            r.modality: {"name": r.name, "dim": r.dim, "fingerprint": r.fingerprint}
            for r in store.encoders()
            if used.get(r.modality) == r.fingerprint
        }

    def _unfinished(
        self, store: FeatureStore, reading: Reading, keys: StoredKeys, writer: Writer, report: EmbedReport
    ) -> Iterator[Task]:
        """The tasks with anything to embed; of the others the rows are brought up to date."""
        preset, fingerprints = self.encoders.preset, self.encoders.fingerprints
        words = Findings(store).word_digests() if "text" in fingerprints else {}
        for task in tasks_of(reading.items(), preset, fingerprints, keys, self.policy, words, self.limits.access):
            if task.todo:
                yield task
                continue
            report.skipped += 1
            report.lost += task.is_lost
            if task.changes_the_row:
                writer.put(task.features(task.item))

    def _embed(self, tasks: Iterator[Task], store: FeatureStore, writer: Writer, report: EmbedReport) -> None:
        from mmrec.embedding.encoding import encoded

        loaded = self.encoders.load()
        store.add_encoders(loaded.records())
        report.stage_seconds["start"] = time.perf_counter() - self.start
        with (
            closing(decode_items(tasks, loaded.frames, loaded.sound, self.limits)) as decoded,
            closing(encoded(decoded, loaded, self.batch_size, report, Findings(store))) as finished,
        ):
            for features in finished:
                settled = keep_what_is_lost(features, self.policy)
                writer.put(settled)
                report.count(settled, accept_missing=self.policy.accept_missing)
                if "text" in settled.tokens and not loaded.reads(settled.language or None):
                    report.unread_languages[settled.language] += 1
                report.seconds = time.perf_counter() - self.start
                self.progress(report)
        if report.unread_languages:
            languages = ", ".join(f"{name} {count}" for name, count in report.unread_languages.most_common())
            logger.warning("the text encoder does not know the languages of some texts: %s", languages)
