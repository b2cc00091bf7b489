"""The commands that say how a store is, what ran on it, and undo that."""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mmrec.cli.output import add_command, add_json, add_store, open_store, place
from mmrec.remote import Place, written

if TYPE_CHECKING:
    from mmrec.store import FeatureStore, Run

_FAILED_COLUMNS = ("item_id", "status", "modality", "reason", "detail", "media", "stale_since")


def add_history_commands(commands: Any) -> None:
    status = add_command(commands, "status", _status, "what a store holds, and what failed")
    add_store(status)
    status.add_argument("--failed", action="store_true", help="name the items with a fault, and its reason")
    status.add_argument("--out", type=place, metavar="FILE|URL", help="write them as CSV")
    add_json(status)

    runs = add_command(commands, "runs", _runs, "what ran on a store, with what result")
    add_store(runs)
    add_json(runs)

    versions = add_command(commands, "versions", _versions, "the states of a store that can be restored")
    add_store(versions)
    add_json(versions)

    restore = add_command(commands, "restore", _restore, "make a store what it was in an earlier version")
    add_store(restore)
    restore.add_argument("--version", type=int, required=True, metavar="N", help="one of `mmrec versions`")


def _status(arguments: argparse.Namespace) -> int:
    store = open_store(arguments)
    if arguments.failed or arguments.out:
        return _failed(store, arguments.out, as_json=arguments.json)
    status = store.status()
    if arguments.json:
        print(json.dumps(asdict(status)))
        return 0
    counts = ", ".join(f"{count} {name}" for name, count in status.statuses.items() if count or name != "stale")
    print(f"{status.items} items: {counts}; {status.bytes_on_disk / 2**20:.1f} MiB")
    for encoder in status.encoders:
        print(f"  {encoder['modality']:8}{encoder['items']} items, {encoder['name']}, {encoder['dim']} numbers a token")
    for modality, reasons in status.reasons.items():
        print(f"  no or not all {modality}: " + ", ".join(f"{reason} {n}" for reason, n in sorted(reasons.items())))
    if status.languages:
        print("  languages: " + ", ".join(f"{name} {count}" for name, count in status.languages.items()))
    for name, of_set in status.labels.items():
        due = of_set["outdated"] + of_set["missing"]
        hint = f"; {due} items are new or changed since: run `mmrec tag` again" if due else ""
        print(f"  labels: {name}, {of_set['items']} items{hint}")
    if len(store.sets()) > 1:
        print(f"  sets: {', '.join(name or '(the first)' for name in store.sets())}")
    return 0


def _failed(store: FeatureStore, out: Place | None, *, as_json: bool) -> int:
    from mmrec.store import faults

    if out is not None:
        with written(out) as path, path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, _FAILED_COLUMNS)
            writer.writeheader()
            writer.writerows(faults(store))
        print(out)
        return 0
    for problem in faults(store):
        if as_json:
            print(json.dumps(problem))
        else:
            since = f", since {problem['stale_since']}" if problem["stale_since"] else ""
            where = f" ({problem['media']})" if problem["media"] else ""
            print(f"{problem['item_id']}: {problem['modality']} {problem['reason']}{since}: {problem['detail']}{where}")
    return 0


def _runs(arguments: argparse.Namespace) -> int:
    for run in open_store(arguments).runs():
        if arguments.json:
            times = {"start": run.start.isoformat(), "end": run.end and run.end.isoformat()}
            print(json.dumps({**asdict(run), **times}))
        else:
            print(_run_line(run))
    return 0


def _run_line(run: Run) -> str:
    ended = "did not end" if run.end is None else f"exit {run.exit}, {(run.end - run.start).total_seconds():.0f} s"
    counts = ", ".join(f"{count} {name}" for name, count in run.counts.items() if count)
    parts = [f"{run.start:%Y-%m-%d %H:%M:%S}", ended, f"mmrec {run.mmrec}", run.command, counts, run.message]
    return "  ".join(part for part in parts if part)


def _versions(arguments: argparse.Namespace) -> int:
    store = open_store(arguments)
    commands = {run.run_id: run.command for run in store.runs()}
    for version in store.versions():
        if arguments.json:
            print(json.dumps({**asdict(version), "time": version.time.isoformat()}))
        else:
            before = f"  before: {commands.get(version.tag, version.tag)}" if version.tag else ""
            print(f"{version.number:6}  {version.time:%Y-%m-%d %H:%M:%S}  {version.rows} items{before}")
    return 0


def _restore(arguments: argparse.Namespace) -> int:
    store = open_store(arguments)
    with store.lock(), store.run(f"mmrec restore --version {arguments.version}"):
        store.restore(arguments.version)
    print(f"{len(store)} items in {arguments.store}, as in version {arguments.version}")
    return 0
