"""What every encoder offers, and how one is loaded by the name of its kind.

    >>> from encoders.base import load_encoder
    >>> encoder = load_encoder("hashed-ngrams")
    >>> encoder.encode(["a dog barks", "一只狗在叫"]).shape
    torch.Size([2, 1024])

A distribution adds kinds of its own as entry points of the group `mmrec.encoders`: the name is the kind, the value the
factory, which takes `device`, `precision` and the options of that kind by keyword. `encoders.testing.check_encoder`
checks what it makes.

Importing this module costs nothing: the libraries behind a kind are imported when one is loaded.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch

Modality = Literal["visual", "audio", "text"]
FrameFit = Literal["crop", "squash", "pad"]
Interpolation = Literal["bicubic", "bilinear"]

ENTRY_POINTS = "mmrec.encoders"
KINDS = {
    "open-clip": "encoders.visual:OpenClip",
    "efficientnet-lite": "encoders.pictures:EfficientNetLite",
    "descriptors": "encoders.descriptors:Descriptors",
    "wav2vec2": "encoders.audio:Wav2Vec2",
    "clap": "encoders.audio:Clap",
    "log-mel": "encoders.log_mel:LogMel",
    "hashed-ngrams": "encoders.text:HashedNgrams",
    "universal-sentences": "encoders.universal:UniversalSentences",
    "sentence-transformer": "encoders.text:SentenceTransformer",
}
"""The built-in kinds, written as entry points are."""
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "visual": ("frame_size", "frame_fit", "interpolation", "frame_offsets"),
    "audio": ("sample_rate", "min_seconds"),
    "text": ("passages",),
}
"""What an encoder of each modality has, besides what every `Encoder` has."""


class EncoderError(ValueError):
    """An option, a batch or a checkpoint that cannot be used; the message says what was expected."""


class CheckpointNotFound(EncoderError):
    """A checkpoint is neither in a folder, nor in the cache, nor to be had from the hub."""


class Encoder(Protocol):
    """Turns a batch of parts of one modality into vectors.

    `encode` returns float32 `(N, dim)`, on the encoder's device. A row depends on its own input alone, never on the
    rest of the batch. Whether rows have unit norm is up to each encoder. Several threads may call it at once. A batch
    of another type or shape raises `EncoderError`; an empty one gives `(0, dim)`.
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
    """Takes a list of strings; `passages` splits one that is longer than the encoder can read.

    One that knows some languages only may say which: `languages`, a frozenset of codes of ISO 639-1.
    """

    def encode(self, texts: list[str], /) -> torch.Tensor: ...

    def passages(self, text: str, /) -> list[str]: ...


@runtime_checkable
class TextQueries(Protocol):
    """An encoder that also embeds what people search for: queries and items are compared by cosine."""

    def encode_text(self, texts: list[str], /) -> torch.Tensor: ...


@runtime_checkable
class PictureClasses(Protocol):
    """A visual encoder that tells from an item's vectors `(T, dim)`, at any time later, what its pictures show.

    `top_classes` gives names and probabilities, best first: the mean over the vectors.
    """

    def top_classes(self, vectors_TD: np.ndarray | torch.Tensor, /, count: int = 5) -> list[tuple[str, float]]: ...


@dataclass(frozen=True, slots=True)
class EncoderKind:
    """A kind that can be loaded: its name, where its factory is ("module:name"), and which distribution brings it.

    `distribution` is a name and a version; it is empty for the built-in kinds.
    """

    name: str
    factory: str
    distribution: str = ""

    def __str__(self) -> str:
        return f"{self.name!r} of {self.distribution}" if self.distribution else repr(self.name)


def encoder_kinds() -> list[EncoderKind]:
    """All kinds in the order of their names: the built-in ones, and those of other distributions.

    A name that two distributions use comes twice here, and is refused where it is loaded.
    """
    from importlib.metadata import entry_points

    built_in = [EncoderKind(name, factory) for name, factory in KINDS.items()]
    plug_ins = [
        EncoderKind(point.name, point.value, f"{point.dist.name} {point.dist.version}" if point.dist else "?")
        for point in entry_points(group=ENTRY_POINTS)
    ]
    return sorted(built_in + plug_ins, key=lambda kind: (kind.name, kind.distribution))


