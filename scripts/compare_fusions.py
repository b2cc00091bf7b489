"""Fusions, objectives and subsets of modalities side by side, judged by held-out interactions.

    mmrec import-features --items items.parquet --visual image_feat.npy --audio audio_feat.npy --store S
    python scripts/compare_fusions.py --store S --interactions train.parquet --validation validation.parquet --out DIR

Every fit is one line of DIR/fits.jsonl, and a fit that stands there is not done again: a run that was stopped goes on.
DIR/fusions.md has the table, means and standard deviations over seeds; DIR/fusions.png the plot.

Each line has Recall@20 and NDCG@20 over all items; the same for cold items among all items and among
themselves; what is left of Recall@20 when a modality is taken from all items after the fit (`dropped`); and
with `--kind COLUMN` the share of the five nearest items that are of an item's own kind, by that column of the catalog.
`alignment` is the objective that needs no interactions: items by content alone, users the mean of their history.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import yaml

from fusion.attention import FUSIONS
from fusion.config import FusionConfig, Hardware
from fusion.token_table import TokenTable
from fusion.tower import ContentTower, HybridTower, Tower, load_tower, user_vectors
from fusion.training import fit_alignment, fit_ranking
from mmrec.evaluation import Interactions, align, rank_metrics, read_interactions
from mmrec.ranking import Ranker
from mmrec.recommending import read_tokens
from mmrec.store import FeatureStore

K = 20
NEAREST = 5
OBJECTIVES = ("full_softmax", "in_batch_softmax", "binary", "bpr", "alignment")
QUIET = Hardware(progress=False)


@dataclass(frozen=True)
class Data:
    table: TokenTable
    train: Interactions
    validation_UI: sp.csr_array
    kinds: list[str] | None

    @property
    def trained_I(self) -> np.ndarray:
        return np.bincount(self.train.item_rows, minlength=len(self.table)) > 0


@dataclass(frozen=True)
class Fit:
    """One cell of the comparison; `without` names what an ablation takes away."""

    fusion: str
    objective: str
    modalities: str
    seed: int
    without: str = ""


@dataclass
class Outcome:
    recall: float
    ndcg: float
    cold_among_all: float | None
    cold_among_cold: float | None
    same_kind: float | None
    seconds: float
    dropped: dict[str, float] = field(default_factory=dict)


def main() -> int:
    arguments = parse_arguments()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    data = read_data(arguments)
    settings = yaml.safe_load(arguments.config.read_text()) if arguments.config else {}
    config = FusionConfig.from_mapping({**settings, "use_ids": not arguments.content_only})
    arguments.out.mkdir(parents=True, exist_ok=True)
    log = arguments.out / "fits.jsonl"
    done = read_log(log)
    fits = list(ablations(arguments, data) if arguments.ablations else grid(arguments, data))
    for number, fit in enumerate(fits, start=1):
        if fit not in done:
            outcome = run(fit, data, config)
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"fit": asdict(fit), "outcome": asdict(outcome)}) + "\n")
            done[fit] = outcome
        print(f"{number} of {len(fits)}: {fit} -> {done[fit].recall:.4f} / {done[fit].ndcg:.4f}", file=sys.stderr)
    rows = summarise({fit: done[fit] for fit in fits})
    about = f"{machine()}; {len({fit.seed for fit in fits})} seeds; ids {'on' if config.use_ids else 'off'}"
    name = "ablations" if arguments.ablations else "fusions"
    (arguments.out / f"{name}.md").write_text(f"{about}\n\n{to_markdown(rows)}\n", encoding="utf-8")
    print((arguments.out / f"{name}.md").read_text(encoding="utf-8"))
    plot(rows, arguments.out / f"{name}.png")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--interactions", type=Path, required=True)
    parser.add_argument("--validation", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="a folder for the log, the table and the plot")
    parser.add_argument("--fusions", nargs="+", default=list(FUSIONS), choices=FUSIONS)
    parser.add_argument("--objectives", nargs="+", default=list(OBJECTIVES), choices=OBJECTIVES)
    parser.add_argument("--modalities", nargs="+", help="subsets such as visual or visual+audio (default: all)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--content-only", action="store_true", help="no ids: items by their content alone")
    parser.add_argument("--ablations", action="store_true", help="the full model, and what it is without each part")
    parser.add_argument("--config", type=Path, help="settings as for `mmrec fit`")
    parser.add_argument("--kind", metavar="COLUMN", help="column of the catalog that names an item's kind")
    return parser.parse_args()


def read_data(arguments: argparse.Namespace) -> Data:
    store = FeatureStore(arguments.store)
    item_ids, table = read_tokens(store)
    train = read_interactions(arguments.interactions, item_ids=item_ids)
    held_out = read_interactions(arguments.validation, item_ids=item_ids, user_ids=train.user_ids)
    validation_UI = sp.csr_array(held_out.matrix()[: len(train.user_ids)])
    kinds = None
    if arguments.kind:
        metadata = {row["item_id"]: json.loads(row["metadata"]) for row in store.to_arrow().to_pylist()}
        kinds = [metadata[item_id][arguments.kind] for item_id in item_ids]
    return Data(table, align(train, user_ids=(), item_ids=item_ids), validation_UI, kinds)


def grid(arguments: argparse.Namespace, data: Data) -> Iterator[Fit]:
    names = list(data.table.tokens)
    subsets = arguments.modalities or [
        "+".join(subset) for count in range(1, len(names) + 1) for subset in itertools.combinations(names, count)
    ]
    for objective, fusion, modalities in itertools.product(arguments.objectives, arguments.fusions, subsets):
        yield from (Fit(fusion, objective, modalities, seed) for seed in range(arguments.seeds))


def ablations(arguments: argparse.Namespace, data: Data) -> Iterator[Fit]:
    names = list(data.table.tokens)
    full = "+".join(names)
    for seed in range(arguments.seeds):
        fit = Fit("attention", "full_softmax", full, seed)
        yield fit
        for name in names:
            rest = "+".join(other for other in names if other != name)
            yield replace(fit, modalities=rest, without=name)
        for part in ("collaborative", "content", "right content", "order"):
            yield replace(fit, without=part)


def run(fit: Fit, data: Data, config: FusionConfig) -> Outcome:
    started = time.monotonic()
    table = subset_of(data.table, fit.modalities.split("+"))
    config = replace(config, fusion=fit.fusion, seed=fit.seed)
    if fit.without == "collaborative":
        config = replace(config, use_ids=False)
    elif fit.without == "order":
        config = replace(config, targets="all")
    elif fit.without == "content":
        table = TokenTable(table.tokens, {m: torch.zeros_like(mask_IT) for m, mask_IT in table.masks.items()})
    elif fit.without == "right content":
        order = torch.from_numpy(np.random.default_rng(fit.seed).permutation(len(table)))
        table = table.select(order)
    tower = fit_tower(table, data, config, fit.objective)
    outcome = judge(tower, table, data)
    outcome.seconds = time.monotonic() - started
    if len(table.tokens) > 1 and not fit.without:
        for name in table.tokens:
            outcome.dropped[name] = judge(*without_modality(tower, table, name), data).recall
    return outcome


def fit_tower(table: TokenTable, data: Data, config: FusionConfig, objective: str) -> Tower:
    if objective == "alignment":
        return ContentTower(fit_alignment(table, config=config, hardware=QUIET)[0]).eval()
    train = data.train
    place_N = np.lexsort((train.item_rows, train.user_rows))
    tower, _ = fit_ranking(
        table,
        train.matrix(),
        order_N=train.order()[place_N],
        validation_UI=data.validation_UI,
        config=replace(config, objective=objective),
        hardware=QUIET,
    )
    return tower


def subset_of(table: TokenTable, modalities: Iterable[str]) -> TokenTable:
    def chosen(part: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {m: part[m] for m in modalities if m in part}

    return TokenTable(chosen(table.tokens), chosen(table.masks), chosen(table.times))


def without_modality(tower: Tower, table: TokenTable, name: str) -> tuple[Tower, TokenTable]:
    """The fitted tower, and its items as if none had ever had the modality: neither tokens nor neighbours by it."""
    with tempfile.TemporaryDirectory() as folder:
        tower.save(folder)
        bereft = load_tower(folder)
    if isinstance(bereft, HybridTower):
        bereft.neighbours.get_buffer(f"{name}_features_IW").zero_()
    masks = {m: torch.zeros_like(mask_IT) if m == name else mask_IT for m, mask_IT in table.masks.items()}
    return bereft, TokenTable(table.tokens, masks, table.times)


@torch.no_grad()
def judge(tower: Tower, table: TokenTable, data: Data) -> Outcome:
    items = tower(table)
    vectors_ID, bias_I = items.vectors_ID.numpy(), items.bias_I.numpy()
    users = np.flatnonzero(np.diff(data.validation_UI.indptr))
    history_UI, relevant_UI = (sp.csr_array(x[users]) for x in (data.train.matrix(), data.validation_UI))
    users_UD = user_vectors(history_UI, vectors_ID, tower.history_power, tower.null_D.numpy())
    ranker = Ranker(vectors_ID, bias_I)
    rows_UK, _ = ranker.top_k(users_UD, K, exclude_UI=history_UI)
    metrics = rank_metrics(rows_UK, relevant_UI, [K])
    cold_I = ~data.trained_I
    cold_UI = sp.csr_array(relevant_UI.multiply(cold_I[None]))
    cold_UI.eliminate_zeros()
    cold_users = np.flatnonzero(np.diff(cold_UI.indptr))
    among_all = among_cold = None
    if len(cold_users) and int(cold_I.sum()) > K:
        truth_UI = sp.csr_array(cold_UI[cold_users])
        among_all = mean_recall(rows_UK[cold_users], truth_UI)
        own_UK, _ = ranker.top_k(users_UD[cold_users], K, allowed_I=cold_I)
        among_cold = mean_recall(own_UK, truth_UI)
    means = {name: float(values_U.mean()) for name, values_U in metrics.items()}
    return Outcome(
        means[f"recall@{K}"], means[f"ndcg@{K}"], among_all, among_cold, same_kind_share(vectors_ID, data.kinds), 0.0
    )


def mean_recall(rows_UK: np.ndarray, truth_UI: sp.csr_array) -> float:
    return float(rank_metrics(rows_UK, truth_UI, [K])[f"recall@{K}"].mean())


def same_kind_share(vectors_ID: np.ndarray, kinds: Sequence[str] | None) -> float | None:
    """Of the five nearest items by cosine, how many are of an item's own kind; the mean over items with content."""
    if kinds is None:
        return None
    names = np.array(kinds)
    there = np.flatnonzero(np.linalg.norm(vectors_ID, axis=1) > 0)
    unit_ID = vectors_ID / np.maximum(np.linalg.norm(vectors_ID, axis=1, keepdims=True), 1e-12)
    itself_NI = sp.csr_array((np.ones(len(there)), (np.arange(len(there)), there)), shape=(len(there), len(names)))
    rows_NK, _ = Ranker(unit_ID).top_k(unit_ID[there], NEAREST, exclude_UI=itself_NI)
    return float((names[rows_NK] == names[there][:, None]).mean())


