"""The commands that make and read feature stores."""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import sys
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrec.cli.metrics import write_metrics
from mmrec.cli.output import (
    add_command,
    add_engine,
    add_json,
    add_store,
    fail,
    open_store,
    place,
    positive,
    share,
    size,
)
from mmrec.cli.progress import embed_progress, stop_on_sigterm
from mmrec.errors import MMRecError

if TYPE_CHECKING:
    from mmrec.embedding import EmbedReport
    from mmrec.remote import Place

logger = logging.getLogger(__name__)


def add_store_commands(commands: Any) -> None:
    embed = add_command(commands, "embed", _embed, "embed the items of a catalog into a feature store")
    embed.add_argument("catalog", type=place, help="a .csv, .jsonl or .parquet manifest, or a folder of media files")
    embed.add_argument(
        "--store", type=place, required=True, metavar="DIR|URL", help="the feature store, made if missing"
    )
    _add_preset(embed)
    embed.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    embed.add_argument("--precision", default="auto", help="auto, float32, bfloat16 or float16 (default: auto)")
    embed.add_argument(
        "--workers", type=int, default=0, metavar="N", help="decoding processes (default: all processors)"
    )
    embed.add_argument("--batch-size", type=int, metavar="N", help="frames, windows or texts encoded at once")
    embed.add_argument(
        "--timeout", type=positive, default=120.0, metavar="SECONDS", help="to decode one item (default: 120)"
    )
    embed.add_argument("--worker-memory", type=positive, default=4.0, metavar="GIB", help="of one worker (default: 4)")
    embed.add_argument(
        "--media-root", type=place, metavar="DIR|URL", help="refuse media outside this folder, links resolved"
    )
    embed.add_argument(
        "--allow-host", action="append", default=[], metavar="HOST", help="read https:// media from it (repeatable)"
    )
    embed.add_argument(
        "--cache", type=Path, metavar="DIR", help="for media at URLs that must be read whole (default: ~/.cache/mmrec)"
    )
    embed.add_argument("--cache-size", type=size, default="20G", metavar="SIZE", help="of it (default: 20G)")
    embed.add_argument("--max-failures", type=share, default=0.1, metavar="SHARE", help="of the items (default: 0.1)")
    embed.add_argument("--as", dest="set", default="", metavar="NAME", help="a set of features beside the first")
    embed.add_argument("--replace", action="store_true", help="put new tokens in the place of another encoder's")
    embed.add_argument("--accept-missing", action="store_true", help="what is missing today is gone: forget its tokens")
    embed.add_argument("--prune", action="store_true", help="delete the rows of items that left the catalog")
    embed.add_argument(
        "--max-pruned", type=share, default=0.1, metavar="SHARE", help="of the stored items, else refuse (default: 0.1)"
    )
    embed.add_argument("--retry-failed", action="store_true", help="embed again what failed before")
    embed.add_argument(
        "--keep-days", type=float, default=7.0, metavar="DAYS", help="of earlier versions, to restore (default: 7)"
    )
    add_engine(embed)
    embed.add_argument("--gpus-per-encoder", type=positive, metavar="X", help="a share, for several on a GPU (ray: 1)")
    embed.add_argument("--metrics-file", type=Path, metavar="FILE", help="write the counts for Prometheus (.prom)")
    add_json(embed)

    fetch = add_command(commands, "fetch", _fetch, "download what a preset needs, once")
    _add_preset(fetch)

    presets = add_command(commands, "presets", _presets, "the presets, what they download, and the kinds of encoder")
    add_json(presets)

    export = add_command(commands, "export", _export, "write a store as Parquet or NumPy files")
    add_store(export)
    export.add_argument("--out", type=place, required=True, metavar="DIR|URL")
    export.add_argument("--format", choices=["parquet", "npy"], required=True)
    add_json(export)

    take = add_command(commands, "import-features", _import, "take features made elsewhere into a store")
    take.add_argument("--items", type=place, required=True, metavar="FILE", help="a manifest; row k belongs to row k")
    for modality in ("visual", "audio", "text"):
        take.add_argument(f"--{modality}", type=Path, metavar="NPY", help="(items, D) or (items, T, D) numbers")
    take.add_argument("--origin", metavar="NAME", help="what made the vectors; imports of one origin can be compared")
    add_store(take)
    add_json(take)


