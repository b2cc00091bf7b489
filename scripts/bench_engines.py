"""Times `mmrec embed --engine ray` against the local engine, and what the job's own process holds; and kills it.

    python scripts/bench_engines.py [--clips 2000] [--rows 10000 100000 1000000] [--kills 20] [--workers 0] [--out FILE]

Throughput is over the seconds after the start: imports, a cluster of this machine's processes, loading the encoders.
"rows" are catalogs of words alone, embedded on Ray: the peak memory is that of the job's own process, without those of
the cluster. "kills" embed a catalog of words again and again, each job killed once it committed something, a moment
later each time; then one goes on undisturbed: all rows must be there, once, and what had been committed is skipped.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benching import print_table, write_report
from synthetic_catalog import write_catalog

BAR = 0.8
PACKAGES = ("ray", "lancedb", "torch", "av")
MEASURED = """
import json, resource, sys
from mmrec.cli import main
code = main(sys.argv[1:])
print(json.dumps({"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
sys.exit(code)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--kill-rows", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--preset", default="descriptors")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"load_average": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.clips:
            figures["throughput"] = throughput(folder, arguments)
            print_table(f"{arguments.clips:,} clips, bar {BAR}", figures["throughput"])
        if arguments.rows:
            figures["rows"] = [rows(folder, count, arguments.workers) for count in sorted(arguments.rows)]
            print_table("memory of the job's process", figures["rows"])
        if arguments.kills:
            figures["kills"] = kills(folder, arguments)
            print_table("jobs killed", [figures["kills"]])
    write_report(arguments.out, PACKAGES, figures)
    return 0


def arguments_of(catalog: Path, store: Path, preset: str) -> list[str]:
    return ["embed", str(catalog), "--store", str(store), "--preset", preset]


def embed(catalog: Path, store: Path, preset: str, *options: str) -> tuple[dict[str, Any], float]:
    """The report of a job in a process of its own, and the peak of that process's memory in MiB."""
    command = [sys.executable, "-c", MEASURED, *arguments_of(catalog, store, preset), "--json", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    report, memory = map(json.loads, done.stdout.splitlines()[-2:])
    return report, memory["peak_mib"]


def throughput(folder: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    catalog = write_catalog(folder / "clips", arguments.clips)
    found: list[dict[str, Any]] = []
    for engine in ("local", "ray"):
        options = ["--engine", engine, "--workers", str(arguments.workers)]
        report, peak_mib = embed(catalog, folder / engine, arguments.preset, *options)
        seconds = report["seconds"] - report["stage_seconds"]["start"]
        rate = arguments.clips / seconds
        share = rate / found[0]["clips/s"] if found else 1.0
        found.append(
            {"engine": engine, "start, s": report["stage_seconds"]["start"], "clips/s": rate}
            | {"of local": share, "peak MiB": peak_mib, "ok": report["ok"]}
        )
    return found


def words(folder: Path, count: int) -> tuple[Path, str]:
    """A catalog of words alone, and a preset for it."""
    folder.mkdir()
    with (folder / "catalog.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["item_id", "title"], *([n, f"title number {n}"] for n in range(count))])
    (folder / "words.yaml").write_text("text: {kind: hashed-ngrams}\n", encoding="utf-8")
    return folder / "catalog.csv", str(folder / "words.yaml")


def rows(folder: Path, count: int, workers: int) -> dict[str, Any]:
    catalog, preset = words(folder / f"rows{count}", count)
    options = ["--engine", "ray", "--workers", str(workers)]
    found: dict[str, Any] = {"rows": count}
    for what in ("embedded", "skipped"):
        start = time.perf_counter()
        _, peak_mib = embed(catalog, catalog.parent / "store", preset, *options)
        found |= {f"{what}, s": time.perf_counter() - start, f"{what}, peak MiB": peak_mib}
    return found


def kills(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    from mmrec.store import FeatureStore

    catalog, preset = words(folder / "kills", arguments.kill_rows)
    options = ["--engine", "ray", "--workers", str(arguments.workers)]
    killed = well = 0
    for number in range(arguments.kills):
        store = catalog.parent / f"store{number}"
        kill_after_commits(catalog, store, preset, 2 + number % 10, options)
        committed = len(FeatureStore(store))
        report, _ = embed(catalog, store, preset, *options)
        ids = FeatureStore(store).to_arrow(["item_id"])["item_id"]
        killed += committed < arguments.kill_rows
        well += len(ids) == len(ids.unique()) == arguments.kill_rows and report["skipped"] >= committed
    return {"killed": killed, "nothing lost or done twice": well, "of": arguments.kills}


def kill_after_commits(catalog: Path, store: Path, preset: str, commits: int, options: Sequence[str]) -> None:
    command = [sys.executable, "-m", "mmrec", *arguments_of(catalog, store, preset), *options]
    job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    versions = store / "items.lance" / "_versions"
    while job.poll() is None and len(list(versions.glob("*.manifest"))) <= commits:
        time.sleep(0.01)
    job.kill()
    job.wait()


if __name__ == "__main__":
    sys.exit(main())
