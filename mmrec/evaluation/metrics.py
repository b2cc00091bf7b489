"""How good rankings are: accuracy against held-out interactions, and what accuracy does not show.

Rankings are complete ones: the top of all items, never of a sample of them. `-1` fills the places of a list that is
shorter than the others. Metrics of users are arrays `(U,)` over users that have something relevant: they can be
averaged, compared in pairs and split into groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmrec.errors import EvaluationError

if TYPE_CHECKING:
    import scipy.sparse as sp

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """A mean with its bootstrap confidence interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True)
class Comparison:
    """A metric of one ranking minus that of another over the same users.

    `p_value` is two-sided: how often a difference at least as large in size comes of swapping the two at random.
    """

    difference: Interval
    p_value: float


def rank_metrics(ranked_UK: Rows, relevant_UI: sp.csr_array, ks: Sequence[int]) -> dict[str, Floats]:
    """Recall, precision, NDCG, MAP, MRR and hit rate at each k, for each user.

    With h hits among the first k of a list and r relevant items: recall is h / r, precision h / k, hit rate 1 if any;
    NDCG has gains of 1, discounts of log2(1 + rank), and the ideal list of min(k, r) hits; MAP sums the precision at
    each hit and divides by min(k, r); MRR is one over the rank of the first hit. A list shorter than k counts as is.

    Args:
        ranked_UK: item rows, best first.
        relevant_UI: nonzero where an item is relevant; every user must have at least one.
        ks: list lengths; none longer than K.

    Returns:
        "recall@20" and so on -> `(U,)`.

    Raises:
        EvaluationError: for shapes that do not fit, an item twice in a list, a k beyond K, or users without truth.

    >>> import numpy as np
    >>> import scipy.sparse as sp
    >>> from mmrec.evaluation import rank_metrics
    >>> ranked_UK = np.array([[4, 0, 2], [1, 3, 0]])
    >>> relevant_UI = sp.csr_array(([1, 1], ([0, 1], [0, 2])), shape=(2, 5))
    >>> rank_metrics(ranked_UK, relevant_UI, ks=[2])["recall@2"]
    array([1., 0.])
    """
    _check_rankings(ranked_UK, relevant_UI, ks)
    hit_UK = find_hits(ranked_UK, relevant_UI).astype(np.float64)
    num_relevant_U = np.diff(relevant_UI.indptr).astype(np.float64)
    ranks_K = np.arange(1, ranked_UK.shape[1] + 1)
    found_UK = hit_UK.cumsum(1)
    discounts_K = 1 / np.log2(ranks_K + 1)
    gain_UK = (hit_UK * discounts_K).cumsum(1)
    precision_sum_UK = (hit_UK * found_UK / ranks_K).cumsum(1)
    ideal_K = np.concatenate([[0.0], discounts_K.cumsum()])
    metrics = {}
    for k in sorted(set(ks)):
        best_U = np.minimum(num_relevant_U, k)
        hits_U = found_UK[:, k - 1]
        metrics[f"recall@{k}"] = hits_U / num_relevant_U
        metrics[f"precision@{k}"] = hits_U / k
        metrics[f"ndcg@{k}"] = gain_UK[:, k - 1] / ideal_K[best_U.astype(np.int64)]
        metrics[f"map@{k}"] = precision_sum_UK[:, k - 1] / best_U
        metrics[f"mrr@{k}"] = (hit_UK[:, :k] / ranks_K[:k]).max(1)
        metrics[f"hit_rate@{k}"] = (hits_U > 0).astype(np.float64)
    return metrics


def find_hits(ranked_UK: Rows, relevant_UI: sp.csr_array) -> NDArray[np.bool_]:
    """Which entries of the rankings are relevant `(U, K)`."""
    num_users, num_items = relevant_UI.shape
    users_N = np.repeat(np.arange(num_users), np.diff(relevant_UI.indptr))
    pairs_N = np.sort(users_N * num_items + relevant_UI.indices)
    asked_UK = np.arange(num_users)[:, None] * num_items + ranked_UK
    place_UK = np.searchsorted(pairs_N, asked_UK).clip(max=max(len(pairs_N) - 1, 0))
    hit_UK: NDArray[np.bool_] = (ranked_UK >= 0) & (pairs_N[place_UK] == asked_UK)
    return hit_UK


