import subprocess
import sys

import numpy as np
import pytest
import torch

from encoders.base import KINDS, EncoderError, TextQueries, fingerprint, load_encoder
from encoders.batches import in_parts
from encoders.devices import resolve_device, resolve_precision

LIGHT = ["descriptors", "log-mel", "hashed-ngrams"]
RANDOM = np.random.default_rng(0)
BATCHES = {
    "descriptors": RANDOM.integers(0, 256, (7, 2, 128, 128, 3), dtype=np.uint8),
    "log-mel": RANDOM.normal(0, 0.1, (7, 8000)).astype(np.float32) * np.linspace(0.1, 3, 7, dtype=np.float32)[:, None],
    "hashed-ngrams": ["a dog", "", "一只狗在公园里", "x" * 300, "Ünïcödé", "🐶", "a dog and a cat"],
}


def test_import_is_light():
    code = "import sys, encoders.base; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_kind_lists_the_known():
    with pytest.raises(EncoderError, match=r"'clip'.*descriptors, efficientnet-lite, hashed-ngrams, log-mel"):
        load_encoder("clip")


def test_unknown_option_lists_the_known():
    with pytest.raises(EncoderError, match=r"'hashed-ngrams' has no option width; it takes: none"):
        load_encoder("hashed-ngrams", width=3)


def test_needed_option_is_named():
    with pytest.raises(EncoderError, match=r"'wav2vec2' needs the option checkpoint"):
        load_encoder("wav2vec2")


@pytest.mark.parametrize("option", [{"device": "gpu"}, {"device": "cuda:99"}, {"precision": "half"}])
@pytest.mark.parametrize("kind", LIGHT)
def test_bad_device_or_precision_is_named(kind, option):
    with pytest.raises(EncoderError, match=next(iter(option.values()))):
        load_encoder(kind, **option)


def test_devices_and_precisions():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_precision("float16", torch.device("cpu")) == torch.float16
    assert resolve_precision("auto", torch.device("cpu")) in (torch.float32, torch.bfloat16)


def test_fingerprint_follows_every_fact_and_nothing_else():
    base = fingerprint("kind", 1, a=1, b=(2, 3))
    assert base == fingerprint("kind", 1, b=[2, 3], a=1)
    assert len({base, fingerprint("other", 1, a=1, b=(2, 3)), fingerprint("kind", 2, a=1, b=(2, 3))}) == 3
    assert base != fingerprint("kind", 1, a=1, b=(2, 4))


def test_every_kind_can_be_imported():
    from encoders.base import encoder_factory

    assert all(callable(encoder_factory(kind)) for kind in KINDS)


@pytest.mark.parametrize("kind", LIGHT)
class TestLightEncoders:
    def test_shape_type_and_values(self, kind):
        encoder = load_encoder(kind, device="cpu")
        vectors = encoder.encode(BATCHES[kind])
        assert vectors.shape == (7, encoder.dim) and vectors.dtype == torch.float32
        assert vectors.isfinite().all()

    def test_empty_batch(self, kind):
        encoder = load_encoder(kind, device="cpu")
        assert encoder.encode(BATCHES[kind][:0]).shape == (0, encoder.dim)

    def test_vectors_do_not_depend_on_the_batch(self, kind):
        encoder = load_encoder(kind, device="cpu")
        together = encoder.encode(BATCHES[kind])
        alone = torch.cat([encoder.encode(BATCHES[kind][at : at + 1]) for at in range(7)])
        backwards = encoder.encode(BATCHES[kind][::-1]).flip(0)
        torch.testing.assert_close(alone, together, atol=1e-6, rtol=0)
        torch.testing.assert_close(backwards, together, atol=1e-6, rtol=0)

    def test_same_fingerprint_in_another_process(self, kind):
        code = f"from encoders.base import load_encoder; print(load_encoder({kind!r}).fingerprint)"
        other = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        assert other.stdout.strip() == load_encoder(kind, device="cpu", precision="float32").fingerprint


@pytest.mark.parametrize("num_inputs", [0, 1, 16, 40])
def test_parts_are_put_together_in_order(num_inputs):
    batch = torch.arange(float(num_inputs))[:, None]
    assert torch.equal(in_parts(lambda part: 2 * part, batch, dim=1, device=torch.device("cpu")), 2 * batch)


def test_who_answers_queries_in_words():
    assert isinstance(load_encoder("hashed-ngrams"), TextQueries)
    assert not isinstance(load_encoder("descriptors"), TextQueries)
