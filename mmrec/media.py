"""Decoding: one open of a file gives the frames, the sound and their true times. The only file that reads with av.

FFmpeg gets an open descriptor of a regular file and may open nothing else: no path, no protocol, no playlist.
Bad media never raises: what could be read is returned, with a `Problem` for each modality that suffered.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import av
import av.error
import numpy as np
from av.audio.stream import AudioStream
from av.container import Container, InputContainer
from av.stream import Discard, Disposition, Stream
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from mmrec.errors import Problem, Reason
from mmrec.sampling import FramePlan, SoundPlan, evenly_chosen

MAX_PIXELS = 2**27
SEEK_MIN_FRAMES = 12
SEEK_MIN_SECONDS = 5.0
SOUND_PREROLL_SECONDS = 0.5
SOUND_GAP_SECONDS = 0.1
FRAMES_BEFORE_KEYFRAME = 64
MAX_READ_ERRORS = 16

# Containers whose index covers the whole stream; others make one of what was read so far.
INDEXED_FORMATS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi"})

# Demuxers that read one self-contained file: no playlists, scripts, image sequences or capture devices.
CONTAINER_FORMATS = (
    "aac ac3 aiff amr amrnb amrwb ape apng asf au avi avs2 avs3 bmp_pipe caf dds_pipe dnxhd dts dtshd dv eac3 exr_pipe "
    "flac flv gif gif_pipe gxf h263 h264 hdr_pipe hevc ico ivf j2k_pipe jpeg_pipe jpegls_pipe jpegxl_anim jpegxl_pipe "
    "loas m4v matroska,webm mjpeg mov,mp4,m4a,3gp,3g2,mj2 mp3 mpc mpc8 mpeg mpegts mpegvideo mxf nut obu ogg oma "
    "pam_pipe pbm_pipe pcx_pipe pgm_pipe pgmyuv_pipe pgx_pipe png_pipe ppm_pipe psd_pipe qoi_pipe rm sgi_pipe smjpeg "
    "sox spdif sunrast_pipe tak tiff_pipe truehd tta vc1 voc vvc w64 wav webp_pipe wsd wtv wv xbm_pipe xpm_pipe "
    "xwd_pipe yuv4mpegpipe"
).replace(" ", ",")


class _Unreadable(Exception):
    """The file, or a stream of it, gives nothing."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.problem = Problem(reason, detail)


@dataclass(slots=True)
class DecodedMedia:
    """What one file gave.

    `frames_TFHWC`: uint8 RGB, upright, T tokens of F frames each; None without a picture.
    `frame_spans`: (start, end) in seconds of each token's first and last frame.
    `windows`: mono float32 sound at the plan's rate; all but a single short one have the plan's length.
    `window_spans`: (start, end) in seconds. Times count from the start of the file's presentation.
    """

    frames_TFHWC: NDArray[np.uint8] | None = None
    frame_spans: list[tuple[float, float]] = field(default_factory=list)
    windows: list[NDArray[np.float32]] = field(default_factory=list)
    window_spans: list[tuple[float, float]] = field(default_factory=list)
    duration_seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    visual_problem: Problem | None = None
    audio_problem: Problem | None = None
    decode_seconds: float = 0.0


def decode_media(path: str | os.PathLike[str], frames: FramePlan | None, sound: SoundPlan | None) -> DecodedMedia:
    """Open `path` once and decode what the plans ask for; a plan that is None is not decoded.

    Raises nothing for bad media; MemoryError where the process may not have the memory.
    """
    media = DecodedMedia()
    try:
        container = _open(Path(path))
    except _Unreadable as error:
        media.visual_problem = media.audio_problem = error.problem
        return media
    with container:
        video, audio = _choose_video(container), _choose_audio(container)
        media.duration_seconds = (container.duration or 0) / av.time_base
        media.facts = _facts(container, video, audio)
        if frames is not None:
            media.visual_problem = _guarded(lambda: _read_frames(container, video, frames, media))
        if sound is not None:
            media.audio_problem = _guarded(lambda: _read_sound(container, audio, sound, media))
    return media


