import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_checkpoints import (
    write_bert,
    write_clap,
    write_embedding_model,
    write_language_model,
    write_open_clip,
    write_sentence_transformer,
    write_wav2vec2,
)

from encoders.base import EncoderError, load_encoder
from encoders.tuning import Tunable, add_adapter, save_adapter

RANDOM = np.random.default_rng(0)
FRAMES = RANDOM.integers(0, 256, (4, 1, 32, 32, 3), dtype=np.uint8)
WINDOWS = RANDOM.normal(0, 0.1, (4, 4000)).astype(np.float32)
TEXTS = ["a dog runs in the park", "the cat sleeps", "loud piano music", "狗 sings a song"]
CASES = {
    "open-clip": ("open-clip", write_open_clip, FRAMES),
    "wav2vec2": ("wav2vec2", write_wav2vec2, WINDOWS),
    "wavlm": ("wav2vec2", lambda folder: write_wav2vec2(folder, "wavlm"), WINDOWS),
    "clap": ("clap", write_clap, WINDOWS),
    "bert": ("sentence-transformer", write_bert, TEXTS),
    "sentence-transformer": ("sentence-transformer", write_sentence_transformer, TEXTS),
    "qwen3": ("sentence-transformer", write_language_model, TEXTS),
    "gpt2": ("sentence-transformer", lambda folder: write_language_model(folder, "gpt2"), TEXTS),
    "mistral, last token": ("sentence-transformer", lambda folder: write_embedding_model(folder, "mistral"), TEXTS),
}


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors on busy processors: threads would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=list(CASES))
def case(request, tmp_path_factory):
    """A loader of one encoder, a batch for it, and a folder."""
    kind, write, batch = CASES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint = str(write(folder / "checkpoint"))

    def load(**options):
        return load_encoder(kind, **{"checkpoint": checkpoint, **options}, device="cpu", precision="float32")

    return load, batch, folder


def train(encoder, batch, steps=3):
    """Move the vectors somewhere else."""
    torch.manual_seed(0)
    goal_ND = torch.randn(len(batch), encoder.dim)
    parameters = [p for p in encoder.network.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        (encoder.forward(batch) - goal_ND).square().mean().backward()
        optimizer.step()


def test_forward_is_encode_with_gradients(case):
    load, batch, _ = case
    encoder = load()
    assert isinstance(encoder, Tunable)
    vectors_ND = encoder.forward(batch)
    assert vectors_ND.requires_grad and not encoder.encode(batch).requires_grad
    torch.testing.assert_close(vectors_ND.detach(), encoder.encode(batch), atol=1e-5, rtol=0)


def test_an_adapter_alone_is_trained_and_loads_back(case):
    load, batch, folder = case
    plain, encoder = load(), load()
    before = {name: p.detach().clone() for name, p in encoder.network.named_parameters()}
    adapter = add_adapter(encoder, batch[:1], rank=2)
    torch.testing.assert_close(encoder.encode(batch), plain.encode(batch), atol=1e-5, rtol=0)
    train(encoder, batch)
    after = {name.replace("base_layer.", ""): p for name, p in encoder.network.named_parameters()}
    assert all(torch.equal(p, after[name]) for name, p in before.items())
    added = {name: p for name, p in after.items() if "lora_" in name}
    assert {name for name, p in after.items() if p.requires_grad} == set(added)
    assert all(p.abs().max() > 0 for p in added.values()), "some of the adapter was never reached"

    save_adapter(adapter, folder / "adapter")
    loaded = load(adapter=str(folder / "adapter"))
    torch.testing.assert_close(loaded.encode(batch), encoder.encode(batch), atol=1e-4, rtol=0)
    assert (loaded.encode(batch) - plain.encode(batch)).abs().max() > 1e-3
    assert loaded.fingerprint != plain.fingerprint
    saved = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert len(saved) == len(added) and all("lora_" in name for name in saved)


def test_a_trained_checkpoint_loads_back(case):
    load, batch, folder = case
    plain, encoder = load(), load()
    train(encoder, batch)
    encoder.save_checkpoint(folder / "trained")
    loaded = load(checkpoint=str(folder / "trained"))
    torch.testing.assert_close(loaded.encode(batch), encoder.encode(batch), atol=1e-4, rtol=0)
    assert (loaded.encode(batch) - plain.encode(batch)).abs().max() > 1e-3
    assert loaded.fingerprint != plain.fingerprint
    for name in ("frame_size", "frame_fit", "interpolation", "sample_rate", "min_seconds"):
        assert getattr(loaded, name, None) == getattr(plain, name, None)


def test_an_untouched_clip_keeps_its_fingerprint(tmp_path):
    encoder = load_encoder(
        "open-clip", checkpoint=str(write_open_clip(tmp_path / "a")), device="cpu", precision="float32"
    )
    encoder.save_checkpoint(tmp_path / "b")
    again = load_encoder("open-clip", checkpoint=str(tmp_path / "b"), device="cpu", precision="float32")
    assert again.fingerprint == encoder.fingerprint


def test_encoders_without_weights_are_not_tunable():
    for kind in ("descriptors", "log-mel", "hashed-ngrams"):
        assert not isinstance(load_encoder(kind, device="cpu"), Tunable)


def test_peft_is_asked_for(tmp_path, monkeypatch):
    encoder = load_encoder("sentence-transformer", checkpoint=str(write_bert(tmp_path)), device="cpu")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(EncoderError, match=r"pip install mmrec\[adapters\]"):
        add_adapter(encoder, TEXTS[:1], rank=2)
