"""Which language a text is written in.

>>> from encoders.languages import language_of
>>> [language_of(text) for text in ("Ein Hund läuft durch den Park.", "轻柔的钢琴", "1984")]
['de', 'zh', None]
"""

from __future__ import annotations

from functools import cache
from typing import Any

from encoders.base import EncoderError
from encoders.packages import WeightsPackage

WEIGHTS = WeightsPackage(
    name="py3langid",
    version="0.4.0",
    files={"py3langid/data/model.npz.xz": "f4f4a2c3465ca1f081541037f9cac23021d68151c2f709c55ae5eedfca522963"},
)
CANDIDATES = (
    "ar bg bn cs da de el en es et fa fi fr he hi hu id it ja ko lt lv ms nl no pl pt ro ru sk sl sr sv ta te th tr uk "
    "ur vi wuu yue zh"
).split()
"""Among more languages, rare ones would win the short texts."""
LEAST_PROBABILITY = 0.5
_CHINESE = {"wuu": "zh", "yue": "zh"}  # as they are written


def language_of(text: str) -> str | None:
    """The language of a text by its code of ISO 639-1; None where it has too few letters to tell.

    Raises `EncoderError` where the package py3langid cannot be had.
    """
    if not any(map(str.isalpha, text)):
        return None
    code, probability = _identifier().classify(text)
    return _CHINESE.get(code, code) if probability >= LEAST_PROBABILITY else None


@cache
def _identifier() -> Any:
    (weights,) = WEIGHTS.paths()
    try:
        from py3langid.langid import LanguageIdentifier
    except ImportError as error:
        raise EncoderError(f"the package {WEIGHTS.name} cannot be imported: {error}") from error
    identifier = LanguageIdentifier.from_modelpath(weights, norm_probs=True)
    identifier.set_languages(CANDIDATES)
    return identifier
