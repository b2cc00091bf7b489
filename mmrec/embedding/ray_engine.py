"""The stages of a job on a cluster of Ray: blocks of a catalog are decoded, encoded and stored by its processes.

The catalog is a Ray dataset of blocks, which one task reads as they are asked for. Other tasks find what is to be done
of a block and decode it, in processes that may be killed; actors, which hold the encoders, encode what was decoded; and
tasks commit several parcels of items at a time. Whatever of these dies is started again with what it had in hand, and
what was stored already is not stored twice. The process of the job itself holds counts alone.
"""

from __future__ import annotations

import logging
import os
import pickle
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache, partial
from itertools import islice
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext, Datasource, ReadTask
from ray.data.block import BlockMetadata

from mmrec.catalog import Catalog, Item
from mmrec.cluster import connected, errors_here, on_this_machine
from mmrec.embedding.decoding import DecodeLimits, DecodeWorkers, available_cpus
from mmrec.embedding.presets import Preset
from mmrec.embedding.report import EmbedReport
from mmrec.embedding.stages import Telling, Work, settled, unfinished, word_digests
from mmrec.embedding.tasks import Reading, Task
from mmrec.errors import CatalogError, EncoderError, MMRecError, StoreError
from mmrec.media import DecodedMedia, FramePlan, SoundPlan
from mmrec.store import EncoderRecord, Features, FeatureStore, Findings, Modality, StoredKeys

BLOCKS, MAX_BLOCK_ITEMS, MIN_BLOCK_ITEMS = 32, 1024, 8  # so many blocks for each processor, within these sizes
MAX_PARCEL_ITEMS, MAX_PARCEL_BYTES = 256, 64 * 2**20
PARCELS_PER_COMMIT = 8
FEW_CPUS = 4  # where encoders take turns with decoding, as on one machine
SPARE_MEMORY_USED = "RAY_DATA_DOWNSTREAM_CAPACITY_OBJECT_STORE_BUDGET_UTIL_THRESHOLD"
LITTLE = 0.01  # of a processor: what hardly computes asks for it, to stay away from machines that are to run nothing

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Block:
    """Items to be embedded; `error` is what kept the catalog from being read to its end."""

    items: list[Item]
    error: MMRecError | None = None


@dataclass(frozen=True, slots=True)
class _Parcel:
    """Items that go from stage to stage together, first as what was decoded of them, then as rows; and their counts.

    `error` is what ended a stage, or the catalog.
    """

    decoded: list[tuple[Task, DecodedMedia]] = field(default_factory=list)
    rows: list[Features] = field(default_factory=list)
    report: EmbedReport = field(default_factory=EmbedReport)
    num_replaced: int = 0
    error: MMRecError | None = None


@dataclass(frozen=True, slots=True)
class _Described:
    """The encoders of a preset as the machines of the cluster load them."""

    fingerprints: Mapping[Modality, str]
    records: list[EncoderRecord]
    frames: FramePlan | None
    sound: SoundPlan | None


