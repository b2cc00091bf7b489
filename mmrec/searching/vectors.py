"""The parts of a query as vectors in the spaces of the store's encoders."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.base import EncoderError as LoadError
from encoders.languages import language_of
from mmrec.embedding import embed_file
from mmrec.errors import SearchError
from mmrec.searching.query import Query
from mmrec.searching.recorded_encoders import RecordedEncoders, is_known
from mmrec.searching.shown import BACKGROUND, CLASS_PROMPT, meant
from mmrec.store import EncoderRecord, Modality, SearchTables

logger = logging.getLogger(__name__)
KEPT_TEXTS = 256
Part = dict[Modality, NDArray[np.float32]]
"""One part of a query: vectors `(T, D)`, L2-normalised, in each space in which it can be compared."""


class QueryVectors:
    """Encodes the parts of queries; encoders are loaded when they are first asked, and said only once to lack words."""

    def __init__(self, tables: SearchTables, encoders: RecordedEncoders) -> None:
        self._tables, self._encoders = tables, encoders
        self._encoded = lru_cache(KEPT_TEXTS)(self._encode)  # the next page has the same words
        self._said: set[str] = set()
        self._encoding = threading.Lock()
        self._shown: tuple[int, list[str], NDArray[np.float32]] | None = None

    @cached_property
    def _known(self) -> dict[str, EncoderRecord]:
        return {record.fingerprint: record for record in self._tables.store.encoders()}

    @property
    def records(self) -> dict[Modality, EncoderRecord]:
        """The encoder of each modality that can be searched, where it is known."""
        found = self._tables.fingerprints.items()
        return {modality: self._known[used] for modality, used in found if used in self._known}

    def with_words(self) -> list[Modality]:
        """The modalities whose encoders have words."""
        return [modality for modality, record in self.records.items() if self._encoders.has_words(record)]

    def parts(self, query: Query, modalities: Sequence[Modality]) -> Iterator[Part]:
        """What is sought, part by part. Raises `SearchError` for one that can be compared with nothing."""
        for text in query.words:
            yield self.words(text, modalities)
        for path in query.media:
            yield self._media(Path(path), modalities)
        for item_id in query.items:
            yield self._item(item_id, modalities)
        for number, vector in enumerate(query.vectors, start=1):
            yield self._vector(number, np.atleast_2d(np.asarray(vector, np.float32)), modalities)

    def shown(self, text: str) -> dict[str, float]:
        """The classes of what pictures show that words mean; none where the pictures, or the words, are not known."""
        record = self._text_record
        if record is None or not self._encoders.has_words(record):
            return {}
        names, vectors_ND = self._class_vectors(record)
        classes_CD, background_BD = vectors_ND[: len(names)], vectors_ND[len(names) :]
        return meant(self._encoded(record.fingerprint, text)[0], classes_CD, background_BD, names) if names else {}

    @property
    def _text_record(self) -> EncoderRecord | None:
        """The encoder of the store's words, or the latest where no item has any."""
        known = [record for record in self._known.values() if record.modality == "text"]
        return self.records.get("text", known[-1] if known else None)

    def _class_vectors(self, record: EncoderRecord) -> tuple[list[str], NDArray[np.float32]]:
        """The classes of the store's pictures, and their vectors, those of the background behind them."""
        version = self._tables.store.version
        if self._shown is None or self._shown[0] != version:
            names = self._tables.classes()
            encoded = [*names, *BACKGROUND] if names else []
            encode = partial(self._encode_classes, record)
            self._shown = version, names, self._tables.class_vectors.of(encoded, record.fingerprint, encode)
        return self._shown[1:]

    def _encode_classes(self, record: EncoderRecord, names: Sequence[str]) -> NDArray[np.float32]:
        with self._encoding:
            encoder = self._encoders.load(record)
            prompts = [CLASS_PROMPT.format(name) for name in names]
            return _normalised(encoder.encode_text(prompts).float().cpu().numpy())

    def words(self, text: str, modalities: Sequence[Modality]) -> Part:
        able = self.with_words()
        unable = [modality for modality in modalities if modality not in able]
        if unable:
            names = " and ".join(map(self._encoder_name, unable))
            but = "pictures are found by the classes they show" if self._tables.classes() else "no words lead there"
            self._say(f"words are not compared with {names}: {but}")
        asked = {modality: self.records[modality].fingerprint for modality in modalities if modality in able}
        return {modality: self._encoded(fingerprint, text) for modality, fingerprint in asked.items()}

    def _encode(self, fingerprint: str, text: str) -> NDArray[np.float32]:
        record = self._known[fingerprint]
        with self._encoding:  # tokenizers serve one thread at a time
            encoder = self._encoders.load(record)
            self._warn_of_language(text, record.modality, encoder)
            return _normalised(encoder.encode_text([text]).float().cpu().numpy())

    def _media(self, path: Path, modalities: Sequence[Modality]) -> Part:
        records = [r for m, r in self.records.items() if m in modalities and m != "text" and is_known(r)]
        if not path.is_file():
            raise SearchError(f"there is no file {path}: name a picture, a sound or a video")
        if not records:
            raise SearchError(f"{path} cannot be compared: {self._tables.store.folder} has no encoder of media for it")
        features = embed_file(path, records)
        part = {m: _normalised(tokens.vectors_TD) for m, tokens in features.tokens.items() if m in modalities}
        if not part:
            problems = {m: problem for m, problem in features.problems.items() if m != "text"}
            said = "; ".join(f"{m}: {p.reason} {p.detail}".strip() for m, p in problems.items())
            raise SearchError(f"{path} has nothing to compare ({said})")
        return part

    def _item(self, item_id: str, modalities: Sequence[Modality]) -> Part:
        found = {m: self._tables.moments(m, [item_id]).get(item_id) for m in modalities}
        part = {modality: moments.vectors_TD for modality, moments in found.items() if moments is not None}
        if not part:
            there = item_id in self._tables.titles([item_id])
            lack = f"has no tokens of {' or '.join(modalities)}" if there else "is not there"
            raise SearchError(f"item {item_id!r} {lack} in {self._tables.store.folder}")
        return part

    def _vector(self, number: int, vectors_TD: NDArray[np.float32], modalities: Sequence[Modality]) -> Part:
        dims = {modality: self.records[modality].dim for modality in modalities if modality in self.records}
        fitting = [modality for modality, dim in dims.items() if dim == vectors_TD.shape[1]]
        widths = ", ".join(f"{modality} {dim}" for modality, dim in dims.items())
        if not fitting:
            raise SearchError(f"vector {number} has {vectors_TD.shape[1]} numbers, but the store has {widths}")
        if len(fitting) > 1:
            raise SearchError(f"vector {number} may be {' or '.join(fitting)}: say which with --modalities")
        return {fitting[0]: _normalised(vectors_TD)}

    def _encoder_name(self, modality: Modality) -> str:
        record = self.records.get(modality)
        return f"{modality} tokens of {record.name if record else 'an encoder that is not known'}"

    def _warn_of_language(self, text: str, modality: Modality, encoder: Any) -> None:
        known = getattr(encoder, "languages", None)
        if modality != "text" or known is None:
            return
        try:
            language = language_of(text)
        except LoadError:
            return
        if language is not None and language not in known:
            self._say(f"the text encoder does not know the language of {text!r} ({language}): trust full text more")

    def _say(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            logger.warning("%s", line)


def _normalised(vectors_TD: NDArray[np.float32]) -> NDArray[np.float32]:
    norms_T1 = np.linalg.norm(vectors_TD, axis=1, keepdims=True)
    return np.asarray(vectors_TD / np.maximum(norms_T1, 1e-12), np.float32)
