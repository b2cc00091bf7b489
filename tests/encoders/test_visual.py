import shutil

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from tiny_checkpoints import write_adapter, write_open_clip
from torchvision.transforms import CenterCrop, InterpolationMode, Resize

from encoders.base import EncoderError, TextQueries, load_encoder
from encoders.descriptors import lab

RANDOM = np.random.default_rng(0)
TEXTS = ["a dog runs", "一只狗在公园里", "", "a very long text " * 50]


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


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_open_clip(tmp_path_factory.mktemp("open_clip"))


def load_clip(folder, **options):
    options = {"device": "cpu", "precision": "float32"} | options
    return load_encoder("open-clip", checkpoint=str(folder), **options)


def reference(folder):
    """What open_clip makes of a folder: its model and its own preprocessing."""
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return model.eval(), preprocess


def picture(height, width):
    """A picture with structure at every scale."""
    noise = [Image.fromarray(RANDOM.integers(0, 256, (size, size, 3), dtype=np.uint8)) for size in (3, 9, 50)]
    layers = [np.asarray(layer.resize((width, height), Image.Resampling.BICUBIC), dtype=float) for layer in noise]
    return Image.fromarray(np.mean(layers, axis=0).astype(np.uint8))


class TestOpenClip:
    @pytest.mark.parametrize(
        ("preprocessing", "fit", "size"),
        [
            ({}, "crop", lambda: [Resize(32, InterpolationMode.BICUBIC), CenterCrop(32)]),
            ({"interpolation": "bilinear"}, "crop", lambda: [Resize(32, InterpolationMode.BILINEAR), CenterCrop(32)]),
            ({"resize_mode": "squash"}, "squash", lambda: [Resize((32, 32), InterpolationMode.BICUBIC)]),
            (
                {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.4, 0.3]},
                "crop",
                lambda: [Resize(32, InterpolationMode.BICUBIC)],
            ),
        ],
    )
    def test_frames_give_the_vectors_of_open_clip(self, tmp_path, preprocessing, fit, size):
        folder = write_open_clip(tmp_path, **preprocessing)
        encoder = load_clip(folder)
        assert (encoder.frame_size, encoder.frame_fit) == ((32, 32), fit)
        assert encoder.interpolation == preprocessing.get("interpolation", "bicubic")
        pictures = [picture(48, 48) if len(size()) == 1 else picture(40, 70) for _ in range(3)]
        frames = []
        for scaled in pictures:
            for step in size():
                scaled = step(scaled)
            frames.append(np.asarray(scaled))
        model, preprocess = reference(folder)
        with torch.no_grad():
            expected = model.encode_image(torch.stack([preprocess(image) for image in pictures]), normalize=True)
        torch.testing.assert_close(encoder.encode(np.stack(frames)[:, None]), expected, atol=1e-5, rtol=0)

    def test_padding_is_honoured(self, tmp_path):
        assert load_clip(write_open_clip(tmp_path, resize_mode="longest")).frame_fit == "pad"

    def test_a_colour_to_pad_with_other_than_black_is_refused(self, tmp_path):
        with pytest.raises(EncoderError, match="fill_color 128"):
            load_clip(write_open_clip(tmp_path, resize_mode="longest", fill_color=128))

    def test_texts_give_the_vectors_of_open_clip(self, checkpoint):
        encoder = load_clip(checkpoint)
        model, _ = reference(checkpoint)
        with torch.no_grad():
            tokens = open_clip.get_tokenizer(f"local-dir:{checkpoint}")(TEXTS)
            expected = model.encode_text(tokens, normalize=True)
        torch.testing.assert_close(encoder.encode_text(TEXTS), expected, atol=1e-5, rtol=0)
        assert isinstance(encoder, TextQueries)

    @pytest.mark.parametrize(("precision", "least"), [("float32", 0.9999), ("bfloat16", 0.999)])
    def test_vectors_do_not_depend_on_the_batch(self, checkpoint, precision, least):
        encoder = load_clip(checkpoint, precision=precision)
        frames = RANDOM.integers(0, 256, (34, 1, 32, 32, 3), dtype=np.uint8)
        frames[3] = 0
        together = encoder.encode(frames)
        alone = torch.cat([encoder.encode(frames[at : at + 1]) for at in range(34)])
        backwards = encoder.encode(frames[::-1]).flip(0)
        assert together.dtype == torch.float32 and together.isfinite().all()
        assert (together * alone).sum(dim=1).min() > least
        assert (together * backwards).sum(dim=1).min() > least
        texts = torch.cat([encoder.encode_text([text]) for text in TEXTS])
        assert (texts * encoder.encode_text(TEXTS)).sum(dim=1).min() > least

    def test_bfloat16_is_near_float32(self, checkpoint):
        frames = RANDOM.integers(0, 256, (8, 1, 32, 32, 3), dtype=np.uint8)
        exact, rounded = load_clip(checkpoint), load_clip(checkpoint, precision="bfloat16")
        assert (exact.encode(frames) * rounded.encode(frames)).sum(dim=1).min() > 0.999
        assert exact.fingerprint != rounded.fingerprint

    def test_empty_batches(self, checkpoint):
        encoder = load_clip(checkpoint)
        assert encoder.encode(np.zeros((0, 1, 32, 32, 3), np.uint8)).shape == (0, 32)
        assert encoder.encode_text([]).shape == (0, 32)

    def test_an_architecture_with_a_file_of_weights(self, tmp_path, monkeypatch):
        from safetensors.torch import save_file

        torch.manual_seed(0)
        model = open_clip.create_model("ViT-S-32-alt", pretrained_text=False).eval()
        save_file(
            {name: tensor.contiguous() for name, tensor in model.state_dict().items()}, tmp_path / "my.safetensors"
        )
        encoder = load_clip("ViT-S-32-alt", pretrained=str(tmp_path / "my.safetensors"))
        text = ["a dog"]
        with torch.no_grad():
            expected = model.encode_text(open_clip.get_tokenizer("ViT-S-32-alt")(text), normalize=True)
        torch.testing.assert_close(encoder.encode_text(text), expected, atol=1e-5, rtol=0)
        assert encoder.frame_size == (224, 224)

    def test_adapter(self, checkpoint, tmp_path):
        from peft import PeftModel

        model, _ = reference(checkpoint)
        adapter = write_adapter(tmp_path / "adapter", model, ["c_fc", "c_proj"])
        adapted = load_clip(checkpoint, adapter=str(adapter))
        frames = RANDOM.integers(0, 256, (3, 1, 32, 32, 3), dtype=np.uint8)
        plain = load_clip(checkpoint)
        model, preprocess = reference(checkpoint)
        tuned = PeftModel.from_pretrained(model, adapter).eval()
        with torch.no_grad():
            pixels = torch.stack([preprocess(Image.fromarray(frame)) for frame in frames[:, 0]])
            expected = tuned.encode_image(pixels, normalize=True)
        torch.testing.assert_close(adapted.encode(frames), expected, atol=1e-5, rtol=0)
        assert (adapted.encode(frames) - plain.encode(frames)).abs().max() > 0.01
        assert adapted.fingerprint != plain.fingerprint
        moved = shutil.copytree(adapter, tmp_path / "moved")
        assert load_clip(checkpoint, adapter=str(moved)).fingerprint == adapted.fingerprint

    def test_adapter_of_another_model_is_refused(self, checkpoint, tmp_path):
        model, _ = reference(checkpoint)
        adapter = write_adapter(tmp_path / "adapter", model, ["c_fc"])
        config = (adapter / "adapter_config.json").read_text()
        (adapter / "adapter_config.json").write_text(config.replace('"c_fc"', '"no_such_layer"'))
        with pytest.raises(EncoderError, match="adapter"):
            load_clip(checkpoint, adapter=str(adapter))

    def test_real_pictures_scaled_by_the_decoder_give_nearly_the_same_vectors(self, shared_media, tmp_path):
        """Least cosine measured: 0.9996 here, 0.9997 with a ViT-B/32 of random weights at 224 pixels."""
        import av

        folder = write_open_clip(tmp_path)
        encoder = load_clip(folder)
        model, preprocess = reference(folder)
        for name in ("archery.mp4", "dog_walk.mp4", "weightlifting.mp4", "dog_image.jpg"):
            with av.open(shared_media / name) as container:
                frame = next(container.decode(video=0))
            shortest = min(frame.width, frame.height)
            width, height = frame.width * 32 // shortest, frame.height * 32 // shortest
            small = frame.reformat(width, height, format="rgb24", interpolation="BICUBIC").to_ndarray()
            top, left = round((height - 32) / 2), round((width - 32) / 2)
            vector = encoder.encode(small[None, None, top : top + 32, left : left + 32])
            with torch.no_grad():
                expected = model.encode_image(preprocess(frame.to_image())[None], normalize=True)
            assert (vector * expected).sum() > 0.999, name