def read_log(log: Path) -> dict[Fit, Outcome]:
    if not log.exists():
        return {}
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return {Fit(**line["fit"]): Outcome(**line["outcome"]) for line in lines}


def summarise(outcomes: Mapping[Fit, Outcome]) -> list[dict[str, Any]]:
    """One row per cell: means and standard deviations over seeds."""
    cells: dict[Fit, list[Outcome]] = {}
    for fit, outcome in outcomes.items():
        cells.setdefault(replace(fit, seed=0), []).append(outcome)
    rows = []
    for fit, several in cells.items():
        row: dict[str, Any] = {
            "objective": fit.objective,
            "fusion": fit.fusion,
            "modalities": fit.modalities,
            "without": fit.without,
        }
        for name in ("recall", "ndcg", "cold_among_all", "cold_among_cold", "same_kind", "seconds"):
            values = [value for outcome in several if (value := getattr(outcome, name)) is not None]
            row[name] = (statistics.fmean(values), statistics.pstdev(values)) if values else None
        for name in several[0].dropped:
            row[f"dropped {name}"] = (statistics.fmean(o.dropped[name] for o in several), 0.0)
        rows.append(row)
    return rows


def to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = [
        name for name in dict.fromkeys(itertools.chain.from_iterable(rows)) if any(row.get(name) for row in rows)
    ]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        lines.append("| " + " | ".join(cell(name, row.get(name)) for name in columns) + " |")
    return "\n".join(lines)


