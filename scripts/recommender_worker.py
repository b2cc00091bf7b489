"""Fits one recommender in a process of its own, and writes the lists of the users asked for; see bench_recommenders.py.

    python scripts/recommender_worker.py JOB.json

The job names `problem` (.npz), `model`, `settings`, `seed`, `limit` (seconds) and `out` (.npz). Beside `rows_UK` it
holds, as JSON, the seconds of the fit, the peak memory of this process up to the end of it, and before it.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

MODULES = {"implicit": "implicit.als", "elsarec": "elsa", "cornac": "cornac.models", "rectools": "rectools.models"}


def main() -> None:
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if job["model"] == "mmrec":
        from recommender_ours import fit_ours

        rows_UK, figures = fit_ours(job)
    else:
        rows_UK, figures = fit_peer(job)
    np.savez_compressed(job["out"], rows_UK=rows_UK.astype(np.int32), figures=json.dumps(figures))


def fit_peer(job: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    from recommender_peers import Problem, TimeUp, peers

    peer = peers()[job["model"]]
    problem = Problem.load(Path(job["problem"]))
    if peer.package:
        import_module(MODULES[peer.package])
    figures: dict[str, Any] = {"base_mib": peak_mib(), "version": version(peer.package) if peer.package else ""}
    start, spent = time.monotonic(), time.process_time()
    try:
        best, done = peer.fit(problem, job["settings"], job["seed"], start + job["limit"])
    except TimeUp:
        return np.zeros((0, 0)), {**figures, "error": "out of time, with nothing to rank by"}
    figures |= {
        "seconds": time.monotonic() - start,
        "processor_seconds": time.process_time() - spent,
        "peak_mib": peak_mib(),
        "done": done,
    }
    try:
        return best(problem.rank_users), figures
    except AttributeError:
        if done:
            raise
        return np.zeros((0, 0)), {**figures, "error": "out of time, with nothing to rank by"}


def peak_mib() -> float:
    """The peak memory of this program; Linux's `ru_maxrss` would count what started it as well."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(lines[0].split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
