"""`check_encoder` passes what keeps the contract of encoders, and says what is wrong with what does not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_checkpoints import (
    write_bert,
    write_clap,
    write_open_clip,
    write_sentence_transformer,
    write_wav2vec2,
)

from encoders.base import EncoderError, fingerprint, load_encoder
from encoders.batches import checked_frames, checked_texts, checked_windows
from encoders.testing import check_encoder, sample_batch

pytestmark = pytest.mark.usefixtures("one_thread")
exact = partial(load_encoder, device="cpu", precision="float32")


@pytest.mark.parametrize("kind", ["descriptors", "log-mel", "hashed-ngrams"])
def test_the_encoders_without_weights_keep_the_contract(kind: str) -> None:
    check_encoder(partial(exact, kind))


CHECKPOINTS: dict[str, tuple[str, Callable[[Path], Path], list[dict[str, Any]]]] = {
    "open-clip": ("open-clip", write_open_clip, []),
    "wav2vec2": ("wav2vec2", write_wav2vec2, [{"layers": "mean"}, {"layers": [0, 1]}]),
    "clap": ("clap", write_clap, []),
    "bert": ("sentence-transformer", write_bert, [{"document_prompt": "song "}]),
    "sentence-transformer": ("sentence-transformer", write_sentence_transformer, [{"document_prompt": "song "}]),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_encoders_with_weights_keep_the_contract(name: str, tmp_path: Path) -> None:
    kind, write, changes = CHECKPOINTS[name]
    checkpoint = str(write(tmp_path / "one"))
    others = [{"precision": "bfloat16"}]
    if write is not write_sentence_transformer:
        others.append({"checkpoint": str(write(tmp_path / "two", seed=1))})  # type: ignore[call-arg]
    check_encoder(partial(exact, kind, checkpoint=checkpoint), changes=[*changes, *others])


def test_a_batch_of_ones_own_and_lower_precision(tmp_path: Path) -> None:
    half = partial(exact, "wav2vec2", checkpoint=str(write_wav2vec2(tmp_path)), precision="bfloat16")
    windows_NS = np.random.default_rng(1).normal(0, 0.2, (5, 4000)).astype(np.float32)
    check_encoder(half, windows_NS, least_cosine=0.999)
    check_encoder(half, torch.from_numpy(windows_NS), least_cosine=0.999)


class Grey:
    """The mean of each row of pixels of two frames: an encoder that keeps the contract."""

    name, modality, dim = "grey", "visual", 16
    frame_size, frame_fit, interpolation, frame_offsets = (8, 6), "crop", "bicubic", (0.0, 0.5)

    def __init__(self, *, power: float = 1.0) -> None:
        self.power = power
        self.fingerprint = fingerprint("grey", 1, power=power)

    def encode(self, frames: Any, /) -> torch.Tensor:
        rows_NFH = checked_frames(self, frames).float().mean(dim=(3, 4)) / 255  # type: ignore[arg-type]
        return rows_NFH.flatten(1) ** self.power


class Loud:
    """How loud each quarter of a window is."""

    name, modality, dim, sample_rate, min_seconds, fingerprint = "loud", "audio", 4, 8000, 0.01, "loud 1"

    def encode(self, windows: Any, /) -> torch.Tensor:
        windows_NS = checked_windows(self, windows)  # type: ignore[arg-type]
        return torch.stack([part.square().mean(dim=1).sqrt() for part in windows_NS.chunk(4, dim=1)], dim=1)


class Length:
    """How many characters and words a text has; reads up to 100 characters at once."""

    name, modality, dim, fingerprint = "length", "text", 2, "length 1"

    def encode(self, texts: list[str], /) -> torch.Tensor:
        checked_texts(self, texts)  # type: ignore[arg-type]
        return torch.tensor([[len(text), len(text.split())] for text in texts], dtype=torch.float32).reshape(-1, 2)

    def passages(self, text: str, /) -> list[str]:
        return [text[at : at + 100] for at in range(0, len(text), 100)] or [text]


@pytest.mark.parametrize("make", [Grey, Loud, Length])
def test_small_encoders_keep_the_contract(make: Callable[..., Any]) -> None:
    check_encoder(make)
    check_encoder(make, sample_batch(make(), 9))


def test_options_that_have_fingerprints_of_their_own_keep_it() -> None:
    check_encoder(Grey, changes=[{"power": 2.0}, {"power": 0.5}])  # type: ignore[arg-type]


loads = count()


def broken(kind: type, **parts: Any) -> Callable[..., Any]:
    """A kind with other attributes or methods."""
    return type(f"Broken{kind.__name__}", (kind,), parts)


def after(change: Callable[[torch.Tensor], Any]) -> Any:
    """An `encode` whose vectors are changed before they are given."""
    return lambda self, frames: change(Grey.encode(self, frames))


class Careless(Grey):
    def encode(self, frames: Any, /) -> torch.Tensor:
        frames //= 2
        return super().encode(frames)


class Unlocked(Grey):
    """Keeps what belongs to a call in the object, so that threads disturb each other."""

    def encode(self, frames: Any, /) -> torch.Tensor:
        import time

        self.frames = frames
        time.sleep(0.005)
        return super().encode(self.frames)


def last_is_added(vectors_ND: torch.Tensor) -> torch.Tensor:
    return vectors_ND + vectors_ND[-1:]


def positions_are_added(vectors_ND: torch.Tensor) -> torch.Tensor:
    return vectors_ND + torch.arange(len(vectors_ND))[:, None]


BROKEN = [
    pytest.param(broken(Grey, encode=after(lambda v: v - v.mean(0))), "encoded alone, its cosine", id="batch mean"),
    pytest.param(broken(Grey, encode=after(lambda v: v / v.max())), "its length", id="batch maximum"),
    pytest.param(broken(Grey, encode=after(last_is_added)), "does not depend on that input alone", id="neighbour"),
    pytest.param(broken(Grey, encode=after(positions_are_added)), "encoded alone", id="position"),
    pytest.param(broken(Grey, encode=after(lambda v: v + torch.rand(1))), "encoded once more", id="chance"),
    pytest.param(Unlocked, "several threads", id="not for threads"),
    pytest.param(broken(Grey, dim=15), r"\(7, 16\) for 7 inputs: expected .*\(7, 15\)", id="wrong dim"),
    pytest.param(broken(Grey, dim=0), "dim is 0", id="no dim"),
    pytest.param(broken(Grey, dim="16"), "dim is '16'", id="dim is text"),
    pytest.param(broken(Grey, encode=after(lambda v: v / 0)), "not finite", id="NaN"),
    pytest.param(broken(Grey, encode=after(lambda v: v.double())), "float64", id="double"),
    pytest.param(broken(Grey, encode=after(lambda v: v.numpy())), "ndarray: expected a torch.Tensor", id="numpy"),
    pytest.param(broken(Grey, encode=after(lambda v: v.requires_grad_())), "gradient", id="gradient"),
    pytest.param(broken(Grey, encode=after(torch.ones_like)), "one and the same vector", id="constant"),
    pytest.param(Careless, "changes the batch", id="changes its input"),
    pytest.param(
        broken(Grey, fingerprint=property(lambda self: f"{next(loads)}", lambda *_: None)),
        "two loads have different fingerprints",
        id="fingerprint of the load",
    ),
    pytest.param(
        broken(Grey, __init__=lambda self, **_: setattr(self, "power", float(torch.rand(1))), fingerprint="grey"),
        "of a second load with the same fingerprint",
        id="random weights",
    ),
    pytest.param(broken(Grey, modality="video"), "modality is 'video'", id="modality"),
    pytest.param(broken(Grey, frame_size=[8, 6]), "frame_size is", id="frame size"),
    pytest.param(broken(Grey, frame_fit="stretch"), "frame_fit is 'stretch'", id="fit"),
    pytest.param(broken(Grey, frame_offsets=()), "frame_offsets is", id="offsets"),
    pytest.param(
        broken(Grey, encode=lambda self, f: torch.as_tensor(f).float().mean((3, 4)).reshape(-1, 16)),
        "a batch that is float32 is encoded: expected an EncoderError",
        id="takes anything",
    ),
    pytest.param(broken(Loud, sample_rate=8000.5), "sample_rate is 8000.5", id="rate"),
    pytest.param(broken(Loud, min_seconds=0.0), r"\(7, 1\) for 7 inputs", id="short"),
    pytest.param(broken(Length, passages=lambda self, text: [text[:100]]), "loses or adds", id="cuts"),
    pytest.param(broken(Length, passages=lambda self, text: text), "a list of one string", id="no list"),
    pytest.param(broken(Length, passages=lambda self, text: [text[:9], text[9:]]), "split again", id="split again"),
    pytest.param(
        broken(Length, encode=lambda self, texts: torch.tensor([[len(t), 1.0] for t in texts])),
        r"torch.float32 \(0,\) for 0 inputs",
        id="empty",
    ),
    pytest.param(
        broken(Length, encode_text=lambda self, texts: Length.encode(self, texts)[:, :1]), r"\(7, 1\)", id="queries"
    ),
]


@pytest.mark.parametrize(("make", "message"), BROKEN)
def test_what_breaks_the_contract_is_named(make: Callable[..., Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_encoder(make)


def test_a_fingerprint_that_forgets_an_option_is_named() -> None:
    forgetful = broken(Grey, __init__=lambda self, power=1.0: setattr(self, "power", power), fingerprint="grey")
    with pytest.raises(AssertionError, match=r"\{\} and \{'power': 2.0\} have the same fingerprint"):
        check_encoder(forgetful, changes=[{"power": 2.0}])


@pytest.mark.parametrize("name", ["fingerprint", "encode", "frame_size", "interpolation"])
def test_a_missing_attribute_is_named(name: str) -> None:
    class Hidden(Grey):
        def __getattribute__(self, wanted: str) -> Any:
            if wanted == name:
                raise AttributeError(wanted)
            return super().__getattribute__(wanted)

    with pytest.raises(AssertionError, match=f"the encoder has no {name}"):
        check_encoder(Hidden)  # type: ignore[arg-type]


def test_a_batch_that_proves_nothing_is_refused() -> None:
    frames_NFHWC = sample_batch(Grey())
    for batch, message in [
        (frames_NFHWC[:2], "give at least 3"),
        (frames_NFHWC[:, :1], "does not fit what the encoder declares"),
        (frames_NFHWC.astype(np.float32), "does not fit"),
    ]:
        with pytest.raises(AssertionError, match=message):
            check_encoder(Grey, batch)  # type: ignore[arg-type]


def test_what_the_encoder_raises_for_good_input_passes_through() -> None:
    def fails(self: Any, frames: Any) -> torch.Tensor:
        raise EncoderError("no weights")

    with pytest.raises(EncoderError, match="no weights"):
        check_encoder(broken(Grey, encode=fails))


@pytest.mark.parametrize("batch", ["a dog", [1, 2], ["a dog", None]])
def test_text_encoders_take_lists_of_strings_alone(batch: Any, tmp_path: Path) -> None:
    for encoder in (exact("hashed-ngrams"), exact("sentence-transformer", checkpoint=str(write_bert(tmp_path)))):
        with pytest.raises(EncoderError, match=r"takes a list of strings, got (a single string|int|NoneType)"):
            encoder.encode(batch)
