"""What can be heard in a window without weights: timbre, harmony and rhythm.

Letters: N windows, S samples, T frames of a spectrogram (every 10 ms), K bands, coefficients or bins.
"""

from __future__ import annotations

import math
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from encoders.base import Modality, fingerprint
from encoders.batches import checked_windows
from encoders.devices import resolve_device, resolve_precision

_RATE = 16_000
_FFT = 1024
_HOP = 160
_FRAMES_PER_SECOND = _RATE // _HOP
_MELS = 64


def log_mel(windows_NS: torch.Tensor, /) -> torch.Tensor:
    """Mel spectrogram in decibels, `(N, 64, T)`, of sound at 16 kHz: frames of 64 ms every 10 ms."""
    return _decibels(_mel_transform()(windows_NS))


@cache
def _mel_transform() -> Any:
    from torchaudio.transforms import MelSpectrogram

    return MelSpectrogram(_RATE, n_fft=_FFT, hop_length=_HOP, n_mels=_MELS, pad_mode="constant")


def _decibels(power: torch.Tensor) -> torch.Tensor:
    return 10 * power.clamp(min=1e-10).log10()


class LogMel:
    """Statistics of a log-mel spectrogram: timbre, harmony and rhythm of a window; needs no checkpoint.

    Each statistic is standardised by fixed constants (its typical value and spread over speech, music and everyday
    sounds), clipped softly, and weighed so that a block counts the same whatever its width; unit norm.
    """

    REVISION = 1

    name = "log-mel"
    modality: Modality = "audio"
    dim = 153
    sample_rate = _RATE
    min_seconds = 0.1

    def __init__(self, *, device: str = "auto", precision: str = "auto") -> None:
        self._device = resolve_device(device)
        resolve_precision(precision, self._device)
        self.fingerprint = fingerprint(self.name, self.REVISION, sample_rate=self.sample_rate, dim=self.dim)

    @torch.inference_mode()
    def encode(self, windows_NS: np.ndarray | torch.Tensor, /) -> torch.Tensor:
        """Describe windows `(N, S)` at 16 kHz as unit vectors `(N, 153)`; computed on the CPU."""
        windows_NS = checked_windows(self, windows_NS).cpu()
        if not len(windows_NS):
            return torch.zeros(0, self.dim, device=self._device)
        _prepare_librosa()
        # a few at a time, as the spectrograms are much larger than the sound
        vectors_NK = np.concatenate([_describe(chunk_NS) for chunk_NS in torch.split(windows_NS, 8)])
        return torch.from_numpy(vectors_NK).float().to(self._device)


def _prepare_librosa() -> None:
    from encoders.compiling import ensure_compiler_cache

    librosa = find_spec("librosa")
    assert librosa is not None and librosa.origin is not None
    ensure_compiler_cache(librosa.origin)


def _describe(windows_NS: torch.Tensor) -> np.ndarray:
    mel = _mel_transform()
    spectrum_NKT = mel.spectrogram(windows_NS)
    power_NKT = spectrum_NKT.numpy()
    decibels_NKT = _above_noise(_decibels(mel.mel_scale(spectrum_NKT)).numpy())
    chroma_NKT = _chroma(power_NKT)
    onsets_NT = _onset_strength(decibels_NKT)
    blocks = [
        *_timbre(decibels_NKT),
        (0.6, _spectral_shape(power_NKT)),
        (0.5, _spectral_contrast(power_NKT)),
        (0.2, (chroma_NKT.mean(axis=-1) - 0.42) / 0.15),
        (1.0, _stability(chroma_NKT, decibels_NKT)),
        (0.7, _modulation(decibels_NKT)),
        (0.4, _tempo(onsets_NT)),
        (0.7, _standardised(_mean_and_std(onsets_NT), [0.71, 1.0], [0.21, 0.35])),
        (0.3, _loudness(decibels_NKT.mean(axis=1))),
    ]
    vectors_NK = np.concatenate(
        [weight / math.sqrt(block_NK.shape[1]) * np.tanh(block_NK / 2) for weight, block_NK in blocks], axis=1
    )
    vectors_NK /= np.linalg.norm(vectors_NK, axis=1, keepdims=True)
    return vectors_NK


