"""Dropout that draws its mask fast on a CPU, where a step of a small fit would spend a third of its time on it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_LEVELS = 2**16
_DRAW = torch.iinfo(torch.int64)


def dropout(x: Tensor, share: float) -> Tensor:
    """`x` with a share of its numbers, chosen at random, set to zero, and the others made larger to make up for it.

    On a CPU, four numbers are decided by one draw, where `torch.nn.functional.dropout` draws for each; a share is
    rounded to a 65,536th.

    >>> torch.manual_seed(0).initial_seed()
    0
    >>> dropout(torch.ones(6), 0.5)
    tensor([0., 0., 2., 0., 0., 0.])
    """
    if not share:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, share)
    level = round(share * _LEVELS)
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(_DRAW.min, None)  # all 64 bits of each
    kept = draws.view(torch.int16)[: x.numel()].view(x.shape) >= level - _LEVELS // 2
    return (x * kept).mul_(1 / (1 - level / _LEVELS))
