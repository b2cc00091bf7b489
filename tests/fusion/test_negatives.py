"""Sampled candidates: who is drawn how often, and that the sampled softmax leads where the full one does."""

from __future__ import annotations

import pytest
import torch
from fusion_data import histories_of, random_histories, random_table

from fusion.attention import FUSIONS
from fusion.config import FusionConfig
from fusion.histories import Histories
from fusion.item_tower import ItemTower
from fusion.negatives import CandidateSampler
from fusion.tasks import RankingTask, target_counts
from fusion.tower import Towers
from fusion.user_tower import UserTower

COUNTS_I = torch.tensor([50, 0, 1, 3, 20, 0, 10, 5, 1, 10])
KNOWN = COUNTS_I.nonzero().flatten()


def draw_targets(num_targets: int) -> torch.Tensor:
    return torch.multinomial(COUNTS_I.float(), num_targets, replacement=True)


@pytest.mark.parametrize(("num_uniform", "num_popular"), [(4, 0), (0, 4), (3, 5), (0, 0)])
def test_chances_are_what_they_are_said_to_be(num_uniform: int, num_popular: int) -> None:
    torch.manual_seed(0)
    num_targets, draws = 4, 8000
    sampler = CandidateSampler(COUNTS_I, num_targets, num_uniform, num_popular)
    times_I = torch.zeros(len(COUNTS_I))
    for _ in range(draws):
        candidates_C, log_q_C = sampler.draw(draw_targets(num_targets))
        times_I[candidates_C] += 1
        assert torch.equal(log_q_C, sampler.log_q_I[candidates_C])
    share_I, chance_I = times_I[KNOWN] / draws, sampler.log_q_I[KNOWN].exp()
    error_I = (share_I * (1 - share_I) / draws).sqrt()
    # What is drawn in one of a few draws is there a little more often than by a Poisson process of the same rate.
    rate_I = -torch.log1p(-chance_I)
    share_of_one_draw_I = rate_I / (num_targets + num_uniform + num_popular)
    assert (share_I >= chance_I - 5 * error_I - 1e-3).all()
    assert (share_I <= chance_I + 5 * error_I + 0.5 * rate_I * share_of_one_draw_I + 1e-3).all()


def test_candidates_are_all_targets_and_items_that_are_known() -> None:
    sampler = CandidateSampler(COUNTS_I, 8, 50, 50)
    for seed in range(50):
        torch.manual_seed(seed)
        targets_P = draw_targets(8)
        candidates_C, log_q_C = sampler.draw(targets_P)
        assert (COUNTS_I[candidates_C] > 0).all() and torch.isin(targets_P, candidates_C).all()
        assert (candidates_C.diff() > 0).all() and (log_q_C <= 0).all()


def test_popular_items_are_drawn_more_often() -> None:
    log_q_I = CandidateSampler(COUNTS_I, 4, 4, 4).log_q_I
    assert log_q_I[0] > log_q_I[4] > log_q_I[6] > log_q_I[7] > log_q_I[2]
    assert log_q_I[6] == log_q_I[9] and log_q_I[2] == log_q_I[8]
    even = CandidateSampler(COUNTS_I, 0, 5, 0).log_q_I[KNOWN]
    assert torch.allclose(even, even[:1].expand_as(even))


# --- the sampled softmax ----------------------------------------------------------------------------------------------


def make_task(histories: Histories, full_softmax_items: int, **settings: float) -> RankingTask:
    torch.manual_seed(0)
    table = random_table()
    config = FusionConfig(
        dim=16, num_heads=2, input_dropout=0.0, history_dropout=0.0, id_dropout=0.0, user_weight=1.0,
        full_softmax_items=full_softmax_items, **settings,
    )  # fmt: skip
    counts_I = torch.from_numpy(target_counts(histories, len(table), 1.0))
    fusion = FUSIONS["attention"](table.widths, dim=16, num_heads=2, input_dropout=0.0)
    fusion.calibrate(table.tokens, table.masks)
    items = ItemTower(fusion, counts_I, id_dropout=0.0, sparse=not full_softmax_items)
    users = UserTower(16, (2.0, 9.0) if histories.ordered else ())
    return RankingTask(Towers(fusion, items, users), table, table, histories, config, None)


@pytest.mark.parametrize("ordered", [True, False])
def test_with_all_candidates_and_no_correction_it_is_the_full_one(ordered: bool) -> None:
    histories = random_histories([6, 4, 9], ordered=ordered)
    full, sampled = make_task(histories, 4096), make_task(histories, 0)
    assert full.sampler is None and sampled.sampler is not None
    candidates = sampled.sampler.known
    sampled.sampler.draw = lambda targets_P: (candidates, torch.zeros(len(candidates)))  # type: ignore[method-assign]
    (batch,) = full.batches()
    losses = [task.loss(batch) for task in (full, sampled)]
    assert torch.allclose(losses[0], losses[1], atol=1e-5)
    for loss in losses:
        loss.backward()
    for ours, theirs in zip(full.parameters(), sampled.parameters(), strict=True):
        if ours.grad is not None:
            assert theirs.grad is not None
            assert torch.allclose(ours.grad, theirs.grad.to_dense(), atol=1e-5)


@pytest.mark.parametrize("ordered", [True, False])
def test_other_items_of_the_user_are_no_negatives(ordered: bool) -> None:
    histories = histories_of([[3, 1, 0, 2], [6, 7]], ordered=ordered)
    task = make_task(histories, 4096)
    (batch,) = task.batches()
    loss = task.loss(batch).item()
    items = task.items(task.table, task.rows)
    losses = []
    for own in ([3, 1, 0, 2], [6, 7]):
        for place, target in enumerate(own):
            before = own[:place] if ordered else [item for item in own if item != target]
            history = histories_of([before], ordered=ordered)
            with torch.no_grad():
                vector_D = torch.from_numpy(task.towers.users.vectors(history, items.vectors_ID.detach().numpy())[0])
            allowed = [item for item in (0, 1, 2, 3, 6, 7) if item not in before]
            scores = items.vectors_ID[allowed] @ vector_D + items.bias_I[allowed]
            losses.append(float(scores.logsumexp(0) - scores[allowed.index(target)]))
    assert loss == pytest.approx(sum(losses) / len(losses), abs=1e-4)


def test_corrected_scores_add_up_to_those_of_all_items_on_average() -> None:
    torch.manual_seed(1)
    scores_I = torch.randn(len(COUNTS_I))
    sampler = CandidateSampler(COUNTS_I, 4, 6, 6)
    draws = [sampler.draw(draw_targets(4)) for _ in range(3000)]
    sums = torch.stack([(scores_I[candidates_C] - log_q_C).exp().sum() for candidates_C, log_q_C in draws])
    assert sums.mean() == pytest.approx(float(scores_I[KNOWN].exp().sum()), rel=0.05)