def catalog_metrics(
    ranked_UK: Rows, popularity_I: NDArray[np.integer], num_users: int, vectors_ID: NDArray[np.float32] | None = None
) -> dict[str, float]:
    """What the lists do with the catalog.

    - `coverage`: share of all items that stand in at least one list.
    - `gini`: inequality of how often items are recommended; 0 all alike, towards 1 all places to one item.
    - `average_popularity`: mean number of training interactions of the recommended items.
    - `novelty`: mean of -log2 of the share of users with the item in their history, in bits; cold items count as
      if half a user had.
    - `diversity`: mean over lists of the mean cosine distance between two of their items; needs `vectors_ID`.

    Args:
        popularity_I: training interactions of each item.
        num_users: how many users training has.
    """
    listed = ranked_UK[ranked_UK >= 0]
    if not len(listed):
        raise EvaluationError("all rankings are empty")
    exposure_I = np.bincount(listed, minlength=len(popularity_I))
    known_I = np.maximum(popularity_I, 0.5) / max(num_users, 1)
    metrics = {
        "coverage": float((exposure_I > 0).mean()),
        "gini": gini(exposure_I),
        "average_popularity": float(popularity_I[listed].mean()),
        "novelty": float(-np.log2(known_I[listed]).mean()),
    }
    if vectors_ID is not None:
        metrics["diversity"] = float(np.nanmean(intra_list_diversity(ranked_UK, vectors_ID)))
    return metrics


def intra_list_diversity(ranked_UK: Rows, vectors_ID: NDArray[np.float32], *, users_at_once: int = 4096) -> Floats:
    """The mean cosine distance between two items of each list `(U,)`; NaN for lists of fewer than two items."""
    unit_ID = vectors_ID / np.maximum(np.linalg.norm(vectors_ID, axis=1, keepdims=True), 1e-12)
    diversity_U = np.full(len(ranked_UK), np.nan)
    for start in range(0, len(ranked_UK), users_at_once):
        block_UK = ranked_UK[start : start + users_at_once]
        there_UK = block_UK >= 0
        vectors_UKD = unit_ID[np.where(there_UK, block_UK, 0)] * there_UK[..., None]
        length_U = there_UK.sum(1)
        own_U = (vectors_UKD.astype(np.float64) ** 2).sum((1, 2))
        cosines_U = (vectors_UKD.sum(1, dtype=np.float64) ** 2).sum(1) - own_U
        with np.errstate(invalid="ignore", divide="ignore"):
            diversity_U[start : start + users_at_once] = 1 - cosines_U / (length_U * (length_U - 1))
    return diversity_U


def gini(counts: NDArray[np.integer]) -> float:
    """The Gini coefficient of non-negative counts."""
    if not counts.sum():
        return 0.0
    ordered = np.sort(counts).astype(np.float64)
    n = len(ordered)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * ordered.sum()))


def by_user_group(metrics: Mapping[str, Floats], group_U: NDArray[np.str_]) -> dict[str, dict[str, float]]:
    """The means within each group of users, and how many users (`users`) it has: group -> metric -> value."""
    groups = {}
    for group in np.unique(group_U):
        mask_U = group_U == group
        means = {name: float(values_U[mask_U].mean()) for name, values_U in metrics.items()}
        groups[str(group)] = {"users": float(mask_U.sum()), **means}
    return groups


def recall_by_item_group(
    ranked_UK: Rows, relevant_UI: sp.csr_array, group_I: NDArray[np.str_], k: int
) -> dict[str, dict[str, float]]:
    """How much of the truth in each group of items is found among the first k: group -> recall and `interactions`."""
    hit_UK = find_hits(ranked_UK[:, :k], relevant_UI)
    found = ranked_UK[:, :k][hit_UK]
    return {
        str(group): {
            f"recall@{k}": float((group_I[found] == group).sum() / (group_I[relevant_UI.indices] == group).sum()),
            "interactions": float((group_I[relevant_UI.indices] == group).sum()),
        }
        for group in np.unique(group_I[relevant_UI.indices])
    }


