"""How good mmrec's recommendations are beside tuned peers, on real data, and what each part of it gives.

    python scripts/bench_recommenders.py --data DATA [--sets movies-time tiktok ...] [--trials 20] [--test]
        [--out recommenders.json] [--plot recommenders.png] [--cache FOLDER] [--store movies=STORE] [--quick]

Without `--data` there is the sample catalog alone. mmrec runs with its one default on all data, with several seeds.
Every peer is tuned with the same number of trials: its own defaults, then settings drawn at random from the spaces in
recommender_peers.py, always the same; the best by NDCG@20 on validation is fitted anew. All of them learn from the
training part alone, each fit in a process of its own, and rank all items but those that a user has in training;
`--test` looks at the test part as well, at the models that validation chose. Users are those with training interactions
and something held out. Intervals are of a bootstrap over users, p-values of a paired permutation test, "±" is the
deviation between seeds. Seconds leave out the import of libraries; "MiB" is the peak memory of the whole process,
libraries included. Peers that run out of time are ranked by what they reached.

Every fit is kept in a file of JSON lines beside `--out` as soon as it is done; a run that was interrupted goes on.
RecTools needs an environment of its own: `--rectools-python` names its interpreter. Needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import recommender_ours as ours
from benching import describe_machine, print_table
from recommender_bars import IDS_ALONE, check_bars, plot
from recommender_data import DATA_SETS, DataSet, load_data_set
from recommender_peers import Peer, draw_settings, peers
from recommender_runs import METRICS, OURS, Floats, Run, Runs, mean_over_seeds, summary, user_metrics

from mmrec.evaluation import compare

PACKAGES = ("mmrec", "torch", "lightning", "numpy", "scipy", "implicit", "elsarec", "cornac", "rectools")
TIKTOK_SEEDS = 5
UserMetrics = dict[str, Floats]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="the folder with movies/, tiktok/ and shortvideo/")
    parser.add_argument("--sets", nargs="+", choices=list(DATA_SETS), help="by default all; without --data the sample")
    parser.add_argument("--trials", type=int, default=20, help="settings tried of each peer")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of mmrec and of the peers' best")
    parser.add_argument("--peers", nargs="*", choices=list(peers()), metavar="PEER", help=", ".join(peers()))
    parser.add_argument("--variants", nargs="*", metavar="VARIANT", help="of mmrec, by name; by default all")
    parser.add_argument("--limit", type=float, default=300, help="seconds of one fit of a peer")
    parser.add_argument("--test", action="store_true", help="look at the test parts as well")
    parser.add_argument("--cache", type=Path, help="where stores are made and found again; by default nowhere")
    parser.add_argument("--store", nargs="*", default=[], metavar="SET=FOLDER", help="embedded stores that are there")
    parser.add_argument("--rectools-python", help="the interpreter of an environment with rectools[torch]")
    parser.add_argument("--quick", action="store_true", help="a trial, a seed, an epoch, 30 seconds a fit: for CI")
    parser.add_argument("--out", type=Path, default=Path("recommenders.json"))
    parser.add_argument("--plot", type=Path, help="draw the figures")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.trials, arguments.seeds, arguments.limit = 1, arguments.seeds[:1], min(30, arguments.limit)
    names = arguments.sets or (list(DATA_SETS) if arguments.data else ["sample"])
    stores = {name: Path(folder) for name, _, folder in (text.partition("=") for text in arguments.store)}
    pythons = {"rectools": arguments.rectools_python} if arguments.rectools_python else {}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    runs = Runs(arguments.out.with_suffix(".jsonl"), arguments.limit, pythons)
    results: dict[str, Any] = {}
    with nullcontext(arguments.cache) if arguments.cache else tempfile.TemporaryDirectory() as cache:
        for name in names:
            try:
                data = load_data_set(name, arguments.data, Path(cache), stores)
            except FileNotFoundError as error:
                print(f"{name}: left out: {error}")
                continue
            results[name] = SetComparison(data, runs, arguments).result()
            write(arguments, results)
    for row in (bars := check_bars(results)):
        row["met"] = "met" if row["met"] else "MISSED"
    if bars:
        print_table("Bars", bars)
    write(arguments, results, bars)
    if arguments.plot and results:
        plot(results, arguments.plot)


def write(arguments: argparse.Namespace, results: Mapping[str, Any], bars: Sequence[Mapping[str, Any]] = ()) -> None:
    settings = {name: getattr(arguments, name) for name in ("trials", "seeds", "limit", "test", "quick")}
    report = {"machine": describe_machine(PACKAGES), "run": settings, "sets": results, "bars": list(bars)}
    arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


class SetComparison:
    """All that is measured on one data set; `result()` does it and prints it."""

    def __init__(self, data: DataSet, runs: Runs, arguments: argparse.Namespace) -> None:
        self.data, self.runs, self.arguments = data, runs, arguments
        self.parts = [part for part in data.held_out if part == "validation" or arguments.test]
        self.ours: dict[str, Any] = {"max_epochs": 1} if arguments.quick else {}
        self.users: dict[str, dict[str, UserMetrics]] = {part: {} for part in self.parts}  # part -> model -> metrics

    def result(self) -> dict[str, Any]:
        data = self.data
        print(f"\n{data.name}: {data.describe()}", flush=True)
        models: dict[str, Any] = {OURS: self._ours()}
        variants = self._variants()
        skipped: dict[str, str] = {}
        for name, peer in peers().items():
            if self.arguments.peers is not None and name not in self.arguments.peers:
                skipped[name] = "not asked for"
            elif reason := self._unfit(peer) or self.runs.missing(peer):
                skipped[name] = reason
            else:
                models[name] = self._peer(name, peer)
        comparisons = {part: self._compare(part) for part in self.parts}
        result = {
            "about": data.describe(),
            "models": models,
            "variants": variants,
            "skipped": skipped,
            "comparisons": comparisons,
            "without order and EASE": self._compare_two("without order", "EASE"),
        }
        for part in self.parts:
            print_models(f"{data.name}, {part}", part, models, comparisons[part])
        if variants:
            print_variants(data.name, variants)
        for name, reason in skipped.items():
            print(f"  not run: {name}: {reason}")
        return result

    def _unfit(self, peer: Peer) -> str:
        modalities = self.data.content
        if peer.needs_order and not self.data.ordered:
            return "the data have no order"
        if peer.needs in ("visual", "audio", "text") and peer.needs not in modalities:
            return f"the data have no {peer.needs} features"
        return ""

    def _seeds(self) -> list[int]:
        seeds = list(self.arguments.seeds)
        while self.data.name == "tiktok" and len(seeds) < TIKTOK_SEEDS and not self.arguments.quick:
            seeds.append(max(seeds) + 1)
        return seeds

    def _ours(self) -> dict[str, Any]:
        return self._measured(OURS, [self._run(OURS, self.ours, seed) for seed in self._seeds()])

    def _variants(self) -> dict[str, Any]:
        """What is left out, beside the full model of the same seeds: all of them for content, else the first."""
        found: dict[str, Any] = {}
        for name in ours.variants(list(self.data.content), self.data.ordered, self.data.name == "movies-time"):
            if self.arguments.variants is not None and name not in self.arguments.variants:
                continue
            seeds = self._seeds() if name == IDS_ALONE else self.arguments.seeds[:1]
            runs = [self._run(OURS, {"variant": name, **self.ours}, seed) for seed in seeds]
            figures = summary(self.data, runs, "validation")
            if metrics := mean_over_seeds(self.data, runs, "validation"):
                self.users["validation"][name] = metrics
                whole = [self._run(OURS, self.ours, run.seed) for run in runs if not run.failed]
                self._rows(whole[0])  # without which there is nothing to compare with
                full = mean_over_seeds(self.data, whole, "validation")
                figures["full minus this"] = {metric: difference(full[metric], metrics[metric]) for metric in full}
            found[name] = figures | {"fits": [run.describe() for run in runs]}
        return found

    def _peer(self, name: str, peer: Peer) -> dict[str, Any]:
        """Tunes it, and fits the best anew, by every seed where seeds make a difference."""
        tried = [
            self._run(name, settings, 0, peer.package) for settings in draw_settings(name, peer, self.arguments.trials)
        ]
        scores = {
            place: float(user_metrics(self.data, self._rows(run), "validation")[METRICS[1]].mean())
            for place, run in enumerate(tried)
            if not run.failed
        }
        trials = [
            {"settings": dict(run.settings), METRICS[1]: scores.get(place), **run.figures}
            for place, run in enumerate(tried)
        ]
        if not scores:
            return {"error": tried[0].figures["error"], "trials": trials}
        best = tried[max(scores, key=lambda place: scores[place])]
        seeds = self.arguments.seeds if peer.seeded else [0]
        fits = [self._run(name, best.settings, seed, peer.package) for seed in seeds]
        return self._measured(name, fits) | {"settings": dict(best.settings), "trials": trials}

    def _measured(self, name: str, fits: Sequence[Run]) -> dict[str, Any]:
        for part in self.parts:
            if metrics := mean_over_seeds(self.data, fits, part):
                self.users[part][name] = metrics
        return {part: summary(self.data, fits, part) for part in self.parts} | {
            "fits": [run.describe() for run in fits]
        }

    def _run(self, model: str, settings: Mapping[str, Any], seed: int, package: str = "") -> Run:
        run = self.runs.run(self.data, model, settings, seed, package)
        cost = run.figures.get("error") or f"{run.figures['seconds']:.1f} s"
        print(f"  {model} {dict(settings) or ''} seed {seed}: {cost}", flush=True)
        return run

    @staticmethod
    def _rows(run: Run) -> Any:
        if run.rows_RK is None:
            raise RuntimeError(f"{run.model} could not be fitted: {run.figures['error']}")
        return run.rows_RK

    def _compare(self, part: str) -> dict[str, Any]:
        """Ours minus each peer, by metric."""
        users = self.users[part]
        rivals = [name for name in peers() if name in users]
        return {
            name: {metric: difference(users[OURS][metric], users[name][metric]) for metric in users[OURS]}
            for name in rivals
        }

    def _compare_two(self, first: str, second: str) -> dict[str, Any] | None:
        users = self.users["validation"]
        if first not in users or second not in users:
            return None
        return {metric: difference(users[first][metric], users[second][metric]) for metric in users[first]}


def difference(first_U: Floats, second_U: Floats) -> dict[str, Any]:
    found = compare(first_U, second_U)
    interval = found.difference
    return {"difference": interval.mean, "interval": [interval.low, interval.high], "p": found.p_value}


# --- telling ----------------------------------------------------------------------------------------------------------


def print_models(title: str, part: str, models: Mapping[str, Any], comparisons: Mapping[str, Any]) -> None:
    rows = []
    for name, model in models.items():
        figures = model.get(part, model)
        if "error" in figures:
            rows.append({"model": name, "note": figures["error"][:60]})
            continue
        row = {"model": name, **_cells(figures)}
        if name in comparisons:
            row["p"] = " ".join(_short(comparisons[name][metric]["p"], 4) for metric in METRICS)
        late = sum(not trial.get("done", False) for trial in model.get("trials", []))
        row["note"] = f"{late}/{len(model['trials'])} trials late or failed" if late else ""
        rows.append(row)
    print_table(
        f"{title}; p: of recall and NDCG against mmrec's",
        sorted(rows, key=lambda row: row.get("NDCG@20", ""), reverse=True),
    )


def print_variants(title: str, variants: Mapping[str, Any]) -> None:
    rows = []
    for name, figures in variants.items():
        if "error" in figures:
            rows.append({"mmrec": name, "full minus this, p": figures["error"][:60]})
            continue
        beside = [figures["full minus this"][metric] for metric in METRICS]
        cells = {"full minus this, p": "  ".join(f"{x['difference']:+.4f} ({x['p']:.4f})" for x in beside)}
        rows.append({"mmrec": name, **_cells(figures), **cells})
    print_table(f"{title}, validation: mmrec with a part left out", rows)


def _cells(figures: Mapping[str, Any]) -> dict[str, str]:
    cells = {}
    for heading, name in (("Recall@20", "recall@20"), ("NDCG@20", "ndcg@20"), ("cold", "cold_recall@20")):
        if name in figures:
            low, high = figures[f"{name} interval"]
            deviation = figures[f"{name} deviation"]
            spread = "" if deviation is None else f" ±{_short(deviation, 4)}"
            cells[heading] = f"{_short(figures[name], 4)}{spread} [{_short(low)}, {_short(high)}]"
    cells["s"], cells["MiB"] = f"{figures['seconds']:,.1f}", f"{figures['peak_mib']:,.0f}"
    return cells


def _short(share: float, digits: int = 3) -> str:
    return f"{share:.{digits}f}".removeprefix("0")


if __name__ == "__main__":
    main()
