"""Objectives against torch's own losses and plain loops."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from fusion.objectives import adversarial, bpr, full_softmax, in_batch_softmax, modality_alignment, sampled_binary

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


def test_in_batch_softmax_corrects_popularity_and_duplicates() -> None:
    log_popularity_B = torch.rand(6).log()
    log_popularity_B[2] = log_popularity_B[1]
    items_BD, bias_B = ITEMS_ID[TARGETS_B], BIAS_I[TARGETS_B]
    loss = in_batch_softmax(USERS_BD, items_BD, TARGETS_B, log_popularity_B, bias_B=bias_B)
    total = 0.0
    for row in range(6):
        columns = [c for c in range(6) if c == row or TARGETS_B[c] != TARGETS_B[row]]
        scores = [float(USERS_BD[row] @ items_BD[c] + bias_B[c] - log_popularity_B[c]) for c in columns]
        total += math.log(sum(math.exp(s) for s in scores)) - scores[columns.index(row)]
    assert math.isclose(float(loss), total / 6, rel_tol=1e-5)


def test_sampled_losses_match_torch() -> None:
    positive_B, negative_BN = torch.randn(6), torch.randn(6, 3)
    binary = (
        F.binary_cross_entropy_with_logits(positive_B, torch.ones(6))
        + F.binary_cross_entropy_with_logits(negative_BN, torch.zeros(6, 3))
    ) / 2
    assert torch.allclose(sampled_binary(positive_B, negative_BN), binary, atol=1e-6)
    pairwise = -F.logsigmoid(positive_B.unsqueeze(1) - negative_BN).mean()
    assert torch.allclose(bpr(positive_B, negative_BN), pairwise, atol=1e-6)


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


def test_adversarial_moves_along_the_gradient() -> None:
    tokens = {"visual": torch.randn(4, 2, 3), "audio": torch.randn(4, 1, 5)}
    weights = {m: torch.randn(x.shape) for m, x in tokens.items()}

    def linear(given):  # type: ignore[no-untyped-def]
        return sum((given[m] * weights[m]).sum() for m in given)

    worst = adversarial(linear, tokens, epsilon=0.5)
    steps = sum(0.5 * weights[m].flatten(1).norm(dim=1).sum() for m in tokens)  # the most an L2 ball allows
    assert torch.allclose(worst, linear(tokens) + steps, rtol=1e-4)


def test_adversarial_trains_the_parameters_and_allows_unused_modalities() -> None:
    weight = torch.randn(3, requires_grad=True)
    tokens = {"visual": torch.randn(4, 2, 3), "audio": torch.randn(4, 1, 5)}
    adversarial(lambda given: (given["visual"] @ weight).pow(2).mean(), tokens, epsilon=0.1).backward()
    assert weight.grad is not None and weight.grad.abs().sum() > 0
