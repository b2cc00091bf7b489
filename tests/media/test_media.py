"""Sound, files that give both, and files that may not be opened."""

from __future__ import annotations

import os
import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from decode_plans import SOUND, frame_plan, numbers
from media_files import painted_frame, tone, write_image, write_sound, write_video

from mmrec.errors import Reason
from mmrec.media.reading import decode_media
from mmrec.media.sampling import SoundPlan, SoundSampling

# --- sound ------------------------------------------------------------------------------------------------------------


def test_windows_hold_the_samples_of_their_times(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", seconds=30.0, frequency=3.0)
    decoded = decode_media(path, None, SOUND)
    reference = tone(30.0, 16000, 3.0)
    assert [round(start, 3) for start, _ in decoded.window_spans] == [0.0, 9.667, 19.333, 29.0]
    for (start, end), window in zip(decoded.window_spans, decoded.windows, strict=True):
        assert len(window) == 16000 and window.dtype == np.float32
        np.testing.assert_allclose(window, reference[round(start * 16000) : round(end * 16000)], atol=1e-3)


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".mp3", "mp3"), (".m4a", "aac"), (".flac", "flac"), (".ogg", "libopus")]
)
def test_windows_far_into_a_compressed_sound_are_reached_by_seeking(tmp_path: Path, suffix: str, codec: str) -> None:
    rate = 48000 if codec == "libopus" else 44100
    path = tmp_path / f"a{suffix}"
    write_sound(path, seconds=40.0, sample_rate=rate, frequency=100.0, codec=codec)
    decoded = decode_media(path, None, SOUND)
    assert len(decoded.windows) == 4
    for window in decoded.windows:
        spectrum = np.abs(np.fft.rfft(window[2000:-2000] * np.hanning(12000)))
        assert np.argmax(spectrum) * 16000 / 12000 == pytest.approx(100.0, abs=1.5)
        assert np.sqrt(np.mean(window[2000:-2000] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


def test_all_of_the_sound(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", seconds=3.5, frequency=2.0)
    plan = SoundPlan(sampling=SoundSampling(mode="all", window_seconds=1.0, count=60), sample_rate=16000)
    decoded = decode_media(path, None, plan)
    assert decoded.window_spans == [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0), (2.5, 3.5)]
    np.testing.assert_allclose(np.concatenate(decoded.windows[:3]), tone(3.5, 16000, 2.0)[:48000], atol=1e-3)


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 96000, 192000])
def test_any_rate_becomes_the_plans(tmp_path: Path, rate: int) -> None:
    decoded = decode_media(write_sound(tmp_path / "a.wav", seconds=1.0, sample_rate=rate), None, SOUND)
    assert len(decoded.windows[0]) == pytest.approx(16000, abs=40)
    spectrum = np.abs(np.fft.rfft(decoded.windows[0]))
    assert np.argmax(spectrum) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_layout_becomes_mono(tmp_path: Path, channels: int) -> None:
    path = write_sound(tmp_path / "a.wav", seconds=1.0, channels=channels)
    window = decode_media(path, None, SOUND).windows[0]
    assert window.ndim == 1
    assert 0.3 < np.abs(window).max() <= 1.0


def test_a_sound_shorter_than_a_window_is_one_window_of_its_length(tmp_path: Path) -> None:
    decoded = decode_media(write_sound(tmp_path / "a.wav", seconds=0.5), None, SOUND)
    assert [len(window) for window in decoded.windows] == [8000]
    assert decoded.window_spans == [(0.0, 0.5)]


@pytest.mark.parametrize("seconds", [0.0, 0.05])
def test_too_short_a_sound(tmp_path: Path, seconds: float) -> None:
    decoded = decode_media(write_sound(tmp_path / "a.wav", seconds=seconds), None, SOUND)
    assert decoded.windows == []
    assert decoded.audio_problem is not None
    assert decoded.audio_problem.reason in {Reason.TOO_SHORT, Reason.NOT_MEDIA}


