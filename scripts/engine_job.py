"""One job in a process of its own, for `bench_engines.py`: what it did, how fast, and what its process held, as JSON.

    python scripts/engine_job.py CATALOG STORE PRESET ENGINE WORKERS

"going" is from the first items that were stored to the last. The peak memory is `VmHWM`: `ru_maxrss` would count the
program that started this one as well.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import mmrec
from mmrec.embedding import EmbedReport


def main() -> None:
    catalog, store, preset, engine, workers = sys.argv[1:]
    told: list[tuple[float, int]] = []  # the first items that were stored, and the last

    def progress(report: EmbedReport) -> None:
        if report.done:
            told[1:] = [(time.perf_counter(), report.done)]

    report = mmrec.embed(catalog, store, preset=preset, engine=engine, workers=int(workers), progress=progress)
    figures = {
        "start, s": report.stage_seconds["start"],
        "items/s": report.items / (report.seconds - report.stage_seconds["start"]),
        "peak MiB": peak_mib(),
        "ok": report.ok,
        "skipped": report.skipped,
    }
    if len(told) > 1:
        (first, some), (last, all_) = told
        figures["going, items/s"] = (all_ - some) / (last - first)
    print(json.dumps(figures))


def peak_mib() -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    main()
