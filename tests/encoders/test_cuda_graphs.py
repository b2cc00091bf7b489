"""Recording and replaying on CUDA: when it happens and what it gives; without a GPU, with a stand-in for one."""

import gc
import logging
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from packaging.version import Version
from tiny_checkpoints import write_open_clip, write_wav2vec2
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from encoders import cuda_graphs
from encoders.base import load_encoder
from encoders.cuda_graphs import MAX_SHAPES, CudaGraphs
from encoders.visual import _class_token

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
FAMILIES = ["wav2vec2", "hubert", "wavlm", "data2vec-audio"]


class StandIn:
    """Records on the CPU: like a graph it always computes on the same memory, and returns when told what is there."""

    def __init__(self):
        self.shapes, self.replays = [], 0

    def record(self, function, input):
        if not input.numel():
            raise RuntimeError("operation not permitted when stream is capturing\nCompile with TORCH_USE_CUDA_DSA")
        self.shapes.append(tuple(input.shape))
        own_input = input.clone()

        def replay(input):
            own_input.copy_(input)
            time.sleep(0.001)
            self.replays += 1
            return function(own_input)

        return replay


@pytest.fixture(autouse=True)
def nothing_failed(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "_failed", threading.Event())


@pytest.fixture
def stand_in(monkeypatch):
    recorder = StandIn()
    monkeypatch.setattr(cuda_graphs, "_Recorder", lambda device: recorder)
    monkeypatch.setattr(cuda_graphs, "_is_recordable", lambda input: True)
    return recorder


def doubled(input):
    return input * 2


def test_a_shape_is_recorded_when_it_comes_the_third_time(stand_in):
    graphs = CudaGraphs()
    for number, size in enumerate([4, 7, 4, 4, 4, 7]):
        torch.testing.assert_close(graphs.run(doubled, torch.full((size,), number)), torch.full((size,), 2 * number))
    assert (stand_in.shapes, stand_in.replays) == ([(4,)], 2)


def test_only_so_many_shapes_are_recorded(stand_in):
    graphs = CudaGraphs()
    for size in range(1, 2 * MAX_SHAPES):
        for _ in range(4):
            assert len(graphs.run(doubled, torch.ones(size))) == size
    assert len(stand_in.shapes) == MAX_SHAPES


def test_after_a_failure_all_is_computed_and_that_is_said_once(stand_in, caplog):
    with caplog.at_level(logging.WARNING):
        for graphs in (CudaGraphs(), CudaGraphs()):
            for size in (0, 3):
                for _ in range(6):
                    assert graphs.run(doubled, torch.ones(size)).shape == (size,)
    assert [record.getMessage() for record in caplog.records] == [
        "encoding on CUDA goes on without CUDA graphs, which is slower: "
        "operation not permitted when stream is capturing"
    ]
    assert stand_in.shapes == []


def test_threads_do_not_see_each_others_inputs(stand_in):
    graphs = CudaGraphs()
    inputs = [torch.full((8,), number) for number in range(60)]
    with ThreadPoolExecutor(4) as threads:
        for input, output in zip(inputs, threads.map(partial(graphs.run, doubled), inputs), strict=True):
            torch.testing.assert_close(output, 2 * input)
    assert stand_in.replays == 58


def test_nothing_is_recorded_off_cuda(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "_Recorder", None)
    graphs = CudaGraphs()
    with torch.inference_mode():
        for _ in range(5):
            graphs.run(doubled, torch.ones(3))


def load(kind, folder, **options):
    """A tiny encoder and a few batches for it."""
    random = np.random.default_rng(0)
    if kind == "open-clip":
        encoder = load_encoder(kind, checkpoint=str(write_open_clip(folder)), **options)
        shape = (5, 1, *encoder.frame_size, 3)
        return encoder, [random.integers(0, 256, shape, dtype=np.uint8) for _ in range(12)]
    encoder = load_encoder(kind, checkpoint=str(write_wav2vec2(folder)), **options)
    return encoder, [random.normal(size=(5, 16_000)).astype(np.float32) for _ in range(12)]


@pytest.mark.parametrize("kind", ["open-clip", "wav2vec2"])
def test_a_network_that_may_be_trained_is_not_replayed(stand_in, tmp_path, kind):
    encoder, batches = load(kind, tmp_path, device="cpu")
    for batch in batches[:4]:
        encoder.encode(batch)
    replays = stand_in.replays
    assert replays
    assert encoder.network is not None
    for batch in batches[4:]:
        encoder.encode(batch)
    assert stand_in.replays == replays


