"""Metrics against torchmetrics, scikit-learn and plain loops, on random data with ties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.metrics import ndcg_score
from sklearn.metrics.pairwise import cosine_distances
from torchmetrics.functional import retrieval

from mmrec.errors import EvaluationError
from mmrec.evaluation.metrics import (
    bootstrap_interval,
    by_user_group,
    catalog_metrics,
    compare,
    count_groups,
    gini,
    intra_list_diversity,
    rank_metrics,
    recall_by_item_group,
)

NUM_USERS, NUM_ITEMS = 40, 30


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, sp.csr_array]:
    """Full rankings by scores with many ties, broken by item row, and one to six relevant items a user."""
    rng = np.random.default_rng(0)
    scores_UI = rng.integers(0, 5, size=(NUM_USERS, NUM_ITEMS))
    ranked_UI = np.argsort(-scores_UI, axis=1, kind="stable")
    truth_UI = np.zeros((NUM_USERS, NUM_ITEMS))
    for user in range(NUM_USERS):
        truth_UI[user, rng.choice(NUM_ITEMS, size=rng.integers(1, 7), replace=False)] = 1
    return ranked_UI, sp.csr_array(truth_UI)


def descending(ranked_UI: np.ndarray) -> np.ndarray:
    """Strictly decreasing scores that give the same ranking."""
    scores_UI = np.empty(ranked_UI.shape)
    np.put_along_axis(scores_UI, ranked_UI, np.arange(ranked_UI.shape[1], 0.0, -1), axis=1)
    return scores_UI


@pytest.mark.parametrize("k", [1, 5, 20])
def test_rank_metrics_match_torchmetrics(data: tuple[np.ndarray, sp.csr_array], k: int) -> None:
    ranked_UI, relevant_UI = data
    metrics = rank_metrics(ranked_UI[:, :20], relevant_UI, ks=[k])
    scores, truth = torch.tensor(descending(ranked_UI)), torch.tensor(relevant_UI.toarray()).long()
    references = {
        "recall": retrieval.retrieval_recall,
        "precision": retrieval.retrieval_precision,
        "ndcg": retrieval.retrieval_normalized_dcg,
        "mrr": retrieval.retrieval_reciprocal_rank,
        "hit_rate": retrieval.retrieval_hit_rate,
    }
    for name, reference in references.items():
        expected = [float(reference(scores[user], truth[user], top_k=k)) for user in range(NUM_USERS)]
        assert np.allclose(metrics[f"{name}@{k}"], expected, atol=1e-6), name


@pytest.mark.parametrize("k", [1, 5, 20])
def test_ndcg_and_map_match_scikit_learn_and_a_loop(data: tuple[np.ndarray, sp.csr_array], k: int) -> None:
    ranked_UI, relevant_UI = data
    truth_UI = relevant_UI.toarray()
    metrics = rank_metrics(ranked_UI, relevant_UI, ks=[k])
    scores_UI = descending(ranked_UI)
    for user in range(NUM_USERS):
        expected = ndcg_score(truth_UI[[user]], scores_UI[[user]], k=k)
        assert math.isclose(metrics[f"ndcg@{k}"][user], expected, abs_tol=1e-9)
        hits, total = 0, 0.0
        for rank, item in enumerate(ranked_UI[user, :k], start=1):
            if truth_UI[user, item]:
                hits += 1
                total += hits / rank
        assert math.isclose(metrics[f"map@{k}"][user], total / min(k, truth_UI[user].sum()), abs_tol=1e-9)


def test_short_lists_count_as_they_are() -> None:
    relevant_UI = sp.csr_array(([1, 1, 1], ([0, 0, 1], [3, 4, 0])), shape=(2, 5))
    metrics = rank_metrics(np.array([[3, -1, -1], [-1, -1, -1]]), relevant_UI, ks=[3])
    assert metrics["recall@3"].tolist() == [0.5, 0.0]
    assert metrics["precision@3"].tolist() == [1 / 3, 0.0]


@pytest.mark.parametrize(
    ("ranked", "ks", "words"),
    [
        ([[0, 1]], [1], "same users"),
        ([[0, 1], [0, 1]], [3], "k must be"),
        ([[0, 1], [0, 1]], [], "k must be"),
        ([[0, 0], [0, 1]], [1], "twice"),
        ([[0, 9], [0, 1]], [1], "outside"),
    ],
)
def test_bad_rankings_are_refused(ranked: list[list[int]], ks: list[int], words: str) -> None:
    relevant_UI = sp.csr_array(([1, 1], ([0, 1], [3, 4])), shape=(2, 5))
    with pytest.raises(EvaluationError, match=words):
        rank_metrics(np.array(ranked), relevant_UI, ks=ks)


def test_users_without_truth_are_refused() -> None:
    with pytest.raises(EvaluationError, match="1 of 2 users have nothing relevant"):
        rank_metrics(np.array([[0], [1]]), sp.csr_array(([1], ([0], [3])), shape=(2, 5)), ks=[1])


def test_catalog_metrics_have_their_definitions() -> None:
    ranked_UK = np.array([[0, 1], [0, 2], [0, -1]])
    metrics = catalog_metrics(ranked_UK, np.array([8, 4, 0, 1]), num_users=16, vectors_ID=np.eye(4, dtype=np.float32))
    assert metrics["coverage"] == 0.75
    assert metrics["average_popularity"] == (8 * 3 + 4 + 0) / 5
    assert metrics["novelty"] == pytest.approx((3 * 1 + 2 + 5) / 5)
    assert metrics["diversity"] == pytest.approx(1.0)


def test_gini_of_known_cases() -> None:
    assert gini(np.array([3, 3, 3])) == pytest.approx(0)
    assert gini(np.array([0, 0, 0, 8])) == pytest.approx(0.75)
    assert gini(np.zeros(3, int)) == 0
    counts = np.random.default_rng(0).integers(0, 50, size=40)
    expected = np.abs(counts[:, None] - counts).sum() / (2 * len(counts) * counts.sum())
    assert gini(counts) == pytest.approx(expected)


def test_diversity_matches_pairwise_distances() -> None:
    rng = np.random.default_rng(0)
    vectors_ID = rng.normal(size=(20, 6)).astype(np.float32)
    ranked_UK = np.array([rng.permutation(20)[:5] for _ in range(7)])
    ranked_UK[2, 3:] = -1
    ranked_UK[3, 1:] = -1
    diversity_U = intra_list_diversity(ranked_UK, vectors_ID, users_at_once=3)
    for user, row in enumerate(ranked_UK):
        items = row[row >= 0]
        if len(items) < 2:
            assert np.isnan(diversity_U[user])
            continue
        distances = cosine_distances(vectors_ID[items])
        assert diversity_U[user] == pytest.approx(distances[np.triu_indices(len(items), 1)].mean(), abs=1e-6)


def test_groups() -> None:
    assert count_groups(np.array([0, 1, 4, 50, 9])).tolist() == ["0", "1", "2-4", "50+", "5-9"]
    grouped = by_user_group({"recall@5": np.array([1.0, 0.0, 1.0])}, np.array(["a", "a", "b"]))
    assert grouped == {"a": {"users": 2.0, "recall@5": 0.5}, "b": {"users": 1.0, "recall@5": 1.0}}
    relevant_UI = sp.csr_array(([1, 1, 1], ([0, 0, 1], [0, 3, 1])), shape=(2, 4))
    by_item = recall_by_item_group(
        np.array([[0, 1], [0, 2]]), relevant_UI, np.array(["warm", "warm", "warm", "cold"]), 2
    )
    assert by_item["warm"]["recall@2"] == 0.5 and by_item["cold"] == {"recall@2": 0.0, "interactions": 1.0}


def test_bootstrap_interval_is_near_the_normal_one() -> None:
    values_U = np.random.default_rng(0).normal(3.0, 2.0, size=900)
    interval = bootstrap_interval(values_U)
    spread = 1.96 * values_U.std() / 30
    assert interval.mean == values_U.mean()
    assert interval.low == pytest.approx(values_U.mean() - spread, abs=0.02)
    assert interval.high == pytest.approx(values_U.mean() + spread, abs=0.02)
    assert bootstrap_interval(values_U) == interval


def test_paired_test_sees_what_is_there_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    noise_U = rng.normal(size=500)
    better = compare(noise_U + 0.1 + rng.normal(scale=0.2, size=500), noise_U)
    assert better.p_value < 0.01 and better.difference.low > 0
    same = compare(noise_U + rng.normal(scale=0.2, size=500), noise_U)
    assert same.p_value > 0.05 and same.difference.low < 0 < same.difference.high
    assert compare(noise_U, noise_U).p_value == 1
    with pytest.raises(EvaluationError, match="same users"):
        compare(noise_U, noise_U[:-1])
