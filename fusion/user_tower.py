"""The user tower: a user vector from exponential averages of the history's item vectors.

For a user's interactions in order, with item vectors `v`, weights `w` and ages `a` (in interactions and in gaps of
time), the state after each is

    ema_k  = sum_j w_j exp(-a_jk) v_j / (sum_j |w_j| exp(-a_jk)) ** power        for each of K learned rates
    user   = sum_k ema_k P_k + null

It is a linear function of the item vectors, so a score stays one dot product, and a few running sums, so a new
interaction updates a user at once. Without order all rates are zero, and one average remains, as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fusion.histories import ChunkBatch, Histories

Floats = NDArray[np.float32]

LEAST_WEIGHT = 1e-6


class UserTower(nn.Module):
    """See the module's text.

    Args:
        dim: the width of item and user vectors.
        half_lives: of the K averages, in interactions, where training starts; none for users without order.
        power: 0.5 lets longer histories count for more, 1 is the mean, 0 the sum.
        shortening: how often, in training and without order, a target is predicted from one other interaction alone,
            as of a new user.
        learned: False fixes everything: users are the average of their history.
    """

    def __init__(
        self,
        dim: int,
        half_lives: Sequence[float],
        *,
        power: float = 0.5,
        learned: bool = True,
        shortening: float = 0.0,
    ) -> None:
        super().__init__()
        self.shortening = shortening
        self.power, self.ordered = power, bool(half_lives)
        is_learned = learned and self.ordered
        count = max(1, len(half_lives))
        rates_K = torch.tensor([math.log(2) / h for h in half_lives] or [1.0])
        self.log_rates_K = nn.Parameter(rates_K.log(), requires_grad=is_learned)
        self.log_gap_rates_K = nn.Parameter(torch.full((count,), -2.0), requires_grad=is_learned)
        self.mix_KDE = nn.Parameter((torch.eye(dim) / count).repeat(count, 1, 1), requires_grad=is_learned)
        self.null_D = nn.Parameter(torch.zeros(dim), requires_grad=learned)

    @torch.no_grad()
    def widened(self, count: int) -> UserTower:
        """The same tower for item vectors with `count` more places, which each average takes as they are."""
        averages, dim, _ = self.mix_KDE.shape
        wide = UserTower(dim + count, [1.0] * averages if self.ordered else [], power=self.power)
        wide.log_rates_K.copy_(self.log_rates_K)
        wide.log_gap_rates_K.copy_(self.log_gap_rates_K)
        wide.mix_KDE[:, :dim, :dim] = self.mix_KDE
        wide.null_D[:dim] = self.null_D
        return wide.train(self.training)

    def decays(self, log_gaps: Tensor) -> Tensor:
        """How much an interaction after such a gap `(...)` adds to the ages `(..., K)` of those before it."""
        if not self.ordered:
            return torch.zeros_like(log_gaps).unsqueeze(-1)
        return self.log_rates_K.exp() + log_gaps.unsqueeze(-1) * self.log_gap_rates_K.exp()

    def forward(self, batch: ChunkBatch, vectors_BTD: Tensor) -> Tensor:
        """The user vectors `(B, T, D)` that predict each place of a batch, from the vectors of its items."""
        kernel_BKTT = self._kernel(batch) * batch.weights_BT[:, None, None, :]
        ema_BKTD = kernel_BKTT @ vectors_BTD.unsqueeze(1)
        return self._mix(ema_BKTD.transpose(1, 2), kernel_BKTT.abs().sum(3).transpose(1, 2))

    def _kernel(self, batch: ChunkBatch) -> Tensor:
        """exp(-age) `(B, K, T, T)` of each place when another is predicted; 0 where it does not count."""
        length = batch.items_BT.shape[1]
        if not batch.ordered:
            others_TT = ~torch.eye(length, dtype=torch.bool, device=batch.items_BT.device)
            kernel_B1TT = (others_TT & batch.there_BT[:, None, None]).to(batch.weights_BT.dtype)
            return self._shortened(kernel_B1TT) if self.training and self.shortening else kernel_B1TT
        clock_BKT = self.decays(batch.log_gaps_BT).cumsum(1).transpose(1, 2)
        before_BKT = torch.nn.functional.pad(clock_BKT, (1, 0))[..., :-1]
        ages_BKTT = before_BKT.unsqueeze(3) - clock_BKT.unsqueeze(2)
        earlier_TT = torch.ones(length, length, dtype=torch.bool, device=clock_BKT.device).tril(-1)
        return ages_BKTT.masked_fill(~earlier_TT, torch.inf).neg().exp()

    def _shortened(self, kernel_B1TT: Tensor) -> Tensor:
        drawn_B1TT = torch.rand_like(kernel_B1TT) * kernel_B1TT
        one_B1TT = torch.zeros_like(kernel_B1TT).scatter(3, drawn_B1TT.argmax(3, keepdim=True), 1.0) * kernel_B1TT
        return torch.where(torch.rand_like(kernel_B1TT[..., :1]) < self.shortening, one_B1TT, kernel_B1TT)

    def _mix(self, sums: Tensor, totals: Tensor) -> Tensor:
        """User vectors `(..., D)` from the sums `(..., K, D)` and their weights `(..., K)`."""
        averages = sums / totals.clamp(min=LEAST_WEIGHT).unsqueeze(-1) ** self.power
        return averages.flatten(-2) @ self.mix_KDE.flatten(0, 1) + self.null_D

    @torch.no_grad()
    def vectors(self, histories: Histories, vectors_ID: Floats) -> Floats:
        """The user vectors `(U, D)` after whole histories."""
        return self.vectors_of(*self.sums(histories, vectors_ID))

    @torch.no_grad()
    def sums(self, histories: Histories, vectors_ID: Floats) -> tuple[Floats, Floats]:
        """The running sums `(U, K, D)` of whole histories, and their weights `(U, K)`."""
        shape, users_N = (len(histories), len(vectors_ID)), histories.users_N
        sums, totals = [], []
        for weights_N in self.weights(histories).T:
            weighted_UI = sp.csr_array((weights_N, histories.items_N, histories.offsets_U), shape=shape)
            sums.append(weighted_UI @ vectors_ID)
            totals.append(np.bincount(users_N, np.abs(weights_N), minlength=len(histories)))
        return np.stack(sums, axis=1).astype(np.float32), np.stack(totals, axis=1).astype(np.float32)

    @torch.no_grad()
    def weights(self, histories: Histories) -> Floats:
        """What each interaction weighs in its user's sums `(N, K)`, at the end of the history."""
        decays_NK = self.decays(torch.from_numpy(histories.log_gaps_N)).double().cpu().numpy()
        clock_NK = np.cumsum(decays_NK, axis=0)
        last_U = histories.offsets_U[1:] - 1
        ages_NK = clock_NK[np.repeat(last_U, histories.lengths_U)] - clock_NK
        weights_NK: Floats = (histories.weights_N[:, None] * np.exp(-ages_NK)).astype(np.float32)
        return weights_NK

    @torch.no_grad()
    def vectors_of(self, sums_UKD: Floats, totals_UK: Floats) -> Floats:
        """The user vectors `(U, D)` of running sums."""
        device = self.null_D.device
        mixed = self._mix(torch.from_numpy(sums_UKD).to(device), torch.from_numpy(totals_UK).to(device))
        vectors_UD: Floats = mixed.cpu().numpy()
        return vectors_UD
