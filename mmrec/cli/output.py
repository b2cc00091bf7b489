"""What all commands share: options, progress on standard error, and the one line of a failure."""

from __future__ import annotations

import argparse
import logging
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmrec.embedding import EmbedReport

PLAIN_PROGRESS_SECONDS = 10.0


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    command.set_defaults(run=run)
    return command


def add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print the result as one JSON object")


def add_store(command: argparse.ArgumentParser) -> None:
    command.add_argument("--store", type=Path, required=True, metavar="DIR", help="the feature store")


def add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", type=Path, required=True, metavar="DIR", help="the fitted model")


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


def fail(message: str) -> int:
    print(f"mmrec: error: {' '.join(message.splitlines())}", file=sys.stderr)
    return 1


def quiet_lightning() -> None:
    """Lightning announces what hardware it did not find; it sets its own levels when it is imported."""
    import lightning.pytorch  # noqa: F401

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def stop_on_sigterm() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere; call it with how much is done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def embed_progress() -> Iterator[Callable[[EmbedReport], None]]:
    """A bar on a terminal, a line now and then elsewhere."""
    if not sys.stderr.isatty():
        yield _plain_progress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("embedding"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("embed", total=None, rate="")

        def show(report: EmbedReport) -> None:
            bar.update(task, total=report.items, completed=report.done, rate=_rate(report))

        yield show


def _plain_progress() -> Callable[[EmbedReport], None]:
    last = time.monotonic()

    def show(report: EmbedReport) -> None:
        nonlocal last
        if time.monotonic() - last >= PLAIN_PROGRESS_SECONDS:
            last = time.monotonic()
            print(f"mmrec: {report.done} of {report.items} items, {_rate(report)}", file=sys.stderr)

    return show


def _rate(report: EmbedReport) -> str:
    return f"{(report.done - report.skipped) / max(report.seconds, 1e-9):.1f} items/s, {report.failed} failed"
