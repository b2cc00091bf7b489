"""Words as an item that has nothing else: for users who say what they like."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.base import EncoderError as TextError
from encoders.base import TextEncoder
from fusion.token_table import TokenTable
from fusion.tower import Towers
from mmrec.embedding import load_recorded
from mmrec.errors import EncoderError, ModelError
from mmrec.store import EncoderRecord


class WordEncoder:
    """The encoder of the items' texts, loaded when words are first asked for; copies and pickles leave it behind.

    Args:
        record: which encoder it is; None where the items have no texts.
    """

    def __init__(self, record: EncoderRecord | None) -> None:
        self._record = record
        self._encoder: TextEncoder | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_encoder": None}

    def tokens(self, text: str) -> TokenTable:
        """One item `(1, T, D)` with the tokens of these words. Raises `ModelError` where no encoder can be had."""
        if self._record is None:
            raise ModelError("the model was fitted without text: it cannot place words among the items")
        if self._record.spec.get("kind") == "imported":
            raise ModelError("the model was fitted to imported text vectors: their encoder is not known")
        try:
            if self._encoder is None:
                self._encoder = cast("TextEncoder", load_recorded(self._record))
            tokens_1TD = self._encoder.encode(self._encoder.passages(text)).float().cpu()[None]
        except (EncoderError, TextError) as error:
            raise ModelError(f"words cannot be placed among the items: {error}") from error
        shape = tokens_1TD.shape[:2]
        return TokenTable(
            {"text": tokens_1TD}, {"text": torch.ones(shape, dtype=torch.bool)}, {"text": torch.zeros(shape)}
        )

    def vector(self, towers: Towers, text: str) -> NDArray[np.float32]:
        """The vector `(D,)` of an item that has these words; `ModelError` where there are none."""
        if not text:
            raise ModelError("there are no words to be placed among the items")
        vector_D: NDArray[np.float32] = towers.embed(self.tokens(text)).vectors_ID[0].numpy()
        return vector_D
