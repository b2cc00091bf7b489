"""Checks that an encoder keeps the contract of `encoders.base`; needs no test framework.

    >>> from encoders.base import load_encoder
    >>> from encoders.testing import check_encoder
    >>> check_encoder(lambda **options: load_encoder("hashed-ngrams", device="cpu", **options))

Letters: N inputs, F frames, H, W pixels, C channels, S samples, D width.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import combinations
from typing import Any, get_args

import numpy as np
import torch
from torch.nn import functional

from encoders.base import (
    Encoder,
    EncoderError,
    FrameFit,
    Interpolation,
    Modality,
    TextQueries,
    missing_attributes,
)

MIN_INPUTS = 3
_TEXTS = [
    "a dog barks",
    "rain",
    "一只狗在公园里",
    "A quiet song for piano, played at night beside the sea. " * 4,
    "Ünïcödé & <markup>",
    "🐶",
    "the park by the house",
]


def check_encoder(
    make_encoder: Callable[..., Encoder],
    batch: Any = None,
    *,
    changes: Sequence[Mapping[str, Any]] = (),
    least_cosine: float = 0.9999,
) -> None:
    """Check that an encoder keeps the contract: its attributes, its vectors, its fingerprint, and what it refuses.

    Args:
        make_encoder: loads the encoder, anew each time, in float32 unless `least_cosine` says otherwise.
        batch: at least 3 inputs that differ, as `encode` takes them: `frames_NFHWC`, `windows_NS` or texts.
            None makes noise, tones or sentences as the encoder asks for them.
        changes: keywords for `make_encoder`; each set must give a fingerprint of its own.
        least_cosine: between vectors of one input in different batches; 0.999 suits bfloat16.

    Raises:
        AssertionError: the first thing that is wrong. What `make_encoder` and `encode` raise themselves passes through.
    """
    encoder = make_encoder()
    _check_attributes(encoder)
    batch = sample_batch(encoder) if batch is None else batch
    batch = list(batch) if encoder.modality == "text" else np.asarray(batch)
    _check_batch(encoder, batch)
    vectors_ND = _check_vectors(encoder, encoder.encode, batch, least_cosine)
    _check_refusals(encoder, batch)
    again = make_encoder()
    _check_fingerprints([({}, encoder), ({}, again), *((change, make_encoder(**change)) for change in changes)])
    _check_same(again.encode(batch), vectors_ND, "of a second load with the same fingerprint", least_cosine)
    if encoder.modality == "audio":
        _check_shortest_sound(encoder, batch)
    if encoder.modality == "text":
        _check_passages(encoder, batch)
    if isinstance(encoder, TextQueries):
        _check_vectors(encoder, encoder.encode_text, _TEXTS, least_cosine)


def sample_batch(encoder: Any, count: int = 7) -> Any:
    """Inputs for an encoder, all different and always the same: noise of several contrasts, tones, or sentences."""
    if encoder.modality == "text":
        return [_TEXTS[at % len(_TEXTS)] + " again" * (at // len(_TEXTS)) for at in range(count)]
    random = np.random.default_rng(0)
    gains_N = np.linspace(0.1, 1, count, dtype=np.float32)
    if encoder.modality == "audio":
        seconds_S = np.arange(math.ceil(max(1.0, encoder.min_seconds) * encoder.sample_rate)) / encoder.sample_rate
        tones_NS = np.sin(2 * np.pi * 110 * 1.5 ** np.arange(count)[:, None] * seconds_S)
        noise_NS = random.normal(0, 0.1, tones_NS.shape)
        return (gains_N[:, None] * 0.5 * (tones_NS + noise_NS)).clip(-1, 1).astype(np.float32)
    height, width = encoder.frame_size
    cells_NFHWC = random.uniform(0, 255, (count, len(encoder.frame_offsets), 4, 4, 3))
    frames_NFHWC = cells_NFHWC[:, :, np.arange(height) * 4 // height][:, :, :, np.arange(width) * 4 // width]
    return (gains_N[:, None, None, None, None] * frames_NFHWC).astype(np.uint8)


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_attributes(encoder: Any) -> None:
    missing = missing_attributes(encoder)
    _check(not missing, f"the encoder has no {', '.join(missing)}")
    checks: dict[str, tuple[Callable[[Any], bool], str]] = {
        "name": (lambda name: isinstance(name, str) and name != "", "text"),
        "fingerprint": (lambda print: isinstance(print, str) and print != "", "text"),
        "modality": (lambda modality: modality in get_args(Modality), f"one of {get_args(Modality)}"),
        "dim": (_is_count, "a whole number above 0"),
        "frame_size": (
            lambda size: isinstance(size, tuple) and len(size) == 2 and all(map(_is_count, size)),
            "a tuple of two whole numbers above 0: height and width",
        ),
        "frame_fit": (lambda fit: fit in get_args(FrameFit), f"one of {get_args(FrameFit)}"),
        "interpolation": (lambda way: way in get_args(Interpolation), f"one of {get_args(Interpolation)}"),
        "frame_offsets": (
            lambda offsets: isinstance(offsets, tuple) and len(offsets) > 0 and all(map(_is_number, offsets)),
            "a tuple of one number of seconds or more",
        ),
        "sample_rate": (_is_count, "a whole number above 0"),
        "min_seconds": (lambda seconds: _is_number(seconds) and seconds >= 0, "a number from 0"),
    }
    for name, (holds, expected) in checks.items():
        if hasattr(encoder, name):
            value = getattr(encoder, name)
            _check(holds(value), f"{name} is {value!r}: expected {expected}")


def _check_batch(encoder: Any, batch: Any) -> None:
    _check(len(batch) >= MIN_INPUTS, f"the batch has {len(batch)} inputs: give at least {MIN_INPUTS} that differ")
    if encoder.modality == "text":
        _check(all(isinstance(text, str) for text in batch), "the batch must be a list of strings")
        return
    if encoder.modality == "visual":
        expected: tuple[Any, ...] = (np.uint8, len(encoder.frame_offsets), *encoder.frame_size, 3)
        given = (batch.dtype.type, *batch.shape[1:])
    else:
        expected, given = (np.float32, 2), (batch.dtype.type, batch.ndim)
    kind = "frames_NFHWC" if encoder.modality == "visual" else "windows_NS"
    _check(
        given == expected,
        f"the batch is {batch.dtype} {batch.shape}, which does not fit what the encoder declares: expected {kind}, "
        f"{np.dtype(expected[0])} with {expected[1:] if encoder.modality == 'visual' else 'two axes'}",
    )


def _check_vectors(
    encoder: Encoder, encode: Callable[[Any], torch.Tensor], batch: Any, least_cosine: float
) -> torch.Tensor:
    """Check what `encode` makes of a batch, and of the same inputs in other batches; the vectors `(N, D)`."""
    before = copy.deepcopy(batch)
    vectors_ND = encode(batch)
    _check(np.array_equal(before, batch), "encode changes the batch that it is given")
    _check_shape(vectors_ND, len(batch), encoder.dim)
    _check(bool(vectors_ND.isfinite().all()), "encode gives numbers that are not finite")
    _check(bool((vectors_ND != vectors_ND[:1]).any()), "encode gives one and the same vector for every input")
    for how, encoded_ND in _arrangements(encode, batch):
        _check_same(encoded_ND, vectors_ND, how, least_cosine)
    return vectors_ND


def _check_shape(vectors: Any, count: int, dim: int) -> None:
    _check(isinstance(vectors, torch.Tensor), f"encode gives a {type(vectors).__name__}: expected a torch.Tensor")
    given = f"{vectors.dtype} {tuple(vectors.shape)}"
    fits = vectors.dtype == torch.float32 and tuple(vectors.shape) == (count, dim)
    _check(fits, f"encode gives {given} for {count} inputs: expected torch.float32 {(count, dim)}, where {dim} is dim")
    _check(not vectors.requires_grad, "encode gives vectors that require a gradient: use torch.inference_mode")


def _arrangements(encode: Callable[[Any], torch.Tensor], batch: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The vectors of the inputs in the order of the batch, encoded in other batches; and how that was done."""
    count = len(batch)

    def encoded(places: Sequence[int]) -> torch.Tensor:
        part = [batch[place] for place in places]
        return encode(part if isinstance(batch, list) else np.stack(part))

    yield "encoded once more", encode(batch)
    if not isinstance(batch, list):
        yield "given as a tensor", encode(torch.from_numpy(batch.copy()))
    yield "encoded alone", torch.cat([encoded([place]) for place in range(count)])
    yield "encoded in reverse order", encoded(range(count)[::-1]).flip(0)
    yield "encoded in two batches", torch.cat([encoded(range(count // 2)), encoded(range(count // 2, count))])
    yield "encoded in a batch of three times the size", encoded(list(range(count)) * 3)[count : 2 * count]
    with ThreadPoolExecutor(4) as threads:
        yield "encoded by several threads at once", torch.cat(list(threads.map(encoded, [[at] for at in range(count)])))


def _check_same(vectors_ND: torch.Tensor, expected_ND: torch.Tensor, how: str, least_cosine: float) -> None:
    """Check directions and lengths at once: the distance of unit vectors of a cosine c is sqrt(2 - 2c)."""
    _check_shape(vectors_ND, *expected_ND.shape)
    lengths_N, expected_N = vectors_ND.norm(dim=1), expected_ND.norm(dim=1)
    distances_N = (vectors_ND - expected_ND).norm(dim=1) / torch.maximum(lengths_N, expected_N).clamp(min=1e-12)
    far_N = ~(distances_N <= math.sqrt(2 - 2 * least_cosine))  # not finite is far, too
    if far_N.any():
        at = int(far_N.nonzero()[0])
        cosine = functional.cosine_similarity(vectors_ND[at], expected_ND[at], dim=0)
        raise AssertionError(
            f"the vector of input {at} does not depend on that input alone: {how}, its cosine with the first vector is "
            f"{cosine:.5f}, and its length {lengths_N[at]:.5g} instead of {expected_N[at]:.5g}; expected a cosine of "
            f"{least_cosine} and the same length"
        )


def _check_refusals(encoder: Encoder, batch: Any) -> None:
    with suppress(EncoderError):
        try:
            nothing = encoder.encode(batch[:0])
        except EncoderError:
            raise
        except Exception as error:
            raise AssertionError(f"an empty batch raises {_named(error)}: expected (0, dim)") from error
        _check_shape(nothing, 0, encoder.dim)
    for what, bad in _bad_batches(encoder, batch).items():
        try:
            encoder.encode(bad)
        except EncoderError:
            continue
        except Exception as error:
            raise AssertionError(f"a batch that is {what} raises {_named(error)}: expected an EncoderError") from error
        raise AssertionError(f"a batch that is {what} is encoded: expected an EncoderError")


def _named(error: Exception) -> str:
    return f"{type(error).__name__} ({error})"


def _bad_batches(encoder: Encoder, batch: Any) -> dict[str, Any]:
    if encoder.modality == "text":
        return {"a single string": batch[0], "a list of numbers": [1, 2, 3]}
    if encoder.modality == "audio":
        return {
            "float64": batch.astype(np.float64),
            "one window without the axis N": batch[0],
            "windows without samples": batch[:, :0],
        }
    return {
        "float32": batch.astype(np.float32) / 255,
        "frames without the axis F": batch[:, 0],
        "frames of another height": batch[:, :, :-1],
    }


def _check_fingerprints(loads: Sequence[tuple[Mapping[str, Any], Encoder]]) -> None:
    """Check that loads with the same options, and no others, have the same fingerprint."""
    for (options, encoder), (others, other) in combinations(loads, 2):
        if options == others:
            prints = f"{encoder.fingerprint} and {other.fingerprint}"
            _check(encoder.fingerprint == other.fingerprint, f"two loads have different fingerprints: {prints}")
        else:
            both = f"{dict(options)} and {dict(others)}"
            _check(encoder.fingerprint != other.fingerprint, f"the options {both} have the same fingerprint")


def _check_shortest_sound(encoder: Any, batch: Any) -> None:
    samples = max(1, round(encoder.min_seconds * encoder.sample_rate))
    _check(batch.shape[1] >= samples, f"the windows are shorter than min_seconds, {encoder.min_seconds}")
    vectors_ND = encoder.encode(np.ascontiguousarray(batch[:, :samples]))
    _check_shape(vectors_ND, len(batch), encoder.dim)
    _check(bool(vectors_ND.isfinite().all()), "windows of min_seconds give numbers that are not finite")


def _check_passages(encoder: Any, texts: list[str]) -> None:
    words = " ".join(texts)
    for text in (texts[0], f"{words} " * math.ceil(5000 / max(1, len(words)))):
        passages = encoder.passages(text)
        is_list = isinstance(passages, list) and all(isinstance(passage, str) for passage in passages)
        _check(is_list and passages != [], f"passages gives {passages!r}: expected a list of one string or more")
        _check(_ink("".join(passages)) == _ink(text), "passages loses or adds something of a text")
        whole = all(encoder.passages(passage) == [passage] for passage in passages)
        _check(whole, "passages gives a passage that it would split again")


def _ink(text: str) -> str:
    return "".join(text.split())
