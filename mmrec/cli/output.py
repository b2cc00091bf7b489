"""What all commands share: options, and the one line of a failure."""

from __future__ import annotations

import argparse
import codecs
import io
import json
import logging
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrec.cli.logs import add_logging
from mmrec.errors import MMRecError
from mmrec.remote import Place, parse_size, to_place

if TYPE_CHECKING:
    from mmrec.searching import Copies
    from mmrec.store import FeatureStore


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    command.set_defaults(run=run)
    add_logging(command)
    return command


def add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print the result as one JSON object")


def add_store(command: argparse.ArgumentParser) -> None:
    command.add_argument("--store", type=place, required=True, metavar="DIR|URL", help="the feature store")
    command.add_argument("--set", default="", metavar="NAME", help="the set of features in it (default: the first)")


def add_engine(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--engine", choices=["local", "ray"], default="local", help="this machine, or a cluster of Ray"
    )
    command.add_argument("--address", metavar="ADDR", help="of the cluster (default: RAY_ADDRESS, else this machine)")


def open_store(arguments: argparse.Namespace) -> FeatureStore:
    from mmrec.store import FeatureStore

    return FeatureStore(arguments.store, encoder_set=arguments.set)


def add_fold(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--fold",
        type=Path,
        metavar="FILE",
        help="show the best of copies alone: a file as `mmrec duplicates --json` printed them",
    )


def read_copies(arguments: argparse.Namespace) -> Copies | None:
    from mmrec.searching import Copies

    return None if arguments.fold is None else Copies.read(arguments.fold)


def add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", type=Path, required=True, metavar="DIR", help="the fitted model")


def add_keep(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--keep", type=count, default=3, metavar="N", help="versions of the model that stay, with this (default: 3)"
    )


def place(text: str) -> Place:
    """A path, or a URL that can be reached; what is neither is refused as a path, when the command runs."""
    try:
        return to_place(text, MMRecError)
    except MMRecError:
        return Path(text)


def size(text: str) -> int:
    try:
        return parse_size(text)
    except MMRecError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is too few: expected at least 1")
    return number


def share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share: expected 0 to 1")
    return share


def positive(text: str) -> float:
    number = float(text)
    if not (number > 0 and math.isfinite(number)):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def escape_what_cannot_be_shown() -> None:
    """A letter that the console's encoding lacks costs that letter, not the command; JSON stays what it was."""
    codecs.register_error("mmrec-escape", _escape)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="mmrec-escape")


def _escape(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def fail(message: str) -> int:
    logging.getLogger(__name__).error("error: %s", " ".join(message.splitlines()))
    return 1
