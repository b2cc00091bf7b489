"""Dropout: how much of what is set to zero, and what becomes of the rest."""

from __future__ import annotations

import pytest
import torch

from fusion.dropout import dropout


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9])
def test_a_share_is_zero_and_the_mean_stays(share: float) -> None:
    torch.manual_seed(0)
    dropped = dropout(torch.ones(999, 1003), share)
    assert (dropped == 0).float().mean().item() == pytest.approx(share, abs=0.002)
    assert dropped.mean().item() == pytest.approx(1, abs=0.005)
    assert dropped[dropped > 0].unique().tolist() == pytest.approx([1 / (1 - share)], rel=1e-4)


def test_neighbours_fall_independently_of_each_other() -> None:
    torch.manual_seed(0)
    zero_N8 = (dropout(torch.ones(100_000, 8), 0.5) == 0).float()  # two draws a row
    off_diagonal = torch.corrcoef(zero_N8.T) - torch.eye(8)
    assert off_diagonal.abs().max() < 0.02
    assert (zero_N8.mean(0) - 0.5).abs().max() < 0.01


def test_gradients_pass_where_numbers_stay() -> None:
    torch.manual_seed(0)
    x = torch.randn(50, 7, requires_grad=True)
    dropped = dropout(x, 0.4)
    dropped.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x.detach(), dropped.detach())
