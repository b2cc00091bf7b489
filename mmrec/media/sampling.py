"""Which moments of a file to look at: plans for frames and for sound, and the times they ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar, get_args

from mmrec.errors import MMRecError

FrameMode = Literal["uniform", "keyframes", "fps"]
SoundMode = Literal["windows", "all"]
Fit = Literal["crop", "squash", "pad", "inside"]
Interpolation = Literal["bilinear", "bicubic"]

T = TypeVar("T")

MAX_FRAMES = 4096
MAX_WINDOWS = 4096


def _check(condition: bool, name: str, value: object, expected: str) -> None:
    if not condition:
        raise MMRecError(f"{name} is {value!r}: expected {expected}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object, maximum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= maximum


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameSampling:
    """Which frames stand for a video.

    `uniform`: the middles of `count` equal parts of its duration. `keyframes`: up to `count` of its keyframes,
    evenly chosen; the cheapest by far on long files. `fps`: one frame every 1 / `fps` seconds, thinned evenly where
    that would be more than `count`.

    Eight uniform frames are the default because their mean vector is that of all frames (least cosine on five videos
    of 10 to 60 s: 0.9995 by the descriptors, 0.998 by CLIP; with four 0.995, 0.988), and more of them buy little.
    Keyframes cost a ninth, but they lie where the video's encoder put them, often at cuts and few: 0.937, 0.988. They
    are for long files and large catalogs. `scripts/bench_sampling.py` measures it.

    >>> from mmrec.media import FrameSampling
    >>> FrameSampling(mode="uniform", count=4).times(duration_seconds=60)
    [7.5, 22.5, 37.5, 52.5]
    """

    mode: FrameMode = "uniform"
    count: int = 8
    fps: float = 1.0

    def __post_init__(self) -> None:
        _check(self.mode in get_args(FrameMode), "frame sampling mode", self.mode, f"one of {get_args(FrameMode)}")
        _check(_is_count(self.count, MAX_FRAMES), "frame sampling count", self.count, f"1 to {MAX_FRAMES}")
        expected = "a rate above 0 and up to 240 frames a second"
        _check(_is_number(self.fps) and 0 < self.fps <= 240, "frame sampling fps", self.fps, expected)

    def times(self, duration_seconds: float) -> list[float]:
        """The moments wanted, in seconds from the start, for `uniform` and `fps`."""
        count = self.count
        if self.mode == "fps" and (wanted := int(duration_seconds * self.fps)) < self.count:
            return [(k + 0.5) / self.fps for k in range(wanted)] or [duration_seconds / 2]
        return [(k + 0.5) / count * duration_seconds for k in range(count)]


@dataclass(frozen=True, slots=True)
class Moments:
    """The frames on screen at given moments, in seconds from the start.

    >>> from mmrec.media import FramePlan, Moments, decode_media
    >>> plan = FramePlan(sampling=Moments((0.5,)), height=24, width=32)
    >>> decode_media("media/football-0.mp4", plan, None).frame_spans
    [(0.5, 0.5)]
    """

    seconds: tuple[float, ...]
    mode: ClassVar[str] = "moments"

    def __post_init__(self) -> None:
        _check(
            _is_count(len(self.seconds), MAX_FRAMES), "the number of moments", len(self.seconds), f"1 to {MAX_FRAMES}"
        )
        for moment in self.seconds:
            _check(_is_number(moment) and 0 <= moment < 1e9, "moment", moment, "seconds from the start, 0 or more")

    @property
    def count(self) -> int:
        return len(self.seconds)

    def times(self, duration_seconds: float) -> list[float]:
        """The moments wanted; those after the end are at the end."""
        return [min(moment, duration_seconds) for moment in self.seconds]


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundSampling:
    """Which windows stand for a sound.

    `windows`: up to `count` windows of `window_seconds`, evenly spaced from the start to the end, never overlapping.
    `all`: windows one after the other over all of it, the last one moved back to end with the sound; a sound longer
    than `count` windows is sampled evenly. A sound shorter than one window is one window, as long as the sound.

    >>> from mmrec.media import SoundSampling
    >>> SoundSampling(window_seconds=10, count=3).spans(duration_seconds=60)
    [(0.0, 10.0), (25.0, 35.0), (50.0, 60.0)]
    """

    mode: SoundMode = "windows"
    window_seconds: float = 10.0
    count: int = 6

    def __post_init__(self) -> None:
        _check(self.mode in get_args(SoundMode), "sound sampling mode", self.mode, f"one of {get_args(SoundMode)}")
        in_range = _is_number(self.window_seconds) and 0 < self.window_seconds <= 600
        _check(in_range, "window_seconds", self.window_seconds, "above 0 and up to 600 seconds")
        _check(_is_count(self.count, MAX_WINDOWS), "sound sampling count", self.count, f"1 to {MAX_WINDOWS}")

    def spans(self, duration_seconds: float) -> list[tuple[float, float]]:
        """(start, end) of each window in seconds from the start of the sound."""
        window = self.window_seconds
        if duration_seconds <= window:
            return [(0.0, duration_seconds)]
        whole = int(duration_seconds / window + 1e-9)
        if self.mode == "all" and whole < self.count:
            starts = [k * window for k in range(whole)]
            if duration_seconds - whole * window > 1e-6:
                starts.append(duration_seconds - window)
        else:
            starts = _evenly_spaced(min(self.count, whole), duration_seconds - window)
        return [(start, start + window) for start in starts]


def _evenly_spaced(count: int, last: float) -> list[float]:
    return [last / 2] if count == 1 else [k * last / (count - 1) for k in range(count)]


def evenly_chosen(values: Sequence[T], count: int) -> list[T]:
    """At most `count` of the values: the middles of `count` equal parts."""
    if len(values) <= count:
        return list(values)
    return [values[int((k + 0.5) * len(values) / count)] for k in range(count)]


@dataclass(frozen=True, slots=True, kw_only=True)
class FramePlan:
    """Frames to decode, and the shape an encoder wants them in.

    A token is made of the frames at its time plus each of `offsets` (seconds). `fit` says how a frame becomes
    `height` x `width`: `crop` fills it and cuts the middle out, `squash` ignores the aspect, `pad` adds black borders;
    with `inside` it keeps its aspect, and is as large as fits.

    >>> from mmrec.media import FramePlan, FrameSampling, decode_media
    >>> pairs = FramePlan(sampling=FrameSampling(count=3), height=16, width=24, fit="pad", offsets=(0.0, 0.25))
    >>> decode_media("media/football-0.mp4", pairs, None).frames_TFHWC.shape
    (3, 2, 16, 24, 3)
    """

    sampling: FrameSampling | Moments
    height: int
    width: int
    fit: Fit = "crop"
    interpolation: Interpolation = "bicubic"
    offsets: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        _check(
            1 <= self.height <= 4096 and 1 <= self.width <= 4096, "frame size", (self.height, self.width), "1 to 4096"
        )
        _check(self.fit in get_args(Fit), "fit", self.fit, f"one of {get_args(Fit)}")
        _check(
            self.interpolation in get_args(Interpolation), "interpolation", self.interpolation, "bilinear or bicubic"
        )
        _check(
            len(self.offsets) >= 1 and self.offsets[0] == 0.0, "offsets", self.offsets, "a list that starts with 0.0"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundPlan:
    """Sound to decode: mono float32 at `sample_rate` Hz; a sound shorter than `min_seconds` is too short to embed.

    >>> from mmrec.media import SoundPlan, SoundSampling, decode_media
    >>> quarters = SoundPlan(sampling=SoundSampling(mode="all", window_seconds=0.25), sample_rate=16_000)
    >>> [len(window) for window in decode_media("media/rain-0.wav", None, quarters).windows]
    [4000, 4000, 4000, 4000]
    """

    sampling: SoundSampling
    sample_rate: int
    min_seconds: float = 0.0

    def __post_init__(self) -> None:
        _check(1000 <= self.sample_rate <= 192_000, "sample_rate", self.sample_rate, "1000 to 192000 Hz")
