"""Pictures that their files turn and mirror: upright and not mirrored, against Pillow for EXIF."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image, ImageOps

from mmrec.media import DecodedMedia, FramePlan, FrameSampling, decode_media

SIZE = 64
PLAN = FramePlan(sampling=FrameSampling(count=1), height=SIZE, width=SIZE, fit="squash")
EXIF_ORIENTATION = 0x0112


def four_colours() -> NDArray[np.uint8]:
    """A picture of which no turned or mirrored copy is like another."""
    quarters = np.array([[(200, 30, 30), (30, 180, 30)], [(30, 30, 220), (230, 230, 230)]], np.uint8)
    return quarters.repeat(SIZE // 2, axis=0).repeat(SIZE // 2, axis=1)


def first_frame(decoded: DecodedMedia) -> NDArray[np.uint8]:
    assert decoded.frames_TFHWC is not None, decoded.visual_problem
    image_HWC: NDArray[np.uint8] = decoded.frames_TFHWC[0, 0]
    return image_HWC


def is_like(image_HWC: NDArray[np.uint8], expected_HWC: NDArray[np.uint8]) -> bool:
    return float(np.abs(image_HWC.astype(int) - expected_HWC).mean()) < 12


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    path = tmp_path / f"a{suffix}"
    Image.fromarray(four_colours()).save(path, quality=95, exif=exif.tobytes())
    decoded = decode_media(path, PLAN, None)
    with Image.open(path) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"))
    assert is_like(first_frame(decoded), expected)
    assert decoded.facts.get("mirrored", False) == (orientation in {2, 4, 5, 7})


def write_transformed(path: Path, degrees: int, hflip: bool, vflip: bool) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        assert isinstance(stream, VideoStream)
        stream.width = stream.height = SIZE
        stream.pix_fmt, stream.bit_rate = "yuv420p", 2_000_000
        stream.set_display_rotation(degrees, hflip=hflip, vflip=vflip)
        for number in range(4):
            frame = av.VideoFrame.from_ndarray(four_colours(), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
@pytest.mark.parametrize("hflip", [False, True])
@pytest.mark.parametrize("vflip", [False, True])
def test_the_display_matrix_of_a_video(tmp_path: Path, degrees: int, hflip: bool, vflip: bool) -> None:
    decoded = decode_media(write_transformed(tmp_path / "a.mp4", degrees, hflip, vflip), PLAN, None)
    expected = np.rot90(four_colours(), degrees // 90)
    expected = expected[:, ::-1] if hflip else expected
    expected = expected[::-1] if vflip else expected
    assert is_like(first_frame(decoded), expected)


def test_a_portrait_that_is_mirrored_and_turned_keeps_its_shape(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 5
    path = tmp_path / "a.jpg"
    Image.fromarray(np.full((40, 80, 3), 200, np.uint8)).save(path, exif=exif.tobytes())
    padded = FramePlan(sampling=FrameSampling(count=1), height=SIZE, width=SIZE, fit="pad")
    image_HWC = first_frame(decode_media(path, padded, None))
    assert image_HWC[:, :15].max() == 0 and image_HWC[:, -15:].max() == 0, "black at the sides of a portrait"
    assert image_HWC[:, 20:44].min() > 180
