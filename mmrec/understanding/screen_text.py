"""Words that are seen: text in pictures and on frames of clips, by the networks of RapidOCR (Chinese, English)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrec.errors import ChatError
from mmrec.media import FramePlan, FrameSampling

SIDE = 960
FRAMES = FramePlan(
    sampling=FrameSampling(mode="fps", fps=0.5, count=24), height=SIDE, width=SIDE, fit="pad", interpolation="bicubic"
)
"""A frame every two seconds, of longer clips 24 frames."""
LEAST_SCORE = 0.75
LEAST_LETTERS = 2
VERSION = "1"
Line = tuple[float, float, str]


class ScreenReader:
    """Finds and reads lines of text; its networks lie in the package rapidocr. Raises `ChatError` without it."""

    def __init__(self) -> None:
        try:
            from rapidocr import RapidOCR
        except ImportError:
            raise ChatError("text on screen needs rapidocr: pip install 'mmrec[ocr]'") from None
        self._engine: Any = RapidOCR(params={"Global.log_level": "error"})
        self.name = f"rapidocr {version('rapidocr')}"
        self.fingerprint = f"{self.name}:{VERSION}"

    def read(self, frames_TFHWC: NDArray[np.uint8], spans: Sequence[tuple[float, float]]) -> dict[str, Any]:
        """`passages` `[start, end, text]` of frames `(T, 1, H, W, 3)`; a text that stays is one passage."""
        lines = [self._lines(frame_HWC) for frame_HWC in frames_TFHWC[:, 0]]
        return {"passages": [list(passage) for passage in merged(lines, spans)]}

    def _lines(self, frame_HWC: NDArray[np.uint8]) -> list[str]:
        found = self._engine(np.ascontiguousarray(frame_HWC[:, :, ::-1]))
        texts, scores = found.txts or (), found.scores if found.scores is not None else ()
        return [
            text.strip()
            for text, score in zip(texts, scores, strict=True)
            if score >= LEAST_SCORE and sum(map(str.isalnum, text)) >= LEAST_LETTERS
        ]


def merged(lines: Sequence[Sequence[str]], spans: Sequence[tuple[float, float]]) -> list[Line]:
    """The lines of frames in order of time: one passage for all that come and go together.

    >>> from mmrec.understanding.screen_text import merged
    >>> merged([["NEWS", "Rain"], ["NEWS", "Rain"], ["NEWS"]], [(1.0, 1.0), (3.0, 3.0), (5.0, 5.0)])
    [(1.0, 5.0, 'NEWS'), (1.0, 3.0, 'Rain')]
    """
    shown = sorted(_stretches(lines, spans), key=lambda line: (line[0], -line[1]))
    return [(*times, "\n".join(text for _, _, text in same)) for times, same in groupby(shown, lambda line: line[:2])]


def _stretches(lines: Sequence[Sequence[str]], spans: Sequence[tuple[float, float]]) -> Iterator[Line]:
    """Each line with the time of the first and of the last frame that show it without a break."""
    since: dict[str, Line] = {}
    for of_frame, (start, end) in zip(lines, spans, strict=True):
        here = {"".join(filter(str.isalnum, text.casefold())): text for text in of_frame}
        yield from (line for key, line in since.items() if key not in here)
        since = {key: (since[key][0] if key in since else start, end, text) for key, text in here.items()}
    yield from since.values()
