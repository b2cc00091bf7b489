"""The evaluation of a recommender, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from planted import COLD, NUM_ITEMS, kind_of, taken_by, to_interactions

from mmrec.errors import EvaluationError, InteractionError, LeakError
from mmrec.evaluation.interactions import Interactions
from mmrec.recommending.recommender import Recommender

pytestmark = pytest.mark.usefixtures("one_thread")
Pairs = tuple[Interactions, Interactions]


def test_evaluation_is_that_of_a_plain_loop(model: Recommender, pairs: Pairs) -> None:
    metrics = model.evaluate(pairs[1], ks=[3, 20])
    recall: dict[int, list[float]] = {3: [], 20: []}
    ndcg = []
    for user in pairs[1].user_ids:
        truth = set(taken_by(pairs[1], user))
        ranked = list(model.recommend(user, k=20)[0])
        for k, values in recall.items():
            values.append(len(truth & set(ranked[:k])) / len(truth))
        gains = sum(1 / np.log2(place + 2) for place, item in enumerate(ranked) if item in truth)
        ndcg.append(gains / sum(1 / np.log2(place + 2) for place in range(len(truth))))
    assert metrics["users"] == len(pairs[1].user_ids) == metrics["by_history"]["2-4"]["users"]
    assert np.isclose(metrics["recall@3"], np.mean(recall[3]))
    assert np.isclose(metrics["recall@20"], np.mean(recall[20]))
    assert np.isclose(metrics["ndcg@20"], np.mean(ndcg))
    assert metrics["intervals"]["recall@3"][0] <= metrics["recall@3"] <= metrics["intervals"]["recall@3"][1]
    assert metrics["cold_items"] == {"held_out": 0}
    assert np.isclose(metrics["recall@20"], model.report.metrics["val_recall@20"])


def test_evaluation_compares_with_baselines(model: Recommender, pairs: Pairs) -> None:
    metrics = model.evaluate(pairs[1], ks=[3, 1000], baselines=["popularity", "ease"])
    for name, baseline in metrics["baselines"].items():
        better_by = baseline["better_by"]["recall@3"]
        assert np.isclose(better_by["mean"], metrics["recall@3"] - baseline["recall@3"]), name
        assert better_by["interval"][0] <= better_by["mean"] <= better_by["interval"][1]
        assert baseline["recall@1000"] == 1.0
    assert metrics["baselines"]["popularity"]["better_by"]["recall@3"]["p_value"] < 0.01
    assert sum(group["interactions"] for group in metrics["by_popularity"].values()) == len(pairs[1])
    with pytest.raises(EvaluationError, match=r"unknown baselines \['best'\]"):
        model.evaluate(pairs[1], baselines=["best"])


def test_evaluation_counts_cold_items(model: Recommender, pairs: Pairs) -> None:
    own = [(user, f"{kind_of(taken_by(pairs[0], user)[0])}-09") for user in model.user_ids[:10]]
    metrics = model.evaluate(to_interactions(own), ks=[10])
    assert metrics["cold_items"]["held_out"] == 10
    assert metrics["cold_items"]["recall@10_among_cold"] == 1.0
    assert metrics["cold_items"]["recall@10_among_all"] == metrics["recall@10"] > 0.8


def test_evaluation_takes_users_that_training_does_not_know(model: Recommender) -> None:
    metrics = model.evaluate(to_interactions([("stranger", "jazz-00"), ("user00", "rain-09")]), ks=[NUM_ITEMS])
    assert metrics["users"] == 2 and metrics[f"recall@{NUM_ITEMS}"] == 1.0
    assert metrics["by_history"]["0"]["users"] == 1


def test_evaluation_beyond_the_catalog_keeps_its_names(model: Recommender, pairs: Pairs) -> None:
    metrics = model.evaluate(pairs[1], ks=[1000])
    assert metrics["recall@1000"] == 1.0
    assert np.isclose(metrics["precision@1000"], 1 / 1000)


def test_evaluation_of_single_items_is_finite(model: Recommender, pairs: Pairs) -> None:
    catalog = model.evaluate(pairs[1], ks=[1])["catalog"]
    assert np.isfinite(list(catalog.values())).all() and "diversity" not in catalog


def test_evaluation_that_cannot_be(model: Recommender, pairs: Pairs) -> None:
    with pytest.raises(LeakError, match="320 of 320"):
        model.evaluate(pairs[0])
    with pytest.raises(InteractionError, match=r"1 of 2 interactions name items .* 'nix'"):
        model.evaluate(to_interactions([("user00", "nix"), ("user00", COLD[0])]))
    with pytest.raises(EvaluationError, match="nothing was held out"):
        model.evaluate(pairs[1].select(np.zeros(0, np.int64)))
    for ks in ([], [0, 20]):
        with pytest.raises(EvaluationError, match="at least 1"):
            model.evaluate(pairs[1], ks=ks)


def test_evaluation_of_content_alone(content: Recommender, pairs: Pairs) -> None:
    metrics = content.evaluate(pairs[1], ks=[NUM_ITEMS])
    assert metrics[f"recall@{NUM_ITEMS}"] == 1.0 and metrics["by_history"]["0"]["users"] == len(pairs[1].user_ids)
