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

RUNS_BEFORE_RECORDING = 2
MAX_SHAPES = 8

_recording = threading.Lock()  # CUDA allows a process one at a time
_failed = threading.Event()


class CudaGraphs:
    """The graphs of one function from a tensor to a tensor: of each shape that comes a third time, eight at most.

    The function must depend on its tensor and on weights alone, which stay where they are, and must never wait for the
    device. Where it cannot be recorded, a warning says so, and nothing more is recorded in this process: a recording
    that fails may leave torch in a state in which others fail, too.
    """

    def __init__(self) -> None:
        self._runs: Counter[torch.Size] = Counter()
        self._replays: dict[torch.Size, Function] = {}
        self._recorder: _Recorder | None = None
        self._is_stopped = False
        self._lock = threading.Lock()

    def run(self, function: Function, input: torch.Tensor) -> torch.Tensor:
        """What the function gives; replayed where its shape is recorded, in inference mode on CUDA."""
        if self._is_stopped or not _is_recordable(input):
            return function(input)
        with self._lock:
            if self._is_due(input.shape):
                self._try_to_record(function, input)
            if (replay := self._replays.get(input.shape)) is not None:
                return replay(input)
        return function(input)

    def stop(self) -> None:
        """Call the function from now on: its weights are about to change."""
        with self._lock:
            self._is_stopped = True
            self._replays.clear()

    def _is_due(self, shape: torch.Size) -> bool:
        if shape in self._replays or len(self._replays) == MAX_SHAPES or _failed.is_set():
            return False
        self._runs[shape] += 1
        return self._runs[shape] > RUNS_BEFORE_RECORDING

    def _try_to_record(self, function: Function, input: torch.Tensor) -> None:
        try:
            self._recorder = self._recorder or _Recorder(input.device)
            self._replays[input.shape] = self._recorder.record(function, input)
        except RuntimeError as error:
            _failed.set()
            reason = str(error.__context__ or error).partition("\n")[0]  # the first error is masked by that of the end
            logger.warning("encoding on CUDA goes on without CUDA graphs, which is slower: %s", reason)


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
            # streams come from a small pool for each priority: nobody else takes one of this
            self._stream = torch.cuda.Stream(priority=-1)  # type: ignore[no-untyped-call, unused-ignore]
            self._turn = torch.cuda.Event()  # type: ignore[no-untyped-call, unused-ignore]

    def record(self, function: Function, input: torch.Tensor) -> Function:
        """Record what the function does with inputs of this shape; gives what does it again."""
        graph = torch.cuda.CUDAGraph()
        recording = torch.cuda.graph(graph, self._memory, self._stream, capture_error_mode="thread_local")
        with (
            _recording,
            torch.cuda.device(self._device),
            torch.cuda.stream(torch.cuda.current_stream()),  # restores it also where a recording fails
        ):
            own_input = input.clone()
            self._warm_up(function, own_input)
            with recording:
                own_output = function(own_input)

        def replay(input: torch.Tensor) -> torch.Tensor:
            with torch.cuda.device(self._device):
                self._turn.wait()
                try:
                    own_input.copy_(input)
                    graph.replay()
                    return own_output.clone()
                finally:
                    self._turn.record()

        return replay

    def _warm_up(self, function: Function, input: torch.Tensor) -> None:
        """Let this thread's CUDA libraries choose their kernels and take their memory, which no graph can hold."""
        self._stream.wait_stream(torch.cuda.current_stream())
        self._turn.wait(self._stream)
        with torch.cuda.stream(self._stream):
            function(input)
