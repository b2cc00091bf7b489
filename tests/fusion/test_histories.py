"""Histories in order, and the pieces that training learns from: nothing is lost, nothing is seen twice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fusion_data import all_pieces, histories_of, random_histories
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.config import TrainingError
from fusion.histories import ChunkBatches, Chunks, Histories

USERS = np.array([1, 0, 1, 1, 0, 3])
ITEMS = np.array([7, 7, 3, 5, 2, 9])
DAYS = np.array([2.0, 5.0, 1.0, 2.0, 4.0, 8.0])


def make_chunks(histories: Histories, size: int, user_weight: float = 1.0, seed: int = 0) -> Chunks:
    return Chunks(histories, size=size, user_weight=user_weight, seed=seed)


# --- histories --------------------------------------------------------------------------------------------------------


def test_users_stand_in_the_order_of_time_and_ties_in_that_of_rows() -> None:
    histories = Histories.of(USERS, ITEMS, 5, days_N=DAYS)
    assert histories.items_N.tolist() == [2, 7, 3, 7, 5, 9]  # 7 before 5: the same day, the row before
    assert histories.offsets_U.tolist() == [0, 2, 5, 5, 6, 6] and len(histories) == 5
    assert histories.users_N.tolist() == [0, 0, 1, 1, 1, 3] and histories.lengths_U.tolist() == [2, 3, 0, 1, 0]
    assert histories.weights_N.tolist() == [1] * 6


def test_without_times_or_order_rows_stay_as_they_are() -> None:
    for histories in (Histories.of(USERS, ITEMS, 5), Histories.of(USERS, ITEMS, 5, days_N=DAYS, ordered=False)):
        assert histories.items_N.tolist() == [7, 2, 7, 3, 5, 9]


def test_weights_go_with_their_interactions() -> None:
    weights = np.array([3, 1, -2, 0, 2, 1], np.float32)
    assert Histories.of(USERS, ITEMS, 4, weights_N=weights, days_N=DAYS).weights_N.tolist() == [2, 1, -2, 3, 0, 1]


def test_gaps_are_logs_of_days_within_a_user() -> None:
    log_gaps = Histories.of(USERS, ITEMS, 5, days_N=DAYS).log_gaps_N
    assert np.allclose(log_gaps, [0, np.log(2), 0, np.log(2), 0, 0])
    assert not Histories.of(USERS, ITEMS, 5).log_gaps_N.any()
    assert not Histories.of(USERS, ITEMS, 5, days_N=DAYS, ordered=False).log_gaps_N.any()


def test_selected_users_keep_all_that_is_theirs() -> None:
    histories = random_histories([3, 0, 5, 1], ordered=True, weighted=True)
    chosen = histories.select(np.array([2, 1, 2, 0]))
    assert chosen.lengths_U.tolist() == [5, 0, 5, 3] and chosen.ordered
    assert chosen.days_N is not None and histories.days_N is not None
    for ours, theirs in (
        (chosen.items_N, histories.items_N),
        (chosen.weights_N, histories.weights_N),
        (chosen.days_N, histories.days_N),
        (chosen.log_gaps_N, histories.log_gaps_N),
    ):
        assert ours.tolist() == [*theirs[3:8], *theirs[3:8], *theirs[:3]]
    assert len(histories.select(np.array([], np.int64))) == 0


def test_arrays_tell_histories_apart() -> None:
    def digest(histories: Histories) -> list[list[float]]:
        return [array.tolist() for array in histories.arrays()]

    plain = digest(Histories.of(USERS, ITEMS, 5))
    assert plain == digest(Histories.of(USERS, ITEMS, 5))
    assert plain != digest(Histories.of(USERS, ITEMS, 5, ordered=False))
    assert plain != digest(Histories.of(USERS, ITEMS, 5, days_N=DAYS))
    assert plain != digest(Histories.of(USERS, ITEMS, 5, weights_N=np.full(6, 2, np.float32)))


# --- pieces -----------------------------------------------------------------------------------------------------------

sizes = st.lists(st.integers(0, 12), min_size=1, max_size=6).filter(lambda lengths: max(lengths) > 1)


@settings(deadline=None, max_examples=60)
@given(lengths=sizes, size=st.integers(2, 9), ordered=st.booleans(), weighted=st.booleans(), seed=st.integers(0, 9))
def test_every_positive_interaction_is_a_target_once(
    lengths: list[int], size: int, ordered: bool, weighted: bool, seed: int
) -> None:
    histories = random_histories(lengths, ordered=ordered, seed=seed, weighted=weighted)
    counts_N = (histories.weights_N > 0) & (ordered | (histories.lengths_U[histories.users_N] > 1))
    expected = sorted(histories.items_N[counts_N].tolist())
    if not expected:
        with pytest.raises(TrainingError, match="nothing to learn from"):
            make_chunks(histories, size)
        return
    chunks = make_chunks(histories, size)
    batch = all_pieces(chunks)
    assert sorted(batch.items_BT[batch.targets_BT].tolist()) == expected and chunks.num_targets == len(expected)
    assert (batch.targets_BT.sum(1) <= max(size, 3)).all() and (ordered or (batch.there_BT.sum(1) > 1).all())
    owner = dict(zip(histories.items_N.tolist(), histories.users_N.tolist(), strict=True))
    for items_T, there_T in zip(batch.items_BT, batch.there_BT, strict=True):
        assert len({owner[item] for item in items_T[there_T].tolist()}) == 1


def test_ordered_pieces_start_with_context() -> None:
    batch = all_pieces(make_chunks(histories_of([range(10), [20, 21]], ordered=True), 4))
    assert [row[there].tolist() for row, there in zip(batch.items_BT, batch.there_BT, strict=True)] == [
        [0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 6, 7], [4, 5, 6, 7, 8, 9], [20, 21],
    ]  # fmt: skip
    assert [row[there].tolist() for row, there in zip(batch.items_BT, batch.targets_BT, strict=True)] == [
        [0, 1, 2, 3], [4, 5, 6, 7], [8, 9], [20, 21],
    ]  # fmt: skip
    assert batch.ordered and not batch.items_BT[~batch.there_BT].any() and not batch.weights_BT[~batch.there_BT].any()


def test_gaps_of_a_piece_are_those_of_the_history() -> None:
    histories = histories_of([range(6)], ordered=True, gaps=True)
    batch = all_pieces(make_chunks(histories, 2))
    assert torch.allclose(batch.log_gaps_BT[1], torch.from_numpy(histories.log_gaps_N[:4]))
    assert torch.allclose(batch.log_gaps_BT[2], torch.from_numpy(histories.log_gaps_N[2:6]))


@pytest.mark.parametrize(("length", "size"), [(10, 4), (7, 6), (3, 2), (5, 2), (100, 7)])
def test_pieces_without_order_are_even_and_random(length: int, size: int) -> None:
    histories = histories_of([range(length)], ordered=False)
    chunks = make_chunks(histories, size)
    batch = all_pieces(chunks)
    lengths = batch.there_BT.sum(1)
    assert lengths.max() - lengths.min() <= 1 and lengths.min() >= 2 and lengths.max() <= max(size, 3)
    assert torch.equal(batch.targets_BT, batch.there_BT)
    again, other = (all_pieces(make_chunks(histories, size, seed=seed)) for seed in (0, 1))
    assert torch.equal(again.items_BT, batch.items_BT)
    assert not torch.equal(other.items_BT, batch.items_BT)


@pytest.mark.parametrize("ordered", [True, False])
def test_weights_of_0_and_below_are_no_targets_but_context(ordered: bool) -> None:
    histories = Histories.of(
        np.zeros(4, int), np.arange(4), 1, weights_N=np.array([1, 0, -1, 1], np.float32), ordered=ordered
    )
    batch = all_pieces(make_chunks(histories, 10))
    targets = batch.items_BT[batch.targets_BT].tolist()
    assert sorted(targets) == [0, 3] and batch.there_BT.sum() == 4
    assert sorted(batch.weights_BT[batch.there_BT].tolist()) == [-1, 0, 1, 1]


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("user_weight", [0.0, 0.5, 1.0])
def test_importance_follows_the_length_of_histories(ordered: bool, user_weight: float) -> None:
    histories = random_histories([2, 8, 20, 1], ordered=ordered, seed=3)
    batch = all_pieces(make_chunks(histories, 5, user_weight=user_weight))
    importance_P, items_P = batch.importance_BT[batch.targets_BT], batch.items_BT[batch.targets_BT]
    length_of = dict(zip(histories.items_N.tolist(), histories.lengths_U[histories.users_N].tolist(), strict=True))
    lengths_P = torch.tensor([length_of[item] for item in items_P.tolist()], dtype=torch.float32)
    assert len(items_P) == 30 + ordered
    assert importance_P.mean() == pytest.approx(1.0, abs=1e-5)
    share_P = importance_P / lengths_P ** (user_weight - 1)
    assert torch.allclose(share_P, share_P[0].expand_as(share_P), rtol=1e-4)


@pytest.mark.parametrize(
    ("lists", "ordered", "words"),
    [([[1], [2]], False, "no user has two interactions"), ([[], []], True, "positive weight")],
)
def test_histories_that_teach_nothing(lists: list[list[int]], ordered: bool, words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        make_chunks(histories_of(lists, ordered=ordered), 10)


# --- batches ----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(lengths=sizes, size=st.integers(2, 9), num_targets=st.integers(1, 40), seed=st.integers(0, 9))
def test_every_epoch_has_all_pieces_in_as_many_batches(
    lengths: list[int], size: int, num_targets: int, seed: int
) -> None:
    chunks = make_chunks(random_histories(lengths, ordered=True, seed=seed), size)
    batches = ChunkBatches(chunks, num_targets, seed)
    for epoch in range(4):
        batches.set_epoch(epoch)
        pieces = list(batches)
        assert sorted(np.concatenate(pieces)) == list(range(len(chunks)))
        assert len(pieces) == len(batches) and all(len(piece) for piece in pieces)


def test_batches_have_about_as_many_targets_and_another_order_in_each_epoch() -> None:
    chunks = make_chunks(random_histories([5, 9, 2, 7] * 50, ordered=True), 5)
    batches = ChunkBatches(chunks, 100, 0)
    first = [piece.tolist() for piece in batches]
    assert [piece.tolist() for piece in batches] == first
    assert all(80 <= chunks.num_targets_C[piece].sum() <= 120 for piece in first)
    batches.set_epoch(1)
    assert [piece.tolist() for piece in batches] != first
    assert [piece.tolist() for piece in ChunkBatches(chunks, 100, 1)] != first