@pytest.mark.parametrize("kind", ["open-clip", "wav2vec2"])
def test_an_encoder_that_nobody_needs_is_freed_at_once(tmp_path, kind):
    encoder, batches = load(kind, tmp_path, device="cpu")
    encoder.encode(batches[0])
    there = weakref.ref(encoder)
    gc.collect()
    gc.disable()
    try:
        del encoder
        assert there() is None
    finally:
        gc.enable()


class HostAccess(TorchDispatchMode):
    """Notes operations between the host and a device, which a CUDA graph cannot hold.

    Those that ask for a value, such as `item`, raise where tensors have none.
    """

    def __init__(self):
        super().__init__()
        self.operations, self.met = 0, []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        tensors = [value for value in tree_flatten((args, kwargs, result))[0] if isinstance(value, torch.Tensor)]
        on_host = [tensor for tensor in tensors if tensor.device.type == "cpu"]
        self.operations += len(on_host) < len(tensors)
        if 0 < len(on_host) < len(tensors):
            self.met.append(str(operation))
        return result


def host_access(function, input, *holders):
    """What a function does on the host that gets its input, and what `holders` hold, on a CUDA device.

    The device need not be there: its tensors have shapes and no values.
    """
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        for tensors in holders:
            for name, tensor in tensors.items():
                if isinstance(tensor, torch.Tensor):
                    tensors[name] = fake.from_tensor(tensor.detach()).to("cuda")
        input = fake.from_tensor(input).to("cuda")
        with torch.no_grad(), HostAccess() as noted:
            assert function(input).device.type == "cuda"
    assert noted.operations > 10
    return noted.met


def weights(network):
    return [tensors for module in network.modules() for tensors in (module._parameters, module._buffers)]


def test_frames_are_embedded_without_the_host(tmp_path):
    encoder, _ = load("open-clip", tmp_path, device="cpu", precision="bfloat16")
    frames_NHWC = torch.zeros(3, *encoder.frame_size, 3, dtype=torch.uint8)
    network = encoder.network
    last = network.visual.transformer.resblocks[-1]
    last.forward = partial(_class_token, last)  # all that is done on CUDA of what is done on the CPU
    assert host_access(encoder._frame_vectors, frames_NHWC, vars(encoder), *weights(network)) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_windows_are_embedded_without_the_host(tmp_path, family):
    checkpoint = write_wav2vec2(tmp_path, family)
    encoder = load_encoder("wav2vec2", checkpoint=str(checkpoint), layers="mean", device="cpu", precision="bfloat16")
    assert host_access(encoder._window_vectors, torch.zeros(2, 16_000), *weights(encoder.network)) == []


@pytest.mark.parametrize(
    "visit",
    [
        lambda input: input + torch.arange(4).to("cuda"),
        lambda input: input * torch.tensor(0.5).to("cuda"),
        lambda input: input + input.sum().cpu().to("cuda"),
    ],
)
def test_the_host_is_noticed(visit):
    network = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(6)))
    assert host_access(lambda input: visit(network(input)), torch.zeros(2, 4), *weights(network))


@needs_gpu
@pytest.mark.parametrize("kind", ["open-clip", "wav2vec2"])
def test_graphs_give_what_the_network_gives(tmp_path, caplog, kind):
    encoder, batches = load(kind, tmp_path, device="cuda")
    with ThreadPoolExecutor(3, initializer=lambda: torch.cuda.set_stream(torch.cuda.Stream())) as threads:
        results = list(threads.map(lambda batch: encoder.encode(batch).cpu(), batches))
    assert encoder._graphs._replays
    assert not caplog.records
    encoder._graphs.stop()
    expected = [encoder.encode(batch).cpu() for batch in batches]
    torch.testing.assert_close(results, expected, atol=1e-2, rtol=1e-2)


@needs_gpu
@pytest.mark.skipif(Version(torch.__version__) < Version("2.14"), reason="torch fails for good after such a failure")
def test_a_failed_recording_leaves_the_device_as_it_was(caplog):
    graphs, stream = CudaGraphs(), torch.cuda.current_stream()
    with torch.inference_mode():
        for _ in range(5):
            output = graphs.run(lambda input: input * float(input.sum()), torch.ones(3, device="cuda"))
            assert output.tolist() == [3, 3, 3]
    assert torch.cuda.current_stream() == stream
    assert torch.isfinite(torch.randn(3, device="cuda")).all()
    assert "goes on without CUDA graphs" in caplog.text