class RayEngine:
    """Runs the stages of a job on the cluster that this process is connected to."""

    def __init__(
        self, preset: Preset, loading: Mapping[str, Any], *, workers: int = 0, gpus_per_encoder: float | None = None
    ) -> None:
        resources = ray.cluster_resources()
        gpus, self._cpus = resources.get("GPU", 0.0), max(1, int(resources.get("CPU", 1)))
        if gpus_per_encoder is None:
            gpus_per_encoder = float(gpus > 0 and loading["device"] != "cpu")
        if not 0 <= gpus_per_encoder <= max(1.0, gpus):
            raise MMRecError(f"gpus_per_encoder is {gpus_per_encoder:g}: expected 0 to 1, or a number that is there")
        self._loading, self._workers, self._gpus_per_encoder = dict(loading), workers, gpus_per_encoder
        self._little = (
            LITTLE if self._cpus > FEW_CPUS else 0
        )  # of few, a hundredth would keep a whole one from decoding
        self._num_encoders = max(1, int(gpus / gpus_per_encoder) if gpus_per_encoder else self._cpus // 2)
        self._described: _Described = _got(self._task(_describe, num_gpus=gpus_per_encoder).remote(preset, loading))
        self._keys: Any = None
        self._caretaker: Any = None

    @property
    def fingerprints(self) -> Mapping[Modality, str]:
        return self._described.fingerprints

    def begin(self, store: FeatureStore) -> None:
        self._keys = self._task(_read_keys).remote(store)
        actor = ray.remote(max_restarts=-1, max_task_retries=-1, **on_this_machine())
        self._caretaker = actor(_Caretaker).remote(store)

    def num_leaving(self, manifest: Catalog) -> int:
        return int(_got(self._task(_num_leaving, **on_this_machine()).remote(self._keys, manifest)))

    def prune(self, store: FeatureStore, manifest: Catalog) -> int:
        return int(_got(self._caretaker.prune.remote(manifest)))

    def compact(self, store: FeatureStore, keep_versions: timedelta) -> None:
        _got(self._caretaker.compact.remote(keep_versions))

    def embed(self, manifest: Catalog, work: Work, telling: Telling) -> None:
        report, error, noted = telling.report, None, list[Any]()
        report.workers = self._workers or self._cpus
        work.store.add_encoders(self._described.records)
        telling.started()
        with closing(self._parcels(manifest, work)) as parcels:
            for parcel in parcels:
                if parcel.error is not None and not isinstance(parcel.error, CatalogError):
                    raise parcel.error
                report.add(parcel.report)
                error = error or parcel.error  # all that was read before is stored first
                telling.went_on()
                _got(noted)
                noted = [self._caretaker.note_commit.remote(parcel.num_replaced)]
        _got(noted)
        if error is not None:
            raise error
        manifest.check_unchanged()

    def _parcels(self, manifest: Catalog, work: Work) -> Generator[_Parcel, None, None]:
        """The stages, one after the other; they run side by side, each as far ahead as memory allows."""
        block_items = min(max(manifest.num_items // (BLOCKS * self._cpus), MIN_BLOCK_ITEMS), MAX_BLOCK_ITEMS)
        encoder = {"work": work, "loading": self._loading, "fingerprints": dict(self.fingerprints)}
        with DataContext.current(_context()):
            source = _CatalogSource(replace(manifest, path=manifest.path.absolute()), block_items)
            blocks = ray.data.read_datasource(source, override_num_blocks=1, **on_this_machine())
            decoded = blocks.flat_map(
                partial(_decode, work=work, described=self._described, keys=self._keys),
                num_cpus=1,
                memory=MAX_PARCEL_BYTES,  # else Ray asks for another amount each time, and keeps no process for it
                concurrency=self._workers or None,
            )
            encoded = decoded.map(
                _Encode,
                fn_constructor_kwargs=encoder,
                compute=ActorPoolStrategy(min_size=1, max_size=self._num_encoders),
                num_cpus=1 - LITTLE if self._little else 0,  # with a whole one, decoding would join it
                num_gpus=self._gpus_per_encoder,
            )
            stored = encoded.map_batches(
                partial(_commit, store=work.store),
                batch_size=PARCELS_PER_COMMIT,
                num_cpus=self._little,
                concurrency=self._cpus,  # else a share of the processors would be kept for it
            )
            with errors_here():
                yield from (_unpacked(row) for row in stored.iter_rows())

    def _task(self, function: Callable[..., Any], **options: Any) -> Any:
        return ray.remote(**{"num_cpus": self._little, **options})(function)


@contextmanager
def ray_engine(
    preset: Preset,
    loading: Mapping[str, Any],
    *,
    workers: int,
    address: str | None,
    gpus_per_encoder: float | None,
) -> Iterator[RayEngine]:
    os.environ.setdefault(SPARE_MEMORY_USED, "0")  # else what waits, if it is small, waits in the job's own process
    with connected(address, workers or available_cpus()):
        yield RayEngine(preset, loading, workers=workers, gpus_per_encoder=gpus_per_encoder)


def _got(reference: Any) -> Any:
    with errors_here():
        return ray.get(reference)


def _context() -> DataContext:
    """How the dataset is run: a parcel is a block, however small, and nothing is printed."""
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of settings that are copied
        context = DataContext.get_current().copy()
    context.target_max_block_size = 1
    context.enable_progress_bars = context.print_on_execution_start = False
    context.issue_detectors_config.detectors = []
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return context


class _CatalogSource(Datasource):  # type: ignore[misc, unused-ignore]
    """A catalog as a dataset, read by one task."""

    def __init__(self, manifest: Catalog, block_items: int) -> None:
        super().__init__()
        self._manifest, self._block_items = manifest, block_items

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        metadata = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, input_files=None)
        return [ReadTask(partial(_read, self._manifest, self._block_items), metadata)]


# --- in the processes of the cluster ----------------------------------------------------------------------------------


def _packed(content: _Block | _Parcel) -> Row:
    return {"content": pickle.dumps(content, protocol=5)}


def _unpacked(row: Row) -> Any:
    return pickle.loads(row["content"])  # noqa: S301 - from a process of the same job


def _describe(preset: Preset, loading: Mapping[str, Any]) -> _Described:
    from mmrec.embedding.preset_encoders import load_preset_encoders

    loaded = load_preset_encoders(preset, **loading)
    return _Described(dict(loaded.fingerprints), loaded.records(), loaded.frames, loaded.sound)


def _read_keys(store: FeatureStore) -> StoredKeys:
    return store.keys()


def _num_leaving(keys: StoredKeys, manifest: Catalog) -> int:
    return keys.num_leaving(manifest.item_ids())


class _Caretaker:
    """An actor that counts the commits to a store, and does what passes over all of its rows."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store

    def note_commit(self, num_replaced: int) -> None:
        with suppress(StoreError):  # others write meanwhile; the store is larger without
            self._store.note_commit(num_replaced)

    def prune(self, manifest: Catalog) -> int:
        return self._store.prune(manifest.item_ids())

    def compact(self, keep_versions: timedelta) -> None:
        self._store.compact(keep_versions)


def _read(manifest: Catalog, block_items: int) -> Iterator[pa.Table]:
    reading = Reading(manifest)
    items = reading.items()
    while block := list(islice(items, block_items)):
        yield _table(_Block(block))
    if reading.error is not None:
        yield _table(_Block([], reading.error))


def _table(block: _Block) -> pa.Table:
    return pa.table({name: pa.array([value], pa.large_binary()) for name, value in _packed(block).items()})


@cache
def _workers(limits: DecodeLimits) -> DecodeWorkers[Task]:
    """They stay for the next block that this process gets, and end with it."""
    return DecodeWorkers(replace(limits, workers=1))


def _decode(row: Row, *, work: Work, described: _Described, keys: Any) -> Iterator[Row]:
    """Parcels of what is decoded of a block; the last one has the rows that change without, and what was counted."""
    block: _Block = _unpacked(row)
    report, rows = EmbedReport(), list[Features]()
    parcel: list[tuple[Task, DecodedMedia]] = []
    parcel_bytes = 0
    try:
        words = word_digests(work, block.items)
        tasks = unfinished(block.items, work, ray.get(keys), words, report, rows.append)
        for task, media in _workers(work.limits).decode(tasks, described.frames, described.sound):
            parcel.append((task, media))
            parcel_bytes += media.num_bytes
            if len(parcel) >= MAX_PARCEL_ITEMS or parcel_bytes >= MAX_PARCEL_BYTES:
                yield _packed(_Parcel(parcel))
                parcel, parcel_bytes = [], 0
    except MMRecError as error:
        yield _packed(_Parcel(error=error))
        return
    yield _packed(_Parcel(parcel, rows, report, error=block.error))


class _Encode:
    """An actor that holds the encoders, once there is anything to encode."""

    def __init__(self, work: Work, loading: Mapping[str, Any], fingerprints: Mapping[Modality, str]) -> None:
        self._work, self._loading, self._fingerprints = work, loading, fingerprints
        self._loaded: Any = None

    def __call__(self, row: Row) -> Row:
        parcel: _Parcel = _unpacked(row)
        if not parcel.decoded:
            return row
        try:
            return _packed(replace(parcel, decoded=[], rows=[*parcel.rows, *self._encoded(parcel)]))
        except MMRecError as error:
            return _packed(_Parcel(error=error))

    def _encoded(self, parcel: _Parcel) -> Iterator[Features]:
        from mmrec.embedding.encoding import encoded

        loaded, work = self._encoders(), self._work
        finished = encoded(iter(parcel.decoded), loaded, work.batch_size, parcel.report, Findings(work.store))
        yield from settled(finished, work, loaded, parcel.report)

    def _encoders(self) -> Any:
        from mmrec.embedding.preset_encoders import load_preset_encoders

        if self._loaded is None:
            self._loaded = load_preset_encoders(self._work.preset, **self._loading)
            if dict(self._loaded.fingerprints) != self._fingerprints:
                raise EncoderError(
                    f"the encoders of preset {self._work.preset.name!r} are others on {os.uname().nodename} than on "
                    "another machine of the cluster: install the same packages, and the same kind of device, on all"
                )
        return self._loaded


def _commit(batch: Mapping[str, Sequence[bytes]], *, store: FeatureStore) -> dict[str, list[bytes]]:
    parcels: list[_Parcel] = [_unpacked({"content": content}) for content in batch["content"]]
    start, report = time.perf_counter(), EmbedReport()
    for parcel in parcels:
        report.add(parcel.report)
    rows, num_replaced = [row for parcel in parcels for row in parcel.rows], 0
    errors = [parcel.error for parcel in parcels if parcel.error is not None]
    try:
        num_replaced = store.put(rows) if rows else 0
    except StoreError as error:
        errors.insert(0, error)
    report.stage_seconds["write"] += time.perf_counter() - start
    errors.sort(key=lambda error: isinstance(error, CatalogError))  # what ends the job at once comes first
    stored = _Parcel(report=report, num_replaced=num_replaced, error=next(iter(errors), None))
    return {name: [value] for name, value in _packed(stored).items()}
