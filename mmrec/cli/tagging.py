"""The command that labels items."""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrec.cli.output import add_command, add_json, add_store, open_store, share
from mmrec.errors import TaggingError

if TYPE_CHECKING:
    from mmrec.store import FeatureStore
    from mmrec.tagging import Examples, LabelScores


COLUMNS = {
    "items": "items",
    "method": "   method",
    "examples": "examples",
    "average_precision": "average precision",
    "positives": "positives",
}


def add_tag_command(commands: Any) -> None:
    tag = add_command(commands, "tag", _tag, "label items by words, by examples, or by both")
    add_store(tag)
    what = tag.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--labels",
        metavar="NAME|FILE",
        help="topic, emotion, scene, or a .yaml, .csv, .jsonl or .parquet file of labels",
    )
    what.add_argument("--remove", metavar="NAME", help="delete the labels of a set from the store")
    tag.add_argument("--as", dest="name", default="", metavar="NAME", help="of the set (default: that of the file)")
    tag.add_argument("--examples", type=Path, metavar="FILE", help="item_id and label, as people say: learn from these")
    tag.add_argument(
        "--threshold", type=share, default=0.5, metavar="SCORE", help="from which a label holds (default: 0.5)"
    )
    tag.add_argument("--evaluate", type=Path, metavar="FILE", help="item_id and label: average precision by these")
    add_json(tag)


def _tag(arguments: argparse.Namespace) -> int:
    from mmrec.tagging import read_examples, read_labels, tag

    store = open_store(arguments)
    if arguments.remove is not None:
        return _remove(store, arguments.remove, as_json=arguments.json)
    labels, truth = read_labels(arguments.labels, name=arguments.name), None
    if arguments.evaluate is not None:
        item_ids = store.to_arrow(["item_id"])["item_id"].to_pylist()
        truth = read_examples(arguments.evaluate, labels=labels.labels, item_ids=item_ids)
    scores = tag(
        store,
        labels,
        examples=arguments.examples,
        threshold=arguments.threshold,
        command=shlex.join(["mmrec", *sys.argv[1:]]),
    )
    report = _report(scores, truth, arguments.threshold)
    if arguments.json:
        print(json.dumps(report, ensure_ascii=False))
    else:
        _print(report)
    return 0


def _remove(store: FeatureStore, name: str, *, as_json: bool) -> int:
    known = store.labels.names()
    if name not in known:
        raise TaggingError(f"store {store.folder} has no labels {name!r}: it has {', '.join(known) or 'none'}")
    with store.lock():
        store.labels.remove(name)
    print(json.dumps({"removed": name}) if as_json else f"the labels {name!r} are no longer in {store.folder}")
    return 0


def _report(scores: LabelScores, truth: Examples | None, threshold: float) -> dict[str, Any]:
    items = scores.items(threshold)
    evaluated = scores.evaluate(truth) if truth is not None else {}
    labels = []
    for label, method in zip(scores.labels.labels, scores.methods, strict=True):
        row: dict[str, Any] = {"label": label, "items": sum(label in item.labels for item in items), "method": method}
        if scores.examples is not None:
            row["examples"] = sum(label in of_item for of_item in scores.examples.labels.values())
            row["held_out_log_loss"] = scores.losses.get(label, {})
        if truth is not None:
            row["average_precision"], row["positives"] = evaluated.get(label, (None, 0))
        labels.append(row)
    report: dict[str, Any] = {
        "set": scores.labels.name,
        "items": len(items),
        "labelled": sum(bool(item.labels) for item in items),
        "temperatures": {name: t if math.isfinite(t) else None for name, t in scores.sources.items()},
        "probed": scores.probed,
        "labels": labels,
    }
    if truth is not None:
        precisions = [precision for precision, _ in evaluated.values()]
        report["mean_average_precision"] = sum(precisions) / len(precisions) if precisions else None
    return report


def _print(report: dict[str, Any]) -> None:
    compared = f"; words compared with {', '.join(report['temperatures'])}" if report["temperatures"] else ""
    probed = f"; probes of {', '.join(report['probed'])}" if report["probed"] else ""
    print(f"{report['set']}: {report['labelled']} of {report['items']} items have a label{compared}{probed}")
    columns = [name for name in COLUMNS if name in report["labels"][0]]
    width = max(5, *(len(row["label"]) for row in report["labels"]))
    print("  " + "  ".join([f"{'label':{width}}", *(COLUMNS[name] for name in columns)]))
    for row in report["labels"]:
        cells = (f"{_cell(row[name]):>{len(COLUMNS[name])}}" for name in columns)
        print("  " + "  ".join([f"{row['label']:{width}}", *cells]).rstrip())
    if report.get("mean_average_precision") is not None:
        print(f"  mean average precision {report['mean_average_precision']:.3f}")


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
