"""The command that finds the same content again."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mmrec.cli.output import add_command, add_json, add_store, open_store
from mmrec.cli.progress import stop_on_sigterm

if TYPE_CHECKING:
    from mmrec.searching import Duplicate

MEDIA = ("clips", "pictures", "sounds")


def add_duplicates_command(commands: Any) -> None:
    duplicates = add_command(commands, "duplicates", _duplicates, "the items that hold the same content again")
    add_store(duplicates)
    duplicates.add_argument(
        "--threshold",
        action="append",
        type=_threshold,
        default=[],
        metavar="KIND=COSINE",
        help=f"from which mean cosine {', '.join(MEDIA)} are the same (default: as measured for the encoder)",
    )
    duplicates.add_argument(
        "--by-tokens", action="store_true", help="compare sounds by their tokens alone: listen to nothing, open no file"
    )
    duplicates.add_argument(
        "--workers", type=int, default=0, metavar="N", help="decoding processes (default: all processors)"
    )
    duplicates.add_argument(
        "--timeout", type=float, default=120.0, metavar="SECONDS", help="give up on a file (default: %(default)g)"
    )
    add_json(duplicates)


def _threshold(text: str) -> tuple[str, float]:
    kind, _, cosine = text.partition("=")
    try:
        number = float(cosine)
    except ValueError:
        number = -1.0
    if kind not in MEDIA or not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected one of {', '.join(MEDIA)}, =, and a cosine above 0 to 1")
    return kind, number


def _duplicates(arguments: argparse.Namespace) -> int:
    from mmrec.embedding import DecodeLimits
    from mmrec.searching import find_duplicates, group_duplicates

    store = open_store(arguments)
    limits = DecodeLimits(workers=arguments.workers, timeout_seconds=arguments.timeout)
    with stop_on_sigterm():
        found = find_duplicates(
            store, thresholds=dict(arguments.threshold), limits=None if arguments.by_tokens else limits
        )
    groups = group_duplicates(found)
    if arguments.json:
        pairs = [(pair.first, pair.second) for pair in found]
        print(json.dumps({"groups": [asdict(group) for group in groups], "pairs": pairs}, ensure_ascii=False))
        return 0
    if not groups:
        print(f"no duplicates among {len(store)} items")
    for group in groups:
        print(group.item_id)
        for pair in group.duplicates:
            print(f"  {pair.score:.3f}  {pair.second}  {_in_words(pair)}")
    return 0


def _in_words(pair: Duplicate) -> str:
    """What relates the second item to the first: where it lies in it, and what is not the same."""
    if pair.same_file:
        return "the same file"
    words = []
    if "seconds" in pair.differs or abs(pair.offset_seconds) > 1:
        words.append(f"from {_clock(pair.offset_seconds)}")
    if abs(pair.speed - 1) > 0.01:
        words.append(f"speed {1 / pair.speed:.2f}")
    for name, (first, second) in pair.differs.items():
        words.append(f"{name.replace('_', ' ')} {second or 'none'}, not {first or 'none'}")
    return "; ".join(words) or "alike in all that is known"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(abs(seconds)), 60)
    return f"{'-' if round(seconds) < 0 else ''}{minutes:02}:{rest:02}"