def _guarded(read: Callable[[], Problem | None]) -> Problem | None:
    """Run one modality's reader; its failure must not take the other modality along."""
    try:
        return read()
    except _Unreadable as error:
        return error.problem
    except (av.error.FFmpegError, ValueError, ArithmeticError, LookupError) as error:
        return Problem(Reason.CORRUPT, _words(error))


def _words(error: Exception) -> str:
    if isinstance(error, av.error.FFmpegError):
        if error.errno == errno.ENOMEM:
            raise MemoryError(str(error)) from error
        return str(error.strerror)
    return f"{type(error).__name__}: {error}"


def _open(path: Path) -> InputContainer:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | getattr(os, "O_NOCTTY", 0))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _Unreadable(Reason.MISSING_FILE, f"{path}: {error.strerror}") from None
    except PermissionError as error:
        raise _Unreadable(Reason.NOT_READABLE, f"{path}: {error.strerror}") from None
    except (OSError, ValueError) as error:
        raise _Unreadable(Reason.NOT_A_FILE, f"{path}: {error}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _Unreadable(Reason.NOT_A_FILE, f"{path} is no regular file")
        if status.st_size == 0:
            raise _Unreadable(Reason.NOT_MEDIA, "the file is empty")
        options = {
            "fd": str(descriptor),
            "protocol_whitelist": "fd",
            "format_whitelist": CONTAINER_FORMATS,
        }
        return av.open("fd:", options=options, metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise _Unreadable(Reason.NOT_MEDIA, _words(error)) from None
    except ValueError as error:
        raise _Unreadable(Reason.NOT_MEDIA, str(error)) from None
    finally:
        os.close(descriptor)


def _choose_video(container: InputContainer) -> VideoStream | None:
    """The best moving picture; where there is none, an attached one (cover art)."""
    moving = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    best = container.streams.best("video")
    if isinstance(best, VideoStream) and (best in moving or not moving):
        return best
    return moving[0] if moving else None


def _choose_audio(container: InputContainer) -> AudioStream | None:
    best = container.streams.best("audio")
    return best if isinstance(best, AudioStream) else None


def _facts(container: InputContainer, video: VideoStream | None, audio: AudioStream | None) -> dict[str, Any]:
    facts: dict[str, Any] = {"format": container.format.name}
    if video is not None and _has_decoder(video):
        facts |= {
            "video_codec": video.codec_context.name,
            "width": video.codec_context.width,
            "height": video.codec_context.height,
        }
        if video.average_rate:
            facts["fps"] = round(float(video.average_rate), 3)
        if video.disposition & Disposition.attached_pic:
            facts["visual_source"] = "attached_picture"
    if audio is not None and _has_decoder(audio):
        context = audio.codec_context
        facts |= {"audio_codec": context.name, "sample_rate": context.sample_rate, "channels": context.channels}
    return facts


def _has_decoder(stream: Stream) -> bool:
    return getattr(stream, "codec_context", None) is not None


S = TypeVar("S", bound=Stream)


def _require(stream: S | None, kind: str, container: InputContainer) -> S:
    if stream is None:
        if any(s.type == kind for s in container.streams):
            raise _Unreadable(Reason.UNSUPPORTED, f"no decoder for the {kind} stream")
        raise _Unreadable(Reason.NO_STREAM, f"the file has no {kind} stream")
    if not _has_decoder(stream):
        raise _Unreadable(Reason.UNSUPPORTED, f"no decoder for the {kind} stream")
    return stream


class _Reader:
    """Decoded frames of one stream, from wherever it was last sent; remembers what it met.

    A read error ends the decoding at most `MAX_READ_ERRORS` times later: whatever decodes before is kept.
    """

    def __init__(self, container: InputContainer, stream: Stream) -> None:
        self.container, self.stream = container, stream
        self.errors: list[str] = []
        self.end_seconds = 0.0
        self.reached_end = False
        assert stream.time_base is not None
        self.time_base = stream.time_base
        self.origin_seconds = (container.start_time or 0) / av.time_base
        for other in container.streams:
            other.discard = Discard.default if other is stream else Discard.all
        stream.codec_context.thread_count = 1

    @property
    def problem(self) -> Problem | None:
        if not self.errors:
            return None
        return Problem(Reason.CORRUPT, f"{len(self.errors)} read errors, the first: {self.errors[0]}")

    def seconds(self, ticks: int) -> float:
        return float(ticks * self.time_base) - self.origin_seconds

    def ticks(self, seconds: float) -> int:
        return round((seconds + self.origin_seconds) / self.time_base)

    def seek(self, ticks: int) -> None:
        self.reached_end = False
        self.container.seek(ticks, stream=self.stream)

    def rewind(self) -> None:
        """Back to the first frame: some containers need to be asked for a moment before it, others refuse that."""
        start = min(self.stream.start_time or 0, self.ticks(0.0))
        try:
            self.seek(start - round(1 / self.time_base))
        except av.error.FFmpegError:
            self.seek(start)

    @property
    def has_index(self) -> bool:
        return self.container.format.name in INDEXED_FORMATS and len(self.stream.index_entries) > 1

    def packets(self) -> Iterator[Any]:
        while True:
            try:
                yield from self.container.demux(self.stream)
                self.reached_end = True
                return
            except av.error.FFmpegError as error:
                self.errors.append(_words(error))
                if len(self.errors) > MAX_READ_ERRORS:
                    return

    def frames(self) -> Iterator[Any]:
        """Frames in the order of presentation, each with a time stamp."""
        last = None
        for packet in self.packets():
            try:
                decoded = packet.decode()
            except av.error.EOFError:
                continue
            except av.error.FFmpegError as error:
                self.errors.append(_words(error))
                continue
            for frame in decoded:
                if frame.pts is None:
                    frame.pts = frame.dts if frame.dts is not None else (0 if last is None else last + 1)
                last = frame.pts
                self.end_seconds = max(self.end_seconds, self.seconds(last + self._length(frame)))
                yield frame

    def _length(self, frame: Any) -> int:
        if isinstance(frame, VideoFrame):
            return int(frame.duration or 0)
        return round(frame.samples / frame.sample_rate / self.time_base) if frame.sample_rate else 0

    def duration_seconds(self) -> float:
        """The stream's length as its header says it, else the file's, else found by reading all packets."""
        if self.stream.duration:
            return float(self.stream.duration * self.time_base)
        if self.container.duration:
            return self.container.duration / av.time_base
        end = max((p.pts + (p.duration or 0) for p in self.packets() if p.pts is not None), default=0)
        self.rewind()
        return max(0.0, self.seconds(end))


# --- frames ---------------------------------------------------------------------------------------------------------


def _read_frames(
    container: InputContainer, stream: VideoStream | None, plan: FramePlan, media: DecodedMedia
) -> Problem | None:
    stream = _require(stream, "video", container)
    context = stream.codec_context
    if context.width * context.height > MAX_PIXELS:
        raise _Unreadable(
            Reason.TOO_LARGE, f"{context.width} x {context.height} pixels; at most {MAX_PIXELS} are decoded"
        )
    reader = _Reader(container, stream)
    scaler = _Scaler(plan, stream)
    if _is_still(container, stream):
        tokens = _still(reader, scaler, plan)
    elif plan.sampling.mode == "keyframes":
        tokens = _keyframes(reader, scaler, plan)
    else:
        tokens = _frames_at_times(reader, scaler, plan)
    if not tokens:
        raise _Unreadable(
            *((Reason.CORRUPT, reader.errors[0]) if reader.errors else (Reason.TOO_SHORT, "no frame in it"))
        )
    media.frames_TFHWC = np.stack([frames for _, frames in tokens])
    media.frame_spans = [span for span, _ in tokens]
    if scaler.rotation:
        media.facts["rotation"] = scaler.rotation
    return reader.problem


_Token = tuple[tuple[float, float], NDArray[np.uint8]]


def _is_still(container: Container, stream: VideoStream) -> bool:
    return bool(stream.disposition & Disposition.attached_pic) or container.format.name.endswith("_pipe")


def _still(reader: _Reader, scaler: _Scaler, plan: FramePlan) -> list[_Token]:
    for frame in reader.frames():
        return [((0.0, 0.0), np.stack([scaler(frame)] * len(plan.offsets)))]
    return []


def _keyframes(reader: _Reader, scaler: _Scaler, plan: FramePlan) -> list[_Token]:
    reader.stream.codec_context.skip_frame = "NONKEY"
    timestamps = evenly_chosen(_indexed_keyframes(reader), plan.sampling.count)
    if timestamps:
        found = _keyframes_by_index(reader, scaler, timestamps)
    else:
        found = _keyframes_in_one_pass(reader, scaler, plan.sampling.count)
    return [((seconds, seconds), np.stack([image] * len(plan.offsets))) for seconds, image in found]


def _indexed_keyframes(reader: _Reader) -> list[int]:
    """Time stamps of the keyframes, ascending; none where the container has no index of the whole stream.

    Matroska reads its index at the first seek.
    """
    if reader.container.format.name not in INDEXED_FORMATS:
        return []
    reader.seek(reader.ticks(reader.duration_seconds()))
    reader.rewind()
    return [entry.timestamp for entry in reader.stream.index_entries if entry.is_keyframe] if reader.has_index else []


def _keyframes_by_index(
    reader: _Reader, scaler: _Scaler, timestamps: list[int]
) -> list[tuple[float, NDArray[np.uint8]]]:
    found: dict[int, NDArray[np.uint8]] = {}
    for timestamp in timestamps:
        reader.seek(timestamp)
        frame = next((f for f in reader.frames() if f.pts not in found), None)
        if frame is not None:
            found[frame.pts] = scaler(frame)
    return [(reader.seconds(pts), image) for pts, image in sorted(found.items())]


def _keyframes_in_one_pass(reader: _Reader, scaler: _Scaler, count: int) -> list[tuple[float, NDArray[np.uint8]]]:
    """Keep every n-th keyframe, doubling n whenever twice the count is held: bounded memory without an index."""
    kept: list[tuple[float, NDArray[np.uint8]]] = []
    step = 1
    for number, frame in enumerate(reader.frames()):
        if number % step == 0:
            kept.append((reader.seconds(frame.pts), scaler(frame)))
        if len(kept) == 2 * count:
            kept, step = kept[::2], 2 * step
    return evenly_chosen(kept, count)


def _frames_at_times(reader: _Reader, scaler: _Scaler, plan: FramePlan) -> list[_Token]:
    claimed = reader.duration_seconds()
    tokens = _tokens_at(reader, scaler, plan, claimed)
    true_duration = reader.end_seconds
    if reader.reached_end and true_duration < 0.9 * claimed - 1.0:
        reader.errors.append(f"the picture ends at {true_duration:.1f} s; the header claims {claimed:.1f} s")
        reader.rewind()
        tokens = _tokens_at(reader, scaler, plan, true_duration)
    return tokens


def _tokens_at(reader: _Reader, scaler: _Scaler, plan: FramePlan, duration: float) -> list[_Token]:
    start = reader.seconds(reader.stream.start_time or 0) if reader.stream.start_time is not None else 0.0
    times = plan.sampling.times(duration)
    wanted = sorted({reader.ticks(start + time + offset) for time in times for offset in plan.offsets})
    shown = dict(zip(wanted, _shown_at(reader, scaler, wanted), strict=False))
    tokens: dict[int, _Token] = {}
    for time in times:
        parts = [shown.get(reader.ticks(start + time + offset)) for offset in plan.offsets]
        if parts[0] is None:
            continue
        frames = [part if part is not None else parts[0] for part in parts]
        first, last = frames[0][0], max(pts for pts, _ in frames)
        tokens.setdefault(
            first, ((reader.seconds(first), reader.seconds(last)), np.stack([image for _, image in frames]))
        )
    return list(tokens.values())


def _shown_at(reader: _Reader, scaler: _Scaler, wanted: list[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """For each wanted tick, ascending, the frame on screen then: the last that starts at or before it.

    Decodes forward and seeks where that skips enough frames. After a seek, frames ahead of the first keyframe are
    dropped: they need pictures from before the seek.
    """
    frames = reader.frames()
    shown: Any = None
    ahead: Any = next(frames, None)
    image: tuple[int, NDArray[np.uint8]] | None = None
    for tick in wanted:
        landed = _seek_ahead(reader, ahead or shown, tick)
        if landed is not None:
            frames, shown = landed
            ahead = next(frames, None)
        while ahead is not None and ahead.pts <= tick:
            shown, ahead = ahead, next(frames, None)
        current = shown or ahead
        if current is None:
            return
        if image is None or image[0] != current.pts:
            image = (current.pts, scaler(current))
        yield image


def _seek_ahead(reader: _Reader, position: Any, tick: int) -> tuple[Iterator[Any], Any] | None:
    """Jump to the keyframe before `tick` where that pays; None where decoding on is as good.

    Returns the frames that follow and the first of them, which is at or before `tick`.
    """
    if position is None:
        return None
    target = _seek_target(reader, position.pts, tick)
    while target is not None and target > position.pts:
        try:
            reader.seek(target)
        except av.error.FFmpegError:
            return None
        frames = reader.frames()
        first = next((f for _, f in zip(range(FRAMES_BEFORE_KEYFRAME), frames, strict=False) if f.key_frame), None)
        if first is not None and first.pts <= tick:
            return frames, first
        target -= reader.ticks(SEEK_MIN_SECONDS) - reader.ticks(0.0)
    if target is None:
        return None
    reader.seek(position.pts)
    frames = reader.frames()
    first = next(frames, None)
    return None if first is None else (frames, first)


def _seek_target(reader: _Reader, position: int, tick: int) -> int | None:
    stream = reader.stream
    second = reader.ticks(1.0) - reader.ticks(0.0)
    if reader.has_index:
        entry = stream.index_entries.search_timestamp(tick, backward=True)
        if entry < 0:
            return None
        target = stream.index_entries[entry].timestamp
        rate = float(stream.average_rate or 25)
        return target if target - position > SEEK_MIN_FRAMES / rate * second else None
    return tick - second if tick - position > SEEK_MIN_SECONDS * second else None


class _Scaler:
    """A decoded frame -> uint8 RGB (H, W, 3) of the plan's shape, upright, pixels square. Scaled by swscale."""

    def __init__(self, plan: FramePlan, stream: VideoStream) -> None:
        self.plan = plan
        self.rotation = 0
        self._reformatter = VideoReformatter()
        still = _is_still(stream.container, stream)
        self._pixel_aspect = 1.0 if still else float(stream.sample_aspect_ratio or 1.0)

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        if frame.width * frame.height > MAX_PIXELS:
            raise _Unreadable(
                Reason.TOO_LARGE, f"{frame.width} x {frame.height} pixels; at most {MAX_PIXELS} are decoded"
            )
        plan = self.plan
        quarter_turns = round((frame.rotation or 0) / 90) % 4
        self.rotation = 90 * quarter_turns
        height, width = (plan.width, plan.height) if quarter_turns % 2 else (plan.height, plan.width)
        scaled_height, scaled_width = self._scaled_size(frame, height, width)
        rgb = self._reformatter.reformat(
            frame, width=scaled_width, height=scaled_height, format="rgb24", interpolation=plan.interpolation.upper()
        )
        image = _place(np.asarray(rgb.to_ndarray(), dtype=np.uint8), height, width)
        return np.ascontiguousarray(np.rot90(image, quarter_turns))

    def _scaled_size(self, frame: VideoFrame, height: int, width: int) -> tuple[int, int]:
        if self.plan.fit == "squash":
            return height, width
        shown_width = max(1.0, frame.width * self._pixel_aspect)
        ratios = height / frame.height, width / shown_width
        ratio = max(ratios) if self.plan.fit == "crop" else min(ratios)
        bound = max if self.plan.fit == "crop" else min
        size = [max(1, int(ratio * frame.height + 1e-6)), max(1, int(ratio * shown_width + 1e-6))]
        return bound(size[0], height), bound(size[1], width)


def _place(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Cut the middle out of a larger image; centre a smaller one on black."""
    top, left = (image.shape[0] - height) / 2, (image.shape[1] - width) / 2
    if top >= 0 and left >= 0:
        return image[round(top) : round(top) + height, round(left) : round(left) + width]
    canvas = np.zeros((height, width, 3), np.uint8)
    y, x = round(-top), round(-left)
    canvas[y : y + image.shape[0], x : x + image.shape[1]] = image
    return canvas


# --- sound ----------------------------------------------------------------------------------------------------------


def _read_sound(
    container: InputContainer, stream: AudioStream | None, plan: SoundPlan, media: DecodedMedia
) -> Problem | None:
    stream = _require(stream, "audio", container)
    reader = _Reader(container, stream)
    if media.frames_TFHWC is not None or media.visual_problem is not None:
        reader.rewind()
    claimed = reader.duration_seconds()
    windows = _windows(reader, plan, claimed)
    ends_early = reader.reached_end and reader.end_seconds < claimed - SOUND_GAP_SECONDS
    if ends_early and any(not window.complete for window in windows):
        if reader.end_seconds < 0.9 * claimed - 1.0:
            reader.errors.append(f"the sound ends at {reader.end_seconds:.1f} s; the header claims {claimed:.1f} s")
        reader.rewind()
        windows = _windows(reader, plan, reader.end_seconds)
    windows = [w for w in windows if w.filled >= max(1, round(plan.min_seconds * plan.sample_rate)) and w.usable]
    if not windows:
        if reader.errors:
            raise _Unreadable(Reason.CORRUPT, reader.errors[0])
        raise _Unreadable(Reason.TOO_SHORT, f"{reader.end_seconds:.3f} s of sound; {plan.min_seconds} s are needed")
    media.windows = [window.samples for window in windows]
    media.window_spans = [
        (w.start / plan.sample_rate, w.start / plan.sample_rate + len(w.samples) / plan.sample_rate) for w in windows
    ]
    return reader.problem


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


def _windows(reader: _Reader, plan: SoundPlan, duration: float) -> list[_Window]:
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
            reader.seek(reader.ticks(begin + waiting[0].start / rate - SOUND_PREROLL_SECONDS))
            chunks = _resampled(reader, rate, begin)
        for position, chunk in chunks:
            for window in waiting:
                window.fill(position, chunk)
            end = position + len(chunk)
            if end >= waiting[0].start + len(waiting[0].buffer):
                at = begin + end / rate
                break
        else:
            break
        waiting = [w for w in waiting if end < w.start + len(w.buffer)]
    return windows


def _resampled(reader: _Reader, rate: int, begin_seconds: float) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """(position in samples, mono samples in [-1, 1]); the position follows the stream's own times over gaps."""
    resampler: av.AudioResampler | None = None
    shape: tuple[object, ...] = ()
    position = 0
    expected = -1.0
    for frame in reader.frames():
        seconds = reader.seconds(frame.pts) - begin_seconds
        new_shape = (frame.format.name, frame.layout.name, frame.sample_rate)
        if resampler is None or new_shape != shape or abs(seconds - expected) > SOUND_GAP_SECONDS:
            for chunk in _flush(resampler):
                yield position, chunk
            resampler, shape = av.AudioResampler(format="flt", layout="mono", rate=rate), new_shape
            position = round(seconds * rate)
        expected = seconds + frame.samples / frame.sample_rate
        frame.pts = None
        for output in resampler.resample(frame):
            chunk = _samples(output)
            yield position, chunk
            position += len(chunk)
    for chunk in _flush(resampler):
        yield position, chunk
        position += len(chunk)


def _flush(resampler: av.AudioResampler | None) -> Iterator[NDArray[np.float32]]:
    if resampler is not None:
        for output in resampler.resample(None):
            yield _samples(output)


def _samples(frame: av.AudioFrame) -> NDArray[np.float32]:
    samples = np.asarray(frame.to_ndarray(), dtype=np.float32).reshape(-1)
    return np.nan_to_num(samples, copy=False, nan=0.0, posinf=1.0, neginf=-1.0).clip(-1.0, 1.0)
