"""Pictures: the frames of every kind of file, against plain sequential decoding and known contents."""

from __future__ import annotations

import math
from pathlib import Path

import av
import numpy as np
import pytest
from decode_plans import SOUND, frame_plan, numbers, starts
from media_files import frame_number, painted_frame, write_image, write_video
from numpy.typing import NDArray

import mmrec.media.pictures
from mmrec.errors import Reason
from mmrec.media.container import StreamReader
from mmrec.media.pictures import _Scaler
from mmrec.media.reading import decode_media
from mmrec.media.sampling import FramePlan


def test_uniform_takes_the_middles_of_equal_parts_with_their_true_times(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=48, rate=12)
    decoded = decode_media(path, frame_plan(count=4), None)
    assert numbers(decoded) == [6, 18, 30, 42]
    assert starts(decoded) == pytest.approx([0.5, 1.5, 2.5, 3.5])
    assert decoded.visual_problem is None
    assert decoded.duration_seconds == pytest.approx(4.0)


def test_variable_frame_rate_follows_the_container_not_the_frame_count(tmp_path: Path) -> None:
    times = [0.0, 0.1, 0.2, 0.3, 2.0, 2.1, 2.2, 3.9]
    path = write_video(tmp_path / "a.mkv", frames=8, timestamps=times)
    decoded = decode_media(path, frame_plan(count=4), None)
    expected = [max(k for k, t in enumerate(times) if t <= wanted + 1e-3) for wanted in (0.5, 1.5, 2.5, 3.5)]
    assert sorted(set(expected)) == sorted(set(numbers(decoded)))
    assert starts(decoded) == pytest.approx([times[k] for k in sorted(set(expected))], abs=2e-3)


def test_fps_takes_one_frame_per_period_and_thins_beyond_the_count(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=48, rate=12)
    assert starts(decode_media(path, frame_plan("fps", count=100, fps=2.0), None)) == pytest.approx(
        [0.25 + 0.5 * k for k in range(8)]
    )
    assert len(starts(decode_media(path, frame_plan("fps", count=3, fps=2.0), None))) == 3


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_keyframes_are_keyframes(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"a{suffix}", frames=48, rate=12, keyframe_every=12)
    decoded = decode_media(path, frame_plan("keyframes", count=8), None)
    assert numbers(decoded) == [0, 12, 24, 36]
    assert len(numbers(decode_media(path, frame_plan("keyframes", count=2), None))) == 2


def test_offsets_add_frames_to_a_token(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=48, rate=12)
    decoded = decode_media(path, frame_plan(count=2, offsets=(0.0, 0.25)), None)
    assert decoded.frames_TFHWC is not None and decoded.frames_TFHWC.shape == (2, 2, 48, 64, 3)
    assert [[frame_number(f) for f in token] for token in decoded.frames_TFHWC] == [[12, 15], [36, 39]]
    assert decoded.frame_spans == [pytest.approx((1.0, 1.25)), pytest.approx((3.0, 3.25))]


