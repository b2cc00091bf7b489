"""Pictures and waveforms of files: upright, of the right moment, and never at the cost of the caller."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from media_files import frame_number, write_image, write_sound, write_video
from numpy.typing import NDArray
from PIL import Image

from mmrec.embedding import decoding
from mmrec.errors import MediaError, MMRecError, Reason
from mmrec.media import DecodedMedia, FramePlan, SoundPlan
from mmrec.remote import Access
from mmrec.reporting import previews, thumbnail, waveform


def opened(data: bytes) -> NDArray[np.uint8]:
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "JPEG"
    return np.asarray(picture.convert("RGB"))


def die(path: str, frames: FramePlan | None, sound: SoundPlan | None, seconds: float, access: Access) -> DecodedMedia:
    """Stands in for the decoder in a worker."""
    os._exit(3)


@pytest.mark.parametrize(("seconds", "number"), [(0, 0), (1.0, 12), (None, 12), (1e6, 23)])
def test_the_picture_is_that_of_the_moment(tmp_path: Path, seconds: float | None, number: int) -> None:
    video = write_video(tmp_path / "clip.mp4", frames=24, rate=12, size=(64, 48))
    picture_HWC = opened(thumbnail(video, seconds, width=128))
    assert picture_HWC.shape == (96, 128, 3)
    assert frame_number(picture_HWC) == number


def test_a_turned_film_is_upright(tmp_path: Path) -> None:
    video = write_video(tmp_path / "turned.mp4", rotation=90, size=(64, 48))
    picture_HWC = opened(thumbnail(video, None, width=48))
    assert picture_HWC.shape == (64, 48, 3)
    red_HW = (picture_HWC[..., 0] > 180) & (picture_HWC[..., 1] < 80)
    assert red_HW[-4:, :4].all() and not red_HW[:4].any()


def test_a_still_picture_and_a_very_tall_one(tmp_path: Path) -> None:
    assert opened(thumbnail(write_image(tmp_path / "photo.png", size=(80, 40)), 5.0, width=40)).shape == (20, 40, 3)
    assert opened(thumbnail(write_image(tmp_path / "tall.png", size=(10, 400)), None, width=40)).shape == (80, 2, 3)


def test_a_waveform_is_the_peaks(tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "tone.wav", seconds=3.0)
    peaks = waveform(sound, points=60)
    assert len(peaks) == 60
    assert min(peaks) == pytest.approx(max(peaks), abs=0.05)
    assert 0 < min(peaks) <= 1


def test_a_waveform_follows_the_loudness(tmp_path: Path) -> None:
    rising_S = (np.sin(np.arange(48_000) * 0.2) * np.linspace(0, 30_000, 48_000)).astype(np.int16)
    import wave

    with wave.open(str(tmp_path / "rising.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(rising_S.tobytes())
    peaks = waveform(tmp_path / "rising.wav", points=30)
    np.testing.assert_allclose(peaks, (np.arange(30) + 1) / 30 * 30_000 / 32_768, atol=0.03)


def test_what_a_file_does_not_give_is_said(tmp_path: Path) -> None:
    sound, photo = write_sound(tmp_path / "tone.wav", seconds=1.0), write_image(tmp_path / "photo.png")
    with pytest.raises(MediaError, match=r"tone\.wav gives no picture: no_stream") as error:
        thumbnail(sound, None, width=32)
    assert error.value.problem.reason is Reason.NO_STREAM
    with pytest.raises(MediaError, match=r"photo\.png gives no sound"):
        waveform(photo, points=10)
    with pytest.raises(MediaError, match="missing_file"):
        thumbnail(tmp_path / "gone.mp4", None, width=32)


def test_a_file_that_kills_the_decoder_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_decode", die)
    video = write_video(tmp_path / "clip.mp4")
    with pytest.raises(MediaError, match=r"crashed, the decoder died with exit code 3"):
        thumbnail(video, None, width=32)
    (preview,) = previews([video], pictures=2, height=24, points=4, workers=1)
    assert preview.problem is not None and preview.problem.reason is Reason.CRASHED


@pytest.mark.parametrize("width", [0, -1, 100_000])
def test_a_width_that_cannot_be_is_refused(tmp_path: Path, width: int) -> None:
    with pytest.raises(MMRecError, match="expected 1 to 2048"):
        thumbnail(tmp_path / "clip.mp4", None, width=width)


def test_a_waveform_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MMRecError, match="a waveform of 0 points"):
        waveform(tmp_path / "tone.wav", points=0)


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_moment_that_cannot_be_is_refused(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(MMRecError, match="moment is"):
        thumbnail(tmp_path / "clip.mp4", seconds, width=32)


def test_previews_of_many_files(tmp_path: Path) -> None:
    paths = [
        write_video(tmp_path / "clip.mp4", sound_seconds=2.0, size=(64, 48)),
        write_sound(tmp_path / "tone.wav", seconds=1.0),
        tmp_path / "damaged.mp4",
    ]
    paths[2].write_bytes(b"no film at all")
    found = {preview.media.name: preview for preview in previews(paths, pictures=3, height=24, points=10, workers=1)}
    assert found["clip.mp4"].size == (100, 24)
    assert opened(found["clip.mp4"].strip).shape == (24, 100, 3)
    assert len(found["clip.mp4"].peaks) == len(found["tone.wav"].peaks) == 10
    assert found["tone.wav"].strip == b"" and found["tone.wav"].problem is None
    assert found["damaged.mp4"].problem is not None
