"""Clips with the right frames at the wanted moments, by a plain decode from start to end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

COUNT, SHORT_SIDE = 16, 224
SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts"}

Image = NDArray[np.uint8]


@dataclass
class Clip:
    """A file, the moments wanted of it, and the right frames: each with the one before and the one after it."""

    path: Path
    seconds: float
    size: tuple[int, int]  # (width, height), scaled
    times: list[float]
    right: list[tuple[Image, Image, Image]] = field(repr=False)
    damaged: bool
    sparse_keyframes: bool = False


def clips(folder: Path, media: Path | None, quick: bool) -> Iterator[Clip]:
    """Written here: a long file with a keyframe every 250 frames and a short clip; and those of the folder given."""
    long, short = folder / "long.mp4", folder / "short.mp4"
    if quick:
        write_video(long, (320, 240), seconds=6, keyframe_every=100)
        write_video(short, (160, 120), seconds=1, keyframe_every=250)
    else:
        write_video(long, (1280, 720), seconds=60, keyframe_every=250)
        write_video(short, (426, 240), seconds=6, keyframe_every=250)
    yield read_clip(long, sparse_keyframes=not quick)
    yield read_clip(short)
    media = media or Path(__file__).resolve().parents[2] / "shared" / "media"
    if media.is_dir() and not quick:
        for path in sorted(media.iterdir()):
            if path.suffix in SUFFIXES:
                yield read_clip(path)


def write_video(path: Path, size: tuple[int, int], *, seconds: int, keyframe_every: int, rate: int = 30) -> None:
    """H.264 with B-frames: a camera that pans over textured scenes with grain, an object that moves across them."""
    rng = np.random.default_rng(0)
    width, height = size
    grain = rng.normal(0, 3, (8, height, width)).astype(np.int16)
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "crf": "23", "sc_threshold": "0", "bf": "3"}
        stream = container.add_stream("libx264", rate=rate, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = keyframe_every
        for number in range(seconds * rate):
            step = number % (7 * rate)
            if step == 0:
                luma, chroma = texture(rng, height + 128, width + 512), texture(rng, height + 128, width + 512)
            x, y = 2 * (step // 2 * 2) // 2, 2 * int(32 + 30 * np.sin(step / 40))
            image_HW = np.empty((height * 3 // 2, width), np.int16)
            image_HW[:height] = luma[y : y + height, x : x + width] + grain[number % 8]
            colours = chroma[y : y + height : 2, x : x + width : 2]
            image_HW[height:] = np.concatenate([colours, 255 - colours]).reshape(height // 2, width)
            left = 5 * number % (width - width // 6)
            image_HW[height // 3 : height // 2, left : left + width // 6] = 40 + number % 180
            frame = av.VideoFrame.from_ndarray(image_HW.clip(0, 255).astype(np.uint8), format="yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def texture(rng: np.random.Generator, height: int, width: int) -> NDArray[np.int16]:
    """Smooth noise in octaves, (height, width), around 128."""
    total = np.full((height, width), 128.0)
    for grid in (128, 64, 32, 16, 8, 4):
        coarse = (128 + 32 * rng.standard_normal((height // grid + 2, width // grid + 2))).clip(0, 255).astype(np.uint8)
        fine = av.VideoFrame.from_ndarray(coarse, format="gray").reformat(width, height, interpolation="BICUBIC")
        total += (fine.to_ndarray() - 128.0) * grid**0.5 / 8
    return total.clip(0, 255).astype(np.int16)


def read_clip(path: Path, *, sparse_keyframes: bool = False) -> Clip:
    """Decode all of a file plainly, and keep the right frames."""
    stamps, size, begin, seconds, damaged = survey(path)
    times = [begin + (k + 0.5) / COUNT * seconds for k in range(COUNT)]
    shown = [max(int(np.searchsorted(stamps, moment + 1e-9, side="right")) - 1, 0) for moment in times]
    wanted = {min(max(number + step, 0), len(stamps) - 1) for number in shown for step in (-1, 0, 1)}
    images = {number: scaled(frame, size) for number, frame in enumerate(frames_of(path, [])) if number in wanted}
    last = len(stamps) - 1
    right = [(images[max(n - 1, 0)], images[n], images[min(n + 1, last)]) for n in shown]
    return Clip(path, seconds, size, times, right, damaged, sparse_keyframes)


def survey(path: Path) -> tuple[NDArray[np.float64], tuple[int, int], float, float, bool]:
    """When each frame starts; the upright size, scaled; begin and length in seconds; whether it is damaged."""
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        assert isinstance(stream, av.VideoStream) and stream.time_base is not None and stream.duration is not None
        begin, seconds = float((stream.start_time or 0) * stream.time_base), float(stream.duration * stream.time_base)
    errors: list[av.FFmpegError] = []
    frames = [(float(f.pts * f.time_base), f.width, f.height, f.rotation) for f in frames_of(path, errors)]
    _, width, height, rotation = frames[0]
    if rotation % 180:
        width, height = height, width
    ratio = SHORT_SIDE / min(width, height)
    size = (max(int(width * ratio + 1e-6), SHORT_SIDE), max(int(height * ratio + 1e-6), SHORT_SIDE))
    return np.array([start for start, *_ in frames]), size, begin, seconds, bool(errors)


def frames_of(path: Path, errors: list[av.FFmpegError]) -> Iterator[Any]:
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams.best("video")):
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                errors.append(error)
                continue
            yield from frames


def scaled(frame: Any, size: tuple[int, int]) -> Image:
    width, height = size[::-1] if frame.rotation % 180 else size
    small = frame.reformat(width=width, height=height, format="gbrp", interpolation="BILINEAR", threads=1)
    return np.ascontiguousarray(np.rot90(small.to_ndarray(), round(frame.rotation / 90)))