IRREGULAR = [0.08 * k + 0.3 * (k // 20) for k in range(240)]
VIDEOS = {
    "b_frames.mp4": {},
    "b_pyramid.mp4": {"b_frames": 7, "options": {"x264-params": "b-adapt=0:b-pyramid=normal"}},
    "no_b_frames.mp4": {"b_frames": 0},
    "open_gop.mp4": {"b_frames": 4, "options": {"x264-params": "open-gop=1:b-adapt=0"}},
    "open_gop.mkv": {"b_frames": 4, "options": {"x264-params": "open-gop=1:b-adapt=0"}},
    "open_gop.ts": {"b_frames": 4, "options": {"x264-params": "open-gop=1:b-adapt=0"}},
    "intra_refresh.mp4": {"b_frames": 0, "options": {"x264-params": "intra-refresh=1"}},
    "interlaced.mp4": {"size": (64, 64), "options": {"x264-params": "interlaced=1"}},
    "fragmented.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "intra_only.mp4": {"keyframe_every": 1, "b_frames": 0},
    "variable.mkv": {"timestamps": IRREGULAR},
    "variable_b_frames.mkv": {"timestamps": IRREGULAR, "b_frames": 3},
    "variable_b_frames.mp4": {"timestamps": IRREGULAR, "b_frames": 3},
    "h264.ts": {},
    "h264.flv": {},
    "h265.mp4": {"codec": "libx265", "size": (128, 96), "b_frames": 4, "options": {"x265-params": "log-level=none"}},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg4.mp4": {"codec": "mpeg4"},
    "mpeg2.mpg": {"codec": "mpeg2video", "rate": 25},
    "vp8.webm": {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "16"}},
    "vp9.webm": {
        "codec": "libvpx-vp9",
        "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "realtime"},
    },
}


@pytest.mark.parametrize("name", VIDEOS)
def test_seeking_gives_the_frames_of_a_sequential_decode(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / name, **({"frames": 240, "keyframe_every": 48} | VIDEOS[name]))  # type: ignore[arg-type]
    for count in (1, 3, 7, 16, 240):
        assert_same_as_sequential(path, frame_plan(count=count, offsets=(0.0, 0.2)))
    monkeypatch.setattr(mmrec.media.pictures, "THREADED_PIXELS", 1)
    assert_same_as_sequential(path, frame_plan(count=16), threads=2)


def test_seeking_gives_the_frames_of_a_sequential_decode_on_real_files(shared_media: Path) -> None:
    for path in {*shared_media.glob("*.mp4"), *shared_media.glob("*.mov")} - {shared_media / "corrupted.mp4"}:
        for count in (5, 16, 64):
            assert_same_as_sequential(path, frame_plan(count=count))


def assert_same_as_sequential(path: Path, plan: FramePlan, *, threads: int = 1) -> None:
    decoded = decode_media(path, plan, None, threads=threads)
    frames, spans = sequential(path, plan)
    assert decoded.frame_spans == [pytest.approx(span, abs=1e-6) for span in spans]
    assert decoded.frames_TFHWC is not None
    np.testing.assert_array_equal(decoded.frames_TFHWC, frames)


def sequential(path: Path, plan: FramePlan) -> tuple[NDArray[np.uint8], list[tuple[float, float]]]:
    """Every frame of the file decoded in order, and of these the ones on screen at the wanted times."""
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        assert isinstance(stream, av.video.stream.VideoStream) and stream.time_base is not None
        scaler = _Scaler(plan, stream)
        origin = (container.start_time or 0) / av.time_base
        duration = (
            float(stream.duration * stream.time_base) if stream.duration else (container.duration or 0) / av.time_base
        )
        begin = float((stream.start_time or 0) * stream.time_base)
        decoded = []
        for packet in container.demux(stream):
            try:
                decoded += [(frame.pts, scaler(frame)) for frame in packet.decode()]
            except av.FFmpegError:
                continue
        tokens: dict[int, tuple[list[NDArray[np.uint8]], tuple[float, float]]] = {}
        for time in plan.sampling.times(duration):
            ticks = [math.floor((begin + time + offset) / stream.time_base + 1e-6) for offset in plan.offsets]
            shown = [next((f for f in reversed(decoded) if f[0] <= tick), decoded[0]) for tick in ticks]
            span = tuple(float(pts * stream.time_base) - origin for pts, _ in (shown[0], shown[-1]))
            tokens.setdefault(shown[0][0], ([image for _, image in shown], span))  # type: ignore[arg-type]
    return np.stack([np.stack(images) for images, _ in tokens.values()]), [span for _, span in tokens.values()]


def test_a_moment_between_two_ticks_shows_the_earlier_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", frames=12, rate=12)
    assert numbers(decode_media(path, frame_plan(count=5), None)) == [1, 3, 6, 8, 10]


@pytest.mark.parametrize("name", ["b_pyramid.mp4", "open_gop.mp4", "open_gop.mkv", "interlaced.mp4", "mpeg4.avi"])
def test_keyframes_are_those_of_a_sequential_decode(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / name, **({"frames": 240, "keyframe_every": 48} | VIDEOS[name]))  # type: ignore[arg-type]
    plan = frame_plan("keyframes", count=240)
    decoded = decode_media(path, plan, None)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        scaler = _Scaler(plan, stream)
        keyframes = [scaler(frame) for frame in container.decode(stream) if frame.key_frame]
    assert decoded.frames_TFHWC is not None
    np.testing.assert_array_equal(decoded.frames_TFHWC[:, 0], keyframes)


def test_a_place_to_refresh_from_is_no_keyframe(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=240, keyframe_every=48, **VIDEOS["intra_refresh.mp4"])  # type: ignore[arg-type]
    assert numbers(decode_media(path, frame_plan("keyframes", count=16), None)) == [0]


def test_colour_comes_at_its_full_resolution(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    pixels_HWC = np.zeros((48, 64, 3), np.uint8)
    pixels_HWC[:, ::2], pixels_HWC[:, 1::2] = (255, 0, 0), (0, 0, 255)
    with av.open(str(path), "w", format="image2") as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels_HWC, format="rgb24")))
        container.mux(stream.encode(None))
    decoded = decode_media(path, frame_plan(), None)
    assert decoded.frames_TFHWC is not None
    np.testing.assert_allclose(decoded.frames_TFHWC[0, 0].astype(int), pixels_HWC, atol=2)


