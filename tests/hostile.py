"""A corpus of files that strangers upload: odd ones, damaged ones, and ones that mean harm.

`write_hostile_corpus` writes one file of each kind; `mutate` damages the bytes of any file.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from media_files import painted_frame, tone, write_image, write_sound, write_video

Writer = Callable[[Path], object]
BILLION = 10**9


def write_hostile_corpus(folder: Path) -> dict[str, Path]:
    """Write every kind into `folder`; returns kind -> path. What this build of FFmpeg cannot write is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, write in KINDS.items():
        path = folder / name
        try:
            write(path)
        except (av.FFmpegError, ValueError):
            path.unlink(missing_ok=True)
            continue
        paths[name] = path
    return paths


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One to eight wounds: flipped bits, cuts, blocks overwritten, moved, doubled or removed, mostly in the headers."""
    content = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        if len(content) < 16:
            break
        reach = rng.choice([64, 1024, len(content)])
        start = min(rng.randrange(min(reach, len(content))), len(content) - 1)
        size = rng.randint(1, 64)
        match rng.randrange(6):
            case 0:
                content[start] ^= 1 << rng.randrange(8)
            case 1:
                content[start : start + size] = rng.randbytes(size)
            case 2:
                content[start : start + size] = bytes(size)
            case 3:
                del content[start : start + size]
            case 4:
                content[start:start] = content[start : start + size]
            case _:
                del content[rng.randrange(len(content)) :]
    return bytes(content)


# --- writers ----------------------------------------------------------------------------------------------------------


def raw(data: bytes) -> Writer:
    return lambda path: path.write_bytes(data)


def video(**options: object) -> Writer:
    return lambda path: write_video(path, **options)  # type: ignore[arg-type]


def sound(**options: object) -> Writer:
    return lambda path: write_sound(path, **options)  # type: ignore[arg-type]


def image(**options: object) -> Writer:
    return lambda path: write_image(path, **options)  # type: ignore[arg-type]


def changed(write: Writer, change: Callable[[bytearray], object], suffix: str = "") -> Writer:
    """What `write` makes, with its bytes changed in place."""

    def changed_writer(path: Path) -> None:
        source = path.with_name(f"source {path.stem}{suffix or path.suffix}")
        write(source)
        content = bytearray(source.read_bytes())
        source.unlink()
        change(content)
        path.write_bytes(content)

    return changed_writer


def cut(share: float) -> Callable[[bytearray], object]:
    def change(content: bytearray) -> None:
        del content[int(share * len(content)) :]

    return change


def flip(every: int) -> Callable[[bytearray], object]:
    def change(content: bytearray) -> None:
        for place in range(every, len(content), every):
            content[place] ^= 0x55

    return change


def put(place: int, data: bytes) -> Callable[[bytearray], object]:
    def change(content: bytearray) -> None:
        content[place : place + len(data)] = data

    return change


def patch_after(marker: bytes, offset: int, data: bytes) -> Callable[[bytearray], object]:
    """Overwrite what stands `offset` bytes after every occurrence of a marker."""

    def change(content: bytearray) -> None:
        place = content.find(marker)
        while place >= 0:
            start = place + len(marker) + offset
            content[start : start + len(data)] = data
            place = content.find(marker, start)

    return change


def png(width: int, height: int, *, rows: int = 1, colour: int = 2) -> bytes:
    """A PNG that claims its size and holds a few rows of zeros."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    line = bytes(1 + width * {0: 1, 2: 3, 3: 1, 6: 4}[colour])
    palette = chunk(b"PLTE", bytes(range(48))) if colour == 3 else b""
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(line) for _ in range(rows)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def gif(width: int, height: int, frames: int) -> bytes:
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\x00"
    screen = struct.pack("<HHBBB", width, height, 0x80, 0, 0)
    return b"GIF89a" + screen + b"\0\0\0\xff\xff\xff" + frame * frames + b"\x3b"


def wav(sample_format: int, bits: int, rate: int, channels: int, data: bytes, *, claimed: int | None = None) -> bytes:
    block = max(1, channels * bits // 8)
    form = struct.pack("<HHIIHH", sample_format, channels, rate, rate * block % 2**32, block, bits)
    size = len(data) if claimed is None else claimed
    head = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", size)
    return b"RIFF" + struct.pack("<I", (len(head) + size) % 2**32) + head + data


def write_many_streams(path: Path) -> None:
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("pcm_s16le", rate=8000, layout="mono") for _ in range(300)]
        for stream in streams:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts = 8000, 0
            container.mux(stream.encode(frame))


def write_changing_size(path: Path) -> None:
    """Two videos of different size in one transport stream, as broadcasts have them."""
    parts = []
    for size in ((64, 48), (128, 96)):
        part = path.with_name(f"part {size[0]}.ts")
        write_video(part, size=size)
        parts.append(part.read_bytes())
        part.unlink()
    path.write_bytes(b"".join(parts))


def write_changing_rate(path: Path) -> None:
    parts = []
    for rate in (16000, 44100):
        part = path.with_name(f"part {rate}.aac")
        write_sound(part, codec="aac", sample_rate=rate)
        parts.append(part.read_bytes())
        part.unlink()
    path.write_bytes(b"".join(parts))


