"""Embed thousands of hostile files while killing the job again and again, and check what is left in the end.

    python scripts/soak_embed.py --files 3000 --kills 20 --out /tmp/soak

Writes a corpus of damaged, odd and mutated media, embeds it once undisturbed, then into a second store under random
kill -9; and compares the two stores. Prints progress to standard error and the figures as one JSON object.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from hostile import KINDS, mutate, write_hostile_corpus

from mmrec.store import FeatureStore

VECTOR_TOLERANCE = 1e-4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="a folder for the corpus and the stores")
    parser.add_argument("--files", type=int, default=3000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=20.0, help="for decoding one item, seconds")
    parser.add_argument(
        "--hang-after", type=float, default=1800.0, help="a run that takes longer counts as hung, seconds"
    )
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    catalog, kinds = write_corpus(arguments.out / "corpus", arguments.files, rng)
    command = [sys.executable, "-m", "mmrec", "embed", str(catalog), "--preset", "light", "--max-failures", "1"]
    command += ["--timeout", str(arguments.timeout), "--json", "--store"]

    say("undisturbed")
    calm = Job([*command, str(arguments.out / "calm")], arguments.hang_after)
    reports = [calm.finish()]
    peaks: list[int] = []
    orphans = failures = 0
    for kill in range(arguments.kills):
        job = Job([*command, str(arguments.out / "killed")], arguments.hang_after)
        job.kill_at_work(rng.uniform(0.0, 20.0))
        peaks.append(job.peak_kib)
        orphans += job.orphans()
        failures += job.failed
        say(f"kill {kill + 1}: {count_rows(arguments.out / 'killed')} rows after it")
    last = Job([*command, str(arguments.out / "killed")], arguments.hang_after)
    reports.append(last.finish())
    result = compare(arguments.out / "calm", arguments.out / "killed", catalog)
    result |= {
        "files": arguments.files,
        "kinds": kinds,
        "kills": arguments.kills,
        "hangs": sum(report is None for report in reports),
        "orphans": orphans,
        "failed_runs": failures,
        "peak_mib": {"calm": calm.peak_kib // 1024, "killed": [peak // 1024 for peak in peaks]},
        "calm_report": reports[0],
    }
    print(json.dumps(result))
    clean = ("lost_rows", "duplicated_rows", "different_rows", "hangs", "orphans", "failed_runs")
    return int(any(result[name] for name in clean))


def count_rows(store: Path) -> int:
    """Rows of a store that opens; 0 where the job was killed before it made one."""
    return len(FeatureStore(store)) if (store / "items.lance" / "_versions").is_dir() else 0


def say(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


def write_corpus(folder: Path, files: int, rng: random.Random) -> tuple[Path, int]:
    """The hostile kinds themselves, then mutations of them; every third row has a title. Written once for a folder."""
    catalog = folder / "catalog.csv"
    if catalog.exists():
        return catalog, len(KINDS)
    kinds = write_hostile_corpus(folder)
    paths = [path for path in kinds.values() if path.is_file()]
    sources = [path for path in paths if path.stat().st_size < 2**20]
    while len(paths) < files:
        source = rng.choice(sources)
        path = folder / f"mutation {len(paths)}{source.suffix}"
        path.write_bytes(mutate(source.read_bytes(), rng))
        paths.append(path)
    with open(catalog, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["item_id", "media", "title"])
        for number, path in enumerate(paths):
            writer.writerow([path.name, path.name, f"Title {number} 标题" if number % 3 == 0 else ""])
    return catalog, len(kinds)


class Job:
    """One run of `mmrec embed` in a process of its own; `peak_kib` is the most memory its main process held."""

    def __init__(self, command: list[str], hang_after: float) -> None:
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._hang_after = hang_after
        self._children: set[int] = set()
        self.peak_kib = 0
        self.failed = False

    def finish(self) -> dict[str, Any] | None:
        """The report, or None where the run hung or failed."""
        end = time.monotonic() + self._hang_after
        while self._process.poll() is None and time.monotonic() < end:
            self._watch()
        if self._process.poll() is None:
            self._process.kill()
            return None
        assert self._process.stdout is not None
        output = self._process.stdout.read().strip()
        return json.loads(output.splitlines()[-1]) if output else None

    def kill_at_work(self, seconds: float) -> None:
        """Kill -9, so many seconds after it started to decode."""
        while self._process.poll() is None and len(self._children) < 2:
            self._watch()
        end = time.monotonic() + seconds
        while self._process.poll() is None and time.monotonic() < end:
            self._watch()
        self._process.send_signal(signal.SIGKILL)
        self.failed = self._process.wait() not in (0, -signal.SIGKILL)

    def orphans(self) -> int:
        """How many of its children live on, some seconds after its death."""
        end = time.monotonic() + 10.0
        while time.monotonic() < end and any(map(is_running, self._children)):
            time.sleep(0.2)
        return sum(map(is_running, self._children))

    def _watch(self) -> None:
        time.sleep(0.1)
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text()
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        except OSError:
            return
        for line in status.splitlines():
            if line.startswith("VmHWM"):
                self.peak_kib = max(self.peak_kib, int(line.split()[1]))
        self._children |= set(map(int, children.split()))


def is_running(pid: int) -> bool:
    try:
        return (
            "mmrec" in Path(f"/proc/{pid}/cmdline").read_text()
            or "multiprocessing" in Path(f"/proc/{pid}/cmdline").read_text()
        )
    except OSError:
        return False


def compare(calm: Path, killed: Path, catalog: Path) -> dict[str, Any]:
    """Rows lost, duplicated and different between the two stores; time-outs may differ, and are counted apart."""
    with open(catalog, newline="", encoding="utf-8") as file:
        wanted = {row["item_id"] for row in csv.DictReader(file)}
    stores = [{f.item.item_id: f for f in FeatureStore(path).features()} for path in (calm, killed)]
    rows = [len(FeatureStore(path)) for path in (calm, killed)]
    different = []
    timing = 0
    for item_id in wanted & stores[0].keys() & stores[1].keys():
        a, b = stores[0][item_id], stores[1][item_id]
        if any(p.reason == "timeout" for f in (a, b) for p in f.problems.values()):
            timing += 1
        elif not same(a, b):
            different.append(item_id)
    return {
        "rows": rows,
        "statuses": dict(Counter(str(f.status) for f in stores[1].values())),
        "reasons": dict(Counter(str(p.reason) for f in stores[1].values() for p in f.problems.values())),
        "lost_rows": sum(len(wanted - store.keys()) for store in stores),
        "duplicated_rows": sum(count - len(store) for count, store in zip(rows, stores, strict=True)),
        "different_rows": len(different),
        "different": sorted(different)[:20],
        "timed_out_rows": timing,
    }


def same(a: Any, b: Any) -> bool:
    if a.status != b.status or {m: p.reason for m, p in a.problems.items()} != {
        m: p.reason for m, p in b.problems.items()
    }:
        return False
    return a.tokens.keys() == b.tokens.keys() and all(
        a.tokens[m].vectors_TD.shape == b.tokens[m].vectors_TD.shape
        and np.allclose(a.tokens[m].vectors_TD, b.tokens[m].vectors_TD, atol=VECTOR_TOLERANCE)
        for m in a.tokens
    )


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(main())
