"""Opening a file and reading one stream of it: only this file, only what is in it, and no further than the deadline.

FFmpeg gets an open descriptor of a regular file, or the ranges of an object that it asks for, and may open nothing
else: no path, no protocol, no playlist.
"""

from __future__ import annotations

import errno
import math
import os
import stat
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import av
import av.error
from av.audio.stream import AudioStream
from av.container import Container, InputContainer
from av.stream import Discard, Disposition, Stream
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from mmrec.errors import Problem, Reason, RemoteError
from mmrec.media.tags import TAG_ERRORS
from mmrec.remote import KEPT_BYTES, Access, Place, RangedFile, fetched

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


class Unreadable(Exception):
    """The file, or a stream of it, gives nothing."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.problem = Problem(reason, detail)


def words_of(error: Exception) -> str:
    if isinstance(error, av.error.FFmpegError):
        return str(error.strerror)
    return f"{type(error).__name__}: {error}"


def open_container(place: Place, access: Access) -> InputContainer:
    """Open a file, or an object: one that has no index, and is too large for memory, is fetched into the cache."""
    if isinstance(place, Path):
        return _open_file(place)
    try:
        file = RangedFile(place, access)
        container = _open(file, {"protocol_whitelist": "none"})
        if file.stat.size <= KEPT_BYTES or container.format.name in INDEXED_FORMATS:
            return container
        with container, fetched(file, access) as whole:
            return _open_descriptor(whole.fileno())
    except RemoteError as error:
        raise Unreadable(error.reason, str(error)) from None


def _open_file(path: Path) -> InputContainer:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | getattr(os, "O_NOCTTY", 0))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Unreadable(Reason.MISSING_FILE, f"{path}: {error.strerror}") from None
    except PermissionError as error:
        raise Unreadable(Reason.NOT_READABLE, f"{path}: {error.strerror}") from None
    except (OSError, ValueError) as error:
        raise Unreadable(Reason.NOT_A_FILE, f"{path}: {error}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable(Reason.NOT_A_FILE, f"{path} is no regular file")
        if status.st_size == 0:
            raise Unreadable(Reason.NOT_MEDIA, "the file is empty")
        return _open_descriptor(descriptor)
    finally:
        os.close(descriptor)


def _open_descriptor(descriptor: int) -> InputContainer:
    return _open("fd:", {"fd": str(descriptor), "protocol_whitelist": "fd"})


def _open(file: Any, options: dict[str, str]) -> InputContainer:
    try:
        options = {**options, "format_whitelist": CONTAINER_FORMATS}
        container: InputContainer = av.open(file, options=options, metadata_errors=TAG_ERRORS)
    except av.error.FFmpegError as error:
        raise Unreadable(Reason.NOT_MEDIA, words_of(error)) from None
    except ValueError as error:
        raise Unreadable(Reason.NOT_MEDIA, str(error)) from None
    return container


def choose_video(container: InputContainer) -> VideoStream | None:
    """The best moving picture; where there is none, an attached one (cover art)."""
    streams = [s for s in container.streams.video if not s.disposition & Disposition.dependent]  # tiles of a picture
    moving = [s for s in streams if not s.disposition & Disposition.attached_pic]
    best = container.streams.best("video")
    if isinstance(best, VideoStream) and (best in moving or (not moving and best in streams)):
        return best
    return moving[0] if moving else None


def choose_audio(container: InputContainer) -> AudioStream | None:
    best = container.streams.best("audio")
    return best if isinstance(best, AudioStream) else None


def is_intra(frame: VideoFrame) -> bool:
    """Whether a frame stands by itself: containers also mark places as keyframes where a picture is built up anew."""
    return frame.pict_type in {PictureType.NONE, PictureType.I, PictureType.SI, PictureType.BI}


def is_still(container: Container, stream: VideoStream) -> bool:
    return bool(stream.disposition & Disposition.attached_pic) or container.format.name.endswith("_pipe")


def facts_of(container: InputContainer, video: VideoStream | None, audio: AudioStream | None) -> dict[str, Any]:
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


def required(stream: S | None, kind: str, container: InputContainer) -> S:
    if stream is None:
        if any(s.type == kind for s in container.streams):
            raise Unreadable(Reason.UNSUPPORTED, f"no decoder for the {kind} stream")
        raise Unreadable(Reason.NO_STREAM, f"the file has no {kind} stream")
    if not _has_decoder(stream):
        raise Unreadable(Reason.UNSUPPORTED, f"no decoder for the {kind} stream")
    return stream


class StreamReader:
    """Decoded frames of one stream, from wherever it was last sent; remembers what it met.

    Damage is noted and passed over; after `MAX_READ_ERRORS` the container is not read any further.
    """

    def __init__(self, container: InputContainer, stream: Stream, deadline: float, threads: int = 1) -> None:
        self.container, self.stream, self.deadline = container, stream, deadline
        self.errors: list[str] = []
        self.timed_out = self._out_of_memory = False
        self._end: int | None = None
        self.reached_end = False
        self._last_pts = -1
        assert stream.time_base is not None
        self.time_base = stream.time_base
        self._ticks_per_second = float(1 / stream.time_base)
        self.origin_seconds = (container.start_time or 0) / av.time_base
        for other in container.streams:
            other.discard = Discard.default if other is stream else Discard.all
        stream.codec_context.thread_count = threads
        stream.codec_context.thread_type = "FRAME"

    @property
    def problem(self) -> Problem | None:
        if self._out_of_memory:
            return Problem(Reason.OUT_OF_MEMORY, "decoding needs more memory than a worker may have")
        if self.timed_out:
            return Problem(Reason.TIMEOUT, f"decoded as far as {self.end_seconds:.1f} s in the time that an item has")
        if not self.errors:
            return None
        return Problem(Reason.CORRUPT, f"{len(self.errors)} read errors, the first: {self.errors[0]}")

    def nothing(self, otherwise: str) -> Unreadable:
        """Why nothing came out: what went wrong, or else that there is too little in it."""
        problem = self.problem or Problem(Reason.TOO_SHORT, otherwise)
        return Unreadable(problem.reason, problem.detail)

    def seconds(self, ticks: int) -> float:
        return ticks * self.time_base.numerator / self.time_base.denominator - self.origin_seconds

    def ticks(self, seconds: float) -> int:
        """The last tick at or before a time."""
        return math.floor((seconds + self.origin_seconds) * self._ticks_per_second + 1e-6)

    def length(self, seconds: float) -> int:
        """A length of time in ticks."""
        return round(seconds * self._ticks_per_second)

    @property
    def begin(self) -> int:
        """The tick of the first frame, as far as the header tells."""
        return self.ticks(0.0) if self.stream.start_time is None else self.stream.start_time

    def seek(self, ticks: int) -> None:
        self.reached_end = False
        self.container.seek(ticks, stream=self.stream)

    def can_seek(self, ticks: int) -> bool:
        """Seek, and whether that worked."""
        try:
            self.seek(ticks)
        except av.error.FFmpegError:
            return False
        return True

    def rewind(self) -> bool:
        """Back to the first frame: some containers need to be asked for a moment before it, others refuse that.

        Where neither works, reading goes on from where it is, and False is returned.
        """
        start = min(self.stream.start_time or 0, self.ticks(0.0))
        return self.can_seek(start - self.length(1.0)) or self.can_seek(start)

    @property
    def has_index(self) -> bool:
        return self.container.format.name in INDEXED_FORMATS and len(self.stream.index_entries) > 1

    def load_index(self) -> None:
        """Matroska reads its index at the first seek only."""
        if self.container.format.name == "matroska,webm":
            self.rewind()

    def keyframe_before(self, ticks: int) -> int | None:
        """When the last keyframe at or before a time is shown, by the index."""
        entries = self.stream.index_entries
        number = entries.search_timestamp(ticks - self._index_delay, backward=True)
        return entries[number].timestamp + self._index_delay if number >= 0 else None

    def indexed_keyframes(self) -> list[int]:
        """When the keyframes are shown, ascending; none where the container has no index of the whole stream."""
        if self.container.format.name not in INDEXED_FORMATS:
            return []
        self.seek(self.ticks(self.duration_seconds()))
        self.rewind()
        if not self.has_index:
            return []
        return [e.timestamp + self._index_delay for e in self.stream.index_entries if e.is_keyframe]

    @cached_property
    def _index_delay(self) -> int:
        """By how much the index is early: it may hold the times of decoding."""
        first = next((e.timestamp for e in self.stream.index_entries if not e.is_discard), self.begin)
        return max(0, self.begin - first)

    def packets(self) -> Iterator[Any]:
        while True:
            try:
                for packet in self.container.demux(self.stream):
                    if time.monotonic() > self.deadline:
                        self.timed_out = True
                        return
                    yield packet
                self.reached_end = True
                return
            except av.error.FFmpegError as error:
                self.note(error)
                if len(self.errors) > MAX_READ_ERRORS:
                    return

    def frames(self) -> Iterator[Any]:
        """Frames in the order of presentation, each with a time stamp."""
        for packet in self.packets():
            yield from self.decode(packet)

    def decode(self, packet: Any) -> list[Any]:
        """The frames that come out when a packet goes in, each with a time stamp; None asks for those held back."""
        try:
            frames: list[Any] = self.stream.codec_context.decode(packet)  # type: ignore[attr-defined]
        except av.error.EOFError:
            return []
        except av.error.FFmpegError as error:
            self.note(error)
            return []
        for frame in frames:
            pts = frame.pts
            if pts is None:
                pts = frame.pts = frame.dts if frame.dts is not None else self._last_pts + 1
            self._last_pts = pts
            self.reached(pts + self._length(frame))
        return frames

    def reached(self, ticks: int) -> None:
        """The stream goes on until at least this time."""
        if self._end is None or ticks > self._end:
            self._end = ticks

    @property
    def end_seconds(self) -> float:
        """Until when the stream goes, as far as it was read."""
        return 0.0 if self._end is None else max(0.0, self.seconds(self._end))

    def note(self, error: av.error.FFmpegError) -> None:
        """Remember what was wrong with the stream."""
        self.errors.append(words_of(error))
        self._out_of_memory |= error.errno == errno.ENOMEM

    def _length(self, frame: Any) -> int:
        if isinstance(frame, VideoFrame):
            return int(frame.duration or 0)
        return self.length(frame.samples / frame.sample_rate) if frame.sample_rate else 0

    def duration_seconds(self) -> float:
        """The stream's length as its header says it, else the file's, else found by reading all packets."""
        if self.stream.duration:
            return float(self.stream.duration * self.time_base)
        if self.container.duration:
            return self.container.duration / av.time_base
        end = max((p.pts + (p.duration or 0) for p in self.packets() if p.pts is not None), default=0)
        self.rewind()
        return max(0.0, self.seconds(end))