def write_with_times(times: Callable[[int], int | None]) -> Writer:
    """Packets whose time stamps are what `times` makes of their numbers."""

    def write(path: Path) -> None:
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=12)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            number = 0
            for frame in range(24):
                picture = av.VideoFrame.from_ndarray(painted_frame(frame, (64, 48)), format="rgb24")
                for packet in stream.encode(picture):
                    time = times(number)
                    packet.pts = packet.dts = time
                    packet.time_base = Fraction(1, 12)
                    container.mux(packet)
                    number += 1

    return write


def write_empty_stream(path: Path) -> None:
    """A file with a sound, and a picture stream that no packet belongs to."""
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=12)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(2.0, 16000, 440.0)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_interlaced(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25, options={"flags": "+ildct+ilme"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame in range(25):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(painted_frame(frame, (64, 48)), format="rgb24")))
        container.mux(stream.encode(None))


def write_picture(codec: str, pix_fmt: str, frames: int = 1) -> Writer:
    def write(path: Path) -> None:
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=10)
            stream.width, stream.height, stream.pix_fmt = 65, 49, pix_fmt
            for number in range(frames):
                picture = av.VideoFrame.from_ndarray(painted_frame(5 * number, (65, 49)), format="rgb24")
                container.mux(stream.encode(picture.reformat(format=pix_fmt)))
            container.mux(stream.encode(None))

    return write


def write_layout(layout: str, codec: str = "pcm_s16le") -> Writer:
    def write(path: Path) -> None:
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=16000, layout=layout)
            samples_1N = np.repeat(tone(2.0, 16000, 440.0), len(stream.layout.channels))[None]
            frame = av.AudioFrame.from_ndarray(samples_1N, format="flt", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))

    return write


