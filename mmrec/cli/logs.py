"""Where a command's words go: to standard error, and to a log file where one is named."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmrec.errors import MMRecError

PROGRESS = "mmrec.progress"
_TIME = "%Y-%m-%d %H:%M:%S"


def add_logging(command: argparse.ArgumentParser) -> None:
    command.add_argument("-v", "--verbose", action="store_true", help="say more on standard error")
    command.add_argument("--log-file", type=Path, metavar="FILE", help="append all that is said, with times, to a file")


@contextmanager
def logging_to(log_file: Path | None, *, verbose: bool) -> Iterator[None]:
    """Warnings to standard error, more with `verbose`; all of it, and how far the command is, to the log file."""
    console = logging.StreamHandler(sys.stderr)
    console.setFormatter(logging.Formatter("mmrec: %(message)s"))
    console.setLevel(logging.INFO if verbose else logging.WARNING)
    console.addFilter(lambda record: record.name != PROGRESS)
    progress = logging.StreamHandler(sys.stderr)
    progress.setFormatter(logging.Formatter("mmrec: %(asctime)s %(message)s", _TIME))
    handlers: list[tuple[logging.Logger, logging.Handler]] = [
        (logging.getLogger(), console),
        (logging.getLogger(PROGRESS), progress),
    ]
    if log_file is not None:
        handlers.append((logging.getLogger(), _file(log_file)))
    ours = logging.getLogger("mmrec")
    level = ours.level
    ours.setLevel(logging.INFO)
    for logger, handler in handlers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        ours.setLevel(level)
        for logger, handler in handlers:
            logger.removeHandler(handler)
            handler.close()


def _file(path: Path) -> logging.Handler:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise MMRecError(f"the log file {path} cannot be written: {error.strerror or error}") from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", _TIME))
    return handler