def _add_preset(command: argparse.ArgumentParser) -> None:
    command.add_argument("--preset", default="base", metavar="NAME|FILE", help="name or YAML file (default: base)")
    command.add_argument("--allow-pickle", action="store_true", help="read weights that exist only as pickles")


def _embed(arguments: argparse.Namespace) -> int:
    report = run_embed(
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
        allow_hosts=arguments.allow_host,
        cache=arguments.cache,
        cache_bytes=arguments.cache_size,
        prune=arguments.prune,
        max_pruned=arguments.max_pruned,
        retry_failed=arguments.retry_failed,
        encoder_set=arguments.set,
        replace=arguments.replace,
        accept_missing=arguments.accept_missing,
        max_failures=arguments.max_failures,
        keep_days=arguments.keep_days,
        engine=arguments.engine,
        address=arguments.address,
        gpus_per_encoder=arguments.gpus_per_encoder,
        command=shlex.join(["mmrec", *sys.argv[1:]]),
    )
    logger.info("%r", report)
    if arguments.metrics_file is not None:
        write_metrics(report, arguments.metrics_file)
    if arguments.json:
        print(json.dumps(report.as_dict()))
    else:
        print_report(report, arguments.store)
    if report.problem:
        return fail(f"{report.problem}; `mmrec status --failed --store {arguments.store}` names the items")
    return 0


def run_embed(catalog: Place, store: Place, **options: Any) -> EmbedReport:
    from mmrec.embedding import embed

    try:
        with stop_on_sigterm(), embed_progress() as progress:
            return embed(catalog, store, progress=progress, **options)
    except KeyboardInterrupt:
        raise MMRecError("interrupted; what was embedded is stored: run the same command again to go on") from None


def print_report(report: EmbedReport, store: Place) -> None:
    counts = f"{report.ok} ok, {report.partial} partial, {report.failed} failed"
    more = {
        "stale": report.stale,
        "deleted": report.pruned,
        "stored but not in the catalog": report.not_in_catalog,
    }
    print(
        f"{report.items} items: {counts}, {report.skipped} already there"
        f"{''.join(f', {count} {name}' for name, count in more.items() if count)}; in {store}, after "
        f"{report.seconds:.1f} s"
    )
    for modality, encoder in report.encoders.items():
        print(f"  {modality:8}{encoder['name']}, {encoder['dim']} numbers a token")
    if report.reasons:
        print("  missing: " + ", ".join(f"{reason} {count}" for reason, count in sorted(report.reasons.items())))


def _fetch(arguments: argparse.Namespace) -> int:
    from mmrec.embedding import fetch, load_preset

    for modality, folder in fetch(load_preset(arguments.preset), allow_pickle=arguments.allow_pickle).items():
        print(f"{modality:8}{folder or 'nothing to download'}")
    return 0


def _presets(arguments: argparse.Namespace) -> int:
    from encoders.base import encoder_kinds
    from mmrec.embedding import PRESETS

    if arguments.json:
        print(json.dumps({name: asdict(preset) for name, preset in PRESETS.items()}))
        return 0
    for preset in PRESETS.values():
        specs = [spec for spec in (preset.visual, preset.audio, preset.text) if spec is not None]
        print(f"{preset.name}: {preset.summary}; {sum(spec.megabytes for spec in specs)} MB to download")
        for spec in specs:
            size = f"{spec.megabytes} MB, {spec.licence}" if spec.megabytes else "nothing to download"
            print(f"  {spec.kind:21}{spec.options.get('checkpoint', '')} ({size})")
    print("kinds of encoder that a preset file may name:")
    for name, kinds in groupby(encoder_kinds(), key=lambda kind: kind.name):
        origins = [kind.distribution or "built in" for kind in kinds]
        print(f"  {name:21}{' and '.join(origins)}{', of which one must go' if len(origins) > 1 else ''}")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    paths = [str(path) for path in open_store(arguments).export(arguments.out, arguments.format)]
    print(json.dumps({"files": paths}) if arguments.json else "\n".join(paths))
    return 0


def _import(arguments: argparse.Namespace) -> int:
    from mmrec.store import import_features

    named = {"visual": arguments.visual, "audio": arguments.audio, "text": arguments.text}
    features: Any = {modality: path for modality, path in named.items() if path is not None}
    count = import_features(arguments.items, arguments.store, features, origin=arguments.origin)
    print(json.dumps({"items": count}) if arguments.json else f"{count} items in {arguments.store}")
    return 0
