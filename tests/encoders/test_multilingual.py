"""Checkpoints that read many languages, as presets name them: multilingual E5, and SigLIP 2."""

from __future__ import annotations

import open_clip
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tiny_checkpoints import write_e5, write_siglip2

from encoders.base import TextQueries, load_encoder
from encoders.testing import check_encoder, sample_batch
from mmrec.embedding import PRESETS

pytestmark = pytest.mark.usefixtures("one_thread")
TEXTS = ["the dog runs in the park", "狗 猫 公 园", "a song by the sea"]


@pytest.mark.parametrize("name", ["base", "large"])
def test_e5_gets_the_prefixes_of_its_card(name, tmp_path):
    spec = PRESETS[name].text
    assert spec.options["checkpoint"].startswith("intfloat/multilingual-e5-")
    folder = str(write_e5(tmp_path))
    encoder = load_encoder(
        spec.kind, **{**spec.options, "checkpoint": folder, "revision": None}, device="cpu", precision="float32"
    )
    reference = SentenceTransformer(folder, device="cpu")
    for encode, prefix in ((encoder.encode, "passage: "), (encoder.encode_text, "query: ")):
        expected_ND = reference.encode([prefix + text for text in TEXTS], convert_to_tensor=True)
        torch.testing.assert_close(encode(TEXTS), expected_ND, atol=1e-5, rtol=0)
    assert len(encoder.passages("the dog runs in the park by the sea. " * 20)) > 1


def test_siglip2_gives_the_vectors_of_open_clip(tmp_path):
    folder = write_siglip2(tmp_path)

    def load(**options):
        return load_encoder(
            "open-clip", checkpoint=str(folder), **({"device": "cpu", "precision": "float32"} | options)
        )

    check_encoder(load, sample_batch(load(), 3))
    encoder = load()
    assert isinstance(encoder, TextQueries)
    assert (encoder.frame_fit, encoder.frame_size) == ("squash", (160, 160))
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    frames_NFHWC = sample_batch(encoder, 3)
    with torch.inference_mode():
        texts_ND = model.encode_text(tokenize(TEXTS), normalize=True)
        pixels_NCHW = torch.from_numpy(frames_NFHWC[:, 0]).permute(0, 3, 1, 2) / 127.5 - 1
        pictures_ND = model.encode_image(pixels_NCHW, normalize=True)
    torch.testing.assert_close(encoder.encode_text(TEXTS), texts_ND, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder.encode(frames_NFHWC), pictures_ND, atol=1e-4, rtol=0)