def cell(name: str, value: Any) -> str:
    if not value:
        return ""
    if isinstance(value, str):
        return value
    mean, spread = value
    if name == "seconds":
        return f"{mean:.0f}"
    return f"{mean:.4f} ± {spread:.4f}" if spread else f"{mean:.4f}"


def plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    try:
        import matplotlib
    except ImportError:
        print(f"{path} needs matplotlib: pip install 'mmrec[bench]'", file=sys.stderr)
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(12, 1.5 + 0.22 * len(rows)), sharey=True, layout="constrained")
    names = [label(row) for row in rows]
    fusions = list(dict.fromkeys(row["fusion"] for row in rows))
    for axis, metric, title in zip(axes, ("recall", "ndcg"), ("Recall@20", "NDCG@20"), strict=True):
        for place, row in enumerate(rows):
            mean, spread = row[metric]
            axis.barh(place, mean, xerr=spread, color=f"C{fusions.index(row['fusion'])}", height=0.75)
        axis.set_title(f"{title}, mean and standard deviation over seeds", fontsize=10)
        axis.grid(axis="x", alpha=0.3)
        axis.margins(y=0.005)
    axes[0].set_yticks(range(len(rows)), names, fontsize=7)
    axes[0].invert_yaxis()
    figure.savefig(path, dpi=120)


def label(row: Mapping[str, Any]) -> str:
    without = f"without {row['without']}" if row["without"] else ""
    return " · ".join(part for part in (row["objective"], row["fusion"], row["modalities"], without) if part)


def machine() -> str:
    return f"{os.cpu_count()} cores, torch {torch.__version__}"


if __name__ == "__main__":
    sys.exit(main())
