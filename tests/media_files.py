"""Writers of small media files for the tests. A frame tells its own number: see `frame_number`."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

COUNTED_FRAMES = 60
TICKS_PER_SECOND = 90_000
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def painted_frame(number: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Frame `number` (from 0, repeating after 60): a grey level, with a red corner at the top left."""
    width, height = size
    image_HWC = np.full((height, width, 3), 10 + 4 * (number % COUNTED_FRAMES), np.uint8)
    image_HWC[: height // 4, : width // 4] = (255, 0, 0)
    return image_HWC


def frame_number(image_HWC: NDArray[np.uint8]) -> int:
    """The number that `painted_frame` put into a picture, however it was scaled, cropped or turned since."""
    return round((float(np.median(image_HWC[..., 1])) - 10) / 4)


def write_video(
    path: Path,
    *,
    frames: int = 24,
    size: tuple[int, int] = (64, 48),
    rate: int = 12,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    sound_seconds: float | None = None,
    sample_rate: int = 16000,
    channels: int = 1,
    keyframe_every: int = 12,
    timestamps: Sequence[float] | None = None,
    rotation: float = 0,
    b_frames: int | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write painted frames and, with `sound_seconds`, a tone beside them; `path` names the container by its suffix.

    `size` is (width, height). `timestamps` are the seconds at which the frames appear, else they follow `rate`.
    `rotation` is what the container asks the player to turn the picture by, in degrees. `options` are the codec's,
    `container_options` the muxer's.
    """
    with av.open(str(path), "w", options=container_options) as container:
        video = container.add_stream(codec, rate=rate, options=_lossless_options(codec) | (options or {}))
        assert isinstance(video, VideoStream)
        video.width, video.height = size
        video.pix_fmt = pix_fmt
        video.codec_context.time_base = Fraction(1, TICKS_PER_SECOND if timestamps else rate)
        video.codec_context.gop_size = keyframe_every
        default_b_frames = 0 if timestamps else 2
        video.codec_context.max_b_frames = default_b_frames if b_frames is None else b_frames
        if rotation:
            video.set_display_rotation(rotation)
        sound = None if sound_seconds is None else _add_sound(container, _sound_codec(path), sample_rate, channels)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(painted_frame(number, size), format="rgb24").reformat(format=pix_fmt)
            frame.time_base = video.codec_context.time_base
            frame.pts = round(timestamps[number] * TICKS_PER_SECOND) if timestamps else number
            frame.duration = TICKS_PER_SECOND // rate if timestamps else 1
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if sound is not None and sound_seconds is not None:
            _encode_sound(container, sound, tone(sound_seconds, sample_rate, 440.0))
    return path


def write_sound(
    path: Path,
    *,
    seconds: float = 2.0,
    sample_rate: int = 16000,
    channels: int = 1,
    frequency: float = 440.0,
    codec: str = "pcm_s16le",
) -> Path:
    """Write a tone of half the full scale, the same in every channel."""
    with av.open(str(path), "w") as container:
        stream = _add_sound(container, codec, sample_rate, channels)
        container.start_encoding()
        _encode_sound(container, stream, tone(seconds, sample_rate, frequency))
    return path


def write_image(path: Path, *, size: tuple[int, int] = (64, 48), pix_fmt: str = "rgb24") -> Path:
    """Write painted frame number 30 as PNG or JPEG, whichever the suffix says."""
    codec = "mjpeg" if path.suffix.lower() in {".jpg", ".jpeg"} else "png"
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream(codec, rate=1)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else pix_fmt
        frame = av.VideoFrame.from_ndarray(painted_frame(30, size), format="rgb24").reformat(format=stream.pix_fmt)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def tone(seconds: float, sample_rate: int, frequency: float) -> NDArray[np.float32]:
    """A sine of half the full scale, (samples,)."""
    times_S = np.arange(round(seconds * sample_rate)) / sample_rate
    return (0.5 * np.sin(2 * np.pi * frequency * times_S)).astype(np.float32)


def _lossless_options(codec: str) -> dict[str, str]:
    return {"crf": "4", "sc_threshold": "0"} if codec == "libx264" else {}


def _sound_codec(path: Path) -> str:
    return {".webm": "libopus", ".avi": "pcm_s16le", ".mkv": "flac"}.get(path.suffix.lower(), "aac")


def _add_sound(container: OutputContainer, codec: str, sample_rate: int, channels: int) -> AudioStream:
    stream = container.add_stream(codec, rate=sample_rate, layout=LAYOUTS[channels])
    assert isinstance(stream, AudioStream)
    return stream


def _encode_sound(container: OutputContainer, stream: AudioStream, samples_S: NDArray[np.float32]) -> None:
    channels = len(stream.layout.channels)
    samples_CS = np.ascontiguousarray(np.repeat(samples_S[None], channels, axis=0))
    frame = av.AudioFrame.from_ndarray(samples_CS, format="fltp", layout=stream.layout.name)
    frame.sample_rate = stream.sample_rate
    frame.pts = 0
    frame.time_base = Fraction(1, stream.sample_rate)
    if len(samples_S):
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
