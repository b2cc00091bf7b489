"""Pictures: the wanted frames of a video stream, upright and in the shape that an encoder takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import av.error
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from mmrec.errors import Problem, Reason
from mmrec.media.container import StreamReader, Unreadable, is_intra, is_still, required, words_of
from mmrec.media.frames import frames_at, keyframe_at
from mmrec.media.orientation import Orientation, orientation_of
from mmrec.media.sampling import FramePlan, evenly_chosen

MAX_PIXELS = 2**27
THREADED_PIXELS = 2**17  # smaller frames take no longer to decode than to be handed from thread to thread


class Pictures(NamedTuple):
    """`frames_TFHWC` uint8 RGB, (start, end) seconds of each token, and what was done to have them upright."""

    frames_TFHWC: NDArray[np.uint8]
    spans: list[tuple[float, float]]
    orientation: Orientation


def read_pictures(
    container: InputContainer, stream: VideoStream | None, plan: FramePlan, deadline: float, threads: int
) -> tuple[Pictures, Problem | None]:
    """The frames that the plan asks for, and what was wrong with the stream, if anything.

    Raises `Unreadable` where there is no picture at all, and whatever av raises.
    """
    stream = required(stream, "video", container)
    context = stream.codec_context
    pixels = context.width * context.height
    if pixels > MAX_PIXELS:
        raise Unreadable(
            Reason.TOO_LARGE, f"{context.width} x {context.height} pixels; at most {MAX_PIXELS} are decoded"
        )
    reader = StreamReader(container, stream, deadline, threads if pixels >= THREADED_PIXELS else 1)
    scaler = _Scaler(plan, stream)
    if is_still(container, stream):
        tokens = _still(reader, scaler, plan)
    elif plan.sampling.mode == "keyframes":
        tokens = _keyframes(reader, scaler, plan)
    else:
        tokens = _frames_at_times(reader, scaler, plan)
    if not tokens:
        raise reader.nothing("the stream holds no frame")
    images = [image for _, token in tokens for image in token]
    frames_TFHWC = np.stack(images).reshape(len(tokens), len(plan.offsets), *images[0].shape)
    return Pictures(frames_TFHWC, [span for span, _ in tokens], scaler.orientation), reader.problem


_Token = tuple[tuple[float, float], list[NDArray[np.uint8]]]


def _still(reader: StreamReader, scaler: _Scaler, plan: FramePlan) -> list[_Token]:
    for frame in reader.frames():
        return [((0.0, 0.0), [scaler(frame)] * len(plan.offsets))]
    return []


def _keyframes(reader: StreamReader, scaler: _Scaler, plan: FramePlan) -> list[_Token]:
    timestamps = evenly_chosen(reader.indexed_keyframes(), plan.sampling.count)
    if timestamps:
        found = _keyframes_by_index(reader, scaler, timestamps)
    else:
        found = _keyframes_in_one_pass(reader, scaler, plan.sampling.count)
    return [((seconds, seconds), [image] * len(plan.offsets)) for seconds, image in found]


def _keyframes_by_index(
    reader: StreamReader, scaler: _Scaler, timestamps: list[int]
) -> list[tuple[float, NDArray[np.uint8]]]:
    reader.stream.codec_context.thread_count = 1  # each is decoded alone: there is nothing to share out
    found: dict[int, NDArray[np.uint8]] = {}
    for timestamp in timestamps:
        frame = keyframe_at(reader, timestamp)
        if frame is not None and frame.pts not in found:
            found[frame.pts] = scaler(frame)
    return [(reader.seconds(pts), image) for pts, image in sorted(found.items())]


def _keyframes_in_one_pass(reader: StreamReader, scaler: _Scaler, count: int) -> list[tuple[float, NDArray[np.uint8]]]:
    """Keep every n-th keyframe, doubling n whenever twice the count is held: bounded memory without an index."""
    reader.stream.codec_context.skip_frame = "NONKEY"
    kept: list[tuple[float, NDArray[np.uint8]]] = []
    step = 1
    for number, frame in enumerate(filter(is_intra, reader.frames())):
        if number % step == 0:
            kept.append((reader.seconds(frame.pts), scaler(frame)))
        if len(kept) == 2 * count:
            kept, step = kept[::2], 2 * step
    return evenly_chosen(kept, count)


def _frames_at_times(reader: StreamReader, scaler: _Scaler, plan: FramePlan) -> list[_Token]:
    claimed = reader.duration_seconds()
    tokens = _tokens_at(reader, scaler, plan, claimed)
    true_duration = reader.end_seconds
    if reader.reached_end and true_duration < 0.9 * claimed - 0.3:
        reader.errors.append(f"the picture ends at {true_duration:.1f} s; the header claims {claimed:.1f} s")
        reader.rewind()
        tokens = _tokens_at(reader, scaler, plan, true_duration)
    return tokens


def _tokens_at(reader: StreamReader, scaler: _Scaler, plan: FramePlan, duration: float) -> list[_Token]:
    start = reader.seconds(reader.stream.start_time or 0) if reader.stream.start_time is not None else 0.0
    times = plan.sampling.times(duration)
    wanted = sorted({reader.ticks(start + time + offset) for time in times for offset in plan.offsets})
    shown: dict[int, tuple[int, NDArray[np.uint8]]] = {}
    try:
        shown.update(zip(wanted, _images_at(reader, scaler, wanted), strict=False))
    except (av.error.FFmpegError, Unreadable) as error:
        if not shown:
            raise
        reader.errors.append(words_of(error))
    tokens: dict[int, _Token] = {}
    for time in times:
        parts = [shown.get(reader.ticks(start + time + offset)) for offset in plan.offsets]
        if parts[0] is None:
            continue
        frames = [part if part is not None else parts[0] for part in parts]
        first, last = frames[0][0], max(pts for pts, _ in frames)
        tokens.setdefault(first, ((reader.seconds(first), reader.seconds(last)), [image for _, image in frames]))
    return list(tokens.values())


def _images_at(reader: StreamReader, scaler: _Scaler, wanted: list[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    image: tuple[int, NDArray[np.uint8]] | None = None
    for frame in frames_at(reader, wanted):
        if image is None or image[0] != frame.pts:
            image = (frame.pts, scaler(frame))
        yield image


class _Scaler:
    """A decoded frame -> uint8 RGB (H, W, 3) of the plan's shape, as it was seen, pixels square. Scaled by swscale."""

    def __init__(self, plan: FramePlan, stream: VideoStream) -> None:
        self.plan = plan
        self.orientation = Orientation(0, mirrored=False)
        self._reformatter = VideoReformatter()
        still = is_still(stream.container, stream)
        self._pixel_aspect = 1.0 if still else float(stream.sample_aspect_ratio or 1.0)

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        if frame.width * frame.height > MAX_PIXELS:
            raise Unreadable(
                Reason.TOO_LARGE, f"{frame.width} x {frame.height} pixels; at most {MAX_PIXELS} are decoded"
            )
        plan = self.plan
        self.orientation = orientation_of(frame)
        height, width = (plan.width, plan.height) if self.orientation.quarter_turns % 2 else (plan.height, plan.width)
        scaled_height, scaled_width = self._scaled_size(frame, height, width)
        rgb = self._reformatter.reformat(
            frame,
            width=scaled_width,
            height=scaled_height,
            format="gbrp",  # faster than interleaved RGB, and not at half the resolution of colour
            interpolation=plan.interpolation.upper(),
            threads=1,
        )
        green, blue, red = (_plane(plane, scaled_width) for plane in rgb.planes)
        if plan.fit == "inside":
            height, width = scaled_height, scaled_width
        image = np.stack([_place(plane, height, width) for plane in (red, green, blue)], axis=-1)
        return self.orientation.upright(image)

    def _scaled_size(self, frame: VideoFrame, height: int, width: int) -> tuple[int, int]:
        if self.plan.fit == "squash":
            return height, width
        shown_width = max(1.0, frame.width * self._pixel_aspect)
        ratios = height / frame.height, width / shown_width
        ratio = max(ratios) if self.plan.fit == "crop" else min(ratios)
        bound = max if self.plan.fit == "crop" else min
        size = [max(1, int(ratio * frame.height + 1e-6)), max(1, int(ratio * shown_width + 1e-6))]
        return bound(size[0], height), bound(size[1], width)


def _plane(plane: VideoPlane, width: int) -> NDArray[np.uint8]:
    return np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, :width]


def _place(plane: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Cut the middle out of a larger plane; centre a smaller one on black."""
    top, left = (plane.shape[0] - height) / 2, (plane.shape[1] - width) / 2
    if top >= 0 and left >= 0:
        return plane[round(top) : round(top) + height, round(left) : round(left) + width]
    canvas = np.zeros((height, width), np.uint8)
    y, x = round(-top), round(-left)
    canvas[y : y + plane.shape[0], x : x + plane.shape[1]] = plane
    return canvas