def test_video_and_sound_come_from_one_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", frames=48, rate=12, sound_seconds=4.0)
    opened = []
    original = av.open
    monkeypatch.setattr(av, "open", lambda *args, **kwargs: opened.append(args) or original(*args, **kwargs))
    decoded = decode_media(path, frame_plan(count=4), SOUND)
    assert len(opened) == 1
    assert numbers(decoded) == [6, 18, 30, 42]
    assert len(decoded.windows) == 4
    assert decoded.visual_problem is None and decoded.audio_problem is None


def test_cover_art_is_the_picture_of_a_song(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    write_song_with_cover(path)
    decoded = decode_media(path, frame_plan(count=8), SOUND)
    assert numbers(decoded) == [30]
    assert decoded.facts["visual_source"] == "attached_picture"
    assert len(decoded.windows) == 2


def write_song_with_cover(path: Path) -> None:
    with av.open(str(path), "w") as container:
        sound = container.add_stream("mp3", rate=44100, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(painted_frame(30, (64, 48)), format="rgb24").reformat(format="yuvj420p")
        samples = tone(2.0, 44100, 440.0)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 44100, 0, Fraction(1, 44100)
        container.mux(cover.encode(picture))
        container.mux(cover.encode(None))
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))


# --- what may not be opened -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.mp4", b"", Reason.NOT_MEDIA),
        ("text.mp4", b"this is no video at all\n" * 100, Reason.NOT_MEDIA),
        ("list.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.mp4\n#EXT-X-ENDLIST\n", Reason.NOT_MEDIA),
        ("list.ffconcat", b"ffconcat version 1.0\nfile 'secret.mp4'\n", Reason.NOT_MEDIA),
        ("page.svg", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="secret.png"/></svg>', Reason.NOT_MEDIA),
    ],
)
def test_files_that_are_no_media(tmp_path: Path, name: str, content: bytes, reason: Reason) -> None:
    write_video(tmp_path / "secret.mp4")
    path = tmp_path / name
    path.write_bytes(content)
    decoded = decode_media(path, frame_plan(), SOUND)
    assert decoded.frames_TFHWC is None and not decoded.windows
    assert decoded.visual_problem is not None and decoded.visual_problem.reason is reason
    assert decoded.visual_problem.detail


def test_a_wrong_suffix_does_not_matter(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=24)
    os.rename(path, tmp_path / "a.jpg")
    assert numbers(decode_media(tmp_path / "a.jpg", frame_plan(count=2), None)) == [6, 18]


def test_a_name_that_looks_like_a_pattern_or_a_protocol_is_a_name(tmp_path: Path) -> None:
    write_image(tmp_path / "img001.png")
    assert decode_media(tmp_path / "img%03d.png", frame_plan(), None).visual_problem is not None
    for name in ("concat:a|b.png", "image 100%d.png", "http:x.png", "视频 🎬.png"):
        os.replace(write_image(tmp_path / "tmp.png"), tmp_path / name)
        assert numbers(decode_media(tmp_path / name, frame_plan(), None)) == [30]


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    os.symlink(tmp_path / "loop.mp4", tmp_path / "loop.mp4")
    os.symlink("/dev/zero", tmp_path / "zero.mp4")
    for name in ("pipe.mp4", "loop.mp4", "zero.mp4", "."):
        problem = decode_media(tmp_path / name, frame_plan(), SOUND).visual_problem
        assert problem is not None and problem.reason is Reason.NOT_A_FILE, name
    missing = decode_media(tmp_path / "missing.mp4", frame_plan(), SOUND).visual_problem
    assert missing is not None and missing.reason is Reason.MISSING_FILE


def test_memory_does_not_grow_with_the_length_of_the_sound(tmp_path: Path) -> None:
    short, long = (write_sound(tmp_path / f"{n}.wav", seconds=n, sample_rate=8000) for n in (20.0, 600.0))
    plan = SoundPlan(sampling=SoundSampling(window_seconds=2.0, count=3), sample_rate=16000)
    peaks = []
    for path in (short, long):
        tracemalloc.start()
        decode_media(path, None, plan)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
