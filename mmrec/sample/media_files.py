"""The media files of the sample catalog."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.codec.context import Flags
from av.video.stream import VideoStream
from numpy.random import Generator

from mmrec.sample.items import Entry
from mmrec.sample.looks import FRAME_RATE, HEIGHT, WIDTH, Frames
from mmrec.sample.sounds import SAMPLE_RATE, Sound


@dataclass(frozen=True)
class Format:
    """How a file of one suffix is written."""

    container: str
    video_codec: str = ""
    audio_codec: str = ""
    pixels: str = "yuv420p"


FORMATS = {
    ".mp4": Format("mp4", "libx264", "aac"),
    ".webm": Format("webm", "libvpx", "libopus"),
    ".png": Format("image2pipe", "png", pixels="rgb24"),
    ".jpg": Format("image2pipe", "mjpeg", pixels="yuvj420p"),
    ".wav": Format("wav", audio_codec="pcm_s16le"),
    ".mp3": Format("mp3", audio_codec="libmp3lame"),
    ".ogg": Format("ogg", audio_codec="libopus"),
    ".flac": Format("flac", audio_codec="flac"),
    ".m4a": Format("mp4", audio_codec="aac"),
}
CODEC_OPTIONS = {
    "libx264": {"preset": "superfast", "crf": "25"},  # slower presets do not give the same bytes every time
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b": "600k"},
    "aac": {"aac_coder": "fast"},
}


def make_media(entry: Entry, rng: Generator) -> bytes:
    assert entry.media is not None
    suffix = Path(entry.media).suffix
    num_frames = 1 if suffix in (".png", ".jpg") else int(rng.integers(3 * FRAME_RATE, 6 * FRAME_RATE + 1))
    frames = entry.kind.look(rng, num_frames) if entry.has_look else None
    sound = _loud(entry.kind.sound(rng, num_frames * SAMPLE_RATE // FRAME_RATE), rng) if entry.has_sound else None
    data = _encode(FORMATS[suffix], frames, sound)
    return data[: len(data) // 2] if entry.damaged else data


def _loud(sound: Sound, rng: Generator) -> Sound:
    return np.asarray(sound * (rng.uniform(0.4, 0.9) / np.abs(sound).max()))


def _encode(form: Format, frames_FHWC: Frames | None, sound_S: Sound | None) -> bytes:
    """The bytes of a media file, the same ones every time."""
    file = io.BytesIO()
    with av.open(file, "w", format=form.container, options={"fflags": "+bitexact"}) as container:
        streams: list[tuple[VideoStream | AudioStream, Iterable[av.VideoFrame | av.AudioFrame]]] = []
        if frames_FHWC is not None:
            video = container.add_stream(form.video_codec, rate=FRAME_RATE, options=CODEC_OPTIONS.get(form.video_codec))
            assert isinstance(video, VideoStream)
            video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, form.pixels
            streams.append((video, (av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in frames_FHWC)))
        if sound_S is not None:
            audio = container.add_stream(
                form.audio_codec, rate=SAMPLE_RATE, options=CODEC_OPTIONS.get(form.audio_codec)
            )
            assert isinstance(audio, AudioStream)
            audio.codec_context.layout = "mono"
            frame = av.AudioFrame.from_ndarray(sound_S[None].astype(np.float32), format="flt", layout="mono")
            frame.sample_rate = SAMPLE_RATE
            streams.append((audio, [frame]))
        for stream, _ in streams:
            stream.codec_context.flags |= Flags.bitexact
            stream.codec_context.thread_count = 1
        for stream, parts in streams:
            for part in (*parts, None):
                container.mux(stream.encode(part))  # type: ignore[arg-type]
    return file.getvalue()
