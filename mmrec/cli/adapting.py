"""The command that adapts encoders to a catalog."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from mmrec.cli.output import add_command, add_json, place


def add_adapt_command(commands: Any) -> None:
    adapt = add_command(commands, "adapt", _adapt, "train a preset's encoders further on the media of a small catalog")
    adapt.add_argument("catalog", type=place, help="a .csv, .jsonl or .parquet manifest, or a folder of media files")
    adapt.add_argument("--preset", default="base", metavar="NAME|FILE", help="name or YAML file (default: base)")
    adapt.add_argument("--allow-pickle", action="store_true", help="read weights that exist only as pickles")
    adapt.add_argument("--out", type=Path, required=True, metavar="DIR", help="new: the adapters and preset.yaml")
    adapt.add_argument("--interactions", type=Path, metavar="FILE", help="of training: user_id, item_id")
    adapt.add_argument(
        "--train", choices=["adapters", "all"], default="adapters", help="LoRA, or all weights (default: adapters)"
    )
    adapt.add_argument("--rank", type=int, default=8, help="of the adapters (default: 8)")
    adapt.add_argument("--epochs", type=int, default=10, help="(default: 10)")
    adapt.add_argument("--batch-size", type=int, default=32, metavar="N", help="items told apart (default: 32)")
    adapt.add_argument("--learning-rate", type=float, metavar="RATE", help="(default: 5e-4, or 2e-5 for all weights)")
    adapt.add_argument("--seed", type=int, default=0, help="(default: 0)")
    adapt.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    adapt.add_argument(
        "--workers", type=int, default=0, metavar="N", help="decoding processes (default: all processors)"
    )
    adapt.add_argument(
        "--media-root", type=Path, metavar="DIR", help="refuse media outside this folder, links resolved"
    )
    adapt.add_argument("--memory", type=float, default=4.0, metavar="GIB", help="for decoded media (default: 4)")
    add_json(adapt)


def _adapt(arguments: argparse.Namespace) -> int:
    from mmrec.adapting import adapt
    from mmrec.embedding import DecodeLimits

    report = adapt(
        arguments.catalog,
        preset=arguments.preset,
        out=arguments.out,
        interactions=arguments.interactions,
        train=arguments.train,
        rank=arguments.rank,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        seed=arguments.seed,
        device=arguments.device,
        allow_pickle=arguments.allow_pickle,
        media_root=arguments.media_root,
        limits=DecodeLimits(workers=arguments.workers),
        memory_bytes=int(arguments.memory * 2**30),
        progress=_print_epoch,
    )
    if arguments.json:
        print(json.dumps(report.as_dict()))
        return 0
    print(f"learned from {report.items} of {report.catalog_items} items in {report.seconds:.1f} s: {report.preset}")
    for modality, count in report.parameters.items():
        print(f"  {modality:8}{count:,} parameters trained")
    if report.reasons:
        print("  missing: " + ", ".join(f"{reason} {count}" for reason, count in report.reasons.items()))
    return 0


def _print_epoch(epoch: int, loss: float) -> None:
    print(f"mmrec: epoch {epoch}: loss {loss:.4f}", file=sys.stderr)
