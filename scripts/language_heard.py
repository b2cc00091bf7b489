"""Words that are heard: how many are wrong, how fast, and how many where nobody speaks."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from benching import take_turns
from language_rows import Rows, plain, read_rows, spread

from mmrec.media import decode_media
from mmrec.understanding import (
    Transcriber,
)
from mmrec.understanding.speech import SAMPLE_RATE, SOUND

SENTENCES = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute Abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}
"""What is said in the recordings of EmoDB (Burkhardt et al. 2005), by the third to fifth letter of their names."""


def transcriber(arguments: argparse.Namespace) -> Transcriber:
    if not arguments.speech_model:
        sys.exit("name a Whisper: --speech-model")
    return Transcriber(arguments.speech_model, device="cpu")


def spoken(arguments: argparse.Namespace) -> dict[str, list[tuple[Path, str]]]:
    """Recordings with the words that are said in them, by where they come from."""
    folder = arguments.data / "labelled" / "speech"
    files = spread(sorted(folder.glob("*.ogg")), arguments.recordings)
    found = {"EmoDB": [(file, SENTENCES[file.stem[2:5]]) for file in files]}
    if arguments.words:
        rows = read_rows(arguments.words)
        found[arguments.words.stem] = [(arguments.words.parent / row["media"], row["text"]) for row in rows]
    return found


def speech(arguments: argparse.Namespace) -> Rows:
    import jiwer

    heard = transcriber(arguments)
    table = []
    for name, recordings in spoken(arguments).items():
        said = [plain(text) for _, text in recordings]
        values = [transcribed(heard, file) for file, _ in recordings]
        understood = [plain(" ".join(passage[2] for passage in value["passages"])) for value in values]
        pairs = [pair for pair in zip(said, understood, strict=True) if pair[1]]
        table.append(
            {
                "recordings": name,
                "count": len(recordings),
                "words": sum(len(text.split()) for text in said),
                "word error rate": f"{jiwer.wer(said, understood):.3f}",
                "left out": sum(not text for text in understood),
                "of those heard": f"{jiwer.wer(*map(list, zip(*pairs, strict=True))):.3f}" if pairs else "",
                "languages": ", ".join(f"{k or 'none'} {n}" for k, n in Counter(v["language"] for v in values).items()),
            }
        )
    return table


def transcribed(heard: Transcriber, file: Path) -> dict[str, Any]:
    media = decode_media(file, None, SOUND)
    return heard.transcribe(media.windows, media.window_spans) if media.windows else {"passages": [], "language": ""}


def speed(arguments: argparse.Namespace) -> Rows:
    """The same recordings by both, in turns; each begins with the files."""
    from faster_whisper import WhisperModel

    heard = transcriber(arguments)
    own = WhisperModel(arguments.speech_model, device="cpu", compute_type="int8")
    files = [file for recordings in spoken(arguments).values() for file, _ in recordings][:12]
    words: dict[str, int] = {}

    def ours() -> None:
        values = [transcribed(heard, file) for file in files]
        words["mmrec"] = sum(len(passage[2].split()) for value in values for passage in value["passages"])

    def theirs() -> None:
        made = [own.transcribe(str(file), beam_size=5, temperature=0.0, vad_filter=True)[0] for file in files]
        words["faster-whisper"] = sum(len(segment.text.split()) for segments in made for segment in segments)

    seconds = take_turns({"mmrec": ours, "faster-whisper": theirs}, 0)
    rates = {name: words[name] / float(np.median(taken)) for name, taken in seconds.items()}
    ratio = rates["mmrec"] / rates["faster-whisper"]
    return [
        {"by": name, "words": words[name], "words a second": rates[name], "ratio (.9 is to be reached)": ratio}
        for name in rates
    ]


def quiet(arguments: argparse.Namespace) -> Rows:
    heard, table = transcriber(arguments), []
    random = np.random.default_rng(0)
    made = {"silence": np.zeros(20 * SAMPLE_RATE), "noise": random.normal(0, 0.1, 20 * SAMPLE_RATE)}
    sounds = {name: ([samples.astype(np.float32)], [(0.0, 20.0)]) for name, samples in made.items()}
    for row in read_rows(arguments.media) if arguments.media else []:
        if row["media"] and row["item_id"] not in arguments.spoken:
            media = decode_media(arguments.media.parent / row["media"], None, SOUND)
            if media.windows:
                sounds[row["item_id"]] = (media.windows, media.window_spans)
    for name, (windows, spans) in sounds.items():
        value = heard.transcribe(windows, spans)
        text = " ".join(passage[2] for passage in value["passages"])
        table.append({"sound": name, "taken for speech, s": value["speech_seconds"], "words (0)": len(text.split())})
    return table
