import numpy as np
import pytest
import torch

from encoders.base import EncoderError, load_encoder
from encoders.descriptors import lab


@pytest.fixture(scope="module")
def descriptors():
    return load_encoder("descriptors", device="cpu")


def still(picture_HWC):
    return np.broadcast_to(picture_HWC.astype(np.uint8), (1, 2, 128, 128, 3))


def stripes(angle, *, shift=0.0, period=16):
    y, x = np.mgrid[:128, :128]
    wave = np.sin(2 * np.pi * ((x - shift) * np.cos(angle) + y * np.sin(angle)) / period)
    return np.repeat((127 + 100 * wave)[..., None], 3, axis=-1)


class TestDescriptors:
    @pytest.mark.parametrize("value", [0, 255])
    def test_blank_pictures_have_unit_vectors(self, descriptors, value):
        vector = descriptors.encode(still(np.full((128, 128, 3), value)))
        assert vector.norm() == pytest.approx(1)

    def test_colour_finds_colour(self, descriptors):
        red, crimson, blue = (
            descriptors.encode(still(np.full((128, 128, 3), colour)))[0]
            for colour in [(220, 20, 20), (190, 10, 40), (20, 20, 220)]
        )
        assert red @ crimson > red @ blue + 0.1

    def test_edges_know_orientation_but_not_sign(self, descriptors):
        upright, inverse, level = (
            descriptors.encode(still(picture))[0] for picture in [stripes(0), 255 - stripes(0), stripes(np.pi / 2)]
        )
        assert upright @ inverse > 0.98
        assert upright @ level < 0.9

    def test_motion_knows_direction(self, descriptors):
        pairs = np.stack([[stripes(0), stripes(0, shift=shift)] for shift in (3, 2, -3)]).astype(np.uint8)
        right, slower, left = descriptors.encode(pairs)[:, -68:]
        assert right @ slower > right @ left + 0.05

    def test_direction_is_where_things_go(self, descriptors):
        pair = np.stack([stripes(0), stripes(0, shift=3)]).astype(np.uint8)
        motion = descriptors.encode(pair[None])[0, -68:].reshape(4, 17)[:, :16].reshape(4, 2, 8).sum(dim=(0, 1))
        assert motion.argmax() == 0  # along +x

    @pytest.mark.parametrize(
        "frames",
        [
            np.zeros((1, 2, 64, 64, 3), np.uint8),
            np.zeros((1, 1, 128, 128, 3), np.uint8),
            np.zeros((1, 2, 128, 128, 3), np.float32),
        ],
    )
    def test_other_shapes_and_types_are_refused(self, descriptors, frames):
        with pytest.raises(EncoderError, match=r"takes uint8 frames \(N, 2, 128, 128, 3\).*got"):
            descriptors.encode(frames)


def test_lab_of_known_colours():
    rgb = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 0, 0], [0.5, 0.5, 0.5]])
    expected = torch.tensor(  # Bruce Lindbloom's calculator, sRGB and D65
        [[53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86], [100, 0, 0], [0, 0, 0], [53.39, 0, 0]]
    )
    torch.testing.assert_close(lab(rgb[..., None, None])[..., 0, 0], expected, atol=0.02, rtol=0)