CLIP = video(sound_seconds=2.0)
SECRET = "file:///etc/hostname"
KINDS: dict[str, Writer] = {
    # whole, but odd
    "plain.mp4": CLIP,
    "no sound.mp4": video(),
    "matroska.mkv": CLIP,
    "webm.webm": video(codec="libvpx", sound_seconds=2.0),
    "transport.ts": CLIP,
    "avi.avi": video(codec="mpeg4", sound_seconds=2.0),
    "flash.flv": video(sound_seconds=2.0, sample_rate=44100),
    "program.mpg": video(codec="mpeg2video", rate=25),
    "quicktime.mov": CLIP,
    "one frame.mp4": video(frames=1),
    "two frames.mkv": video(frames=2),
    "one pixel.png": image(size=(1, 1)),
    "odd size.mkv": video(codec="ffv1", size=(33, 27)),
    "very wide.png": image(size=(4000, 2)),
    "very tall.png": image(size=(2, 4000)),
    "ten bits.mp4": video(pix_fmt="yuv420p10le"),
    "full colour.mp4": video(pix_fmt="yuv444p"),
    "quarter turn.mp4": video(rotation=90),
    "half turn.mp4": video(rotation=180),
    "three quarters.mov": video(rotation=-90),
    "variable rate.mkv": video(frames=6, timestamps=[0.0, 0.1, 0.15, 3.0, 3.1, 9.0]),
    "interlaced.mpg": write_interlaced,
    "animated.gif": write_picture("gif", "rgb8", frames=8),
    "animated.apng": write_picture("apng", "rgba", frames=4),
    "alpha.png": image(pix_fmt="rgba"),
    "grey.png": image(pix_fmt="gray"),
    "deep.png": image(pix_fmt="rgb48be"),
    "palette.png": raw(png(64, 48, rows=48, colour=3)),
    "photo.jpg": image(),
    "picture.webp": write_picture("libwebp", "yuv420p"),
    "picture.bmp": write_picture("bmp", "bgr24"),
    "picture.tiff": write_picture("tiff", "rgb24"),
    "eight kilohertz.wav": sound(sample_rate=8000),
    "studio.wav": sound(sample_rate=192000),
    "surround.wav": sound(channels=6),
    "seven one.wav": write_layout("7.1"),
    "quad.flac": write_layout("quad", "flac"),
    "song.mp3": sound(codec="mp3", sample_rate=44100),
    "song.flac": sound(codec="flac"),
    "song.opus": sound(codec="libopus", sample_rate=48000),
    "song.m4a": sound(codec="aac"),
    "alaw.wav": sound(codec="pcm_alaw", sample_rate=8000),
    "mulaw.au": sound(codec="pcm_mulaw", sample_rate=8000),
    "float.wav": sound(codec="pcm_f32le"),
    "deep.wav": sound(codec="pcm_s24le"),
    "bytes.wav": sound(codec="pcm_u8"),
    "short.wav": sound(seconds=0.01),
    "silent.wav": sound(frequency=0.0),
    "not a number.wav": raw(wav(3, 32, 16000, 1, struct.pack("<f", float("nan")) * 16000)),
    "infinite.wav": raw(wav(3, 32, 16000, 1, struct.pack("<f", float("inf")) * 16000)),
    "many streams.mkv": write_many_streams,
    "empty stream.mkv": write_empty_stream,
    "wrong suffix.txt": changed(CLIP, lambda content: None, ".mp4"),
    "image as video.mp4": changed(image(), lambda content: None, ".png"),
    "changing size.ts": write_changing_size,
    "changing rate.aac": write_changing_rate,
    # time that goes wrong
    "negative times.mkv": write_with_times(lambda n: n - 12),
    "unordered times.avi": write_with_times(lambda n: n),
    "huge times.mkv": write_with_times(lambda n: n * 10**7),
    "equal times.nut": write_with_times(lambda n: n // 3),
    "no times.m4v": write_with_times(lambda n: n),
    "claims a year.mp4": changed(CLIP, patch_after(b"mvhd", 16, (2**31 - 1).to_bytes(4, "big"))),
    "claims a long track.mp4": changed(CLIP, patch_after(b"mdhd", 16, (2**31 - 1).to_bytes(4, "big"))),
    "claims a billion frames.mp4": changed(CLIP, patch_after(b"stts", 8, struct.pack(">I", BILLION))),
    "claims a billion chunks.mp4": changed(CLIP, patch_after(b"stco", 4, struct.pack(">I", BILLION))),
    "claims a billion sizes.mp4": changed(CLIP, patch_after(b"stsz", 8, struct.pack(">I", BILLION))),
    "claims four gigabytes.wav": raw(wav(1, 16, 16000, 1, bytes(32000), claimed=2**32 - 1)),
    "claims nothing.wav": raw(wav(1, 16, 16000, 1, bytes(32000), claimed=0)),
    "no channels.wav": raw(wav(1, 16, 16000, 0, bytes(32000))),
    "no rate.wav": raw(wav(1, 16, 0, 1, bytes(32000))),
    "unknown codec.wav": raw(wav(0x1234, 16, 16000, 1, bytes(32000))),
    "claims a huge rate.wav": raw(wav(1, 16, 2**31 - 1, 1, bytes(32000))),
    # bombs
    "bomb 50000.png": raw(png(50_000, 50_000, rows=100)),
    "bomb wide.png": raw(png(2**31 - 1, 1, rows=0)),
    "bomb 11000.png": raw(png(11_000, 11_000, rows=11_000)),
    "gif of death.gif": raw(gif(65_535, 65_535, 50)),
    "gif of many frames.gif": raw(gif(16, 16, 20_000)),
    "bomb clip.mp4": changed(CLIP, patch_after(b"avc1", 24, struct.pack(">HH", 65_535, 65_535))),
    # damaged
    "empty.mp4": raw(b""),
    "one byte.mp4": raw(b"\0"),
    "zeros.mp4": raw(bytes(10_000)),
    "noise.mp4": raw(random.Random(0).randbytes(10_000)),
    "text.mp4": raw(b"this is a letter, not a video\n" * 200),
    "page.mp4": raw(b"<!DOCTYPE html><html><body>not found</body></html>"),
    "zip.mp4": raw(b"PK\x03\x04" + bytes(200)),
    "header only.mp4": changed(CLIP, cut(0.01)),
    "no index.mp4": changed(CLIP, patch_after(b"moo", 0, b"x")),
    **{
        f"cut at {share}.{suffix}": changed(CLIP, cut(share / 100))
        for share in (5, 25, 50, 75, 95)
        for suffix in ("mkv", "ts", "mp4")
    },
    **{
        f"flipped {every}.{suffix}": changed(CLIP, flip(every)) for every in (50, 500, 5000) for suffix in ("mp4", "ts")
    },
    "flipped.mp3": changed(sound(codec="mp3", sample_rate=44100), flip(300)),
    "flipped.jpg": changed(image(size=(640, 480)), flip(200)),
    "flipped.png": changed(image(), flip(100)),
    "cut.jpg": changed(image(size=(640, 480)), cut(0.5)),
    "cut.png": changed(image(size=(640, 480)), cut(0.5)),
    "cut.gif": changed(write_picture("gif", "rgb8", frames=8), cut(0.5)),
    "swapped header.mkv": changed(CLIP, put(0, b"RIFF\0\0\0\0WAVEfmt ")),
    "riff header.mp4": changed(CLIP, put(0, b"\x1a\x45\xdf\xa3")),
    # scripts that want to open something else
    "playlist.m3u8": raw(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{SECRET}\n#EXT-X-ENDLIST\n".encode()),
    "playlist.mp4": raw(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{SECRET}\n#EXT-X-ENDLIST\n".encode()),
    "script.ffconcat": raw(b"ffconcat version 1.0\nfile '/etc/hostname'\n"),
    "drawing.svg": raw(b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/hostname"/></svg>'),
    "session.sdp": raw(b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n"),
    "manifest.mpd": raw(b'<?xml version="1.0"?><MPD><Period><BaseURL>file:///etc/hostname</BaseURL></Period></MPD>'),
    "subfile.mp4": raw(b"subfile,,start,0,end,0,,:/etc/hostname"),
    "data.mp4": raw(b"data:video/mp4;base64,AAAA"),
    "subtitles.srt": raw(b"1\n00:00:00,000 --> 00:00:01,000\nhello\n"),
}