def _above_noise(decibels_NKT: np.ndarray) -> np.ndarray:
    """Raise what lies more than 60 dB below the loudest of a window, where recordings differ by their noise alone."""
    loudest_N11 = decibels_NKT.max(axis=(1, 2), keepdims=True)
    above_NKT: np.ndarray = np.maximum(decibels_NKT, np.maximum(loudest_N11 - 60, -50))
    return above_NKT


def _timbre(decibels_NKT: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """Mel cepstrum: its mean, its spread over time, and how fast it changes."""
    import librosa

    cepstrum_NKT = _cosines() @ decibels_NKT
    changes_NKT = librosa.feature.delta(cepstrum_NKT, mode="nearest")
    order_K = np.arange(1, 21)
    mean_K = np.array([45, 6, 4, -4] + [-1] * 16)
    return [
        (0.8, (cepstrum_NKT.mean(axis=-1) - mean_K) / (32 * order_K**-0.8)),
        (0.6, (cepstrum_NKT.std(axis=-1) - 26 * order_K**-0.5) / (10 * order_K**-0.4)),
        (0.7, (changes_NKT.std(axis=-1) - 3.6 * order_K**-0.5) / (1.4 * order_K**-0.5)),
    ]


@cache
def _cosines() -> np.ndarray:
    """Orthonormal DCT-II of the mel bands, coefficients 1 to 20: `(20, 64)`."""
    order_K1, band_K = np.arange(1, 21)[:, None], np.arange(_MELS)
    cosines_KK: np.ndarray = np.cos(np.pi * order_K1 * (2 * band_K + 1) / (2 * _MELS)) * math.sqrt(2 / _MELS)
    return cosines_KK.astype(np.float32)


def _spectral_shape(power_NKT: np.ndarray) -> np.ndarray:
    """Centroid (octaves above 1 kHz) and flatness (powers of ten): means and spreads."""
    import librosa

    magnitude_NKT = np.sqrt(power_NKT) + 1e-6
    frequency_K1 = np.fft.rfftfreq(_FFT, 1 / _RATE)[:, None]
    centroid_NT = (magnitude_NKT * frequency_K1).sum(axis=1) / magnitude_NKT.sum(axis=1)
    flatness_NT = librosa.feature.spectral_flatness(S=magnitude_NKT)[:, 0]
    statistics_NK = np.concatenate(
        [_mean_and_std(np.log2(centroid_NT / 1000)), _mean_and_std(np.log10(flatness_NT))], axis=1
    )
    return _standardised(statistics_NK, [0.34, 0.60, -2.9, 0.9], [0.8, 0.24, 0.9, 0.34])


def _spectral_contrast(power_NKT: np.ndarray) -> np.ndarray:
    """Peaks over valleys in each octave, in decibels (Jiang et al., 2002): means and spreads."""
    import librosa

    magnitude_NKT = np.sqrt(power_NKT)
    # one window at a time: librosa measures its dynamic range over all that it is given
    contrast_NKT = np.stack(
        [librosa.feature.spectral_contrast(S=magnitude_KT, sr=_RATE) for magnitude_KT in magnitude_NKT]
    )
    return _standardised(
        np.concatenate([contrast_NKT.mean(axis=-1), contrast_NKT.std(axis=-1)], axis=1),
        [17, 15, 17, 20, 22, 24, 28, 5.3, 4.9, 4.8, 5.6, 5.7, 6.3, 6.5],
        [3.5, 4.5, 4.5, 6.0, 7.5, 8.0, 10, 1.3, 1.3, 1.3, 1.9, 2.5, 3.3, 3.0],
    )


def _chroma(power_NKT: np.ndarray) -> np.ndarray:
    import librosa

    chroma_NKT: np.ndarray = librosa.feature.chroma_stft(S=power_NKT, sr=_RATE, n_fft=_FFT, tuning=0.0)
    return chroma_NKT


def _stability(chroma_NKT: np.ndarray, decibels_NKT: np.ndarray) -> np.ndarray:
    """How like itself harmony and timbre are after 50 to 800 ms: music holds its notes, speech does not."""
    timbre_NKT = decibels_NKT - decibels_NKT.mean(axis=1, keepdims=True)
    lags = [5, 10, 20, 40, 80]
    likeness_NK = np.stack(
        [_mean_cosine(series_NKT, lag) for series_NKT in (chroma_NKT, timbre_NKT) for lag in lags], axis=1
    )
    return _standardised(
        likeness_NK,
        [0.84, 0.78, 0.72, 0.67, 0.65, 0.79, 0.70, 0.63, 0.57, 0.53],
        [0.07, 0.10, 0.13, 0.16, 0.18, 0.12, 0.17, 0.20, 0.22, 0.25],
    )


def _mean_cosine(series_NKT: np.ndarray, lag: int) -> np.ndarray:
    """Mean cosine between the frames of a series and those `lag` later."""
    lag = min(lag, series_NKT.shape[-1] - 1)
    unit_NKT = series_NKT / np.linalg.norm(series_NKT, axis=1, keepdims=True).clip(1e-6)
    earlier_NKT, later_NKT = unit_NKT[..., : unit_NKT.shape[-1] - lag], unit_NKT[..., lag:]
    cosines_N: np.ndarray = (earlier_NKT * later_NKT).sum(axis=1).mean(axis=-1)
    return cosines_N


def _modulation(decibels_NKT: np.ndarray) -> np.ndarray:
    """At which rates, in octaves from 0.5 to 50 Hz, four ranges of bands swing: syllables, beats, textures."""
    swings_NKT = decibels_NKT - decibels_NKT.mean(axis=-1, keepdims=True)
    num_points = max(1024, swings_NKT.shape[-1])
    power_NKT = np.abs(np.fft.rfft(swings_NKT, n=num_points)) ** 2
    octave = np.floor(np.log2(np.fft.rfftfreq(num_points, 1 / _FRAMES_PER_SECOND).clip(1e-9) / 0.5))
    ranges_NRT = power_NKT.reshape(len(power_NKT), 4, -1, power_NKT.shape[-1]).sum(axis=2)
    octaves_NRK = np.stack([ranges_NRT[..., octave == number].sum(axis=-1) for number in range(7)], axis=-1)
    shares_NRK = octaves_NRK / octaves_NRK.sum(axis=-1, keepdims=True).clip(1e-9)
    typical_K = np.array([0.40, 0.44, 0.51, 0.45, 0.32, 0.16, 0.05])
    standardised_NK: np.ndarray = ((np.sqrt(shares_NRK) - typical_K) / 0.08).reshape(len(power_NKT), -1)
    return standardised_NK


def _onset_strength(decibels_NKT: np.ndarray) -> np.ndarray:
    from librosa.onset import onset_strength

    strength_NT: np.ndarray = onset_strength(S=decibels_NKT, sr=_RATE, hop_length=_HOP)
    return strength_NT


def _tempo(onsets_NT: np.ndarray) -> np.ndarray:
    """Autocorrelation of the onsets at 20 tempi from 30 to 270 beats per minute, a sixth of an octave apart."""
    import librosa

    tempogram_NKT = librosa.feature.tempogram(
        onset_envelope=onsets_NT, sr=_RATE, hop_length=_HOP, win_length=4 * _FRAMES_PER_SECOND
    )
    lags_K = 60 * _FRAMES_PER_SECOND / (30 * 2 ** (np.arange(20) / 6))
    lower_K = lags_K.astype(int)
    strength_NK = tempogram_NKT.mean(axis=-1)
    share_K = lags_K - lower_K
    # 30 beats per minute is two seconds: every lag and the next lie within the four of the tempogram
    profile_NK = strength_NK[:, lower_K] * (1 - share_K) + strength_NK[:, lower_K + 1] * share_K
    standardised_NK: np.ndarray = (profile_NK - 0.38) / 0.15
    return standardised_NK


def _loudness(decibels_NT: np.ndarray) -> np.ndarray:
    """Share of silence (30 dB below the loudest frame), level, and its spread."""
    silence_N = (decibels_NT < decibels_NT.max(axis=1, keepdims=True) - 30).mean(axis=1)
    statistics_NK = np.concatenate([silence_N[:, None], _mean_and_std(decibels_NT)], axis=1)
    return _standardised(statistics_NK, [0.05, -10, 5.9], [0.09, 7, 2.2])


def _mean_and_std(series_NT: np.ndarray) -> np.ndarray:
    return np.stack([series_NT.mean(axis=-1), series_NT.std(axis=-1)], axis=1)


def _standardised(statistics_NK: np.ndarray, typical: list[float], spread: list[float]) -> np.ndarray:
    standardised_NK: np.ndarray = (statistics_NK - np.array(typical)) / np.array(spread)
    return standardised_NK
