"""Evaluation of a recommender: full rankings against held-out interactions, of all items and of cold ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmrec.errors import EvaluationError
from mmrec.evaluation.baselines import BASELINES, Baseline
from mmrec.evaluation.metrics import (
    bootstrap_interval,
    by_user_group,
    catalog_metrics,
    compare,
    count_groups,
    rank_metrics,
    recall_by_item_group,
)
from mmrec.ranking import Ranker


def evaluate_rankings(
    ranker: Ranker,
    vectors_ID: NDArray[np.float32],
    users_UD: NDArray[np.float32],
    history_UI: sp.csr_array,
    relevant_UI: sp.csr_array,
    trained_I: NDArray[np.bool_],
    train_UI: sp.csr_array,
    ks: Sequence[int],
    baselines: Sequence[str],
) -> dict[str, Any]:
    """Metrics of users with something held out, ranked without the items of their histories.

    Returns `recall@20` and so on (means over users), `intervals` (bootstrap, 95 %), `catalog` (coverage, novelty,
    popularity, and diversity of lists longer than one), `by_history` (by a user's number of interactions in training),
    `by_popularity` (recall by an item's number of interactions in training), `cold_items`, and of each of the
    `baselines`, names of `BASELINES` that are fitted to `train_UI`, its means and by how much the model is better
    than it. Places beyond the end of the catalog are empty.

    Raises `EvaluationError` where there is nothing to evaluate by, a k is below 1, or a baseline is not known.

    >>> import numpy as np
    >>> import mmrec
    >>> from mmrec.evaluation import align, evaluate_rankings, read_catalog_interactions
    >>> from mmrec.ranking import Ranker
    >>> ids, vectors_ID = mmrec.FeatureStore("store").vectors("visual")
    >>> train = read_catalog_interactions("interactions.csv", ids)
    >>> held_out = align(read_catalog_interactions("validation.csv", ids), user_ids=train.user_ids, item_ids=ids)
    >>> history_UI = train.matrix()
    >>> users_UD = (history_UI @ vectors_ID).astype(np.float32)
    >>> trained_I = np.ones(len(ids), bool)
    >>> report = evaluate_rankings(
    ...     Ranker(vectors_ID), vectors_ID, users_UD, history_UI, held_out.matrix(), trained_I, history_UI,
    ...     ks=[3], baselines=["popularity"],
    ... )
    >>> report["recall@3"] > report["baselines"]["popularity"]["recall@3"]
    True
    """
    if not len(users_UD):
        raise EvaluationError("nothing was held out: there is nothing to evaluate by")
    if not ks or min(ks) < 1:
        raise EvaluationError(f"the lengths of lists must be at least 1, got {list(ks)}")
    if unknown := sorted(set(baselines) - set(BASELINES)):
        raise EvaluationError(f"unknown baselines {unknown}; known are {sorted(BASELINES)}")
    rows_UK = _ranked(ranker, users_UD, max(ks), history_UI)
    metrics = rank_metrics(rows_UK, relevant_UI, ks)
    groups_U = count_groups(np.diff(history_UI.indptr))
    popularity_I = np.bincount(train_UI.indices, minlength=train_UI.shape[1])
    return {
        **{name: float(values_U.mean()) for name, values_U in metrics.items()},
        "users": len(users_UD),
        "intervals": {name: _interval(values_U) for name, values_U in metrics.items()},
        "catalog": catalog_metrics(rows_UK, popularity_I, train_UI.shape[0], vectors_ID if max(ks) > 1 else None),
        "by_history": by_user_group(metrics, groups_U),
        "by_popularity": recall_by_item_group(rows_UK, relevant_UI, count_groups(popularity_I), max(ks)),
        "cold_items": _cold_metrics(ranker, users_UD, history_UI, relevant_UI, ~trained_I, rows_UK),
        "baselines": {
            name: _compare_with(BASELINES[name]().fit(train_UI), history_UI, relevant_UI, metrics, ks)
            for name in baselines
        },
    }


def _compare_with(
    baseline: Baseline,
    history_UI: sp.csr_array,
    relevant_UI: sp.csr_array,
    metrics: Mapping[str, NDArray[np.float64]],
    ks: Sequence[int],
) -> dict[str, Any]:
    """The baseline's means, and `better_by`: the model minus the baseline over the same users, paired."""
    rows_UK = _padded(baseline.recommend(history_UI, max(ks))[0], max(ks))
    its_metrics = rank_metrics(rows_UK, relevant_UI, ks)
    better_by = {}
    for name, values_U in metrics.items():
        comparison = compare(values_U, its_metrics[name])
        difference = comparison.difference
        better_by[name] = {
            "mean": difference.mean,
            "interval": [difference.low, difference.high],
            "p_value": comparison.p_value,
        }
    return {**{name: float(values_U.mean()) for name, values_U in its_metrics.items()}, "better_by": better_by}


def _interval(values_U: NDArray[np.float64]) -> list[float]:
    interval = bootstrap_interval(values_U)
    return [interval.low, interval.high]


def _cold_metrics(
    ranker: Ranker,
    users_UD: NDArray[np.float32],
    history_UI: sp.csr_array,
    relevant_UI: sp.csr_array,
    cold_I: NDArray[np.bool_],
    rows_UK: NDArray[np.int64],
) -> dict[str, float]:
    """Recall of the held-out cold items, which training does not know: among all items, and among their own kind."""
    cold_UI = sp.csr_array(relevant_UI.multiply(cold_I[None].astype(np.float32)))
    cold_UI.eliminate_zeros()
    users = np.flatnonzero(np.diff(cold_UI.indptr))
    if not len(users):
        return {"held_out": 0}
    truth_UI, k = sp.csr_array(cold_UI[users]), rows_UK.shape[1]
    own_UK = _ranked(ranker, users_UD[users], k, sp.csr_array(history_UI[users]), cold_I)
    return {
        "held_out": int(truth_UI.nnz),
        f"recall@{k}_among_all": float(rank_metrics(rows_UK[users], truth_UI, [k])[f"recall@{k}"].mean()),
        f"recall@{k}_among_cold": float(rank_metrics(own_UK, truth_UI, [k])[f"recall@{k}"].mean()),
    }


def _ranked(
    ranker: Ranker,
    users_UD: NDArray[np.float32],
    k: int,
    history_UI: sp.csr_array,
    allowed_I: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Lists of k item rows `(U, k)`, also where there are fewer items."""
    rows_UK, _ = ranker.top_k(users_UD, k, exclude_UI=history_UI, allowed_I=allowed_I)
    return _padded(rows_UK, k)


def _padded(rows_UK: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    return np.pad(rows_UK, ((0, 0), (0, k - rows_UK.shape[1])), constant_values=-1)
