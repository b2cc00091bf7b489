"""Packing: the parts of many items go through the encoders in full batches, and come back as tokens of each item."""

from __future__ import annotations

import concurrent.futures
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.base import Encoder, TextEncoder
from mmrec.embedding.encoder_threads import EncoderThreads
from mmrec.embedding.preset_encoders import PresetEncoders
from mmrec.errors import EncoderError, Problem, Reason
from mmrec.media import DecodedMedia
from mmrec.store import Features, Modality, TimedText, Tokens, neighbours_joined

logger = logging.getLogger(__name__)

# On a processor larger batches are no faster and come later; 256 frames fill a large GPU.
BATCH_SIZES: dict[str, dict[Modality, int]] = {
    "cpu": {"visual": 32, "audio": 4, "text": 32},
    "mps": {"visual": 64, "audio": 16, "text": 64},
    "cuda": {"visual": 256, "audio": 32, "text": 256},
}
MAX_WAITING_BYTES = 256 * 2**20
MAX_BATCHES_PER_THREAD = 3
MAX_WAITING_SECONDS = 5.0
MAX_REFUSED_IN_A_ROW = 32  # items

Vectors = NDArray[np.float32]


@dataclass(slots=True, eq=False)
class _Draft:
    """An item whose parts are on their way through the encoders."""

    features: Features
    spans: dict[Modality, NDArray[np.float64]] = field(default_factory=dict)
    vectors: dict[Modality, list[NDArray[np.float32] | None]] = field(default_factory=dict)
    outstanding: int = 0


@dataclass(frozen=True, slots=True)
class _Part:
    draft: _Draft
    modality: Modality
    place: int
    data: Any


_Encoded = tuple[Modality, list[_Part], Vectors, float]


@dataclass(frozen=True)
class _Batch:
    number: int
    bytes: int


