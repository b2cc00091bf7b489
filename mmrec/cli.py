"""The command line. The only file that prints or exits: results to stdout, everything else to stderr."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrec.errors import MMRecError

if TYPE_CHECKING:
    from mmrec.embedding import EmbedReport

PLAIN_PROGRESS_SECONDS = 10.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 failed with one clear line. Wrong usage exits with 2."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(format="mmrec: %(message)s", level=logging.WARNING, stream=sys.stderr)
    try:
        return int(arguments.run(arguments))
    except MMRecError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("interrupted")
    except BrokenPipeError:
        sys.stderr.close()
        return 1


def _fail(message: str) -> int:
    print(f"mmrec: error: {' '.join(message.splitlines())}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    from mmrec import __version__

    parser = argparse.ArgumentParser(
        prog="mmrec", description="Item vectors, user vectors and rankings for catalogs of video, sound and text."
    )
    parser.add_argument("--version", action="version", version=f"mmrec {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    demo = _add(commands, "demo", _demo, "make a sample catalog and embed it")
    demo.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="where to work (default: demo)")

    embed = _add(commands, "embed", _embed, "embed the items of a catalog into a feature store")
    embed.add_argument("catalog", type=Path, help="a .csv, .jsonl or .parquet manifest, or a folder of media files")
    embed.add_argument("--store", type=Path, required=True, metavar="DIR", help="the feature store, made if missing")
    _add_preset(embed)
    embed.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    embed.add_argument("--precision", default="auto", help="auto, float32, bfloat16 or float16 (default: auto)")
    embed.add_argument(
        "--workers", type=int, default=0, metavar="N", help="decoding processes (default: all processors)"
    )
    embed.add_argument("--batch-size", type=int, metavar="N", help="frames, windows or texts encoded at once")
    embed.add_argument(
        "--timeout", type=float, default=120.0, metavar="SECONDS", help="to decode one item (default: 120)"
    )
    embed.add_argument("--worker-memory", type=float, default=4.0, metavar="GIB", help="of one worker (default: 4)")
    embed.add_argument(
        "--media-root", type=Path, metavar="DIR", help="refuse media outside this folder, links resolved"
    )
    embed.add_argument("--max-failures", type=_share, default=0.1, metavar="SHARE", help="of the items (default: 0.1)")
    embed.add_argument("--prune", action="store_true", help="delete the rows of items that left the catalog")
    embed.add_argument("--retry-failed", action="store_true", help="embed again what failed before")
    _add_json(embed)

    fetch = _add(commands, "fetch", _fetch, "download what a preset needs, once")
    _add_preset(fetch)

    presets = _add(commands, "presets", _presets, "the presets, what they download and its licences")
    _add_json(presets)

    status = _add(commands, "status", _status, "what a store holds")
    status.add_argument("--store", type=Path, required=True, metavar="DIR")
    _add_json(status)

    export = _add(commands, "export", _export, "write a store as Parquet or NumPy files")
    export.add_argument("--store", type=Path, required=True, metavar="DIR")
    export.add_argument("--out", type=Path, required=True, metavar="DIR")
    export.add_argument("--format", choices=["parquet", "npy"], required=True)
    _add_json(export)
    return parser


def _add(commands: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    command.set_defaults(run=run)
    return command


def _add_preset(command: argparse.ArgumentParser) -> None:
    command.add_argument("--preset", default="base", metavar="NAME|FILE", help="name or YAML file (default: base)")
    command.add_argument("--allow-pickle", action="store_true", help="read weights that exist only as pickles")


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print the result as one JSON object")


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share: expected 0 to 1")
    return share


# --- commands ---------------------------------------------------------------------------------------------------------


def _embed(arguments: argparse.Namespace) -> int:
    report = _run_embed(
        arguments.catalog,
        arguments.store,
        preset=arguments.preset,
        device=arguments.device,
        precision=arguments.precision,
        allow_pickle=arguments.allow_pickle,
        workers=arguments.workers,
        batch_size=arguments.batch_size,
        timeout_seconds=arguments.timeout,
        worker_memory_bytes=int(arguments.worker_memory * 2**30),
        media_root=arguments.media_root,
        prune=arguments.prune,
        retry_failed=arguments.retry_failed,
    )
    if arguments.json:
        print(json.dumps(report.as_dict()))
    else:
        _print_report(report, arguments.store)
    if report.failed_share > arguments.max_failures:
        return _fail(
            f"{report.failed} of {report.items - report.skipped} items failed, more than --max-failures "
            f"{arguments.max_failures:g} allows; `mmrec status --store {arguments.store}` lists the reasons"
        )
    return 0


def _run_embed(catalog: Path, store: Path, **options: Any) -> EmbedReport:
    from mmrec.embedding import embed

    try:
        with _stop_on_sigterm(), _progress() as progress:
            return embed(catalog, store, progress=progress, **options)
    except KeyboardInterrupt:
        raise MMRecError("interrupted; what was embedded is stored: run the same command again to go on") from None


@contextmanager
def _stop_on_sigterm() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def _progress() -> Iterator[Callable[[EmbedReport], None]]:
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


def _print_report(report: EmbedReport, store: Path) -> None:
    pruned = f", {report.pruned} deleted" if report.pruned else ""
    print(
        f"{report.items} items: {report.ok} ok, {report.partial} partial, {report.failed} failed, "
        f"{report.skipped} already there{pruned}; in {store}, after {report.seconds:.1f} s"
    )
    for modality, encoder in report.encoders.items():
        print(f"  {modality:8}{encoder['name']}, {encoder['dim']} numbers a token")
    if report.reasons:
        print("  missing: " + ", ".join(f"{reason} {count}" for reason, count in sorted(report.reasons.items())))


def _fetch(arguments: argparse.Namespace) -> int:
    from mmrec.panel import fetch
    from mmrec.presets import load_preset

    for modality, folder in fetch(load_preset(arguments.preset), allow_pickle=arguments.allow_pickle).items():
        print(f"{modality:8}{folder or 'nothing to download'}")
    return 0


def _presets(arguments: argparse.Namespace) -> int:
    from mmrec.presets import PRESETS

    if arguments.json:
        print(json.dumps({name: asdict(preset) for name, preset in PRESETS.items()}))
        return 0
    for preset in PRESETS.values():
        specs = [spec for spec in (preset.visual, preset.audio, preset.text) if spec is not None]
        print(f"{preset.name}: {preset.summary}; {sum(spec.megabytes for spec in specs)} MB to download")
        for spec in specs:
            size = f"{spec.megabytes} MB, {spec.licence}" if spec.megabytes else "nothing to download"
            print(f"  {spec.kind:21}{spec.options.get('checkpoint', '')} ({size})")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from mmrec.store import FeatureStore

    status = FeatureStore(arguments.store).status()
    if arguments.json:
        print(json.dumps(asdict(status)))
        return 0
    counts = ", ".join(f"{count} {name}" for name, count in status.statuses.items())
    print(f"{status.items} items: {counts}; {status.bytes_on_disk / 2**20:.1f} MiB")
    for encoder in status.encoders:
        print(f"  {encoder['modality']:8}{encoder['items']} items, {encoder['name']}, {encoder['dim']} numbers a token")
    for modality, reasons in status.reasons.items():
        print(f"  no or not all {modality}: " + ", ".join(f"{reason} {n}" for reason, n in sorted(reasons.items())))
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from mmrec.store import FeatureStore

    paths = [str(path) for path in FeatureStore(arguments.store).export(arguments.out, arguments.format)]
    print(json.dumps({"files": paths}) if arguments.json else "\n".join(paths))
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from mmrec.sample import make_sample_catalog
    from mmrec.store import FeatureStore

    store = arguments.out / "store"
    print(f"mmrec: writing a sample catalog to {arguments.out / 'catalog'}", file=sys.stderr)
    catalog = make_sample_catalog(arguments.out / "catalog")
    report = _run_embed(catalog, store, preset="light")
    _print_report(report, store)
    print("\nThe items nearest to a few of them, by the mean of their tokens:")
    for line in _neighbours(FeatureStore(store)):
        print(f"  {line}")
    print(
        f"\nNext: mmrec status --store {store}"
        f"\n      mmrec export --store {store} --out {arguments.out / 'export'} --format parquet"
        "\n      mmrec embed YOUR_FOLDER_OR_CATALOG --store YOUR_STORE"
    )
    return 0


def _neighbours(store: Any) -> Iterator[str]:
    """For two items of each modality, the nearest other one."""
    titles = {row["item_id"]: row["title"] for row in store.to_arrow(["item_id", "title"]).to_pylist()}
    for modality in ("visual", "audio", "text"):
        ids, vectors_ID = store.vectors(modality)
        for place in (len(ids) // 4, 3 * len(ids) // 4):
            similarities_I = vectors_ID @ vectors_ID[place]
            similarities_I[place] = -1.0
            nearest = ids[int(similarities_I.argmax())]
            yield f"{modality:8}{titles[ids[place]] or ids[place]!r} -> {titles[nearest] or nearest!r}"