class Counted:
    """Counts the packets that reach the decoder, and those of them that it may leave out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.decoded = self.left_out = 0
        plain = StreamReader.decode

        def decode(reader: StreamReader, packet: object) -> list[object]:
            self.decoded += packet is not None
            self.left_out += packet is not None and reader.stream.codec_context.skip_frame == "NONREF"
            return plain(reader, packet)

        monkeypatch.setattr(StreamReader, "decode", decode)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_little_is_decoded(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / f"a{suffix}", frames=480, keyframe_every=60, b_frames=3)
    counted = Counted(monkeypatch)
    decode_media(path, frame_plan(count=3), None)  # frames 80, 240 and 400: 20, 0 and 40 after their keyframes
    assert counted.decoded < 20 + 0 + 40 + 3 * 4
    assert counted.left_out > 0.4 * counted.decoded
    counted = Counted(monkeypatch)
    decode_media(path, frame_plan("keyframes", count=4), None)
    assert counted.decoded == 4


def test_rotated_video_comes_upright(tmp_path: Path) -> None:
    upright = decode_media(write_video(tmp_path / "a.mp4"), frame_plan(fit="squash"), None)
    for angle in (90, 180, -90):
        path = write_video(tmp_path / f"r{angle}.mp4", rotation=angle)
        turned = decode_media(path, frame_plan(fit="squash"), None)
        assert upright.frames_TFHWC is not None and turned.frames_TFHWC is not None
        corners = {
            name: turned.frames_TFHWC[0, 0][rows, columns].mean(axis=(0, 1))
            for name, rows, columns in [
                ("top left", slice(0, 8), slice(0, 8)),
                ("top right", slice(0, 8), slice(-8, None)),
                ("bottom left", slice(-8, None), slice(0, 8)),
                ("bottom right", slice(-8, None), slice(-8, None)),
            ]
        }
        red = max(corners, key=lambda name: float(corners[name][0] - corners[name][1]))
        assert red == {90: "bottom left", 180: "bottom right", -90: "top right"}[angle]
        assert turned.facts["rotation"] == angle % 360


def test_the_rotated_clip_matches_its_upright_twin(shared_media: Path) -> None:
    plan = frame_plan(fit="pad")
    upright = decode_media(shared_media / "rotated_0.mov", plan, None).frames_TFHWC
    turned = decode_media(shared_media / "rotated_90.mov", plan, None).frames_TFHWC
    assert upright is not None and turned is not None
    assert upright.shape == turned.shape
    assert turned[:, :, :, :10].max() == 0, "a portrait picture has black borders at the sides"
    assert upright[:, :, :4].max() == 0, "a landscape picture has them above and below"


@pytest.mark.parametrize("size", [(33, 27), (1, 1), (2, 130), (64, 48)])
@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
def test_any_size_becomes_the_wanted_shape(tmp_path: Path, size: tuple[int, int], fit: str) -> None:
    path = write_image(tmp_path / "a.png", size=size)
    decoded = decode_media(path, frame_plan(fit=fit), None)
    assert decoded.frames_TFHWC is not None and decoded.frames_TFHWC.shape == (1, 1, 48, 64, 3)
    assert decoded.frames_TFHWC.any()


def test_ten_bits(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=24, pix_fmt="yuv420p10le")
    assert numbers(decode_media(path, frame_plan(count=2), None)) == [6, 18]


def test_alpha_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    pixels = np.zeros((48, 64, 4), np.uint8)
    pixels[..., 0] = 200
    pixels[:, :32, 3] = 255
    with av.open(str(path), "w", format="image2") as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgba"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgba")))
        container.mux(stream.encode(None))
    decoded = decode_media(path, frame_plan(), None)
    assert decoded.frames_TFHWC is not None
    assert (decoded.frames_TFHWC[..., 0] == 200).all()


def test_one_frame_is_one_token(tmp_path: Path) -> None:
    decoded = decode_media(write_video(tmp_path / "a.mp4", frames=1), frame_plan(count=8, offsets=(0.0, 0.2)), None)
    assert decoded.frames_TFHWC is not None and decoded.frames_TFHWC.shape[:2] == (1, 2)
    assert decoded.visual_problem is None


def test_a_still_image_is_one_token_without_a_duration(tmp_path: Path) -> None:
    decoded = decode_media(write_image(tmp_path / "a.jpg"), frame_plan(count=8), SOUND)
    assert numbers(decoded) == [30]
    assert decoded.frame_spans == [(0.0, 0.0)]
    assert decoded.audio_problem is not None and decoded.audio_problem.reason is Reason.NO_STREAM


def test_a_still_image_follows_its_exif_orientation(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    picture = image.fromarray(painted_frame(30, (64, 48)))
    exif = image.Exif()
    exif[274] = 6  # turned a quarter to the right when shown
    picture.save(tmp_path / "a.jpg", exif=exif, quality=95)
    decoded = decode_media(tmp_path / "a.jpg", frame_plan(fit="squash"), None)
    assert decoded.frames_TFHWC is not None
    corner = decoded.frames_TFHWC[0, 0, :8, -8:].mean(axis=(0, 1))
    assert corner[0] > corner[1] + 50, "the red corner is now at the top right"


def test_missing_duration_is_found_by_reading(tmp_path: Path) -> None:
    path = tmp_path / "a.webm"
    write_video(path, frames=36, rate=12, codec="libvpx")
    live = tmp_path / "live.webm"
    with av.open(str(path)) as source, av.open(str(live), "w", format="webm", options={"live": "1"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    with av.open(str(live)) as container:
        assert not container.duration
    decoded = decode_media(live, frame_plan(count=3), None)
    assert numbers(decoded) == pytest.approx([6, 18, 30], abs=2)


def test_a_duration_that_the_file_does_not_have(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=48, rate=12)
    data = bytearray(path.read_bytes())
    for box in (b"mvhd", b"mdhd", b"tkhd"):
        place = data.index(box) + 4 + (20 if box == b"tkhd" else 16)
        data[place : place + 4] = (2**31 - 1).to_bytes(4, "big")
    path.write_bytes(data)
    decoded = decode_media(path, frame_plan(count=4), None)
    assert len(numbers(decoded)) >= 3
    assert max(starts(decoded)) < 4.0


def test_a_file_cut_in_the_middle_yields_what_it_has(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", frames=240, rate=12, sound_seconds=20.0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    decoded = decode_media(path, frame_plan(count=8), SOUND)
    assert len(numbers(decoded)) >= 4
    assert decoded.windows
    assert decoded.visual_problem is not None and decoded.visual_problem.reason is Reason.CORRUPT
