"""The demo: a sample catalog, from nothing to a store of embeddings and a first look at it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmrec.cli.output import add_command
from mmrec.cli.stores import print_report, run_embed


def add_demo_command(commands: Any) -> None:
    demo = add_command(commands, "demo", _demo, "make a sample catalog and embed it")
    demo.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="where to work (default: demo)")


def _demo(arguments: argparse.Namespace) -> int:
    from mmrec.sample import make_sample_catalog
    from mmrec.store import FeatureStore

    store = arguments.out / "store"
    print(f"mmrec: writing a sample catalog to {arguments.out / 'catalog'}", file=sys.stderr)
    catalog = make_sample_catalog(arguments.out / "catalog")
    report = run_embed(catalog, store, preset="light")
    print_report(report, store)
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
