"""Fits in processes of their own, what they give, kept as soon as it is there, and how good their lists are."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from recommender_data import DataSet
from recommender_peers import K, Peer

from mmrec.evaluation import rank_metrics
from mmrec.evaluation.metrics import bootstrap_interval

SCRIPTS = Path(__file__).resolve().parent
OURS = "mmrec"
METRICS = (f"recall@{K}", f"ndcg@{K}")
RANKING_SECONDS = 600
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """One fit: its figures and, unless it failed, its lists `(R, K)` for the users that are ranked."""

    model: str
    settings: Mapping[str, Any]
    seed: int
    figures: dict[str, Any]
    rows_RK: NDArray[np.int64] | None

    @property
    def failed(self) -> bool:
        return self.rows_RK is None

    def describe(self) -> dict[str, Any]:
        return {"model": self.model, "settings": dict(self.settings), "seed": self.seed, **self.figures}


class Runs:
    """Fits models, and remembers them in a file of JSON lines `path`, beside which their lists lie.

    Args:
        limit: the seconds of a fit of a peer.
        pythons: interpreters of other environments, by package.
    """

    def __init__(self, path: Path, limit: float, pythons: Mapping[str, str]) -> None:
        self.path, self.limit, self._pythons = path, limit, pythons
        self._lists = path.with_suffix(".lists")
        self._lists.mkdir(parents=True, exist_ok=True)
        self._done: dict[str, dict[str, Any]] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # the last line of a run that was interrupted
            self._done[record["digest"]] = record["figures"]

    def python(self, package: str) -> str:
        return self._pythons.get(package, sys.executable)

    def missing(self, peer: Peer) -> str:
        """Why a peer cannot run here; empty where it can."""
        if not peer.package:
            return ""
        ask = f"from importlib.metadata import version; print(version({peer.package!r}))"
        found = subprocess.run([self.python(peer.package), "-c", ask], capture_output=True, text=True, check=False)
        if found.returncode == 0:
            return ""
        if peer.package == "rectools":
            return (
                "RecTools needs numpy < 2, attrs < 24 and pytorch-lightning < 2.5.3, which exclude mmrec's versions; "
                "make an environment with rectools[torch] and name its interpreter by --rectools-python"
            )
        return f"the package {peer.package} is not installed: pip install 'mmrec[bench]'"

    def run(self, data: DataSet, model: str, settings: Mapping[str, Any], seed: int, package: str = "") -> Run:
        """The fit of this model, made now unless it was made before by the same code from the same data."""
        key = {
            "set": data.name,
            "data": data.digest,
            "model": model,
            "settings": dict(settings),
            "seed": seed,
            "limit": None if model == OURS else self.limit,
            "code": code_version(model) + (f", {package} {_installed(package)}" if package else ""),
        }
        digest = hashlib.blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=12).hexdigest()
        lists = self._lists / f"{digest}.npz"
        if digest not in self._done or not ("error" in self._done[digest] or lists.exists()):
            figures = self._fit({**key, "store": data.store, "folder": data.folder, "package": package}, lists)
            self._done[digest] = figures
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"digest": digest, "key": key, "figures": figures}) + "\n")
        figures = self._done[digest]
        rows_RK = None
        if "error" not in figures:
            with np.load(lists, allow_pickle=False) as stored:
                rows_RK = stored["rows_UK"].astype(np.int64)
        return Run(model, settings, seed, figures, rows_RK)

    def _fit(self, job: dict[str, Any], lists: Path) -> dict[str, Any]:
        folder: Path = job["folder"]
        job_path = folder / "job.json"
        job |= {"problem": folder / "problem.npz", "out": lists, "limit": job["limit"] or 0}
        job |= {part: folder / f"{part}.parquet" for part in ("train", "validation")}
        job_path.write_text(json.dumps(job, default=str), encoding="utf-8")
        command = [self.python(job["package"]), str(SCRIPTS / "recommender_worker.py"), str(job_path)]
        timeout = None if job["model"] == OURS else self.limit + RANKING_SECONDS
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            return {"error": f"out of time: stopped after {timeout:g} seconds"}
        if ended.returncode:
            last = ended.stderr.strip().splitlines()[-1:] or ["no message"]
            return {"error": f"ended with {ended.returncode}: {last[0][:300]}"}
        with np.load(lists, allow_pickle=False) as stored:
            figures: dict[str, Any] = json.loads(str(stored["figures"]))
        return figures


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "in an environment of its own"


def code_version(model: str) -> str:
    """Of the code that a fit depends on, by content: ours, or that of the peers."""
    names = ["recommender_worker.py", "recommender_peers.py"]
    paths = [SCRIPTS / name for name in names]
    if model == OURS:
        paths = [SCRIPTS / "recommender_ours.py"]
        for folder in ("fusion", "mmrec/recommending", "mmrec/ranking"):
            paths += sorted((SCRIPTS.parent / folder).glob("*.py"))
    elif model.startswith(("Cornac", "RecTools")):
        paths.append(SCRIPTS / "recommender_sequence_peers.py")
    digest = hashlib.blake2b(digest_size=6)
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


# --- how good lists are -----------------------------------------------------------------------------------------------


def user_metrics(data: DataSet, rows_RK: NDArray[np.int64], part: str) -> dict[str, Floats]:
    """Recall and NDCG of each user of a part, and `cold_recall@20` of users with held-out items that nobody had."""
    relevant_RI = sp.csr_array(data.relevant(part))
    metrics = _of_users(rows_RK, relevant_RI, METRICS)
    cold_RI = sp.csr_array(relevant_RI.multiply(~data.trained_I[None, :]))
    cold_RI.eliminate_zeros()
    if cold_RI.nnz:
        metrics[f"cold_recall@{K}"] = _of_users(rows_RK, cold_RI, METRICS[:1])[METRICS[0]]
    return metrics


def _of_users(rows_RK: NDArray[np.int64], relevant_RI: sp.csr_array, names: Sequence[str]) -> dict[str, Floats]:
    there = np.flatnonzero(np.diff(relevant_RI.indptr))
    metrics = rank_metrics(rows_RK[there], sp.csr_array(relevant_RI[there]), [K])
    return {name: metrics[name] for name in names}


def mean_over_seeds(data: DataSet, runs: Sequence[Run], part: str) -> dict[str, Floats]:
    """The metrics of each user, averaged over the seeds of a model."""
    found = [user_metrics(data, run.rows_RK, part) for run in runs if run.rows_RK is not None]
    return {name: np.mean([metrics[name] for metrics in found], axis=0) for name in found[0]} if found else {}


def summary(data: DataSet, runs: Sequence[Run], part: str) -> dict[str, Any]:
    """Means with bootstrap intervals over users, the deviation between seeds, and what the fits cost."""
    good = [run for run in runs if not run.failed]
    if not good:
        return {"error": runs[0].figures["error"]}
    figures: dict[str, Any] = {"runs": len(good)}
    by_seed = [user_metrics(data, run.rows_RK, part) for run in good if run.rows_RK is not None]
    for name, values_U in mean_over_seeds(data, good, part).items():
        interval = bootstrap_interval(values_U)
        figures[name] = interval.mean
        figures[f"{name} interval"] = [interval.low, interval.high]
        figures[f"{name} deviation"] = float(np.std([m[name].mean() for m in by_seed], ddof=1)) if good[1:] else None
    for name in ("seconds", "peak_mib", "base_mib"):
        figures[name] = float(np.mean([run.figures[name] for run in good]))
    figures["out of time"] = sum(not run.figures["done"] for run in good)
    return figures
