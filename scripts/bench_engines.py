"""Times `mmrec embed --engine ray` against the local engine, and what the job's own process holds; and kills it.

    python scripts/bench_engines.py [--clips 2000] [--rounds 2] [--rows 10000 100000 1000000] [--kills 20]
                                    [--resumed 5000000] [--workers 0] [--out FILE]

Throughput is over the seconds after the start (imports, a cluster of this machine's processes, loading the encoders),
and, "going", from the first clips that were stored to the last: Ray starts its workers in between. The engines take
turns, `--rounds` times each; a ratio is that of one round.
"rows" are catalogs of words alone, embedded on Ray: the peak memory is that of the job's own process, without those of
the cluster. "resumed" is a job whose store has all rows of its catalog, which were put there without being embedded, by
either engine. "kills" embed a catalog of words again and again, each job killed once it committed something, a moment
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
from itertools import islice
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa
import pyarrow.compute
from benching import print_table, write_report
from synthetic_catalog import write_catalog

BAR = 0.8
DIFFERENT_TITLES, TABLES_AT_ONCE = 10_000, 20
PACKAGES = ("ray", "lancedb", "torch", "av")
JOB = Path(__file__).with_name("engine_job.py")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--resumed", type=int, default=5_000_000)
    parser.add_argument("--resumed-by", nargs="*", choices=["local", "ray"], default=["local", "ray"])
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
        if arguments.resumed:
            figures["resumed"] = resumed(folder, arguments)
            print_table("all rows there already", figures["resumed"])
        if arguments.kills:
            figures["kills"] = kills(folder, arguments)
            print_table("jobs killed", [figures["kills"]])
    write_report(arguments.out, PACKAGES, figures)
    return 0


def embed(catalog: Path, store: Path, preset: str, engine: str, workers: int) -> dict[str, Any]:
    """What a job in a process of its own says of itself."""
    words = [JOB, catalog, store, preset, engine, workers]
    done = subprocess.run([sys.executable, *map(str, words)], stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def throughput(folder: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    catalog = write_catalog(folder / "clips", arguments.clips)
    found: list[dict[str, Any]] = []
    for number in range(arguments.rounds):
        for engine in ("local", "ray"):
            figures = embed(catalog, folder / f"{engine}{number}", arguments.preset, engine, arguments.workers)
            found.append({"round": number, "engine": engine, **figures, "load": os.getloadavg()[0]})
            print(json.dumps(found[-1]), file=sys.stderr, flush=True)
        for name in ("items/s", "going, items/s"):
            found[-1][f"{name} of local"] = found[-1][name] / found[-2][name]
    return found


def words(folder: Path, count: int) -> tuple[Path, str]:
    """A catalog of words alone, and a preset for it."""
    folder.mkdir()
    with (folder / "catalog.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["item_id", "title"])
        rows.writerows([n, f"title number {n % DIFFERENT_TITLES}"] for n in range(count))
    (folder / "words.yaml").write_text("text: {kind: hashed-ngrams}\n", encoding="utf-8")
    return folder / "catalog.csv", str(folder / "words.yaml")


def rows(folder: Path, count: int, workers: int) -> dict[str, Any]:
    catalog, preset = words(folder / f"rows{count}", count)
    found: dict[str, Any] = {"rows": count}
    for what in ("embedded", "skipped"):
        start = time.perf_counter()
        figures = embed(catalog, catalog.parent / "store", preset, "ray", workers)
        found |= {f"{what}, s": time.perf_counter() - start, f"{what}, peak MiB": figures["peak MiB"]}
    return found


def resumed(folder: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    count = arguments.resumed
    catalog, preset = words(folder / "resumed", count)
    store = catalog.parent / "store"
    put_rows(catalog, store, preset, count)
    found: list[dict[str, Any]] = []
    for engine in arguments.resumed_by:
        start = time.perf_counter()
        figures = embed(catalog, store, preset, engine, arguments.workers)
        assert figures["skipped"] == count, figures
        seconds = time.perf_counter() - start
        found.append({"engine": engine, "rows": count, "s": seconds, "peak MiB": figures["peak MiB"]})
        found[-1]["load"] = os.getloadavg()[0]
    return found


def put_rows(catalog: Path, store: Path, preset: str, count: int) -> None:
    """Fill a store with the rows of a catalog: some are embedded, and the others, of the same titles, are made of them,
    without the tokens, which a job that resumes does not read.
    """
    some = catalog.with_name("some.csv")
    with catalog.open(encoding="utf-8") as whole:
        some.write_text("".join(islice(whole, DIFFERENT_TITLES + 1)), encoding="utf-8")
    embed(some, store, preset, "local", 0)
    table = lancedb.connect(store).open_table("items")
    rows = table.to_arrow()
    for name in ("text_tokens", "text_starts", "text_ends"):
        at = rows.schema.get_field_index(name)
        rows = rows.set_column(at, name, pa.nulls(len(rows), rows.schema.field(at).type))
    numbers = pa.compute.cast(rows["item_id"], pa.int64())
    place = rows.schema.get_field_index("item_id")
    several = [
        rows.set_column(place, "item_id", pa.compute.cast(pa.compute.add(numbers, first), pa.string()))
        for first in range(DIFFERENT_TITLES, count, DIFFERENT_TITLES)
    ]
    for start in range(0, len(several), TABLES_AT_ONCE):
        table.add(pa.concat_tables(several[start : start + TABLES_AT_ONCE]))


def kills(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    from mmrec.store import FeatureStore

    catalog, preset = words(folder / "kills", arguments.kill_rows)
    killed = well = 0
    for number in range(arguments.kills):
        store = catalog.parent / f"store{number}"
        kill_after_commits(catalog, store, preset, 2 + number % 10, arguments.workers)
        committed = len(FeatureStore(store))
        figures = embed(catalog, store, preset, "ray", arguments.workers)
        ids = FeatureStore(store).to_arrow(["item_id"])["item_id"]
        killed += committed < arguments.kill_rows
        well += len(ids) == len(ids.unique()) == arguments.kill_rows and figures["skipped"] >= committed
    return {"killed": killed, "nothing lost or done twice": well, "of": arguments.kills}


def kill_after_commits(catalog: Path, store: Path, preset: str, commits: int, workers: int) -> None:
    words = [JOB, catalog, store, preset, "ray", workers]
    job = subprocess.Popen([sys.executable, *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    versions = store / "items.lance" / "_versions"
    while job.poll() is None and len(list(versions.glob("*.manifest"))) <= commits:
        time.sleep(0.01)
    job.kill()
    job.wait()


if __name__ == "__main__":
    sys.exit(main())
