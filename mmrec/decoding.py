"""Decoding in worker processes that may be killed: a time limit and a memory limit for each item, crashes survived."""

from __future__ import annotations

import multiprocessing
import os
import queue
import resource
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from mmrec.catalog import Item
from mmrec.errors import MMRecError, Problem, Reason
from mmrec.media import DecodedMedia, decode_media
from mmrec.sampling import FramePlan, SoundPlan

LOOKAHEAD_PER_WORKER = 4


def available_cpus() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits:
    """What decoding one item may take, and how many worker processes share the work."""

    workers: int = 0
    timeout_seconds: float = 120.0
    memory_bytes: int = 4 * 2**30

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise MMRecError(f"workers is {self.workers}: expected 1 or more, or 0 for one per processor")
        if not self.timeout_seconds > 0:
            raise MMRecError(f"the timeout is {self.timeout_seconds} seconds: expected more than 0")
        if self.memory_bytes < 2**29:
            raise MMRecError(f"the memory limit is {self.memory_bytes} bytes: a worker needs at least {2**29}")


class HasItem(Protocol):
    """Whatever is to be decoded names its item."""

    item: Item


Task = TypeVar("Task", bound=HasItem)


def decode_items(
    tasks: Iterable[Task], frames: FramePlan | None, sound: SoundPlan | None, limits: DecodeLimits
) -> Iterator[tuple[Task, DecodedMedia]]:
    """Decode the media of many items, each task yielded as soon as it is done; the order is not kept.

    An item that has no media, or may not have it opened, passes through with its problem. One that exceeds its limits,
    or kills its worker, is yielded with `timeout`, `out_of_memory` or `crashed`; the others are not disturbed.
    """
    workers = limits.workers or available_cpus()
    done: queue.SimpleQueue[tuple[Task, ProcessFuture[DecodedMedia]]] = queue.SimpleQueue()
    in_flight = 0
    pool = _pool(workers, limits)
    try:
        for task in tasks:
            item = task.item
            if item.media is None or item.problem is not None or (frames is None and sound is None):
                yield task, _not_opened(item)
                continue
            future = pool.schedule(_decode, (str(item.media), frames, sound), timeout=limits.timeout_seconds)
            future.add_done_callback(partial(_hand_over, done, task))
            in_flight += 1
            while in_flight >= LOOKAHEAD_PER_WORKER * workers or (in_flight and not done.empty()):
                in_flight -= 1
                yield _next_outcome(done, limits)
        for _ in range(in_flight):
            yield _next_outcome(done, limits)
    finally:
        pool.stop()  # type: ignore[no-untyped-call]
        pool.join()


def _hand_over(
    done: queue.SimpleQueue[tuple[Task, ProcessFuture[DecodedMedia]]], task: Task, future: ProcessFuture[DecodedMedia]
) -> None:
    done.put((task, future))


def _next_outcome(
    done: queue.SimpleQueue[tuple[Task, ProcessFuture[DecodedMedia]]], limits: DecodeLimits
) -> tuple[Task, DecodedMedia]:
    task, future = done.get()
    return task, _outcome(future, limits)


def _pool(workers: int, limits: DecodeLimits) -> ProcessPool:
    context = multiprocessing.get_context("spawn")
    return ProcessPool(workers, initializer=_start_worker, initargs=(os.getpid(), limits.memory_bytes), context=context)


def _start_worker(parent: int, memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=_exit_with_parent, args=(parent,), daemon=True).start()


def _exit_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _decode(path: str, frames: FramePlan | None, sound: SoundPlan | None) -> DecodedMedia:
    start = time.perf_counter()
    media = decode_media(path, frames, sound)
    media.decode_seconds = time.perf_counter() - start
    return media


def _not_opened(item: Item) -> DecodedMedia:
    problem = item.problem or Problem(Reason.NO_MEDIA, "the row names no media file")
    return DecodedMedia(visual_problem=problem, audio_problem=problem)


def _outcome(future: ProcessFuture[DecodedMedia], limits: DecodeLimits) -> DecodedMedia:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, BrokenProcessPool):
        raise MMRecError(
            "the decoding workers die at their start; in a script, call mmrec under `if __name__ == '__main__':`, "
            "because every worker imports the script"
        ) from error
    if isinstance(error, TimeoutError):
        problem = Problem(Reason.TIMEOUT, f"decoding took longer than {limits.timeout_seconds:g} s")
    elif isinstance(error, MemoryError):
        problem = Problem(Reason.OUT_OF_MEMORY, f"decoding needs more than {limits.memory_bytes / 2**30:.1f} GiB")
    elif isinstance(error, ProcessExpired):
        problem = Problem(Reason.CRASHED, f"the decoder died with exit code {error.exitcode}")
    else:
        problem = Problem(Reason.CRASHED, f"{type(error).__name__}: {error}")
    return DecodedMedia(visual_problem=problem, audio_problem=problem)
