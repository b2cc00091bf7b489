"""Words that are heard: speech to text with times, by Whisper in faster-whisper, where silero hears speech."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrec.errors import ChatError
from mmrec.media import SoundPlan, SoundSampling
from mmrec.understanding.weights import weights_digest

SAMPLE_RATE = 16_000
SOUND = SoundPlan(sampling=SoundSampling(mode="all", window_seconds=600.0, count=48), sample_rate=SAMPLE_RATE)
"""All of a sound of up to eight hours."""
LEAST_SPEECH_SECONDS = 0.4
LEAST_LANGUAGE = 0.5
"""Below this probability of the likeliest language it is not speech that is heard."""
LEAST_LOG_PROBABILITY = -1.0
MOST_COMPRESSION = 2.4
"""Whisper's own measures of a transcript that is invented: words that it does not believe, or one phrase again and
again."""
VERSION = "1"


class Transcriber:
    """Whisper: a folder in CTranslate2's form, or a name on the hub as "small".

    Decoding is greedy over beams, at temperature 0, and forgets each window for the next: what is made of a sound does
    not depend on what else was heard. Raises `ChatError` where the model cannot be had.
    """

    def __init__(self, model: str, *, device: str = "auto") -> None:
        try:
            from faster_whisper import WhisperModel
        except ImportError:
            raise ChatError("speech to text needs faster-whisper: pip install 'mmrec[speech]'") from None
        logging.getLogger("faster_whisper").setLevel(logging.WARNING)
        kind = device.split(":")[0]
        try:
            self._model: Any = WhisperModel(model, device=kind, compute_type="int8" if kind == "cpu" else "auto")
        except (OSError, RuntimeError, ValueError) as error:
            words = str(error).strip().splitlines() or [type(error).__name__]
            raise ChatError(f"speech model {model!r} cannot be loaded: {words[0]}") from error
        self.name = Path(model).name
        self.fingerprint = f"whisper:{weights_digest(model)}:{VERSION}"

    def transcribe(
        self, windows: Sequence[NDArray[np.float32]], spans: Sequence[tuple[float, float]]
    ) -> dict[str, Any]:
        """`language` (ISO 639), `speech_seconds`, and `passages` `[start, end, text]`, of sound at 16 kHz.

        Of music, noise and silence nothing is made.
        """
        samples_S = joined(windows, spans)
        segments, about = self._model.transcribe(
            samples_S,
            beam_size=5,
            temperature=0.0,
            condition_on_previous_text=False,
            vad_filter=True,
            vad_parameters={"min_silence_duration_ms": 500},
        )
        speech = float(about.duration_after_vad)
        if speech < LEAST_SPEECH_SECONDS or about.language_probability < LEAST_LANGUAGE:
            return {"language": "", "speech_seconds": round(speech, 2), "passages": []}
        passages = [
            [round(segment.start, 2), round(segment.end, 2), segment.text.strip()]
            for segment in segments
            if segment.avg_logprob >= LEAST_LOG_PROBABILITY and segment.compression_ratio <= MOST_COMPRESSION
        ]
        passages = [passage for passage in passages if any(map(str.isalnum, passage[2]))]
        return {
            "language": about.language if passages else "",
            "speech_seconds": round(speech, 2),
            "passages": passages,
        }


def joined(windows: Sequence[NDArray[np.float32]], spans: Sequence[tuple[float, float]]) -> NDArray[np.float32]:
    """One sound of windows that may overlap; what lies between them is silent.

    >>> import numpy as np
    >>> from mmrec.understanding.speech import joined
    >>> len(joined([np.ones(16000, np.float32)] * 2, [(0.0, 1.0), (0.5, 1.5)]))
    24000
    """
    starts = [round(start * SAMPLE_RATE) for start, _ in spans]
    samples_S = np.zeros(max((start + len(w) for start, w in zip(starts, windows, strict=True)), default=0), np.float32)
    for start, window in zip(starts, windows, strict=True):
        samples_S[start : start + len(window)] = window
    return samples_S
