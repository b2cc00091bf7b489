"""Sound: the wanted windows of an audio stream, as mono samples at the rate that an encoder takes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import av
import av.error
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from numpy.typing import NDArray

from mmrec.errors import Problem
from mmrec.media.container import StreamReader, required
from mmrec.media.sampling import SoundPlan

SEEK_MIN_SECONDS = 5.0
PREROLL_SECONDS = 0.5
GAP_SECONDS = 0.1
CHUNK_SECONDS = 0.25
MAX_CHANNELS_OF_A_DOWNMIX = 8
NOT_LOUDER = {"rematrix_maxval": "1"}  # else channels that are alike are beyond full scale as mono, and cut off there


class Sound(NamedTuple):
    """Mono float32 windows, and the (start, end) seconds of each."""

    windows: list[NDArray[np.float32]]
    spans: list[tuple[float, float]]


def read_sound(
    container: InputContainer, stream: AudioStream | None, plan: SoundPlan, deadline: float
) -> tuple[Sound, Problem | None]:
    """The windows that the plan asks for, and what was wrong with the stream, if anything.

    Raises `Unreadable` where there is no sound at all, and whatever av raises.
    """
    stream = required(stream, "audio", container)
    reader = StreamReader(container, stream, deadline)
    reader.rewind()
    claimed = reader.duration_seconds()
    windows = _windows(reader, plan, claimed)
    ends_early = reader.reached_end and reader.end_seconds < claimed - GAP_SECONDS
    if ends_early and any(not window.complete for window in windows):
        if reader.end_seconds < 0.9 * claimed - 0.3:
            reader.errors.append(f"the sound ends at {reader.end_seconds:.1f} s; the header claims {claimed:.1f} s")
        reader.rewind()
        windows = _windows(reader, plan, reader.end_seconds)
    windows = [w for w in windows if w.filled >= max(1, round(plan.min_seconds * plan.sample_rate)) and w.usable]
    if not windows:
        raise reader.nothing(f"{reader.end_seconds:.3f} s of sound; at least {plan.min_seconds} s are needed")
    rate = plan.sample_rate
    spans = [(w.start / rate, (w.start + len(w.samples)) / rate) for w in windows]
    return Sound([window.samples for window in windows], spans), reader.problem


class _Window:
    """A stretch of sound to be filled; `start` in samples from the start of the sound."""

    def __init__(self, start: int, length: int, *, only: bool) -> None:
        self.start, self.buffer, self.only = start, np.zeros(length, np.float32), only
        self.filled = 0

    def fill(self, position: int, chunk: NDArray[np.float32]) -> None:
        first, last = max(position, self.start), min(position + len(chunk), self.start + len(self.buffer))
        if first < last:
            self.buffer[first - self.start : last - self.start] = chunk[first - position : last - position]
            self.filled = max(self.filled, last - self.start)

    @property
    def complete(self) -> bool:
        return self.filled == len(self.buffer)

    @property
    def usable(self) -> bool:
        """A single window is cut to the sound; one of several must be whole but for an encoder's padding at the end."""
        return self.only or self.filled >= 0.95 * len(self.buffer)

    @property
    def samples(self) -> NDArray[np.float32]:
        return self.buffer[: self.filled] if self.only else self.buffer


def _windows(reader: StreamReader, plan: SoundPlan, duration: float) -> list[_Window]:
    rate = plan.sample_rate
    spans = plan.sampling.spans(duration)
    lengths = [round((end - start) * rate) for start, end in spans]
    if len(spans) == 1 and duration <= plan.sampling.window_seconds:
        lengths = [round(min(plan.sampling.window_seconds, duration + 1.0) * rate)]
    windows = [_Window(round(s * rate), n, only=len(spans) == 1) for (s, _), n in zip(spans, lengths, strict=True)]
    begin = reader.seconds(reader.stream.start_time) if reader.stream.start_time is not None else 0.0
    at = begin
    waiting = list(windows)
    chunks = _resampled(reader, rate, begin)
    while waiting:
        if begin + waiting[0].start / rate - at > SEEK_MIN_SECONDS:
            reader.seek(reader.ticks(begin + waiting[0].start / rate - PREROLL_SECONDS))
            chunks = _resampled(reader, rate, begin)
        for position, chunk in chunks:
            end = position + len(chunk)
            for window in waiting:
                if window.start >= end:
                    break
                window.fill(position, chunk)
            if end >= waiting[0].start + len(waiting[0].buffer):
                at = begin + end / rate
                break
        else:
            break
        waiting = [w for w in waiting if end < w.start + len(w.buffer)]
    return windows


