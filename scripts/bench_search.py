"""Search: how fast, and how well it finds; what data there is to measure on is said by options.

    python scripts/bench_search.py [--items 100000] [--tokens 8] [--width 64] [--quick] [--out search.json]
    python scripts/bench_search.py --no-speed --data LABELLED --media MEDIA --personal MOVIES

`--data`: words to sentences and pictures that have labels (`sentence_pairs.csv`, `images.csv`); `--media`: moments in
clips and sounds that are spliced from those of a folder; `--personal`: a catalog with interactions (`items.csv`,
`time/`), of which each user's next item is sought by its kind, with the user and without.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benching import print_table, write_report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--tokens", type=int, default=8, help="of each item (default: 8)")
    parser.add_argument("--width", type=int, default=64, help="of a token (default: 64)")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--no-speed", action="store_true")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="labelled sentences and pictures")
    parser.add_argument("--media", type=Path, metavar="FOLDER", help="clips and sounds")
    parser.add_argument("--personal", type=Path, metavar="FOLDER", help="a catalog with interactions")
    parser.add_argument("--preset", default="light", help="that embeds them (default: light)")
    parser.add_argument("--quick", action="store_true", help="2,000 items and 10 queries")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep stores and models here, and use what is there")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.items, arguments.queries = 2_000, 10
    with tempfile.TemporaryDirectory() as temporary:
        figures = measure(arguments, arguments.work or Path(temporary))
    write_report(arguments.out, ["lancedb", "numpy", "faiss-cpu"], figures)


def measure(arguments: argparse.Namespace, work: Path) -> dict[str, list[dict[str, Any]]]:
    figures = {}
    if not arguments.no_speed:
        from search_speed import measure_speed

        size = (arguments.items, arguments.tokens, arguments.width)
        title = "{:,} items of {} tokens of {} numbers".format(*size)
        figures[title] = measure_speed(work / "{}x{}x{}".format(*size), *size, arguments.queries)
        print_table(title, figures[title])
    for name, of in {"words": "data", "moments": "media", "personal": "personal"}.items():
        folder = getattr(arguments, of)
        if folder is not None:
            figures[name] = measure_quality(name, folder, work / name, arguments.preset)
            print_table(name, figures[name])
    return figures


def measure_quality(name: str, folder: Path, work: Path, preset: str) -> list[dict[str, Any]]:
    from search_moments import measure_moments
    from search_personal import measure_personal
    from search_words import measure_words

    work.mkdir(parents=True, exist_ok=True)
    measures = {"words": measure_words, "moments": measure_moments, "personal": measure_personal}
    return measures[name](folder, work, preset)


if __name__ == "__main__":
    main()