def load_encoder(kind: str, *, device: str = "auto", precision: str = "auto", **options: Any) -> Encoder:
    """Load an encoder.

    Args:
        kind: the name of one of `encoder_kinds()`.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "auto", "float32", "bfloat16" or "float16", the type of the weights. Encoders without
            weights compute in float32 whatever is asked.
        options: what this kind takes; an unknown one is refused.

    Raises:
        EncoderError: an unknown kind, option or value, a checkpoint that cannot be used, or a kind of another
            distribution that cannot be imported, fails or makes no encoder.
        CheckpointNotFound: a checkpoint that is not there.
    """
    found = _kind(kind)
    factory = _factory(found)
    _check_options(found, factory, options)
    try:
        encoder: Encoder = factory(device=device, precision=precision, **options)
    except EncoderError:
        raise
    except Exception as error:
        if not found.distribution:
            raise
        raise EncoderError(f"encoder {found} cannot be made: {type(error).__name__}: {error}") from error
    if missing := missing_attributes(encoder):
        raise EncoderError(f"encoder {found} is not complete: it has no {_listed(missing)}")
    return encoder


def encoder_factory(kind: str) -> Callable[..., Any]:
    """What makes encoders of a kind. Raises `EncoderError` where there is none, more than one, or it is broken."""
    return _factory(_kind(kind))


def missing_attributes(encoder: Encoder) -> list[str]:
    """The attributes that an encoder of its modality should have, and this one has not."""
    of_modality = ATTRIBUTES.get(getattr(encoder, "modality", ""), ())
    wanted = ("name", "modality", "dim", "fingerprint", "encode", *of_modality)
    return [name for name in wanted if not hasattr(encoder, name)]


def _kind(name: str) -> EncoderKind:
    kinds = encoder_kinds()
    found = [kind for kind in kinds if kind.name == name]
    if not found:
        raise EncoderError(f"unknown encoder kind {name!r}; known are: {_listed({kind.name for kind in kinds})}")
    if len(found) > 1:
        places = " and ".join(f"{kind.distribution or 'mmrec'} ({kind.factory})" for kind in found)
        raise EncoderError(f"encoder kind {name!r} is offered more than once, by {places}: rename or uninstall one")
    return found[0]


def _factory(kind: EncoderKind) -> Callable[..., Any]:
    from importlib.metadata import EntryPoint

    try:
        factory = EntryPoint(kind.name, kind.factory, ENTRY_POINTS).load()
    except Exception as error:
        if not kind.distribution:
            raise
        raise EncoderError(
            f"encoder {kind} cannot be imported from {kind.factory}: {type(error).__name__}: {error}"
        ) from error
    if not callable(factory):
        raise EncoderError(f"encoder {kind}: {kind.factory} is {factory!r}: expected a class or a function")
    made: Callable[..., Any] = factory
    return made


def _check_options(kind: EncoderKind, factory: Callable[..., Any], options: dict[str, Any]) -> None:
    parameters = inspect.signature(factory).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    by_keyword = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = {name for name, parameter in parameters.items() if parameter.kind in by_keyword}
    known = named - {"device", "precision"}
    if not takes_any and (lost := {"device", "precision"} - named):
        raise EncoderError(f"encoder {kind}: {kind.factory} must take {_listed(lost)} by keyword")
    if not takes_any and (unknown := set(options) - known):
        raise EncoderError(f"encoder {kind} has no option {_listed(unknown)}; it takes: {_listed(known) or 'none'}")
    if needed := {name for name in known - set(options) if parameters[name].default is inspect.Parameter.empty}:
        raise EncoderError(f"encoder {kind} needs the option {_listed(needed)}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def fingerprint(kind: str, revision: int, **facts: Any) -> str:
    """Hash what determines an encoder's output into 32 hex characters.

    `revision` is raised whenever the code of that kind changes its output; `facts` are anything JSON can hold.
    """
    text = json.dumps([kind, revision, facts], sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
