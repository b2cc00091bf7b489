"""Recording and replaying on CUDA: when it happens and what it gives; without a GPU, with a stand-in for one."""

import logging
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tiny_checkpoints import write_open_clip, write_wav2vec2
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from encoders import cuda_graphs
from encoders.base import load_encoder
from encoders.cuda_graphs import MAX_GRAPHS, Recorded

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
FAMILIES = ["wav2vec2", "hubert", "wavlm", "data2vec-audio"]


class StandIn:
    """Records on the CPU: like a graph it always computes on the same memory, and returns when told what is there."""

    def __init__(self, _device):
        self.shapes = []

    def record(self, function, input):
        if not input.numel():
            raise RuntimeError("operation not permitted when stream is capturing")
        self.shapes.append(tuple(input.shape))
        own_input = input.clone()

        def replay(input):
            own_input.copy_(input)
            time.sleep(0.001)
            return function(own_input)

        return replay


@pytest.fixture
def stand_in(monkeypatch):
    recorder = StandIn(None)
    monkeypatch.setattr(cuda_graphs, "_Recorder", lambda device: recorder)
    monkeypatch.setattr(cuda_graphs, "_is_recordable", lambda input: True)
    return recorder


def doubled(input):
    return input * 2


def test_a_shape_is_recorded_when_it_comes_the_third_time(stand_in):
    embed = Recorded(doubled)
    for number, size in enumerate([4, 7, 4, 4, 4, 7]):
        torch.testing.assert_close(embed(torch.full((size,), number)), torch.full((size,), 2 * number))
    assert stand_in.shapes == [(4,)]


def test_only_so_many_shapes_are_recorded(stand_in):
    embed = Recorded(doubled)
    for size in range(1, 2 * MAX_GRAPHS):
        for _ in range(4):
            assert len(embed(torch.ones(size))) == size
    assert len(stand_in.shapes) == MAX_GRAPHS


def test_what_cannot_be_recorded_is_computed_and_said_once(stand_in, caplog):
    embed = Recorded(doubled)
    with caplog.at_level(logging.WARNING):
        for _ in range(6):
            assert embed(torch.ones(0, 3)).shape == (0, 3)
    assert [record.getMessage() for record in caplog.records] == [
        "no CUDA graph for inputs of (0, 3), which stay slower: operation not permitted when stream is capturing"
    ]


def test_threads_do_not_see_each_others_inputs(stand_in):
    embed = Recorded(doubled)
    inputs = [torch.full((8,), number) for number in range(60)]
    with ThreadPoolExecutor(4) as threads:
        for input, output in zip(inputs, threads.map(embed, inputs), strict=True):
            torch.testing.assert_close(output, 2 * input)
    assert stand_in.shapes == [(8,)]


def test_nothing_is_recorded_off_cuda(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "_Recorder", None)
    embed = Recorded(doubled)
    with torch.inference_mode():
        for _ in range(5):
            embed(torch.ones(3))


def test_a_network_that_may_be_trained_is_not_replayed(stand_in, tmp_path):
    encoder = load_encoder("open-clip", checkpoint=str(write_open_clip(tmp_path)), device="cpu", precision="float32")
    frames_NFHWC = np.random.default_rng(0).integers(0, 256, (2, 1, *encoder.frame_size, 3), dtype=np.uint8)
    before = [encoder.encode(frames_NFHWC) for _ in range(4)][-1]
    assert stand_in.shapes
    weight = next(encoder.network.visual.parameters())
    with torch.no_grad():
        weight.add_(torch.randn_like(weight))
    stand_in.record = None
    after = [encoder.encode(frames_NFHWC) for _ in range(4)][-1]
    assert (after - before).abs().max() > 1e-3


class HostAccess(TorchDispatchMode):
    """Notes operations between the host and a device, which a CUDA graph cannot hold.

    Those that wait for a value, such as `item`, raise where tensors have none.
    """

    def __init__(self):
        super().__init__()
        self.operations, self.met = 0, []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        tensors = [value for value in tree_flatten((args, kwargs, result))[0] if isinstance(value, torch.Tensor)]
        on_host = [tensor for tensor in tensors if tensor.device.type == "cpu" and tensor.ndim]
        self.operations += len(on_host) < len(tensors)
        if on_host and len(on_host) < len(tensors):
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
    encoder = load_encoder("open-clip", checkpoint=str(write_open_clip(tmp_path)), device="cpu", precision="bfloat16")
    frames_NHWC = torch.zeros(3, *encoder.frame_size, 3, dtype=torch.uint8)
    assert host_access(encoder._frame_vectors, frames_NHWC, vars(encoder), *weights(encoder.network)) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_windows_are_embedded_without_the_host(tmp_path, family):
    checkpoint = write_wav2vec2(tmp_path, family)
    encoder = load_encoder("wav2vec2", checkpoint=str(checkpoint), layers="mean", device="cpu", precision="bfloat16")
    assert host_access(encoder._window_vectors, torch.zeros(2, 16_000), *weights(encoder.network)) == []


def test_the_host_is_noticed():
    network = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(6)))
    assert host_access(lambda input: network(input) + torch.arange(4).to("cuda"), torch.zeros(2, 4), *weights(network))


@needs_gpu
@pytest.mark.parametrize("modality", ["visual", "audio"])
def test_graphs_give_what_the_network_gives(tmp_path, caplog, modality):
    random = np.random.default_rng(0)
    if modality == "visual":
        encoder = load_encoder("open-clip", checkpoint=str(write_open_clip(tmp_path)), device="cuda")
        batches = [random.integers(0, 256, (5, 1, *encoder.frame_size, 3), dtype=np.uint8) for _ in range(12)]
        plain = encoder._frame_vectors
    else:
        encoder = load_encoder("wav2vec2", checkpoint=str(write_wav2vec2(tmp_path)), device="cuda")
        batches = [random.normal(size=(5, 16_000)).astype(np.float32) for _ in range(12)]
        plain = encoder._window_vectors
    recorded = encoder._embed
    encoder._embed = plain
    expected = [encoder.encode(batch).cpu() for batch in batches]
    encoder._embed = recorded
    with ThreadPoolExecutor(3, initializer=lambda: torch.cuda.set_stream(torch.cuda.Stream())) as threads:
        results = list(threads.map(lambda batch: encoder.encode(batch).cpu(), batches))
    torch.testing.assert_close(results, expected, atol=1e-2, rtol=1e-2)
    assert any(recorded._graphs.values())
    assert not caplog.records


@needs_gpu
def test_a_failed_recording_leaves_the_device_as_it_was(caplog):
    embed = Recorded(lambda input: input * float(input.sum()))  # waits for the device
    stream = torch.cuda.current_stream()
    with torch.inference_mode():
        for _ in range(5):
            assert embed(torch.ones(3, device="cuda")).tolist() == [3, 3, 3]
    assert torch.cuda.current_stream() == stream
    assert "no CUDA graph for inputs of (3,)" in caplog.text
