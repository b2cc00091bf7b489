"""One fit shared by several processes of this machine, each with a device of its own.

The process that was asked for the fit is the first; it starts the others, which end with it. Each learns from its share
of every batch, and gradients are averaged over all (Lightning's DDP).
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy, Strategy

from fusion.config import TrainingError
from fusion.sharing import Share

SECONDS_TO_END = 10.0  # of another process, once this one is done or what they share broke

_Other = tuple[BaseProcess, Connection]


def strategy_of(share: Share) -> Strategy | str:
    """Lightning's strategy for a process that is there already."""
    if share.count == 1:
        return "auto"
    # A share may lack a modality; and what is remembered of items is each process's own.
    return DDPStrategy(cluster_environment=_Here(share), find_unused_parameters=True, broadcast_buffers=False)


class OwnSignals(Callback):
    """Puts back who is told of SIGTERM: in Lightning's place one that tells all processes of it in the midst of a step,
    when they wait to be told something else.
    """

    def __init__(self) -> None:
        self._handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._handler)


class _Here(ClusterEnvironment):
    """Tells Lightning which of the processes this is; they have found each other before."""

    def __init__(self, share: Share) -> None:
        super().__init__()
        self._share = share

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return "localhost"

    @property
    def main_port(self) -> int:
        return 0

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self._share.count

    def set_world_size(self, size: int) -> None:
        assert size == self._share.count

    def global_rank(self) -> int:
        return self._share.rank

    def set_global_rank(self, rank: int) -> None:
        assert rank == self._share.rank

    def local_rank(self) -> int:
        return self._share.rank

    def node_rank(self) -> int:
        return 0


@contextmanager
def shared(count: int, device: str, take_part: Callable[[Share], Any]) -> Iterator[Share]:
    """Let `take_part` run with all shares but the first, in processes of their own; yields the first, for this one.

    Raises `TrainingError` where one of them ends before this one; all end with it, however it ends.
    """
    context, others = multiprocessing.get_context("spawn"), list[_Other]()
    threads = torch.get_num_threads()
    own_threads = threads if _on_cuda(device) else max(1, threads // count)
    with tempfile.TemporaryDirectory(prefix="mmrec-fit-") as folder:
        meeting, work = os.path.join(folder, "meeting"), pickle.dumps(take_part)
        try:
            for rank in range(1, count):
                ours, theirs = context.Pipe()
                arguments = (work, Share(rank, count), meeting, device, own_threads, theirs)
                process = context.Process(target=_take_part, args=arguments, daemon=True)
                process.start()
                theirs.close()
                others.append((process, ours))
            for other, ours in others:
                if said := _heard(other, ours):
                    raise TrainingError(f"a process of the fit could not begin: {said}")
            torch.set_num_threads(own_threads)
            _meet(Share(0, count), meeting, device)
            try:
                yield Share(0, count)
            except RuntimeError as error:  # what they share breaks where one of them ends
                raise _first_error(others) or error from None
            for other, _ in others:
                other.join(SECONDS_TO_END)
        finally:
            torch.set_num_threads(threads)
            for other, _ in others:
                other.kill()
                other.join()
            if dist.is_initialized():
                dist.destroy_process_group()


def _on_cuda(device: str) -> bool:
    return device in ("cuda", "gpu", "auto") and torch.cuda.is_available()


def _meet(share: Share, meeting: str, device: str) -> None:
    backend = "nccl" if _on_cuda(device) else "gloo"
    dist.init_process_group(backend, init_method=f"file://{meeting}", rank=share.rank, world_size=share.count)


def _heard(process: BaseProcess, ours: Connection) -> str:
    """The next that a process says: nothing where it begins, else what ended it."""
    try:
        return str(ours.recv())
    except EOFError:
        process.join()
        return f"it ended with status {process.exitcode}"


def _first_error(others: Sequence[_Other]) -> TrainingError | None:
    """What another process failed by; None where none did."""
    ended = wait([process.sentinel for process, _ in others], SECONDS_TO_END)
    for process, ours in others:
        if process.sentinel in ended:
            return TrainingError(f"a process of the fit failed: {_heard(process, ours)}")
    return None


def _take_part(work: bytes, share: Share, meeting: str, device: str, threads: int, theirs: Connection) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # to all at once, as of a terminal: the first decides
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(threads)
    try:
        take_part = pickle.loads(work)  # noqa: S301 - from the process that started this one
        theirs.send("")
        _meet(share, meeting, device)
        take_part(share)
    except Exception as error:  # noqa: BLE001 - told to the first, which raises it
        with suppress(OSError):
            theirs.send(f"{type(error).__name__}: {error}")
