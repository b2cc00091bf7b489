"""The embedding job: decode in workers, pack full batches across items, encode, write; and resume where it stopped."""

from __future__ import annotations

import dataclasses
import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mmrec.catalog import Item, read_catalog
from mmrec.embedding.decoding import DecodeLimits, decode_items
from mmrec.embedding.encoder_threads import EncoderThreads
from mmrec.embedding.packing import Packer
from mmrec.embedding.preset_encoders import PresetEncoders, load_preset_encoders
from mmrec.embedding.presets import load_preset
from mmrec.embedding.tasks import Reading, Task, check_pruning, unfinished
from mmrec.errors import MMRecError
from mmrec.media import DecodedMedia
from mmrec.store import MODALITIES, Features, FeatureStore, Status, StoredKeys, html_table

ROWS_PER_COMMIT = 2048
BYTES_PER_COMMIT = 64 * 2**20
SECONDS_PER_COMMIT = 10.0
ROWS_WAITING_TO_BE_WRITTEN = 1024

T = TypeVar("T")


@dataclass(slots=True)
class EmbedReport:
    """What a job did. Every item of the catalog is `ok`, `partial`, `failed` or `skipped` (already in the store).

    `reasons` counts why modalities are missing or incomplete. `media_seconds` is how long the embedded video and sound
    last. `stage_seconds`: `start` is what passed until the encoders were loaded; `decode` is summed over the `workers`,
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
    skipped: int = 0
    pruned: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    media_seconds: float = 0.0
    stage_seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(["start", "decode", *MODALITIES, "write", "wait"], 0.0)
    )
    workers: int = 1
    encoder_threads: int = 1
    encoders: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in self._counts().items() if count)
        return f"EmbedReport({self.items} items{counts and f': {counts}'}; {self.seconds:.1f} s)"

    def _repr_html_(self) -> str:
        encoders = {
            name: f"{encoder.get('name')}, {encoder.get('dim')} wide" for name, encoder in self.encoders.items()
        }
        rows = {"items": self.items, **self._counts(), **encoders, **self.reasons, "seconds": f"{self.seconds:.1f}"}
        return html_table(rows.items())

    def _counts(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ("ok", "partial", "failed", "skipped", "pruned")}

    @property
    def done(self) -> int:
        return self.ok + self.partial + self.failed + self.skipped

    @property
    def failed_share(self) -> float:
        """The failed items' share of those that were not skipped."""
        return self.failed / max(1, self.items - self.skipped)

    @property
    def efficiency(self) -> float:
        encoding = sum(self.stage_seconds[modality] for modality in MODALITIES)
        busiest = max(self.stage_seconds["decode"] / self.workers, encoding / self.encoder_threads)
        return min(1.0, busiest / self.seconds) if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        reasons = dict(sorted(self.reasons.items()))
        return {**dataclasses.asdict(self), "reasons": reasons, "efficiency": self.efficiency}

    def count(self, features: Features) -> None:
        match features.status:
            case Status.OK:
                self.ok += 1
            case Status.PARTIAL:
                self.partial += 1
            case Status.FAILED:
                self.failed += 1
        self.reasons.update(problem.reason.value for problem in features.problems.values())
        self.media_seconds += features.duration_seconds


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
    prune: bool = False,
    max_pruned: float = 0.1,
    retry_failed: bool = False,
    progress: Progress | None = None,
) -> EmbedReport:
    """Embed every item of `catalog` into the feature store at `store`, which is made where it does not exist.

    Items that the store holds already, made from the same content by the same encoders, are skipped; those that failed,
    or ran out of time or memory in part, are tried again with `retry_failed`. `precision` is that of the encoders'
    weights. `prune` deletes the rows of items that left the catalog, but refuses to, before anything is embedded, where
    they are more than a share of `max_pruned` of the store: a catalog may be cut off. `workers` 0 is one decoding
    process per processor. `progress` is called now and then with the report.

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
    limits = DecodeLimits(workers=workers, timeout_seconds=timeout_seconds, memory_bytes=worker_memory_bytes)
    if not 0 <= max_pruned <= 1:
        raise MMRecError(f"max_pruned is {max_pruned}: expected a share between 0 and 1")
    if batch_size is not None and batch_size < 1:
        raise MMRecError(f"the batch size is {batch_size}: expected 1 or more")
    chosen = load_preset(preset)
    manifest = read_catalog(catalog, media_root=media_root)
    loaded = load_preset_encoders(chosen, device=device, precision=precision, allow_pickle=allow_pickle)
    report = EmbedReport(items=manifest.num_items, encoders=_describe(loaded), workers=limits.num_workers)
    report.stage_seconds["start"] = time.perf_counter() - start
    target = FeatureStore(store, create=True)
    if progress is not None:
        progress(report)
    with target.lock():
        target.add_encoders(loaded.records())
        keys = target.keys()
        if prune:
            check_pruning(target, keys, manifest, max_pruned)
        reading = Reading(manifest)
        with Writer(target, keys, report) as writer:

            def skip(item: Item, catalog_key: str | None) -> None:
                report.skipped += 1
                if catalog_key is not None:
                    writer.relabel(item, catalog_key)

            tasks = unfinished(reading.items(), loaded, keys, skip, retry_failed=retry_failed)
            with (
                closing(decode_items(tasks, loaded.frames, loaded.sound, limits)) as decoded,
                closing(encoded(decoded, loaded, batch_size, report)) as finished,
            ):
                for features in finished:
                    writer.put(features)
                    report.seconds = time.perf_counter() - start
                    if progress is not None:
                        progress(report)
        reading.check()
        if prune:
            check_pruning(target, keys, manifest, max_pruned)  # a folder may have been lost since
            report.pruned = target.prune(item.item_id for item in manifest.items())
        if report.skipped < report.items or report.pruned:
            target.compact()
    report.seconds = time.perf_counter() - start
    return report


def _describe(loaded: PresetEncoders) -> dict[str, dict[str, Any]]:
    return {r.modality: {"name": r.name, "dim": r.dim, "fingerprint": r.fingerprint} for r in loaded.records()}


def encoded(
    decoded: Iterator[tuple[Task, DecodedMedia]], loaded: PresetEncoders, batch_size: int | None, report: EmbedReport
) -> Generator[Features, None, None]:
    """Encode what was decoded, in full batches across items; yields each item as it is finished.

    >>> from mmrec.catalog import Item
    >>> from mmrec.embedding import EmbedReport, Task, encoded, load_preset, load_preset_encoders
    >>> from mmrec.media import DecodedMedia
    >>> encoders = load_preset_encoders(load_preset("preset.yaml"), device="cpu")
    >>> tasks = [Task(Item(item_id=name), name, "0" * 32, "0" * 32) for name in ("rain", "wind")]
    >>> for features in encoded(((task, DecodedMedia()) for task in tasks), encoders, None, EmbedReport()):
    ...     print(features.item.item_id, features.tokens["text"])
    rain Tokens(1 x 1024)
    wind Tokens(1 x 1024)
    """
    with EncoderThreads(loaded.device) as threads:
        report.encoder_threads = threads.count
        packer = Packer(loaded, batch_size, threads, report.stage_seconds)
        for task, media in _timed(decoded, report):
            report.stage_seconds["decode"] += media.decode_seconds
            features = Features(
                task.item,
                duration_seconds=media.duration_seconds,
                facts=media.facts,
                content_key=task.content_key,
                catalog_key=task.catalog_key,
            )
            yield from packer.add(features, media, task.text)
        yield from packer.flush()


def _timed(source: Iterator[T], report: EmbedReport) -> Iterator[T]:
    while True:
        start = time.perf_counter()
        value = next(source, None)
        report.stage_seconds["wait"] += time.perf_counter() - start
        if value is None:
            return
        yield value


class Writer:
    """Commits finished items to the store in batches, from a thread of its own.

    Leaving the context commits the rest, whatever happened inside. An error of the store is raised by the next call.

    >>> import mmrec
    >>> from mmrec.embedding import Writer
    >>> source, target = mmrec.FeatureStore("store"), mmrec.FeatureStore("copy", create=True)
    >>> with Writer(target, target.keys(), mmrec.EmbedReport()) as writer:
    ...     for features in source.features(["rain-0", "rain-1"]):
    ...         writer.put(features)
    >>> len(target)
    2
    """

    def __init__(self, store: FeatureStore, keys: StoredKeys, report: EmbedReport) -> None:
        self._store, self._keys, self._report = store, keys, report
        self._queue: queue.Queue[Features | tuple[Item, str] | None] = queue.Queue(ROWS_WAITING_TO_BE_WRITTEN)
        self._error: BaseException | None = None
        self._rows: list[Features] = []
        self._labels: list[tuple[Item, str]] = []
        self._bytes = 0
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._queue.put(None)
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def put(self, features: Features) -> None:
        self._enqueue(features)
        self._report.count(features)

    def relabel(self, item: Item, catalog_key: str) -> None:
        self._enqueue((item, catalog_key))

    def _enqueue(self, entry: Features | tuple[Item, str]) -> None:
        if self._error is not None:
            raise self._error
        self._queue.put(entry)

    def _work(self) -> None:
        oldest = time.monotonic()
        while True:
            try:
                entry = self._queue.get(timeout=SECONDS_PER_COMMIT)
            except queue.Empty:
                self._commit()
                continue
            if entry is None:
                self._commit()
                return
            if not self._rows and not self._labels:
                oldest = time.monotonic()
            self._collect(entry)
            full = len(self._rows) + len(self._labels) >= ROWS_PER_COMMIT or self._bytes >= BYTES_PER_COMMIT
            if full or time.monotonic() - oldest >= SECONDS_PER_COMMIT:
                self._commit()

    def _collect(self, entry: Features | tuple[Item, str]) -> None:
        if isinstance(entry, Features):
            self._rows.append(entry)
            self._bytes += sum(tokens.vectors_TD.nbytes for tokens in entry.tokens.values())
        else:
            self._labels.append(entry)

    def _commit(self) -> None:
        start = time.perf_counter()
        rows, labels = self._rows, self._labels
        self._rows, self._labels, self._bytes = [], [], 0
        if self._error is None:
            try:
                changed = [row for row in rows if self._keys.holds(row.item.item_id)]
                new = [row for row in rows if not self._keys.holds(row.item.item_id)]
                self._store.write(new, changed)
                self._store.relabel(labels)
            except BaseException as error:  # noqa: BLE001 - handed over to the job's own thread
                self._error = error
        self._report.stage_seconds["write"] += time.perf_counter() - start
