"""What every encoder offers, and how one is loaded by the name of its kind.

    >>> from encoders.base import load_encoder
    >>> encoder = load_encoder("hashed-ngrams")
    >>> encoder.encode(["a dog barks", "一只狗在叫"]).shape
    torch.Size([2, 1024])

Importing this module costs nothing: the libraries behind a kind are imported when one is loaded.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch

Modality = Literal["visual", "audio", "text"]
FrameFit = Literal["crop", "squash", "pad"]
Interpolation = Literal["bicubic", "bilinear"]

KINDS = {
    "open-clip": "encoders.visual:OpenClip",
    "descriptors": "encoders.descriptors:Descriptors",
    "wav2vec2": "encoders.audio:Wav2Vec2",
    "clap": "encoders.audio:Clap",
    "log-mel": "encoders.log_mel:LogMel",
    "hashed-ngrams": "encoders.text:HashedNgrams",
    "sentence-transformer": "encoders.text:SentenceTransformer",
}


class EncoderError(ValueError):
    """An option, a batch or a checkpoint that cannot be used; the message says what was expected."""


class CheckpointNotFound(EncoderError):
    """A checkpoint is neither in a folder, nor in the cache, nor to be had from the hub."""


class Encoder(Protocol):
    """Turns a batch of parts of one modality into vectors.

    `encode` returns float32 `(N, dim)`, on the encoder's device. A row depends on its own input alone, never on the
    rest of the batch. Whether rows have unit norm is up to each encoder.
    `fingerprint` is equal exactly where the vectors are meant to be equal: it covers the weights, the options, the
    preprocessing and the precision, but not the machine, the device or the path the weights came from.
    """

    name: str
    modality: Modality
    dim: int
    fingerprint: str

    def encode(self, batch: Any, /) -> torch.Tensor: ...


class VisualEncoder(Encoder, Protocol):
    """Takes `frames_NFHWC`: uint8 RGB at `frame_size`, where F = `len(frame_offsets)`.

    `frame_size` is (height, width). `frame_fit` says how a picture becomes that size: "crop" scales the shortest side
    and cuts the centre, "squash" ignores the aspect, "pad" scales the longest side and centres it on black.
    `frame_offsets` are the times in seconds, relative to the token's own, of the frames that make one token.
    """

    frame_size: tuple[int, int]
    frame_fit: FrameFit
    interpolation: Interpolation
    frame_offsets: tuple[float, ...]

    def encode(self, frames_NFHWC: np.ndarray | torch.Tensor, /) -> torch.Tensor: ...


class AudioEncoder(Encoder, Protocol):
    """Takes `windows_NS`: mono float32 in [-1, 1] at `sample_rate`, at least `min_seconds` long, all of one length."""

    sample_rate: int
    min_seconds: float

    def encode(self, windows_NS: np.ndarray | torch.Tensor, /) -> torch.Tensor: ...


class TextEncoder(Encoder, Protocol):
    """Takes a list of strings; `passages` splits one that is longer than the encoder can read."""

    def encode(self, texts: list[str], /) -> torch.Tensor: ...

    def passages(self, text: str, /) -> list[str]: ...


@runtime_checkable
class TextQueries(Protocol):
    """An encoder that also embeds what people search for: queries and items are compared by cosine."""

    def encode_text(self, texts: list[str], /) -> torch.Tensor: ...


def load_encoder(kind: str, *, device: str = "auto", precision: str = "auto", **options: Any) -> Encoder:
    """Load an encoder.

    Args:
        kind: one of `KINDS`.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "auto", "float32", "bfloat16" or "float16", the type of the weights. Encoders without
            weights compute in float32 whatever is asked.
        options: what this kind takes; an unknown one is refused.

    Raises:
        EncoderError: an unknown kind, option or value, or a checkpoint that cannot be used.
        CheckpointNotFound: a checkpoint that is not there.
    """
    factory = encoder_factory(kind)
    parameters = inspect.signature(factory).parameters
    known = set(parameters) - {"device", "precision"}
    if unknown := set(options) - known:
        raise EncoderError(f"encoder {kind!r} has no option {_listed(unknown)}; it takes: {_listed(known) or 'none'}")
    if needed := {name for name in known - set(options) if parameters[name].default is inspect.Parameter.empty}:
        raise EncoderError(f"encoder {kind!r} needs the option {_listed(needed)}")
    encoder: Encoder = factory(device=device, precision=precision, **options)
    return encoder


def encoder_factory(kind: str) -> Callable[..., Any]:
    if kind not in KINDS:
        raise EncoderError(f"unknown encoder kind {kind!r}; known are: {_listed(KINDS)}")
    module, _, name = KINDS[kind].partition(":")
    factory: Callable[..., Any] = getattr(import_module(module), name)
    return factory


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def fingerprint(kind: str, revision: int, **facts: Any) -> str:
    """Hash what determines an encoder's output into 32 hex characters.

    `revision` is raised whenever the code of that kind changes its output; `facts` are anything JSON can hold.
    """
    text = json.dumps([kind, revision, facts], sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
