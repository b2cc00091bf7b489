"""The same recordings again: variants of media files as people make them, written with PyAV."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

SOUND_RATE = 44_100
LOGO_SHARE = 0.18

Image = NDArray[np.uint8]
Edit = Callable[[Image], Image]


def write_video_variants(clip: Path, others: Sequence[Path], music: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """The kinds of variant of a clip, each with its file; `others` are what a longer item holds before and after it."""

    def write(kind: str, **options: object) -> tuple[str, Path]:
        path = folder / f"{clip.stem}-{kind.replace(' ', '-')}.mp4"
        write_clip(path, [(clip, 0.0, None)], **options)  # type: ignore[arg-type]
        return kind, path

    yield write("bitrate", crf=38)
    yield write("size", scale=0.5)
    yield write("crop 10 %", edit=cropped)
    yield write("logo", edit=with_logo)
    yield write("speed 1.05", speed=1.05)
    yield write("mirrored", edit=mirrored)
    yield write("other sound", music=music)
    path = folder / f"{clip.stem}-cut-5-s.mp4"
    write_clip(path, [(clip, 5.0, None)])
    yield "cut 5 s", path
    path = folder / f"{clip.stem}-inside.mp4"
    write_clip(path, [(others[0], 0.0, 5.0), (clip, 0.0, None), (others[1], 0.0, 5.0)])
    yield "inside a longer one", path


def write_sound_variants(sound: Path, others: Sequence[Path], folder: Path) -> Iterator[tuple[str, Path]]:
    samples_S, seconds = read_sound(sound), len(read_sound(sound)) / SOUND_RATE
    edits = {"bitrate": samples_S, "speed 1.05": faster(samples_S, 1.05)}
    if seconds > 9:
        edits["cut 5 s"] = samples_S[5 * SOUND_RATE :]
    if seconds > 1.5:
        around = [read_sound(other)[: 5 * SOUND_RATE] for other in others]
        edits["inside a longer one"] = np.concatenate([around[0], samples_S, around[1]])
    for kind, edited_S in edits.items():
        path = folder / f"{sound.stem}-{kind.replace(' ', '-')}.m4a"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=SOUND_RATE, layout="mono")
            encode_sound(container, stream, edited_S, bit_rate=48_000)
        yield kind, path


def write_picture_variants(picture: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    (image_HWC,) = list(images(picture, 0.0, None, Fraction(1)))
    edits: dict[str, Edit] = {"bitrate": same, "size": halved, "crop 10 %": cropped, "logo": with_logo}
    for kind, edit in (edits | {"mirrored": mirrored}).items():
        path = folder / f"{picture.stem}-{kind.replace(' ', '-')}.jpg"
        edited_HWC = np.ascontiguousarray(edit(image_HWC))
        with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
            stream = container.add_stream("mjpeg", rate=1)
            stream.height, stream.width, stream.pix_fmt = *edited_HWC.shape[:2], "yuvj420p"
            if kind == "bitrate":
                stream.codec_context.qmin = stream.codec_context.qmax = 15
            container.mux(stream.encode(av.VideoFrame.from_ndarray(edited_HWC, format="rgb24")))
            container.mux(stream.encode(None))
        yield kind, path


def write_clip(
    path: Path,
    parts: Sequence[tuple[Path, float, float | None]],
    *,
    edit: Edit | None = None,
    scale: float = 1.0,
    speed: float = 1.0,
    crf: int = 26,
    music: Path | None = None,
) -> None:
    """Encode parts (file, first second, last second) one after the other, of the size and rate of the longest."""
    longest = max(parts, key=lambda part: duration(part[0]))[0]
    rate, (width, height) = frame_rate(longest), frame_size(longest)
    if edit is not None:
        height, width = edit(np.zeros((height, width, 3), np.uint8)).shape[:2]
    width, height = (round(side * scale) // 2 * 2 for side in (width, height))
    played = rate * Fraction(speed).limit_denominator(100)
    sounds = [cut(read_sound(file), begin, end) for file, begin, end in parts if music is None]
    samples_S = np.concatenate(sounds) if music is None else cut(read_sound(music), 0.0, duration(longest))
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=played)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.codec_context.time_base = 1 / played
        video.options = {"crf": str(crf), "preset": "veryfast"}
        audio = container.add_stream("aac", rate=SOUND_RATE, layout="mono") if len(samples_S) else None
        pictures = (image_HWC for file, begin, end in parts for image_HWC in images(file, begin, end, rate))
        for number, image_HWC in enumerate(pictures):
            edited_HWC = np.ascontiguousarray(image_HWC if edit is None else edit(image_HWC))
            frame = av.VideoFrame.from_ndarray(edited_HWC, format="rgb24").reformat(width, height, "yuv420p")
            frame.pts, frame.time_base = number, 1 / played
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            encode_sound(container, audio, samples_S if speed == 1.0 else faster(samples_S, speed), bit_rate=96_000)


def same(image_HWC: Image) -> Image:
    return image_HWC


def halved(image_HWC: Image) -> Image:
    """Half as wide and high, each pixel the mean of four."""
    height, width = (side // 2 * 2 for side in image_HWC.shape[:2])
    squares = image_HWC[:height, :width].reshape(height // 2, 2, width // 2, 2, 3)
    return squares.mean(axis=(1, 3)).round().astype(np.uint8)


def cropped(image_HWC: Image) -> Image:
    """A tenth of the width and of the height, half of it at each side."""
    height, width = image_HWC.shape[:2]
    return image_HWC[height // 20 : height - height // 20, width // 20 : width - width // 20]


def mirrored(image_HWC: Image) -> Image:
    return image_HWC[:, ::-1]


def with_logo(image_HWC: Image) -> Image:
    """A white box with red bars in the corner at the top right."""
    marked_HWC = image_HWC.copy()
    height, width = (round(side * LOGO_SHARE) for side in image_HWC.shape[:2])
    box_HWC = marked_HWC[height // 4 : height // 4 + height, -width - width // 4 : -width // 4]
    box_HWC[:] = 255
    box_HWC[height // 5 : -height // 5, width // 8 :: width // 4] = (200, 20, 30)
    return marked_HWC


def images(path: Path, begin: float, end: float | None, rate: Fraction) -> Iterator[Image]:
    """The pictures shown from `begin` to `end`, `rate` of them a second."""
    shown, wanted = None, begin
    with av.open(str(path)) as container:
        for frame in container.decode(container.streams.best("video")):
            while shown is not None and wanted < frame.time and (end is None or wanted < end):
                yield shown
                wanted += float(1 / rate)
            shown = frame.to_ndarray(format="rgb24")
    if shown is not None and (end is None or wanted < end):
        yield shown


def read_sound(path: Path) -> NDArray[np.float32]:
    """Mono at `SOUND_RATE`; empty where there is none."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return np.zeros(0, np.float32)
        resampler = av.AudioResampler("fltp", "mono", SOUND_RATE)
        decoded = container.decode(container.streams.best("audio"))
        frames = [part for frame in decoded for part in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype(np.float32)


def faster(samples_S: NDArray[np.float32], speed: float) -> NDArray[np.float32]:
    places_S = np.arange(0, len(samples_S) - 1, speed)
    return np.interp(places_S, np.arange(len(samples_S)), samples_S).astype(np.float32)


def cut(samples_S: NDArray[np.float32], begin: float, end: float | None) -> NDArray[np.float32]:
    return samples_S[round(begin * SOUND_RATE) : None if end is None else round(end * SOUND_RATE)]


def encode_sound(
    container: av.container.OutputContainer, stream: av.AudioStream, samples_S: NDArray[np.float32], *, bit_rate: int
) -> None:
    stream.bit_rate = bit_rate
    frame = av.AudioFrame.from_ndarray(samples_S[None].clip(-1, 1), format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, 0, Fraction(1, SOUND_RATE)
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def duration(path: Path) -> float:
    with av.open(str(path)) as container:
        return (container.duration or 0) / 1e6


def frame_rate(path: Path) -> Fraction:
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        assert isinstance(stream, av.VideoStream)
        return Fraction(stream.average_rate or 25).limit_denominator(1001)


def frame_size(path: Path) -> tuple[int, int]:
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        assert isinstance(stream, av.VideoStream)
        return stream.width, stream.height
