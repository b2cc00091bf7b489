"""User vectors: what training sees at a place is what inference computes after the history before it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fusion_data import all_pieces, histories_of, random_histories

from fusion.histories import Chunks, Histories
from fusion.user_tower import UserTower

DIM, NUM_ITEMS = 6, 30
VECTORS_ID = np.random.default_rng(0).normal(size=(NUM_ITEMS, DIM)).astype(np.float32)
HALF_LIVES = (1.0, 4.0, 20.0)


def make_tower(*, ordered: bool, power: float = 0.5) -> UserTower:
    torch.manual_seed(0)
    tower = UserTower(DIM, HALF_LIVES if ordered else (), power=power)
    with torch.no_grad():  # nothing stays at its start: every path is live
        tower.mix_KDE.add_(torch.randn_like(tower.mix_KDE))
        tower.null_D.normal_()
        tower.log_gap_rates_K.copy_(torch.randn_like(tower.log_gap_rates_K) - 1)
    return tower


def training_states(tower: UserTower, histories: Histories, size: int) -> dict[tuple[int, ...], np.ndarray]:
    """(user, target) -> what training predicts the target from."""
    batch = all_pieces(Chunks(histories, size=size, user_weight=1.0, seed=0))
    users_BTD = tower(batch, torch.from_numpy(VECTORS_ID)[batch.items_BT]).detach().numpy()
    owners = {int(item): int(user) for user, item in zip(histories.users_N, histories.items_N, strict=True)}
    pieces, places = batch.targets_BT.nonzero(as_tuple=True)
    items = batch.items_BT[pieces, places].tolist()
    return {
        (owners[item], item): users_BTD[piece, place]
        for item, piece, place in zip(items, pieces.tolist(), places.tolist(), strict=True)
    }


@pytest.mark.parametrize("weighted", [False, True])
def test_ordered_training_states_are_those_of_the_prefix(weighted: bool) -> None:
    tower, histories = make_tower(ordered=True), random_histories([12, 2, 7], ordered=True, weighted=weighted)
    for (user, item), state_D in training_states(tower, histories, size=20).items():
        own = histories.select(np.array([user]))
        place = own.items_N.tolist().index(item)
        assert own.days_N is not None
        before = Histories.of(
            np.zeros(place, int), own.items_N[:place], 1, weights_N=own.weights_N[:place], days_N=own.days_N[:place]
        )
        assert np.allclose(state_D, tower.vectors(before, VECTORS_ID)[0], atol=1e-4), (user, place)


def test_context_that_is_cut_off_is_all_that_is_missing() -> None:
    tower, histories = make_tower(ordered=True), histories_of([range(12)], ordered=True, gaps=True)
    for (_, item), state_D in training_states(tower, histories, size=3).items():
        first = max(0, item // 3 * 3 - 3)
        assert histories.days_N is not None
        kept = slice(first, item)
        before = Histories.of(np.zeros(item - first, int), histories.items_N[kept], 1, days_N=histories.days_N[kept])
        assert np.allclose(state_D, tower.vectors(before, VECTORS_ID)[0], atol=1e-4), item


@pytest.mark.parametrize("weighted", [False, True])
def test_unordered_training_states_are_those_of_all_others(weighted: bool) -> None:
    tower, histories = make_tower(ordered=False), random_histories([12, 2, 7], ordered=False, weighted=weighted)
    for (user, item), state_D in training_states(tower, histories, size=20).items():
        own = histories.select(np.array([user]))
        others_N = own.items_N != item
        others = Histories.of(
            np.zeros(others_N.sum(), int), own.items_N[others_N], 1, weights_N=own.weights_N[others_N], ordered=False
        )
        assert np.allclose(state_D, tower.vectors(others, VECTORS_ID)[0], atol=1e-4)


def test_shortened_training_states_are_those_of_one_other_interaction() -> None:
    tower, histories = make_tower(ordered=False), random_histories([9, 2, 5], ordered=False)
    tower.shortening = 1.0
    met = set()
    for (user, item), state_D in training_states(tower, histories, size=20).items():
        own = histories.select(np.array([user])).items_N
        others = own[own != item]
        alone = Histories.of(np.arange(len(others)), others, len(others), ordered=False)
        is_it = np.isclose(tower.vectors(alone, VECTORS_ID), state_D, atol=1e-5).all(1)
        assert is_it.sum() == 1, (user, item)
        met.add(int(others[is_it][0]))
    assert len(met) > 4  # not always the first
    tower.eval()
    plain = make_tower(ordered=False)
    for key, state_D in training_states(tower, histories, size=20).items():
        assert np.allclose(state_D, training_states(plain, histories, size=20)[key])


def test_the_future_does_not_change_the_past() -> None:
    tower = make_tower(ordered=True)
    batch = all_pieces(Chunks(random_histories([9, 4], ordered=True), size=10, user_weight=1.0, seed=0))
    vectors_BTD = torch.from_numpy(VECTORS_ID)[batch.items_BT].requires_grad_()
    users_BTD = tower(batch, vectors_BTD)
    for place in range(users_BTD.shape[1]):
        (by_place_BTD,) = torch.autograd.grad(users_BTD[:, place].square().sum(), vectors_BTD, retain_graph=True)
        assert not by_place_BTD[:, place:].any()
        assert place == 0 or by_place_BTD[0, :place].abs().sum() > 0


def test_what_is_padding_does_not_count() -> None:
    tower = make_tower(ordered=True)
    chunks = Chunks(random_histories([3, 9], ordered=True), size=10, user_weight=1.0, seed=0)
    vectors_ID = torch.from_numpy(VECTORS_ID)
    alone, together = chunks[np.array([0])], chunks[np.array([0, 1])]
    assert torch.allclose(
        tower(alone, vectors_ID[alone.items_BT])[0], tower(together, vectors_ID[together.items_BT])[0, :3], atol=1e-6
    )


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("ordered", [True, False])
def test_vectors_follow_the_formula(ordered: bool, power: float) -> None:
    tower = make_tower(ordered=ordered, power=power)
    histories = random_histories([5, 0, 9], ordered=ordered, weighted=True)
    found = tower.vectors(histories, VECTORS_ID)
    rates_K, gap_rates_K = (x.detach().exp().numpy() for x in (tower.log_rates_K, tower.log_gap_rates_K))
    mix_KDE = tower.mix_KDE.detach().numpy()
    for user in range(3):
        own = histories.select(np.array([user]))
        expected_D = tower.null_D.detach().numpy().astype(np.float64)
        for k in range(len(rates_K)):
            sum_D, total = np.zeros(DIM), 0.0
            for place, (item, weight) in enumerate(zip(own.items_N, own.weights_N, strict=True)):
                later = len(own.items_N) - 1 - place
                age = (rates_K[k] * later + gap_rates_K[k] * own.log_gaps_N[place + 1 :].sum()) if ordered else 0.0
                sum_D += weight * np.exp(-age) * VECTORS_ID[item]
                total += abs(weight) * np.exp(-age)
            expected_D = expected_D + sum_D / max(total, 1e-6) ** power @ mix_KDE[k]
        assert np.allclose(found[user], expected_D, atol=1e-4), user
    assert found.dtype == np.float32 and np.allclose(found[1], tower.null_D.detach().numpy())


def test_long_gaps_and_long_histories_stay_finite() -> None:
    tower = make_tower(ordered=True)
    days_N = np.concatenate([np.zeros(3000), np.linspace(0, 1e5, 3000)])
    histories = Histories.of(np.repeat([0, 1], 3000), np.arange(6000) % NUM_ITEMS, 2, days_N=days_N)
    vectors_UD = tower.vectors(histories, VECTORS_ID)
    assert np.isfinite(vectors_UD).all()
    assert np.allclose(vectors_UD[1], tower.vectors(histories.select(np.array([1])), VECTORS_ID)[0], atol=1e-4)


def test_an_untrained_tower_is_the_mean_of_its_averages() -> None:
    histories = histories_of([[3, 4, 5]], ordered=False)
    plain = UserTower(DIM, (), power=1.0, learned=False)
    assert np.allclose(plain.vectors(histories, VECTORS_ID)[0], VECTORS_ID[3:6].mean(0), atol=1e-6)
    assert not any(parameter.requires_grad for parameter in plain.parameters())
    slow = UserTower(DIM, (1e9, 1e9))
    in_order = histories_of([[3, 4, 5]], ordered=True)
    assert np.allclose(slow.vectors(in_order, VECTORS_ID)[0], VECTORS_ID[3:6].sum(0) / 3**0.5, atol=1e-4)


def test_an_average_halves_in_its_half_life() -> None:
    tower = UserTower(DIM, (2.0,), power=0.0)
    sums, totals = tower.sums(histories_of([[7, 8, 9]], ordered=True), VECTORS_ID)
    expected = 0.5 * VECTORS_ID[7] + 0.5**0.5 * VECTORS_ID[8] + VECTORS_ID[9]
    assert np.allclose(sums[0, 0], expected, atol=1e-5) and totals[0, 0] == pytest.approx(1.5 + 0.5**0.5)
