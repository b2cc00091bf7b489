import numpy as np
import pytest
import torch
from torchaudio.transforms import AmplitudeToDB, MelSpectrogram

from encoders.log_mel import log_mel
from encoders.base import EncoderError, load_encoder

SECONDS = np.arange(48_000) / 16_000
RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def statistics():
    return load_encoder("log-mel", device="cpu")


def chord(*frequencies):
    return sum(np.sin(2 * np.pi * frequency * SECONDS) for frequency in frequencies) / (2 * len(frequencies))


def babble(seed):
    """Syllables four times a second: hums of changing pitch and bursts of noise."""
    random = np.random.default_rng(seed)
    syllables = np.repeat(random.uniform(90, 220, 12), 4000)
    hum = sum(np.sin(2 * np.pi * number * np.cumsum(syllables) / 16_000) / number for number in range(1, 12))
    breath = random.normal(0, 1, 48_000) * np.repeat(random.integers(0, 2, 24), 2000)
    return (0.2 * hum + 0.05 * breath) * np.abs(np.sin(2 * np.pi * 2 * SECONDS))


class TestLogMel:
    def test_log_mel_is_torchaudios(self):
        windows = torch.from_numpy(RANDOM.normal(0, 0.1, (3, 16_000)).astype(np.float32))
        transform = MelSpectrogram(16_000, n_fft=1024, hop_length=160, n_mels=64, pad_mode="constant")
        reference = AmplitudeToDB("power", top_db=None)(transform(windows))
        torch.testing.assert_close(log_mel(windows), reference)

    @pytest.mark.parametrize("num_samples", [1, 100, 1600, 48_000, 200_000])
    @pytest.mark.parametrize("value", [0.0, 1.0])
    def test_silence_and_any_length_are_finite(self, statistics, num_samples, value):
        vectors = statistics.encode(np.full((2, num_samples), value, np.float32))
        assert vectors.isfinite().all()
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))

    def test_like_finds_like(self, statistics):
        sounds = [chord(262, 330, 392), chord(294, 370, 440), babble(1), babble(2)]
        sounds += [RANDOM.normal(0, 0.1, 48_000), RANDOM.normal(0, 0.05, 48_000)]
        vectors = statistics.encode(np.stack(sounds).astype(np.float32))
        likeness = vectors @ vectors.T - 2 * torch.eye(6)
        assert likeness.argmax(dim=1).tolist() == [1, 0, 3, 2, 5, 4]

    def test_loudness_matters_little(self, statistics):
        sound = babble(3).astype(np.float32)
        vectors = statistics.encode(np.stack([sound, 0.25 * sound]))
        assert vectors[0] @ vectors[1] > 0.95

    @pytest.mark.parametrize(
        "windows", [np.zeros(16_000, np.float32), np.zeros((1, 16_000)), np.zeros((1, 0), np.float32)]
    )
    def test_other_shapes_and_types_are_refused(self, statistics, windows):
        with pytest.raises(EncoderError, match=r"takes float32 windows \(N, S\).*got"):
            statistics.encode(windows)
