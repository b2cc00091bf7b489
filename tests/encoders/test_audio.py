import numpy as np
import pytest
import torch
from peft import PeftModel
from tiny_checkpoints import write_adapter, write_clap, write_wav2vec2
from torchaudio.transforms import AmplitudeToDB, MelSpectrogram
from transformers import AutoFeatureExtractor, AutoModel, AutoTokenizer, ClapFeatureExtractor, ClapModel

from encoders.audio import clap_log_mel
from encoders.base import EncoderError, load_encoder
from encoders.log_mel import log_mel

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


FAMILY = ["wav2vec2", "hubert", "wavlm", "data2vec-audio"]
WINDOWS = (RANDOM.normal(0, 0.1, (20, 4000)) * RANDOM.uniform(0.1, 4, (20, 1)) + 0.05).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("audio")


@pytest.fixture(scope="module")
def wav2vec2(folder):
    return write_wav2vec2(folder / "wav2vec2")


@pytest.fixture(scope="module", params=["unfused", "fused"])
def clap(folder, request):
    return write_clap(folder / request.param, fused=request.param == "fused")


def load(kind, checkpoint, **options):
    return load_encoder(kind, checkpoint=str(checkpoint), **({"device": "cpu", "precision": "float32"} | options))


def hidden_states(checkpoint, window):
    """What transformers makes of one window alone: a list of the layers, each (T, D)."""
    extractor, model = AutoFeatureExtractor.from_pretrained(checkpoint), AutoModel.from_pretrained(checkpoint).eval()
    inputs = extractor(window, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        return [layer[0] for layer in model(**inputs, output_hidden_states=True).hidden_states]


def least_cosine(vectors, others):
    return torch.nn.functional.cosine_similarity(vectors, others).min()


def assert_independent_of_the_batch(encode, batch, least):
    together = encode(batch)
    assert together.dtype == torch.float32 and together.isfinite().all()
    assert least_cosine(together, torch.cat([encode(batch[at : at + 1]) for at in range(len(batch))])) > least
    assert least_cosine(together, encode(batch[::-1]).flip(0)) > least
    assert least_cosine(together[2:7], encode(batch[2:7])) > least


PRECISIONS = [("float32", 0.9999), ("bfloat16", 0.999)]


class TestWav2Vec2:
    @pytest.mark.parametrize("do_normalize", [True, False])
    @pytest.mark.parametrize("family", FAMILY)
    def test_windows_give_the_vectors_of_transformers(self, tmp_path, family, do_normalize):
        checkpoint = write_wav2vec2(tmp_path, family, do_normalize=do_normalize)
        expected = torch.stack([hidden_states(checkpoint, window)[-1].mean(dim=0) for window in WINDOWS[:4]])
        torch.testing.assert_close(load("wav2vec2", checkpoint).encode(WINDOWS[:4]), expected, atol=1e-5, rtol=0)

    @pytest.mark.parametrize(
        ("layers", "numbers"), [("last", [3]), ("mean", [1, 2, 3]), ([0], [0]), ([-1, 1], [3, 1]), ([-4], [0])]
    )
    def test_layers(self, wav2vec2, layers, numbers):
        states = hidden_states(wav2vec2, WINDOWS[0])
        expected = torch.stack([states[number] for number in numbers]).mean(dim=(0, 1))
        vector = load("wav2vec2", wav2vec2, layers=layers).encode(WINDOWS[:1])[0]
        torch.testing.assert_close(vector, expected, atol=1e-5, rtol=0)

    @pytest.mark.parametrize("layers", ["first", [], [4], [-5], ["last"]])
    def test_layers_that_are_not_there(self, wav2vec2, layers):
        with pytest.raises(EncoderError, match="expected 'last', 'mean' or a list of numbers from 0 to 3"):
            load("wav2vec2", wav2vec2, layers=layers)

    @pytest.mark.parametrize(("precision", "least"), PRECISIONS)
    def test_vectors_do_not_depend_on_the_batch(self, wav2vec2, precision, least):
        assert_independent_of_the_batch(load("wav2vec2", wav2vec2, precision=precision).encode, WINDOWS, least)

    def test_more_windows_than_one_part_holds(self, wav2vec2):
        encoder = load("wav2vec2", wav2vec2)
        windows = np.tile(WINDOWS, (4, 1))
        torch.testing.assert_close(encoder.encode(windows), encoder.encode(WINDOWS).repeat(4, 1), atol=1e-5, rtol=0)

    def test_shortest_window(self, wav2vec2):
        encoder = load("wav2vec2", wav2vec2)
        num_samples = round(encoder.min_seconds * encoder.sample_rate)
        assert encoder.encode(WINDOWS[:, :num_samples]).isfinite().all()
        with pytest.raises(EncoderError, match=f"no less than {num_samples} samples, got {num_samples - 1}"):
            encoder.encode(WINDOWS[:, : num_samples - 1])

    def test_silence_is_finite(self, wav2vec2):
        assert load("wav2vec2", wav2vec2).encode(np.zeros((2, 4000), np.float32)).isfinite().all()

    def test_adapter(self, wav2vec2, tmp_path):
        adapter = write_adapter(tmp_path, AutoModel.from_pretrained(wav2vec2), ["q_proj", "v_proj"])
        tuned = PeftModel.from_pretrained(AutoModel.from_pretrained(wav2vec2), adapter).eval()
        inputs = AutoFeatureExtractor.from_pretrained(wav2vec2)(WINDOWS[0], sampling_rate=16_000, return_tensors="pt")
        with torch.no_grad():
            expected = tuned(**inputs).last_hidden_state.mean(dim=1)
        adapted, plain = load("wav2vec2", wav2vec2, adapter=str(adapter)), load("wav2vec2", wav2vec2)
        torch.testing.assert_close(adapted.encode(WINDOWS[:1]), expected, atol=1e-5, rtol=0)
        assert (adapted.encode(WINDOWS[:1]) - plain.encode(WINDOWS[:1])).abs().max() > 1e-3
        assert adapted.fingerprint != plain.fingerprint


class TestClap:
    @pytest.mark.parametrize("num_samples", [4000, 50_000, 96_000])
    def test_windows_give_the_vectors_of_transformers(self, clap, num_samples):
        windows = RANDOM.normal(0, 0.1, (3, num_samples)).astype(np.float32)
        inputs = ClapFeatureExtractor.from_pretrained(clap)(list(windows), sampling_rate=48_000, return_tensors="pt")
        inputs["is_longer"] = torch.zeros(3, 1, dtype=torch.bool)  # the extractor says so of one of them at random
        with torch.no_grad():
            expected = ClapModel.from_pretrained(clap).eval().get_audio_features(**inputs).pooler_output
        torch.testing.assert_close(load("clap", clap).encode(windows), expected, atol=1e-5, rtol=0)

    @pytest.mark.parametrize("padding", ["repeatpad", "repeat", "pad"])
    @pytest.mark.parametrize("truncation", ["fusion", "rand_trunc"])
    @pytest.mark.parametrize("num_samples", [5000, 48_000])
    def test_features_are_those_of_the_extractor(self, padding, truncation, num_samples):
        extractor = ClapFeatureExtractor(max_length_s=1, padding=padding, truncation=truncation)
        windows = RANDOM.normal(0, 0.1, (2, num_samples)).astype(np.float32)
        expected = extractor(list(windows), sampling_rate=48_000, return_tensors="pt")["input_features"]
        features = clap_log_mel(torch.from_numpy(windows), extractor).expand_as(expected)
        torch.testing.assert_close(features, expected, atol=1e-3, rtol=0)  # decibels

    def test_of_a_longer_window_the_middle_is_heard(self, clap):
        encoder = load("clap", clap)
        window = RANDOM.normal(0, 0.1, (1, 100_000)).astype(np.float32)
        torch.testing.assert_close(encoder.encode(window), encoder.encode(window[:, 2000:98_000]))

    def test_texts_give_the_vectors_of_transformers(self, clap):
        texts = ["a dog", "the cat sleeps in the park", "狗"]
        tokens = AutoTokenizer.from_pretrained(clap)(texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            expected = ClapModel.from_pretrained(clap).eval().get_text_features(**tokens).pooler_output
        encoder = load("clap", clap)
        torch.testing.assert_close(encoder.encode_text(texts), expected, atol=1e-5, rtol=0)
        assert encoder.encode_text(["the dog runs " * 200]).isfinite().all()
        assert encoder.encode_text([]).shape == (0, encoder.dim)

    @pytest.mark.parametrize(("precision", "least"), PRECISIONS)
    def test_vectors_do_not_depend_on_the_batch(self, clap, precision, least):
        encoder = load("clap", clap, precision=precision)
        assert_independent_of_the_batch(encoder.encode, WINDOWS[:8], least)
        texts = ["a dog", "the cat sleeps in the park by the sea", "狗", "", "music " * 30, "bird", "sea", "song"]
        assert_independent_of_the_batch(encoder.encode_text, texts, least)

    def test_silence_and_one_sample_are_finite(self, clap):
        encoder = load("clap", clap)
        assert encoder.encode(np.zeros((1, 4000), np.float32)).isfinite().all()
        assert encoder.encode(np.ones((1, 1), np.float32)).isfinite().all()
        assert encoder.encode(np.zeros((0, 4000), np.float32)).shape == (0, encoder.dim)
