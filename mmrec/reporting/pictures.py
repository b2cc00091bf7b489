"""What media files look and sound like: small pictures and waveforms, decoded in worker processes within limits."""

from __future__ import annotations

import io
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mmrec.catalog import Item
from mmrec.embedding import DecodeLimits, DecodePool, Task, decode_items
from mmrec.errors import MediaError, MMRecError, Problem, Reason
from mmrec.media import DecodedMedia, FramePlan, FrameSampling, Moments, SoundPlan, SoundSampling
from mmrec.remote import Place

LIMITS = DecodeLimits(workers=1, timeout_seconds=20, memory_bytes=2 * 2**30)
MAX_WIDTH, MAX_POINTS = 2048, 4096
TALLEST = 2  # a picture's height in widths
SOUND_RATE, WINDOW_SECONDS = 16_000, 0.2
QUALITY = 80
GAP, GREY = 2, 128  # between the pictures of a strip


@dataclass(frozen=True, slots=True)
class Preview:
    """Of one file: pictures of one height as a strip from left to right, and the peaks of its sound.

    `strip` is a JPEG of `size` (width, height), empty where the file has no picture; `peaks` are 0 to 1, none where it
    has no sound. `problem` says why both are missing.
    """

    media: Place
    strip: bytes = b""
    size: tuple[int, int] = (0, 0)
    peaks: tuple[float, ...] = ()
    problem: Problem | None = None


def thumbnail(media: Place, seconds: float | None, width: int, *, pool: DecodePool | None = None) -> bytes:
    """A JPEG, `width` pixels wide, of what a file shows at a moment; of its middle where `seconds` is None.

    It is upright and has the aspect of the picture, up to twice as high as wide. The file is decoded in a process of
    its own, in at most 20 seconds; by a `pool`, one that is there already. Raises `MediaError` where it gives no
    picture.

    >>> from pathlib import Path
    >>> from mmrec.reporting import thumbnail
    >>> thumbnail(Path("media/football-0.mp4"), 1.0, width=32)[:3]
    b'\\xff\\xd8\\xff'
    """
    if not 1 <= width <= MAX_WIDTH:
        raise MMRecError(f"the width of a thumbnail is {width} pixels: expected 1 to {MAX_WIDTH}")
    sampling = FrameSampling(count=1) if seconds is None else Moments((seconds,))
    frames = FramePlan(sampling=sampling, height=TALLEST * width, width=width, fit="inside")
    decoded = _decoded_one(media, frames, None, pool)
    if decoded.frames_TFHWC is None:
        raise MediaError(media, "picture", _reason(decoded.visual_problem))
    return jpeg(decoded.frames_TFHWC[0, 0])


def waveform(media: Place, points: int, *, pool: DecodePool | None = None) -> list[float]:
    """The peaks of a file's sound in as many parts of it: 0 is silence, 1 full scale.

    Of long files, fifths of a second are listened to, evenly spaced. Decoded as by `thumbnail`; raises `MediaError`
    where the file gives no sound.

    >>> from pathlib import Path
    >>> from mmrec.reporting import waveform
    >>> len(waveform(Path("media/rain-0.wav"), points=50))
    50
    """
    decoded = _decoded_one(media, None, _sound_plan(points), pool)
    if not decoded.windows:
        raise MediaError(media, "sound", _reason(decoded.audio_problem))
    return _peaks(decoded.windows, points)


def previews(
    media: Iterable[Place], *, pictures: int, height: int, points: int, workers: int = 0
) -> Generator[Preview, None, None]:
    """Of each file a strip of `pictures` evenly spaced ones, and `points` peaks, 0 for none, as soon as it is decoded.

    A file that gives neither has a `problem`; it raises nothing, and does not disturb the others.

    >>> from pathlib import Path
    >>> from mmrec.reporting import previews
    >>> for preview in previews([Path("media/football-0.mp4")], pictures=4, height=24, points=8):
    ...     print(preview.media.name, preview.size, preview.peaks)
    football-0.mp4 (134, 24) ()
    """
    frames = FramePlan(sampling=FrameSampling(count=pictures), height=height, width=TALLEST * height, fit="inside")
    limits = DecodeLimits(workers=workers, timeout_seconds=LIMITS.timeout_seconds, memory_bytes=LIMITS.memory_bytes)
    for path, decoded in _decoded(media, frames, _sound_plan(points) if points else None, limits):
        strip, size = b"", (0, 0)
        if decoded.frames_TFHWC is not None:
            strip_HWC = _side_by_side(decoded.frames_TFHWC[:, 0])
            strip, size = jpeg(strip_HWC), (strip_HWC.shape[1], strip_HWC.shape[0])
        peaks = tuple(_peaks(decoded.windows, points)) if decoded.windows else ()
        problem = None if strip or peaks else _reason(decoded.visual_problem)
        yield Preview(path, strip, size, peaks, problem)


def _side_by_side(pictures_THWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    gap = np.full((pictures_THWC.shape[1], GAP, 3), GREY, np.uint8)
    return np.concatenate([part for picture in pictures_THWC for part in (picture, gap)][:-1], axis=1)


def jpeg(picture_HWC: NDArray[np.uint8]) -> bytes:
    """An RGB picture as a JPEG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture_HWC)).save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue()


def _decoded_one(
    media: Place, frames: FramePlan | None, sound: SoundPlan | None, pool: DecodePool | None
) -> DecodedMedia:
    if pool is not None:
        return pool.decode(media, frames, sound)
    ((_, decoded),) = _decoded([media], frames, sound, LIMITS)
    return decoded


def _decoded(
    media: Iterable[Place], frames: FramePlan | None, sound: SoundPlan | None, limits: DecodeLimits
) -> Iterator[tuple[Place, DecodedMedia]]:
    tasks = (Task(Item(item_id=str(path), media=path), text="") for path in media)
    with closing(decode_items(tasks, frames, sound, limits)) as decoded:
        for task, found in decoded:
            assert task.item.media is not None
            yield task.item.media, found


def _reason(problem: Problem | None) -> Problem:
    return problem or Problem(Reason.NO_STREAM, "the file has neither picture nor sound")


def _sound_plan(points: int) -> SoundPlan:
    if not 1 <= points <= MAX_POINTS:
        raise MMRecError(f"a waveform of {points} points: expected 1 to {MAX_POINTS}")
    return SoundPlan(sampling=SoundSampling(window_seconds=WINDOW_SECONDS, count=points), sample_rate=SOUND_RATE)


def _peaks(windows: list[NDArray[np.float32]], points: int) -> list[float]:
    samples_S = np.abs(np.concatenate(windows))
    bounds = np.linspace(0, len(samples_S), points + 1).astype(int)
    parts = (samples_S[start : max(end, start + 1)] for start, end in pairwise(bounds))
    return [round(float(part.max(initial=0)), 3) for part in parts]
