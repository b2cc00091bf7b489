"""The embedding job: decode in workers, pack full batches across items, encode, write; and resume where it stopped."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from mmrec.catalog import Catalog, read_catalog
from mmrec.embedding.decoding import DecodeLimits, check_workers_may_start
from mmrec.embedding.engines import opened_engine
from mmrec.embedding.lazy_encoders import EncodersChanged
from mmrec.embedding.presets import Preset, load_preset
from mmrec.embedding.report import EmbedReport
from mmrec.embedding.stages import Engine, Progress, Telling, Work
from mmrec.embedding.tasks import Policy, check_encoders, check_pruning, start_from_another_set
from mmrec.errors import MMRecError, StoreError
from mmrec.remote import Access, to_place
from mmrec.store import FeatureStore
from mmrec.tables import local_path

logger = logging.getLogger(__name__)


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
    engine: str = "local",
    address: str | None = None,
    gpus_per_encoder: float | None = None,
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
    process per processor.

    `engine` "ray" runs the same stages on a cluster of Ray: that at `address`, or of the environment variable
    `RAY_ADDRESS`, else on processes of this machine; the store and the media must lie where all its machines find them
    by the same paths. `workers` is then how many files are decoded at once, 0 as many as it has processors, and each
    encoder takes `gpus_per_encoder` of a GPU, else a whole one where there are any.

    `progress` is called now and then with the report; `command` is what the record of the run
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
    loading = {"device": device, "precision": precision, "allow_pickle": allow_pickle}
    with opened_engine(
        engine, chosen, to_place(store, StoreError), loading, workers, address, gpus_per_encoder
    ) as stages:
        job = _Job(
            manifest=manifest,
            engine=stages,
            preset=chosen,
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
                    stages.compact(target, timedelta(days=keep_days))
                report.judge(max_failures, accept_missing=accept_missing)
            finally:
                report.seconds = time.perf_counter() - start
                run.counts, run.exit, run.message = report.counts(), int(bool(report.problem)), report.problem
    return report


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    manifest: Catalog
    engine: Engine
    preset: Preset
    limits: DecodeLimits
    batch_size: int | None
    policy: Policy
    max_pruned: float | None
    start: float
    progress: Progress

    def run(self, store: FeatureStore, report: EmbedReport) -> None:
        report.items = self.manifest.num_items
        start_from_another_set(store, self.engine.fingerprints)
        if not self.policy.replace:
            check_encoders(store, self.engine.fingerprints, self.preset.name)
        stored = len(store)
        self.engine.begin(store)
        if self.max_pruned is not None:
            self._num_leaving(store, stored)
        self.engine.embed(self.manifest, self._work(store), Telling(report, self.start, self.progress))
        if report.unread_languages:
            languages = ", ".join(f"{name} {count}" for name, count in report.unread_languages.most_common())
            logger.warning("the text encoder does not know the languages of some texts: %s", languages)
        report.not_in_catalog = self._num_leaving(store, stored)  # a folder may be lost by now
        if self.max_pruned is not None:
            report.pruned = self.engine.prune(store, self.manifest)
            report.not_in_catalog -= report.pruned
        used = self.engine.fingerprints
        report.encoders = {
            r.modality: {"name": r.name, "dim": r.dim, "fingerprint": r.fingerprint}
            for r in store.encoders()
            if used.get(r.modality) == r.fingerprint
        }

    def _work(self, store: FeatureStore) -> Work:
        return Work(
            store=store,
            preset=self.preset,
            fingerprints=self.engine.fingerprints,
            limits=self.limits,
            batch_size=self.batch_size,
            policy=self.policy,
        )

    def _num_leaving(self, store: FeatureStore, stored: int) -> int:
        leaving = self.engine.num_leaving(self.manifest)
        if self.max_pruned is not None:
            check_pruning(store, stored, leaving, self.manifest, self.max_pruned)
        return leaving