def _resampled(reader: StreamReader, rate: int, begin_seconds: float) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """(position in samples, mono samples in [-1, 1]); the position follows the stream's own times over gaps."""
    resampler: _MonoResampler | None = None
    shape: tuple[object, ...] = ()
    position = 0
    expected = -1.0
    for frame in reader.frames():
        seconds = reader.seconds(frame.pts) - begin_seconds
        new_shape = (frame.format.name, frame.layout.name, frame.sample_rate)
        if resampler is None or new_shape != shape or abs(seconds - expected) > GAP_SECONDS:
            for chunk in resampler.rest() if resampler is not None else ():
                yield position, chunk
                position += len(chunk)
            resampler, shape = _MonoResampler(frame.layout.name, rate), new_shape
            position = round(seconds * rate)
        expected = seconds + frame.samples / frame.sample_rate
        frame.pts = None
        for chunk in resampler.samples(frame):
            yield position, chunk
            position += len(chunk)
    for chunk in resampler.rest() if resampler is not None else ():
        yield position, chunk
        position += len(chunk)


class _MonoResampler:
    """Frames of one format, layout and rate -> mono samples at another rate.

    FFmpeg mixes up to eight channels, by their places. Of ambisonics the first channel is taken, which hears every
    direction alike; the channels of other layouts, of which FFmpeg refuses some and leaves channels of others out, are
    averaged.
    """

    def __init__(self, layout: str, rate: int) -> None:
        self._has_downmix = _has_downmix(layout)
        self._is_ambisonic = layout.startswith("ambisonic")
        self._interleaved = av.AudioResampler(format="flt")  # PyAV fails to read more than eight planes
        self._resampler = av.AudioResampler(
            format="flt", layout="mono", rate=rate, frame_size=round(CHUNK_SECONDS * rate), options=NOT_LOUDER
        )

    def samples(self, frame: av.AudioFrame) -> Iterator[NDArray[np.float32]]:
        frames = [frame] if self._has_downmix else map(self._mono, self._interleaved.resample(frame))
        for mono in frames:
            yield from map(_samples, self._resampler.resample(mono))

    def rest(self) -> Iterator[NDArray[np.float32]]:
        yield from map(_samples, self._resampler.resample(None))

    def _mono(self, frame: av.AudioFrame) -> av.AudioFrame:
        samples_SC = frame.to_ndarray().reshape(frame.samples, -1)
        mono_S = samples_SC[:, 0] if self._is_ambisonic else samples_SC.mean(axis=1)
        mono = av.AudioFrame.from_ndarray(np.ascontiguousarray(mono_S)[None], format="flt", layout="mono")
        mono.sample_rate = frame.sample_rate
        return mono


@lru_cache(maxsize=64)
def _has_downmix(layout: str) -> bool:
    """Whether FFmpeg can make mono of a layout, with all its channels in it."""
    if av.AudioLayout(layout).nb_channels > MAX_CHANNELS_OF_A_DOWNMIX:
        return False
    silence = av.AudioFrame(format="flt", layout=layout, samples=64)
    silence.sample_rate = 16_000
    try:
        av.AudioResampler(format="flt", layout="mono").resample(silence)
    except av.error.FFmpegError:
        return False
    return True


def _samples(frame: av.AudioFrame) -> NDArray[np.float32]:
    samples = np.asarray(frame.to_ndarray(), dtype=np.float32).reshape(-1)
    return np.nan_to_num(samples, copy=False, nan=0.0, posinf=1.0, neginf=-1.0).clip(-1.0, 1.0)
