"""How far a command is, on standard error (a bar on a terminal, a line now and then elsewhere); stopping on request."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from mmrec.cli.logs import PROGRESS

if TYPE_CHECKING:
    from fusion.config import FitProgress
    from mmrec.embedding import EmbedReport
    from mmrec.understanding import UnderstandReport

SECONDS_BETWEEN_LINES = 30.0

T = TypeVar("T")
logger = logging.getLogger(PROGRESS)


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
def stop_requested() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM came; a second one ends the command at once."""
    asked = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.getsignal(number) for number in signals}

    def ask(*_: object) -> None:
        asked.set()
        for number in signals:
            signal.signal(number, previous[number])

    for number in signals:
        signal.signal(number, ask)
    try:
        yield asked.is_set
    finally:
        for number in signals:
            signal.signal(number, previous[number])


@contextmanager
def fit_progress() -> Iterator[Callable[[FitProgress], None]]:
    """How far a fit is and how long it will take."""
    if not sys.stderr.isatty():
        yield _lines(lambda p: f"fitting: step {p.step} of {p.total_steps}, {_fit_words(p)}")
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("fitting"), BarColumn(), TextColumn("{task.fields[words]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("fit", total=None, words="")

        def show(progress: FitProgress) -> None:
            bar.update(task, total=progress.total_steps, completed=progress.step, words=_fit_words(progress))

        yield show


def understand_progress() -> Callable[[UnderstandReport], None]:
    """What was found out so far."""
    return _lines(repr)


def _lines(words: Callable[[T], str]) -> Callable[[T], None]:
    """Off a terminal: a line every half minute."""
    said = time.monotonic()

    def show(value: T) -> None:
        nonlocal said
        if time.monotonic() - said >= SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            logger.info("%s", words(value))

    return show


def _fit_words(progress: FitProgress) -> str:
    words = f"epoch {progress.epoch}, {progress.seconds:.0f} s, at most {progress.seconds_left:.0f} s left"
    if "val_recall@20" in progress.metrics:
        words += f", validation Recall@20 {progress.metrics['val_recall@20']:.4f}"
    return words


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, a line now and then elsewhere; call it with how much is done."""
    if not sys.stderr.isatty():
        start = time.monotonic()
        yield _lines(lambda done: f"{label}: {_count_words(done, total, done, time.monotonic() - start)}")
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def embed_progress() -> Iterator[Callable[[EmbedReport], None]]:
    """A bar on a terminal, a line now and then elsewhere."""
    if not sys.stderr.isatty():
        yield _lines(_embed_words)
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


def _embed_words(report: EmbedReport) -> str:
    fresh = report.done - report.skipped
    return f"embedding: {_count_words(report.done, report.items, fresh, report.seconds)}, {report.failed} failed"


def _count_words(done: int, total: int, fresh: int, seconds: float) -> str:
    """`fresh` is how many of those that are done took their time."""
    rate = fresh / max(seconds, 1e-9)
    left = f", {(total - done) / rate:.0f} s left" if rate else ""
    return f"{done} of {total}, {rate:.1f} a second{left}"


def _rate(report: EmbedReport) -> str:
    return f"{(report.done - report.skipped) / max(report.seconds, 1e-9):.1f} items/s, {report.failed} failed"