class Packer:
    """Collects parts by modality and shape, and has a group encoded as soon as it fills a batch.

    `threads` encode while the caller goes on. `add` and `flush` yield the items that became complete; `add` waits for
    the encoders where more than `MAX_WAITING_BYTES` are on their way through them. Where a thread has nothing to do, a
    group that has waited for `MAX_WAITING_SECONDS` is encoded as it is.

    An item that an encoder refused waits for one of the same batch or a later one that it encodes, which shows that
    the item was the fault.
    `EncoderError` is raised where `MAX_REFUSED_IN_A_ROW` wait: the encoder or the machine is broken, not the items.
    """

    def __init__(
        self, loaded: PresetEncoders, batch_size: int | None, threads: EncoderThreads, stage_seconds: dict[str, float]
    ) -> None:
        self._loaded, self._threads = loaded, threads
        defaults = BATCH_SIZES[loaded.device.type]
        self._sizes = {modality: batch_size or defaults[modality] for modality in loaded.encoders}
        self._groups: dict[tuple[Modality, Any], list[_Part]] = {}
        self._since: dict[tuple[Modality, Any], float] = {}
        self._running: dict[Future[_Encoded], _Batch] = {}
        self._started = 0
        self._refused: dict[Modality, list[tuple[int, Features]]] = {modality: [] for modality in loaded.encoders}
        self._bytes = 0
        self._stage_seconds = stage_seconds

    def add(
        self, features: Features, media: DecodedMedia, text: str, words: Sequence[TimedText] = ()
    ) -> Iterator[Features]:
        """`text` is what the catalog says, `words` are those that are heard and seen."""
        draft = _Draft(features)
        if "visual" not in features.kept:
            self._take_visual(draft, media)
        if "audio" not in features.kept:
            self._take_audio(draft, media)
        if "text" not in features.kept:
            self._take_text(draft, text, words)
        if draft.outstanding == 0:
            yield features
        while ready := [key for key in self._groups if self._is_ready(key)]:
            for key in ready:
                self._start_encoding(key)
        if self._bytes > MAX_WAITING_BYTES:
            self._start_all()
        yield from self._finished()

    def flush(self) -> Iterator[Features]:
        self._start_all()
        while self._running:
            yield from self._finished(wait=True)
        for refused in self._refused.values():
            yield from (features for _, features in refused)
            refused.clear()

    def _is_ready(self, key: tuple[Modality, Any]) -> bool:
        if len(self._groups[key]) >= self._sizes[key[0]]:
            return True
        has_idle_thread = len(self._running) < self._threads.count
        return has_idle_thread and time.monotonic() - self._since[key] > MAX_WAITING_SECONDS

    def _take_visual(self, draft: _Draft, media: DecodedMedia) -> None:
        if media.visual_problem is not None:
            draft.features.problems["visual"] = media.visual_problem
        if media.frames_TFHWC is not None:
            self._take(draft, "visual", list(media.frames_TFHWC), media.frame_spans)
        self._note_unwanted(draft, "visual")

    def _take_audio(self, draft: _Draft, media: DecodedMedia) -> None:
        if media.audio_problem is not None:
            draft.features.problems["audio"] = media.audio_problem
        self._take(draft, "audio", media.windows, media.window_spans)
        self._note_unwanted(draft, "audio")

    def _take_text(self, draft: _Draft, text: str, words: Sequence[TimedText]) -> None:
        if (text or words) and "text" in self._loaded.encoders:
            encoder = cast("TextEncoder", self._loaded.encoders["text"])
            timed = [TimedText(0.0, 0.0, text)] if text else []
            timed += neighbours_joined(words)
            parts = [(part, (of.start, of.end)) for of in timed for part in encoder.passages(of.text)]
            self._take(draft, "text", [part for part, _ in parts], [span for _, span in parts])
        elif not text:
            draft.features.problems["text"] = Problem(Reason.NO_TEXT, "the row has no title, description or tags")
        self._note_unwanted(draft, "text")

    def _note_unwanted(self, draft: _Draft, modality: Modality) -> None:
        if modality not in self._loaded.encoders:
            draft.features.problems[modality] = Problem(Reason.NOT_WANTED, "the preset has no encoder for it")

    def _take(
        self, draft: _Draft, modality: Modality, parts: Sequence[Any], spans: Sequence[tuple[float, float]]
    ) -> None:
        if not parts:
            return
        draft.spans[modality] = np.array(spans, np.float64).reshape(-1, 2)
        draft.vectors[modality] = [None] * len(parts)
        draft.outstanding += len(parts)
        for place, data in enumerate(parts):
            shape = data.shape if isinstance(data, np.ndarray) else None
            key = (modality, shape)
            if key not in self._groups:
                self._groups[key], self._since[key] = [], time.monotonic()
            self._groups[key].append(_Part(draft, modality, place, data))
            self._bytes += _size(data)

    def _start_all(self) -> None:
        while self._groups:
            self._start_encoding(next(iter(self._groups)))

    def _start_encoding(self, key: tuple[Modality, Any]) -> None:
        modality = key[0]
        group = self._groups.pop(key)
        parts, rest = group[: self._sizes[modality]], group[self._sizes[modality] :]
        if rest:
            self._groups[key], self._since[key] = rest, time.monotonic()
        future = self._threads.submit(self._encode_timed, modality, parts)
        self._started += 1
        self._running[future] = _Batch(self._started, sum(_size(part.data) for part in parts))

    def _finished(self, *, wait: bool = False) -> Iterator[Features]:
        """The items that became complete; waits for a batch if asked to, or while too much is in memory."""
        while self._running:
            is_crowded = len(self._running) > MAX_BATCHES_PER_THREAD * self._threads.count
            must_wait = wait or is_crowded or self._bytes > MAX_WAITING_BYTES
            done = [future for future in self._running if future.done()]
            if not done and must_wait:
                concurrent.futures.wait(self._running, return_when=concurrent.futures.FIRST_COMPLETED)
                continue
            if not done:
                return
            wait = False
            for future in done:
                batch = self._running.pop(future)
                self._bytes -= batch.bytes
                yield from self._deliver(future.result(), batch.number)

    def _deliver(self, encoded: _Encoded, batch: int) -> Iterator[Features]:
        modality, parts, vectors_ND, seconds = encoded
        self._stage_seconds[modality] += seconds
        for part, vector_D in zip(parts, vectors_ND, strict=True):
            part.draft.vectors[modality][part.place] = vector_D
            part.draft.outstanding -= 1
            if part.draft.outstanding == 0:
                yield from self._settled(_finish(part.draft, self._loaded), batch)

    def _settled(self, features: Features, batch: int) -> Iterator[Features]:
        """The item, and those that it clears of having met a broken encoder; none where it may have met one itself."""
        for modality in features.tokens:
            refused = self._refused[modality]
            yield from (one for number, one in refused if number <= batch)
            self._refused[modality] = [entry for entry in refused if entry[0] > batch]
        refusal = _refusal(features)
        if refusal is None:
            yield features
            return
        modality, problem = refusal
        self._refused[modality].append((batch, features))
        if len(self._refused[modality]) >= MAX_REFUSED_IN_A_ROW:
            name = self._loaded.encoders[modality].name
            raise EncoderError(
                f"the {modality} encoder {name!r} failed on {MAX_REFUSED_IN_A_ROW} items in a row, so that it or this "
                f"machine is broken; the last time with: {problem.detail}"
            )

    def _encode_timed(self, modality: Modality, parts: list[_Part]) -> _Encoded:
        start = time.perf_counter()
        vectors_ND = self._encode(modality, parts)
        return modality, parts, vectors_ND, time.perf_counter() - start

    def _encode(self, modality: Modality, parts: list[_Part]) -> Vectors:
        """Encode in one go, or in halves where that fails, down to the part that cannot be encoded.

        Where the device ran out of memory, batches are smaller from then on.
        """
        half = len(parts) // 2
        if len(parts) > self._sizes[modality]:
            return np.concatenate([self._encode(modality, parts[:half]), self._encode(modality, parts[half:])])
        encoder: Encoder = self._loaded.encoders[modality]
        batch = [part.data for part in parts]
        try:
            vectors_ND = encoder.encode(batch if modality == "text" else self._threads.stacked(batch))
            return vectors_ND.float().cpu().numpy()
        except torch.OutOfMemoryError as error:
            if len(parts) == 1:
                raise EncoderError(f"the device has too little memory for a single {modality} part: {error}") from error
            if half < self._sizes[modality]:
                self._sizes[modality] = half
                logger.warning("out of memory on the device: %s batches are now of %d", modality, half)
        except (RuntimeError, ValueError, ArithmeticError, LookupError, TypeError) as error:
            if len(parts) == 1:
                problem = Problem(Reason.NOT_ENCODED, f"{type(error).__name__}: {error}")
                parts[0].draft.features.problems[modality] = problem
                return np.full((1, encoder.dim), np.nan, np.float32)
        return np.concatenate([self._encode(modality, parts[:half]), self._encode(modality, parts[half:])])


def _size(data: Any) -> int:
    return int(data.nbytes) if isinstance(data, np.ndarray) else len(data)


def _refusal(features: Features) -> tuple[Modality, Problem] | None:
    """The modality of which an encoder made nothing, and what it said."""
    for modality, problem in features.problems.items():
        if problem.reason in {Reason.NOT_ENCODED, Reason.NOT_FINITE} and modality not in features.tokens:
            return modality, problem
    return None


def _finish(draft: _Draft, loaded: PresetEncoders) -> Features:
    features = draft.features
    for modality, vectors in draft.vectors.items():
        matrix_TD = np.stack([vector for vector in vectors if vector is not None])
        finite_T = np.atleast_1d(np.isfinite(matrix_TD).all(axis=1))
        refused = features.problems.get(modality)
        if not finite_T.all() and (refused is None or refused.reason is not Reason.NOT_ENCODED):
            detail = f"{int((~finite_T).sum())} of {len(finite_T)} vectors from the encoder are not finite"
            features.problems[modality] = Problem(Reason.NOT_FINITE, detail)
        if finite_T.any():
            features.tokens[modality] = Tokens(matrix_TD[finite_T], draft.spans[modality][finite_T])
            features.fingerprints[modality] = loaded.fingerprints[modality]
    return features