def count_groups(counts: NDArray[np.integer], edges: Sequence[int] = (0, 1, 2, 5, 10, 50)) -> NDArray[np.str_]:
    """Names for counts, as history lengths or item popularity: "0", "1", "2-4", ..., "50+"."""
    names = [str(low) if high == low + 1 else f"{low}-{high - 1}" for low, high in pairwise(edges)]
    place = np.searchsorted(np.asarray(edges), counts, side="right") - 1
    if (place < 0).any():
        raise EvaluationError(f"a count of {counts.min()} is below the lowest edge {edges[0]}")
    return np.array([*names, f"{edges[-1]}+"])[place]


def bootstrap_interval(
    values_U: Floats, *, confidence: float = 0.95, num_samples: int = 2000, seed: int = 0
) -> Interval:
    """The mean over users, with a percentile bootstrap over users."""
    if not len(values_U):
        raise EvaluationError("there are no users to average over")
    rng = np.random.default_rng(seed)
    means = np.array([values_U[rng.integers(len(values_U), size=len(values_U))].mean() for _ in range(num_samples)])
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(values_U.mean()), float(low), float(high))


def compare(first_U: Floats, second_U: Floats, *, num_samples: int = 2000, seed: int = 0) -> Comparison:
    """First minus second over the same users: bootstrap interval and the p-value of a paired permutation test.

    >>> import numpy as np
    >>> from mmrec.evaluation import compare
    >>> recall_U = np.random.default_rng(0).uniform(size=200)
    >>> comparison = compare(recall_U + 0.1, recall_U)
    >>> print(comparison.difference)
    0.1000 [0.1000, 0.1000]
    >>> comparison.p_value < 0.01
    True
    """
    if first_U.shape != second_U.shape:
        raise EvaluationError(
            f"metrics of {len(first_U)} and {len(second_U)} users: a paired test needs the same users"
        )
    difference_U = first_U - second_U
    observed = abs(difference_U.mean())
    rng = np.random.default_rng(seed)
    moved = difference_U[difference_U != 0]  # users that do not differ stay at zero whichever way they are swapped
    signs = (rng.integers(0, 2, size=(num_samples, len(moved)), dtype=np.int8) * 2 - 1).astype(np.float32)
    swapped = np.abs(signs @ moved) / len(difference_U)
    p_value = (1 + int((swapped >= observed * (1 - 1e-6)).sum())) / (1 + num_samples)
    return Comparison(bootstrap_interval(difference_U, num_samples=num_samples, seed=seed), p_value)


def _check_rankings(ranked_UK: Rows, relevant_UI: sp.csr_array, ks: Sequence[int]) -> None:
    if ranked_UK.ndim != 2 or len(ranked_UK) != relevant_UI.shape[0]:
        raise EvaluationError(f"rankings {ranked_UK.shape} and truth {relevant_UI.shape} are not of the same users")
    if not ks or min(ks) < 1 or max(ks) > ranked_UK.shape[1]:
        raise EvaluationError(f"k must be between 1 and the {ranked_UK.shape[1]} items of a ranking, got {list(ks)}")
    if ranked_UK.size and (ranked_UK.max() >= relevant_UI.shape[1] or ranked_UK.min() < -1):
        raise EvaluationError(f"rankings name item rows outside 0 to {relevant_UI.shape[1] - 1}")
    ordered_UK = np.sort(ranked_UK, axis=1)
    if ((ordered_UK[:, 1:] == ordered_UK[:, :-1]) & (ordered_UK[:, 1:] >= 0)).any():
        raise EvaluationError("an item stands twice in a ranking")
    empty_U = np.diff(relevant_UI.indptr) == 0
    if empty_U.any():
        raise EvaluationError(f"{int(empty_U.sum())} of {len(empty_U)} users have nothing relevant: leave them out")
