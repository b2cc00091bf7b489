"""Threads that run the encoders beside decoding, and the memory from which a GPU takes their batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

MAX_CPU_THREADS = 4
CUDA_THREADS = 3

P = ParamSpec("P")
T = TypeVar("T")


class EncoderThreads:
    """A few threads that encode batches side by side; a context, at whose end batches that did not start are dropped.

    On the CPU they share out the threads that torch and the BLAS of NumPy have: batches side by side need no barrier in
    every layer, where one batch on all processors waits, spinning, for whichever of them decodes at the moment. On CUDA
    each has a stream of its own, so that one batch is copied, from pinned memory, while another is computed.

    >>> import numpy as np
    >>> import torch
    >>> from mmrec.embedding import EncoderThreads
    >>> with EncoderThreads(torch.device("cpu")) as threads:
    ...     batch_BD = threads.stacked([np.zeros(3, np.float32), np.ones(3, np.float32)])
    ...     threads.submit(batch_BD.mean).result()
    tensor(0.5000)
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._is_cuda = device, device.type == "cuda"
        self._torch_threads = torch.get_num_threads()
        self.count = CUDA_THREADS if self._is_cuda else min(MAX_CPU_THREADS, self._torch_threads)
        self._executor = ThreadPoolExecutor(
            self.count,
            thread_name_prefix="encoder",
            initializer=partial(_use_own_stream, device) if self._is_cuda else None,
        )

    def __enter__(self) -> EncoderThreads:
        if self._is_cuda:
            torch.cuda.synchronize(self._device)  # the weights came by another stream
        else:
            torch.set_num_threads(self._torch_threads // self.count)
        self._blas_limit = threadpool_limits(1, user_api="blas")
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(cancel_futures=True)
        self._blas_limit.restore_original_limits()
        torch.set_num_threads(self._torch_threads)

    def submit(self, work: Callable[P, T], /, *arguments: P.args, **options: P.kwargs) -> Future[T]:
        return self._executor.submit(work, *arguments, **options)

    def stacked(self, arrays: Sequence[NDArray[Any]]) -> torch.Tensor:
        """Arrays of one shape as one tensor on the CPU, in pinned memory where a GPU will read it."""
        dtype = torch.from_numpy(np.empty(0, arrays[0].dtype)).dtype
        batch = torch.empty((len(arrays), *arrays[0].shape), dtype=dtype, pin_memory=self._is_cuda)
        np.stack(arrays, out=batch.numpy())
        return batch


def _use_own_stream(device: torch.device) -> None:
    torch.cuda.set_stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call, unused-ignore]
