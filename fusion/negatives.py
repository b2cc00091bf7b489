"""Which items a target is told apart from, where a catalog is too large to score whole."""

from __future__ import annotations

import torch
from torch import Tensor


class CandidateSampler:
    """Draws the candidates of a step: the targets of the batch, and negatives drawn evenly and by popularity.

    A popular item stands in many batches; subtracting the log of the chance to be drawn from every score corrects that
    (logQ; Yi et al. 2019), and even draws let rare items be negatives too (mixed negative sampling; Yang et al. 2020).

    Args:
        counts_I: how often each item is a target; items with none are never drawn.
        num_targets: about how many targets a batch has.
        num_uniform: negatives drawn evenly, with replacement.
        num_popular: negatives drawn by `counts ** 0.75`, with replacement (Mikolov et al. 2013).
    """

    def __init__(self, counts_I: Tensor, num_targets: int, num_uniform: int, num_popular: int) -> None:
        self.known = counts_I.nonzero().flatten()
        counts_K = counts_I[self.known].double()
        popular_K = counts_K**0.75
        popular_K = popular_K / popular_K.sum()
        expected_K = num_targets * counts_K / counts_K.sum() + num_uniform / len(counts_K) + num_popular * popular_K
        self.log_q_I = torch.zeros(len(counts_I)).index_copy(
            0, self.known, torch.expm1(-expected_K).neg().log().float()
        )
        self.cumulative_K = popular_K.cumsum(0)
        self.num_uniform, self.num_popular = num_uniform, num_popular

    def to(self, device: torch.device) -> CandidateSampler:
        for name in ("known", "log_q_I", "cumulative_K"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    def __deepcopy__(self, memo: object) -> CandidateSampler:
        return self

    def draw(self, targets_P: Tensor) -> tuple[Tensor, Tensor]:
        """The rows of the candidates `(C,)`, ascending, and the logs of their chances to be among them `(C,)`."""
        device = targets_P.device
        uniform = self.known[torch.randint(len(self.known), (self.num_uniform,), device=device)]
        places = torch.searchsorted(self.cumulative_K, torch.rand(self.num_popular, device=device, dtype=torch.float64))
        popular = self.known[places.clamp(max=len(self.known) - 1)]
        candidates_C = torch.unique(torch.cat([targets_P, uniform, popular]))
        return candidates_C, self.log_q_I[candidates_C]
