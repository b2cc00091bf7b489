"""Objectives against torch's own losses and plain loops."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from fusion.objectives import full_softmax, modality_alignment, weighted_softmax

torch.manual_seed(0)
USERS_BD = torch.randn(6, 8)
ITEMS_ID = torch.randn(20, 8)
TARGETS_B = torch.tensor([0, 3, 3, 7, 19, 11])
BIAS_I = torch.randn(20)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_full_softmax_is_cross_entropy(label_smoothing: float) -> None:
    expected = F.cross_entropy(USERS_BD @ ITEMS_ID.T + BIAS_I, TARGETS_B, label_smoothing=label_smoothing)
    loss = full_softmax(USERS_BD, ITEMS_ID, TARGETS_B, bias_I=BIAS_I, label_smoothing=label_smoothing)
    assert torch.allclose(loss, expected, atol=1e-5)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_hidden_pairs_are_no_candidates(label_smoothing: float) -> None:
    excluded = (torch.tensor([0, 0, 5]), torch.tensor([1, 2, 0]))
    items_ID = ITEMS_ID.clone().requires_grad_()
    loss = full_softmax(USERS_BD, items_ID, TARGETS_B, excluded=excluded, label_smoothing=label_smoothing)
    total = 0.0
    for row, target in enumerate(TARGETS_B.tolist()):
        out = {int(c) for r, c in zip(*excluded, strict=True) if r == row}
        kept = [c for c in range(20) if c not in out]
        scores = ITEMS_ID[kept] @ USERS_BD[row]
        expected = F.cross_entropy(
            scores.unsqueeze(0), torch.tensor([kept.index(target)]), label_smoothing=label_smoothing
        )
        total += float(expected)
    assert math.isclose(loss.item(), total / 6, rel_tol=1e-5)
    loss.backward()
    assert items_ID.grad is not None and items_ID.grad.isfinite().all()


def test_hidden_target_is_refused() -> None:
    with pytest.raises(ValueError, match="target"):
        full_softmax(USERS_BD, ITEMS_ID, TARGETS_B, excluded=(torch.tensor([1]), torch.tensor([3])))


NOBODY = (torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long))
EXCLUDED = (torch.tensor([0, 0, 2, 5]), torch.tensor([1, 2, 9, 0]))


def weighted_and_plain(
    weights_P: torch.Tensor, excluded: tuple[torch.Tensor, torch.Tensor], users_at_once: int
) -> list[tuple[torch.Tensor, ...]]:
    """The loss and its gradients, by `weighted_softmax` and by torch's own cross-entropy."""
    found = []
    for is_plain in (False, True):
        users_PD, items_CD, bias_C = (x.clone().requires_grad_() for x in (USERS_BD, ITEMS_ID, BIAS_I))
        if is_plain:
            scores_PC = users_PD @ items_CD.T + bias_C
            scores_PC = scores_PC.index_put(excluded, torch.tensor(-torch.inf))
            losses_P = F.cross_entropy(scores_PC, TARGETS_B, reduction="none")
            loss = (losses_P * weights_P).sum() / weights_P.sum()
        else:
            loss = weighted_softmax(
                users_PD, items_CD, bias_C, TARGETS_B, weights_P, excluded, users_at_once=users_at_once
            )
        loss.backward()
        found.append((loss, *(x.grad for x in (users_PD, items_CD, bias_C) if x.grad is not None)))
    return found


@pytest.mark.parametrize("users_at_once", [1, 2, 4, 5, 6, 7, 256])
@pytest.mark.parametrize("excluded", [NOBODY, EXCLUDED], ids=["all", "excluded"])
@pytest.mark.parametrize("weights", [[1.0] * 6, [0.5, 2.0, 1.0, 0.1, 3.0, 0.0]])
def test_weighted_softmax_is_cross_entropy(
    users_at_once: int, excluded: tuple[torch.Tensor, torch.Tensor], weights: list[float]
) -> None:
    ours, plain = weighted_and_plain(torch.tensor(weights), excluded, users_at_once)
    assert len(ours) == len(plain) == 4
    for one, other in zip(ours, plain, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_weighted_softmax_follows_a_scaled_loss() -> None:
    """The gradient is formed before the loss is scaled, as where it is added to another one."""
    gradients = []
    for scale in (1.0, -3.0):
        users_PD = USERS_BD.clone().requires_grad_()
        loss = weighted_softmax(users_PD, ITEMS_ID, BIAS_I, TARGETS_B, torch.ones(6), NOBODY)
        (scale * loss).backward()
        assert users_PD.grad is not None
        gradients.append(users_PD.grad)
    assert torch.allclose(gradients[1], -3 * gradients[0], atol=1e-6)


def test_weighted_softmax_survives_large_scores() -> None:
    loss = weighted_softmax(USERS_BD * 1e4, ITEMS_ID, BIAS_I, TARGETS_B, torch.ones(6), EXCLUDED)
    assert loss.isfinite() and loss >= 0


def test_excluded_pairs_have_no_gradient() -> None:
    items_ID = ITEMS_ID.clone().requires_grad_()
    everybody = (torch.arange(6), torch.full((6,), 5))  # nobody's target
    weighted_softmax(USERS_BD, items_ID, BIAS_I, TARGETS_B, torch.ones(6), everybody, users_at_once=4).backward()
    assert items_ID.grad is not None and not items_ID.grad[5].any() and items_ID.grad[6].any()


def test_alignment_is_symmetric_cross_entropy_over_shared_items() -> None:
    visual, audio = (F.normalize(torch.randn(5, 8), dim=1) for _ in range(2))
    there = {"visual": torch.tensor([True, True, True, True, False]), "audio": torch.ones(5, dtype=torch.bool)}
    loss = modality_alignment({"visual": visual, "audio": audio}, there, temperature=0.1)
    logits = visual[:4] @ audio[:4].T / 0.1
    expected = (F.cross_entropy(logits, torch.arange(4)) + F.cross_entropy(logits.T, torch.arange(4))) / 2
    assert torch.allclose(loss, expected)


def test_alignment_without_shared_items_is_zero_and_has_a_gradient() -> None:
    vectors = torch.randn(3, 8, requires_grad=True)
    loss = modality_alignment({"visual": vectors}, {"visual": torch.ones(3, dtype=torch.bool)})
    loss.backward()
    assert loss.item() == 0 and vectors.grad is not None
