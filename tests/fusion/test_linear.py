"""The linear autoencoder: the closed form, what counts, and where it is taken."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fusion_data import SMALL, planted_kinds, random_histories

from fusion.histories import Histories
from fusion.linear import PENALTY, linear_factors
from fusion.training import fit_ranking


def dense(histories: Histories, num_items: int) -> np.ndarray:
    liked_UI = np.zeros((len(histories), num_items))
    np.add.at(liked_UI, (histories.users_N, histories.items_N), histories.weights_N > 0)
    return liked_UI


def test_all_factors_are_the_ridge_regression() -> None:
    histories = random_histories([9, 4, 12, 1, 7], ordered=True)
    liked_UI = dense(histories, 60)
    gram_II = liked_UI.T @ liked_UI
    expected_II = np.linalg.solve(gram_II + PENALTY * np.eye(60), gram_II)
    factors_IL = linear_factors(histories, 60, 100)
    assert factors_IL.shape == (60, 4)
    rest = np.linalg.svd(liked_UI, compute_uv=False)[4] ** 2
    assert np.abs(factors_IL @ factors_IL.T - expected_II).max() <= rest / (rest + PENALTY) + 1e-6
    assert not factors_IL[liked_UI.sum(0) == 0].any()
    assert np.array_equal(factors_IL, linear_factors(histories, 60, 100))


def test_dislikes_count_for_nothing() -> None:
    histories = random_histories([9, 4, 12, 1, 7], ordered=True)
    weights_N = histories.weights_N.copy()
    weights_N[::3] = -1.0
    weights_N[1::5] = 0.0
    kept_N = weights_N > 0
    alone = Histories.of(histories.users_N[kept_N], histories.items_N[kept_N], len(histories))
    some, same = (linear_factors(h, 60, 3) for h in (replace(histories, weights_N=weights_N), alone))
    assert some.any() and np.allclose(some, same, atol=1e-6)


@pytest.mark.parametrize(("users", "items"), [([3], 10), ([1, 1], 1)])
def test_one_user_or_one_item_has_none(users: list[int], items: int) -> None:
    histories = Histories.of(np.repeat(np.arange(len(users)), users), np.zeros(sum(users), int), len(users))
    assert linear_factors(histories, items, 8).shape == (items, 0)


@pytest.mark.parametrize("ordered", [True, False])
def test_they_are_taken_where_validation_gains(ordered: bool) -> None:
    planted = planted_kinds(ordered=ordered)
    hardly = replace(SMALL, learning_rate=1e-6, max_epochs=1)
    found = {}
    for name, config in {"with": hardly, "without": replace(hardly, use_ids=False)}.items():
        towers, report = fit_ranking(planted.table, planted.histories, validation_UI=planted.held_out_UI, config=config)
        found[name] = report.metrics["val_recall@20"]
        assert (towers.width > config.dim) == (name == "with")
        assert (report.rules["factors"] == "none") == (name == "without")
    assert found["with"] > 0.8 > 0.7 > found["without"]


def test_a_fit_that_has_learned_it_all_stays_narrow() -> None:
    planted = planted_kinds(ordered=False)
    towers, _ = fit_ranking(planted.table, planted.histories, validation_UI=planted.held_out_UI, config=SMALL)
    assert towers.width == SMALL.dim
