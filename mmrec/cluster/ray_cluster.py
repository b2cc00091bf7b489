"""A cluster of Ray: connecting to one, and running a function on its machines, part by part, in order."""

from __future__ import annotations

import logging
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from logging.handlers import QueueHandler
from queue import SimpleQueue
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError, UserCodeException

from mmrec.errors import MMRecError

PROCESSES_KEPT = 4  # for each processor of a cluster on this machine
PARTS_AHEAD = 2  # of the processors of the cluster: so many parts are under way or wait to be taken

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def connected(address: str | None = None, workers: int = 0) -> Iterator[None]:
    """A cluster to run on: the one that this process is connected to, that at an address, or one on this machine, with
    so many workers, by default one for each processor that Ray finds.

    Raises `MMRecError` where none answers at the address.
    """
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    here = {"num_cpus": workers or None, "include_dashboard": False} if address == "local" else {}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if here:  # Ray ends the processes that wait, beyond so many; they take seconds to start
        os.environ.setdefault("RAY_num_workers_soft_limit", str(PROCESSES_KEPT * (workers or os.cpu_count() or 1)))
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **here)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise MMRecError(f"no cluster of Ray answers at {address!r}: {error}") from error
    try:
        with suppress(ValueError):  # only the main thread may, and only there did Ray
            signal.signal(signal.SIGTERM, before)
        yield
    finally:
        ray.shutdown()


@contextmanager
def errors_here() -> Iterator[None]:
    """What a process of the cluster raised is raised here; what the cluster itself lacks is an `MMRecError`."""
    try:
        yield
    except (RayError, UserCodeException) as error:
        cause: BaseException | None = error
        while cause is not None and (isinstance(cause, RayTaskError) or not isinstance(cause, MMRecError)):
            cause = getattr(cause, "cause", None) or cause.__cause__
        if cause is not None:
            raise cause from None
        if isinstance(error, RayTaskError):
            raise
        raise MMRecError(f"the cluster of Ray failed: {error}") from error


def on_this_machine() -> dict[str, Any]:
    """Options of a task that runs on the machine of this process, also where that is to run nothing (`num-cpus: 0`)."""
    return {"num_cpus": 0, "label_selector": {"ray.io/node-id": ray.get_runtime_context().get_node_id()}}


def run_in_order(function: Callable[[T], R], parts: Iterable[T], address: str | None = None) -> Iterator[R]:
    """What a function returns for each part, in their order, as `map` does, by processes of a cluster.

    The function, with all that it holds, is sent to each machine once; a part whose process dies is run again. What it
    logs is logged here. Parts are taken as they are needed, some for each processor ahead.

    Raises `MMRecError` where no cluster answers, and what the function raises.
    """
    with connected(address), errors_here():
        held, task = ray.put(function), ray.remote(num_cpus=1)(_run)
        ahead = PARTS_AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        running: deque[Any] = deque()
        for part in parts:
            running.append(task.remote([held], part))
            if len(running) >= ahead:
                yield _result(running.popleft())
        while running:
            yield _result(running.popleft())


def _result(reference: Any) -> Any:
    result, records = ray.get(reference)
    for record in records:
        logging.getLogger(record.name).handle(record)
    return result


def _run(held: list[Any], part: Any) -> tuple[Any, list[logging.LogRecord]]:
    """In a process of the cluster: what a function returns, and what of it was logged as a warning or worse."""
    records: SimpleQueue[logging.LogRecord] = SimpleQueue()
    handler = QueueHandler(records)
    handler.setLevel(logging.WARNING)
    handler.addFilter(logging.Filter("mmrec"))
    logging.getLogger().addHandler(handler)
    try:
        return _held(held[0])(part), [records.get() for _ in range(records.qsize())]
    finally:
        logging.getLogger().removeHandler(handler)


@lru_cache(maxsize=1)
def _held(reference: Any) -> Callable[[Any], Any]:
    """It stays for the next part that this process gets, with what it prepared for the first."""
    function: Callable[[Any], Any] = ray.get(reference)
    return function
