"""A model against baselines on held-out interactions, with intervals, as a whole and by slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmrec.errors import EvaluationError
from mmrec.evaluation import (
    BASELINES,
    InteractionSource,
    Interval,
    align,
    bootstrap_interval,
    check_no_leak,
    compare,
    rank_metrics,
    read_catalog_interactions,
)
from mmrec.recommending import Recommender
from mmrec.reporting.items import Column, parts_by_count
from mmrec.reporting.ranked_lists import Rows, Training, num_users_looked_at, ranked_rows

MODEL = "the model"
K = 20
METRICS = ("recall", "ndcg", "mrr", "hit_rate")
EASE_ITEMS = 4000  # beyond, its matrix of all items by all items is no matter of seconds
SLICE_SAMPLES = 500
LEAST_IN_SLICE = 5


@dataclass(frozen=True, slots=True)
class Scored:
    """One metric of the model or a baseline; `better_by` is the model minus the baseline over the same users."""

    system: str
    interval: Interval
    better_by: Interval | None = None
    p_value: float | None = None


@dataclass(frozen=True, slots=True)
class Slice:
    """Recall within a part of what was held out: the model with its interval, the baselines by name."""

    group: str
    held_out: int
    users: int
    model: Interval
    baselines: dict[str, float]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Full rankings of a sample of the users with something held out: metric -> systems, and slices by name."""

    k: int
    users: int
    all_users: int
    held_out: int
    metrics: dict[str, list[Scored]]
    slices: dict[str, list[Slice]]


def evaluate(
    model: Recommender, training: Training, held_out: InteractionSource, columns: Sequence[Column], seed: int
) -> Evaluation:
    """As `Recommender.evaluate`, by slices of items and users; `columns` have the rows of the model's items.

    Raises `InteractionError` where held-out interactions are present in training, or name unknown items, and
    `EvaluationError` where nothing was held out.
    """
    read = read_catalog_interactions(held_out, model.item_ids)
    check_no_leak(training.interactions, read)
    aligned = align(read, user_ids=training.interactions.user_ids, item_ids=model.item_ids)
    liked = aligned.select(aligned.weights > 0)
    everyone = np.unique(liked.user_rows)
    if not len(everyone):
        raise EvaluationError("no held-out interaction has a weight above 0: there is nothing to evaluate by")
    users = np.sort(np.random.default_rng(seed).permutation(everyone)[: num_users_looked_at(len(model.item_ids))])
    k = min(K, len(model.item_ids))
    truth_UI = sp.csr_array(liked.matrix()[users])
    history_UI = _rows_of(training.seen_UI, users)
    rankings = {MODEL: ranked_rows(model, [aligned.user_ids[user] for user in users], k)}
    for baseline in (BASELINES[name]() for name in _baselines(len(model.item_ids))):
        rankings[baseline.name], _ = baseline.fit(training.liked_UI).recommend(history_UI, k)
    metrics = {name: rank_metrics(rows_UK, truth_UI, [k]) for name, rows_UK in rankings.items()}
    return Evaluation(
        k=k,
        users=len(users),
        all_users=len(everyone),
        held_out=int(truth_UI.nnz),
        metrics={f"{metric}@{k}": _compared(metrics, f"{metric}@{k}") for metric in METRICS},
        slices=_slices(rankings, truth_UI, np.diff(history_UI.indptr), training, columns, k),
    )


def _baselines(num_items: int) -> list[str]:
    return ["popularity", "item_neighbours", *(["ease"] if num_items <= EASE_ITEMS else [])]


def _rows_of(matrix_UI: sp.csr_array, users: Rows) -> sp.csr_array:
    """The rows of these users; of those beyond the last, who are not known, empty ones."""
    known_U = users < matrix_UI.shape[0]
    picked = sp.csr_array(
        (np.ones(known_U.sum(), np.float32), (np.flatnonzero(known_U), users[known_U])),
        shape=(len(users), matrix_UI.shape[0]),
    )
    return sp.csr_array(picked @ matrix_UI)


def _compared(metrics: dict[str, dict[str, NDArray[np.float64]]], metric: str) -> list[Scored]:
    ours_U = metrics[MODEL][metric]
    scored = [Scored(MODEL, bootstrap_interval(ours_U))]
    for name, theirs in metrics.items():
        if name != MODEL:
            comparison = compare(ours_U, theirs[metric])
            interval = bootstrap_interval(theirs[metric])
            scored.append(Scored(name, interval, comparison.difference, comparison.p_value))
    return scored


def _slices(
    rankings: dict[str, Rows],
    truth_UI: sp.csr_array,
    history_U: NDArray[np.int64],
    training: Training,
    columns: Sequence[Column],
    k: int,
) -> dict[str, list[Slice]]:
    popularity_I = training.popularity_I
    item_groups = {"cold items": [("not known in training", popularity_I == 0), ("known", popularity_I > 0)]}
    item_groups["interactions of the item"] = parts_by_count(popularity_I)
    item_groups |= {column.name: column.groups for column in columns if len(column.groups) > 1}
    slices = {}
    for name, groups in item_groups.items():
        parts = [(group, truth_UI @ sp.diags_array(inside_I.astype(np.float32))) for group, inside_I in groups]
        slices[name] = [found for group, part_UI in parts if (found := _slice(group, rankings, part_UI, k))]
    by_user = [(g, sp.diags_array(inside_U.astype(np.float32)) @ truth_UI) for g, inside_U in parts_by_count(history_U)]
    slices["history of the user"] = [f for group, part_UI in by_user if (f := _slice(group, rankings, part_UI, k))]
    return {name: found for name, found in slices.items() if len(found) > 1}


def _slice(group: str, rankings: dict[str, Rows], part_UI: sp.csr_array, k: int) -> Slice | None:
    part_UI = sp.csr_array(part_UI)
    part_UI.eliminate_zeros()
    users = np.flatnonzero(np.diff(part_UI.indptr))
    if len(users) < LEAST_IN_SLICE:
        return None
    truth_UI = sp.csr_array(part_UI[users])
    recalls = {name: rank_metrics(rows[users], truth_UI, [k])[f"recall@{k}"] for name, rows in rankings.items()}
    baselines = {name: float(x.mean()) for name, x in recalls.items() if name != MODEL}
    interval = bootstrap_interval(recalls[MODEL], num_samples=SLICE_SAMPLES)
    return Slice(group, int(truth_UI.nnz), len(users), interval, baselines)
