"""What a network does on a CUDA device with shapes that come again: recorded as a CUDA graph, and replayed.

A network is hundreds of kernels, and Python takes as long to launch them one by one as a large GPU takes to run them.
A graph launches them all at once, and leaves the interpreter to other threads.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable

import torch

logger = logging.getLogger(__name__)

Function = Callable[[torch.Tensor], torch.Tensor]

RUNS_BEFORE_RECORDING = 2  # in which the libraries choose their kernels and take their workspaces
MAX_GRAPHS = 8

_one_at_a_time = threading.Lock()  # CUDA allows a process one recording


class Recorded:
    """A function from a tensor to a tensor, which is recorded for each shape that comes a third time.

    That holds in inference mode on CUDA; elsewhere the function is called as it is. It must depend on its tensor and on
    weights alone, which stay where they are, and must never wait for the device. Where it cannot be recorded, a warning
    says so once for each shape, and it is called.
    """

    def __init__(self, function: Function) -> None:
        self._function = function
        self._runs: Counter[torch.Size] = Counter()
        self._graphs: dict[torch.Size, Function | None] = {}
        self._recorder: _Recorder | None = None
        self._lock = threading.Lock()

    def __call__(self, input: torch.Tensor) -> torch.Tensor:
        if not _is_recordable(input):
            return self._function(input)
        with self._lock:
            graph = self._graph(input)
            if graph is not None:
                return graph(input)
        return self._function(input)

    def _graph(self, input: torch.Tensor) -> Function | None:
        shape = input.shape
        if shape not in self._graphs and len(self._graphs) < MAX_GRAPHS:
            self._runs[shape] += 1
            if self._runs[shape] > RUNS_BEFORE_RECORDING:
                self._graphs[shape] = self._recorded(input)
        return self._graphs.get(shape)

    def _recorded(self, input: torch.Tensor) -> Function | None:
        try:
            self._recorder = self._recorder or _Recorder(input.device)
            return self._recorder.record(self._function, input)
        except RuntimeError as error:
            logger.warning("no CUDA graph for inputs of %s, which stay slower: %s", tuple(input.shape), error)
            return None


def _is_recordable(input: torch.Tensor) -> bool:
    return input.device.type == "cuda" and torch.is_inference_mode_enabled()


class _Recorder:
    """Records graphs that share their memory, and lets the streams of all threads take turns with them.

    Only replays wait for each other: each stream copies its inputs and results while another computes.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        with torch.cuda.device(device):
            self._memory = torch.cuda.graph_pool_handle()
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call, unused-ignore]
            self._turn = torch.cuda.Event()  # type: ignore[no-untyped-call, unused-ignore]

    def record(self, function: Function, input: torch.Tensor) -> Function:
        graph = torch.cuda.CUDAGraph()
        own_input = input.clone()
        recording = torch.cuda.graph(graph, self._memory, self._stream, capture_error_mode="thread_local")
        with (
            _one_at_a_time,
            torch.cuda.device(self._device),
            torch.cuda.stream(torch.cuda.current_stream()),  # restores it also where a recording fails
            recording,
        ):
            own_output = function(own_input)

        def replay(input: torch.Tensor) -> torch.Tensor:
            with torch.cuda.device(self._device):
                self._turn.wait()
                own_input.copy_(input)
                graph.replay()
                output = own_output.clone()
                self._turn.record()
            return output

        return replay
