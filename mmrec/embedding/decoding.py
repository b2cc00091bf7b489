"""Decoding in worker processes that may be killed: a time limit and a memory limit for each item, crashes survived."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import pickle
import queue
import resource
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import spawn
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from mmrec.catalog import Item
from mmrec.errors import MMRecError, Problem, Reason
from mmrec.media import DecodedMedia, FramePlan, SoundPlan, decode_media
from mmrec.remote import Access, Place
from mmrec.store import Modality

BYTES_IN_FLIGHT = 256 * 2**20  # decoded, but not taken yet
LOOKAHEAD_PER_WORKER, MAX_LOOKAHEAD_PER_WORKER = 4, 32  # items: before any size is known, and ever
REVIVALS_IN_A_ROW = 3


def available_cpus() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits:
    """What decoding one item may take and reach, and how many worker processes share the work.

    >>> from mmrec.embedding import DecodeLimits
    >>> DecodeLimits(workers=4, timeout_seconds=30).num_workers
    4
    """

    workers: int = 0
    timeout_seconds: float = 120.0
    memory_bytes: int = 4 * 2**30
    access: Access = field(default_factory=Access)

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise MMRecError(f"workers is {self.workers}: expected 1 or more, or 0 for one per processor")
        if not self.timeout_seconds > 0:
            raise MMRecError(f"the timeout is {self.timeout_seconds} seconds: expected more than 0")
        if self.memory_bytes < 2**29:
            raise MMRecError(f"the memory limit is {self.memory_bytes} bytes: a worker needs at least {2**29}")

    @property
    def num_workers(self) -> int:
        return self.workers or available_cpus()


def check_workers_may_start() -> None:
    """Raises `MMRecError` in a process that may have no processes of its own."""
    if multiprocessing.current_process().daemon:
        raise MMRecError(
            "files are decoded in processes of their own, which a daemonic process may not start: in place of "
            "multiprocessing.Pool use concurrent.futures.ProcessPoolExecutor, in Celery the pool 'threads' or 'solo'"
        )


class HasItem(Protocol):
    """Whatever is to be decoded names its item, and the modalities that are wanted of it."""

    @property
    def item(self) -> Item: ...

    @property
    def todo(self) -> frozenset[Modality]: ...


Task = TypeVar("Task", bound=HasItem)


def decode_items(
    tasks: Iterable[Task], frames: FramePlan | None, sound: SoundPlan | None, limits: DecodeLimits
) -> Generator[tuple[Task, DecodedMedia], None, None]:
    """Decode the media of many items, each task yielded as soon as it is done; the order is not kept.

    An item that has no media, or may not have it opened, passes through with its problem. Where decoding kills its
    worker or must be killed, pictures and sound are tried once more, each alone and in half the time, so that what is
    well survives; what is not has the reason `timeout`, `out_of_memory` or `crashed`. Other items are not disturbed.

    >>> import mmrec
    >>> from mmrec.embedding import DecodeLimits, Task, decode_items
    >>> from mmrec.media import FramePlan, FrameSampling
    >>> tasks = [Task(item, item.title) for item in mmrec.read_catalog("media").items()]
    >>> frames = FramePlan(sampling=FrameSampling(count=4), height=32, width=32)
    >>> for task, media in decode_items(tasks, frames, None, DecodeLimits(workers=1)):
    ...     print(task.item.item_id, len(media.frame_spans), media.visual_problem)
    football-0.mp4 4 None
    rain-0.wav 0 Problem(reason=<Reason.NO_STREAM: 'no_stream'>, ...)
    """
    workers: DecodeWorkers[Task] = DecodeWorkers(limits)
    try:
        yield from workers.decode(tasks, frames, sound)
    finally:
        workers.close()


def _not_opened(item: Item) -> DecodedMedia:
    problem = item.problem or Problem(Reason.NO_MEDIA, "the row names no media file")
    return DecodedMedia(visual_problem=problem, audio_problem=problem)


@dataclass(frozen=True, slots=True)
class _Request(Generic[Task]):
    """What is to be decoded of one item. `sound_later` waits until the pictures were tried alone: `pictures`."""

    task: Task
    frames: FramePlan | None
    sound: SoundPlan | None
    sound_later: SoundPlan | None = None
    pictures: DecodedMedia | None = None


class DecodeWorkers(Generic[Task]):
    """The worker processes of `decode_items`, which stay for the next items until they are closed.

    They, and the requests in them, are made anew when the pool breaks.
    """

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits
        self._count = limits.num_workers
        self._done: queue.SimpleQueue[tuple[_Request[Task], ProcessPool, ProcessFuture[DecodedMedia]]] = (
            queue.SimpleQueue()
        )
        self._in_flight = 0
        self._capacity = LOOKAHEAD_PER_WORKER * self._count
        self._usual_bytes = 0.0
        self._revivals = 0
        self._pool: ProcessPool | None = None

    def decode(
        self, tasks: Iterable[Task], frames: FramePlan | None, sound: SoundPlan | None
    ) -> Iterator[tuple[Task, DecodedMedia]]:
        for task in tasks:
            item = task.item
            pictures, waveform = frames if "visual" in task.todo else None, sound if "audio" in task.todo else None
            if item.media is None or item.problem is not None or (pictures is None and waveform is None):
                yield task, _not_opened(item)
                continue
            self._submit(_Request(task, pictures, waveform))
            while self._is_full or self._has_outcome:
                yield from self._settle_one()
        while self._is_busy:
            yield from self._settle_one()

    def _running_pool(self) -> ProcessPool:
        if self._pool is None:
            self._pool = start_pool(self._limits)
        return self._pool

    @property
    def _is_busy(self) -> bool:
        return self._in_flight > 0

    @property
    def _is_full(self) -> bool:
        return self._in_flight >= self._capacity

    @property
    def _has_outcome(self) -> bool:
        return self._is_busy and not self._done.empty()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.stop()  # type: ignore[no-untyped-call]
            self._pool.join()
            self._pool = None

    def _submit(self, request: _Request[Task]) -> None:
        seconds = self._limits.timeout_seconds
        if request.sound_later is not None or request.pictures is not None:
            seconds /= 2
        try:
            pool = self._running_pool()
            future = schedule(
                pool, request.task.item.media, request.frames, request.sound, seconds, self._limits.access
            )
        except RuntimeError as error:  # the pool broke while no request was in it
            self._revive(self._pool, error)
            self._submit(request)
            return
        future.add_done_callback(partial(_hand_over, self._done, request, pool))
        self._in_flight += 1

    def _settle_one(self) -> Iterator[tuple[Task, DecodedMedia]]:
        """Wait for one outcome; yields the item unless more of it is to be tried."""
        request, pool, future = self._done.get()
        self._in_flight -= 1
        error = future.exception()
        if isinstance(error, BrokenProcessPool):
            self._revive(pool, error)
            self._submit(request)
            return
        self._revivals = 0
        if error is None:
            media = future.result()
            self._learn_size(media)
        else:
            problem = problem_of(error, self._limits)
            if request.frames is not None and request.sound is not None:
                self._submit(_Request(request.task, request.frames, None, sound_later=request.sound))
                return
            media = DecodedMedia(visual_problem=problem, audio_problem=problem)
        if request.sound_later is not None:
            self._submit(_Request(request.task, None, request.sound_later, pictures=media))
            return
        yield request.task, media if request.pictures is None else _joined(request.pictures, media)

    def _learn_size(self, media: DecodedMedia) -> None:
        """Let as many items be in flight as fit into `BYTES_IN_FLIGHT`, by the largest of the latest ones."""
        self._usual_bytes = max(media.num_bytes, 0.9 * self._usual_bytes)
        fitting = int(BYTES_IN_FLIGHT / max(1.0, self._usual_bytes))
        self._capacity = min(max(fitting, self._count + 1), MAX_LOOKAHEAD_PER_WORKER * self._count)

    def _revive(self, broken: ProcessPool | None, error: RuntimeError) -> None:
        if broken is not self._pool:
            return
        self._revivals += 1
        if self._revivals > REVIVALS_IN_A_ROW:
            raise MMRecError(
                f"the decoding workers died {self._revivals} times in a row, before they decoded anything: standard "
                "error may say why"
            ) from error
        self.close()


def _hand_over(
    done: queue.SimpleQueue[tuple[_Request[Task], ProcessPool, ProcessFuture[DecodedMedia]]],
    request: _Request[Task],
    pool: ProcessPool,
    future: ProcessFuture[DecodedMedia],
) -> None:
    done.put((request, pool, future))


def problem_of(error: BaseException, limits: DecodeLimits) -> Problem:
    if isinstance(error, TimeoutError):
        return Problem(Reason.TIMEOUT, f"decoding took longer than {limits.timeout_seconds:g} s")
    if isinstance(error, MemoryError):
        return Problem(Reason.OUT_OF_MEMORY, f"decoding needs more than {limits.memory_bytes / 2**30:.1f} GiB")
    if isinstance(error, ProcessExpired):
        return Problem(Reason.CRASHED, f"the decoder died with exit code {error.exitcode}")
    return Problem(Reason.CRASHED, f"{type(error).__name__}: {error}")


def _joined(pictures: DecodedMedia, sound: DecodedMedia) -> DecodedMedia:
    return dataclasses.replace(
        pictures,
        windows=sound.windows,
        window_spans=sound.window_spans,
        audio_problem=sound.audio_problem,
        duration_seconds=max(pictures.duration_seconds, sound.duration_seconds),
        facts=sound.facts | pictures.facts,
        decode_seconds=pictures.decode_seconds + sound.decode_seconds,
    )


def start_pool(limits: DecodeLimits) -> ProcessPool:
    """Started in a thread, so that a Ctrl-C cannot cut the start in two: half a pool cannot be stopped."""
    check_workers_may_start()
    pool = ProcessPool(
        limits.num_workers,
        initializer=_start_worker,
        initargs=(os.getpid(), limits.memory_bytes),
        context=_WorkerContext(),
    )
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: pool.active).result()
    return pool


def schedule(
    pool: ProcessPool,
    media: Place | None,
    frames: FramePlan | None,
    sound: SoundPlan | None,
    seconds: float,
    access: Access,
) -> ProcessFuture[DecodedMedia]:
    """Let a worker decode a file; it is killed after so many seconds."""
    return pool.schedule(_decode, (str(media), frames, sound, seconds, access), timeout=seconds)


class _WorkerProcess(SpawnProcess):
    """A worker that is silent about its job's end, even where that comes while the worker starts."""

    def start(self) -> None:
        """Start in a thread, so that a Ctrl-C cannot cut the start in two, and without SIGINT: the job decides."""
        without_interrupts = partial(signal.pthread_sigmask, signal.SIG_BLOCK, {signal.SIGINT})
        with ThreadPoolExecutor(1, initializer=without_interrupts) as thread:
            thread.submit(_start_without_script, super().start).result()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled within a pickle, so that the worker is asked what to do where its state cannot be had any more."""
        return _unpickle_worker, (type(self), bytes(ForkingPickler.dumps(self.__dict__)))


class _WorkerContext(SpawnContext):
    Process = _WorkerProcess


_starting = threading.Lock()


def _start_without_script(start: Callable[[], None]) -> None:
    """Start a process that does not import the job's script, as workers need nothing of it.

    So the script may have no guard, come from standard input, and import what it likes.
    """
    with _starting:
        prepare, thread = spawn.get_preparation_data, threading.get_ident()

        def prepare_worker(name: str) -> dict[str, Any]:
            data = prepare(name)
            if threading.get_ident() == thread:  # other threads may be starting processes of their own
                data = {key: value for key, value in data.items() if not key.startswith("init_main_")}
            return data

        spawn.get_preparation_data = prepare_worker
        try:
            start()
        finally:
            spawn.get_preparation_data = prepare


# --- in the worker ----------------------------------------------------------------------------------------------------


def _unpickle_worker(kind: type[_WorkerProcess], state: bytes) -> _WorkerProcess:
    worker = kind.__new__(kind)
    try:
        worker.__dict__.update(pickle.loads(state))  # noqa: S301 - from the job's own pipe
    except FileNotFoundError:  # the pool was closed meanwhile: its semaphores are gone
        os._exit(0)
    return worker


def _start_worker(parent: int, memory_bytes: int) -> None:
    _limit(resource.RLIMIT_AS, _address_space() + memory_bytes)
    _limit(resource.RLIMIT_CORE, 0)
    os.environ["TOKIO_WORKER_THREADS"] = "2"  # of the object store's client, each with an address space of its own
    threading.Thread(target=_exit_with_parent, args=(parent,), daemon=True).start()


def _address_space() -> int:
    """What this process has mapped before any decoding: libraries reserve much of what they never use."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _limit(kind: int, value: int) -> None:
    """Lower a limit of this process as far as it goes; some systems have no such limit."""
    _, hard = resource.getrlimit(kind)
    lowered = value if hard == resource.RLIM_INFINITY else min(value, hard)
    with suppress(ValueError, OSError):
        resource.setrlimit(kind, (lowered, lowered))


def _exit_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _decode(
    path: str, frames: FramePlan | None, sound: SoundPlan | None, seconds: float, access: Access
) -> DecodedMedia:
    start = time.perf_counter()
    media = decode_media(path, frames, sound, seconds=seconds, access=access)
    media.decode_seconds = time.perf_counter() - start
    return media
