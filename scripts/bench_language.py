"""Words heard, words seen and language models, measured on recordings, posters and titles that lie on this machine.

    python scripts/bench_language.py --data DATA [--media CATALOG --spoken ITEM ...] [--words FILE]
        [--speech-model FOLDER] [--model MODEL [--server URL]] [--parts speech posters ...] [--out FILE]

DATA has folders `labelled` (speech.csv: recordings of EmoDB, whose ten sentences are known) and `movies` (items.csv,
posters, time/). `--words` names more recordings with the words that are said in them (columns `media` and `text`).

speech: word error rate (jiwer), without case and punctuation. speed: words a second beside faster-whisper's own call,
in turns. quiet: words heard where nobody speaks: items of CATALOG that are not `--spoken`, silence and noise. posters:
how many words of its title are read on a movie's poster. movies: a model fitted with and without the words of posters.
titles: what titles that give orders make of the form of an answer. injections: the same for the answers to others.
genres: one of the movie's genres, by tags and by the language model.

A model of half a billion weights takes a minute a question on one busy core: `--titles` and its like say how many.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benching import describe_machine, print_table
from language_heard import quiet, speech, speed
from language_meant import genres, injections, titles
from language_rows import Rows
from language_seen import movies, posters

PACKAGES = (
    "torch",
    "transformers",
    "faster-whisper",
    "ctranslate2",
    "rapidocr",
    "onnxruntime",
    "llguidance",
    "llama-cpp-python",
    "jiwer",
)


def main() -> None:
    parts: dict[str, Callable[[argparse.Namespace], Rows]] = {
        "speech": speech,
        "speed": speed,
        "quiet": quiet,
        "posters": posters,
        "movies": movies,
        "titles": titles,
        "injections": injections,
        "genres": genres,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="the folder with `labelled` and `movies`")
    parser.add_argument("--media", type=Path, help="a catalog of recordings")
    parser.add_argument("--spoken", nargs="*", default=[], help="its items in which somebody speaks")
    parser.add_argument("--words", type=Path, help="a CSV of recordings and the words that are said in them")
    parser.add_argument("--speech-model", help="Whisper, in CTranslate2's form")
    parser.add_argument("--model", help="a language model: a folder, a GGUF file, or a name")
    parser.add_argument("--server", default="", help="the address of the server that has it")
    parser.add_argument("--batch-size", type=int, default=0, help="questions at once")
    parser.add_argument("--recordings", type=int, default=132)
    parser.add_argument("--posters", type=int, default=200)
    parser.add_argument("--titles", type=int, default=200)
    parser.add_argument("--injections", type=int, default=50)
    parser.add_argument("--genres", type=int, default=100)
    parser.add_argument("--cache", type=Path, help="where stores are kept, by default a temporary folder")
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        arguments.cache = arguments.cache or Path(temporary)
        arguments.cache.mkdir(parents=True, exist_ok=True)
        found: dict[str, Rows] = {}
        for name in arguments.parts:
            start = time.perf_counter()
            found[name] = parts[name](arguments)
            print_table(f"{name} ({time.perf_counter() - start:.0f} s)", found[name])
            if arguments.out:
                report = {"machine": describe_machine(PACKAGES), "figures": found}
                arguments.out.write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
