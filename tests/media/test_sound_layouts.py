"""Sound of many channels: every layout becomes mono, whether FFmpeg has a downmix for it or not."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream
from numpy.typing import NDArray

from mmrec.media import SoundPlan, SoundSampling, decode_media

RATE = 48_000
PLAN = SoundPlan(sampling=SoundSampling(), sample_rate=16_000)


def tones(channels: int, amplitude: float = 0.5) -> NDArray[np.float32]:
    """One second, (channels, samples): each channel has a frequency of its own, 300 Hz and up in steps of 100."""
    times_S = np.arange(RATE) / RATE
    return np.stack([amplitude * np.sin(2 * np.pi * (300 + 100 * c) * times_S) for c in range(channels)]).astype("f4")


def write_wav(path: Path, samples_CS: NDArray[np.float32], mask: int | None) -> Path:
    """16 bit PCM; `mask` says where the speakers stand, 0 that nobody knows, None that the file does not tell."""
    channels = len(samples_CS)
    data = (samples_CS.T * 32767).astype("<i2").tobytes()
    tag = 1 if mask is None else 0xFFFE
    form = struct.pack("<HHIIHH", tag, channels, RATE, RATE * channels * 2, channels * 2, 16)
    if mask is not None:
        form += struct.pack("<HHI", 22, 16, mask) + bytes.fromhex("0100000000001000800000aa00389b71")
    chunks = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(chunks)) + chunks)
    return path


def write_ambisonics(path: Path, order: int) -> Path:
    layout = f"ambisonic {order}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libopus", rate=RATE, layout=layout, options={"mapping_family": "2"})
        assert isinstance(stream, AudioStream)
        samples_CS = tones((order + 1) ** 2)
        frame = av.AudioFrame.from_ndarray(samples_CS.T.reshape(1, -1).copy(), format="flt", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def loudness_of_tones(path: Path, channels: int) -> NDArray[np.float64]:
    """The amplitude of each channel's tone in what is decoded."""
    decoded = decode_media(path, None, PLAN)
    assert decoded.audio_problem is None
    (window_S,) = decoded.windows
    spectrum = 2 * np.abs(np.fft.rfft(window_S)) / len(window_S)
    bins = [round((300 + 100 * c) * len(window_S) / PLAN.sample_rate) for c in range(channels)]
    return np.array([spectrum[b - 1 : b + 2].max() for b in bins])


@pytest.mark.parametrize("mask", [None, 0])
@pytest.mark.parametrize("channels", [9, 12, 13, 16, 24, 32])
def test_many_channels_of_unknown_places_are_averaged(tmp_path: Path, channels: int, mask: int | None) -> None:
    loudness = loudness_of_tones(write_wav(tmp_path / "a.wav", tones(channels), mask), channels)
    np.testing.assert_allclose(loudness, 0.5 / channels, rtol=0.1)


@pytest.mark.parametrize("channels", [5, 7, 9, 10, 12, 16])
def test_speakers_in_places_that_ffmpeg_cannot_mix_are_averaged(tmp_path: Path, channels: int) -> None:
    mask = (1 << channels) - 1
    loudness = loudness_of_tones(write_wav(tmp_path / "a.wav", tones(channels), mask), channels)
    np.testing.assert_allclose(loudness, 0.5 / channels, rtol=0.1)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_of_ambisonics_the_channel_without_direction_is_heard(tmp_path: Path, order: int) -> None:
    path = write_ambisonics(tmp_path / "a.opus", order)
    loudness = loudness_of_tones(path, (order + 1) ** 2)
    assert loudness[0] == pytest.approx(0.5, rel=0.1)
    assert loudness[1:].max() < 0.02


@pytest.mark.parametrize(("channels", "mask"), [(2, 0b11), (2, None), (3, 0b111), (6, 0b111111), (8, 0b11111111)])
def test_channels_that_are_loud_and_alike_are_no_louder_as_mono(
    tmp_path: Path, channels: int, mask: int | None
) -> None:
    path = write_wav(tmp_path / "a.wav", tones(1, 0.9).repeat(channels, axis=0), mask)
    (window_S,) = decode_media(path, None, PLAN).windows
    assert float(np.abs(window_S).max()) == pytest.approx(0.9, abs=0.01)
