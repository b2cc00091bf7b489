"""What a fusion is trained to minimise: each a plain function of tensors that returns a scalar mean loss.

    >>> import torch
    >>> from fusion.objectives import full_softmax
    >>> users_BD, items_ID = torch.randn(8, 16), torch.randn(100, 16)
    >>> full_softmax(users_BD, items_ID, targets_B=torch.arange(8)).shape
    torch.Size([])

`B` counts examples (a user and a positive item), `I` the items of the catalog, `N` negatives, `D` the width.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor


def modality_alignment(
    modality_vectors: Mapping[str, Tensor], there: Mapping[str, Tensor], temperature: float = 0.07
) -> Tensor:
    """Symmetric InfoNCE between every two modalities of the same item (CLIP, Radford et al. 2021).

    Needs no interactions. Only items that have both modalities count; a pair of modalities with fewer than two such
    items has no negatives and is left out; with no pair left the loss is zero.

    Args:
        modality_vectors: modality -> unit vectors `(B, D)`.
        there: modality -> `(B,)` bool, whether the item has the modality.
    """
    losses = []
    for first, second in combinations(modality_vectors, 2):
        both_B = there[first] & there[second]
        if int(both_B.sum()) < 2:
            continue
        logits = modality_vectors[first][both_B] @ modality_vectors[second][both_B].T / temperature
        same = torch.arange(len(logits), device=logits.device)
        losses.append((F.cross_entropy(logits, same) + F.cross_entropy(logits.T, same)) / 2)
    if not losses:
        return sum((vectors.sum() * 0 for vectors in modality_vectors.values()), torch.zeros(()))
    return torch.stack(losses).mean()


def full_softmax(
    users_BD: Tensor,
    items_ID: Tensor,
    targets_B: Tensor,
    *,
    bias_I: Tensor | None = None,
    excluded: tuple[Tensor, Tensor] | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Softmax cross-entropy over all items given; memory grows with `B * I`.

    Args:
        items_ID: the candidates. Leave out cold items: they are no evidence of dislike.
        targets_B: the rows of the positive items.
        bias_I: added to every score of an item.
        excluded: (rows, items), index tensors of equal length: pairs that are no candidates, as other positives.

    Raises:
        ValueError: where a target is itself excluded.
    """
    scores_BI = (users_BD @ items_ID.T).float()
    if bias_I is not None:
        scores_BI = scores_BI + bias_I
    if excluded is not None:
        if (targets_B[excluded[0]] == excluded[1]).any():
            raise ValueError("a target is among the items excluded from the softmax")
        scores_BI = scores_BI.index_put(excluded, torch.tensor(-torch.inf, device=scores_BI.device))
    log_odds_BI = scores_BI.log_softmax(1)
    target_loss = -log_odds_BI.gather(1, targets_B.unsqueeze(1)).mean()
    if not label_smoothing:
        return target_loss
    out_BI = log_odds_BI.isneginf()
    even_loss = -(log_odds_BI.masked_fill(out_BI, 0.0).sum(1) / (~out_BI).sum(1)).mean()
    return (1 - label_smoothing) * target_loss + label_smoothing * even_loss


def weighted_softmax(
    users_PD: Tensor,
    items_CD: Tensor,
    bias_C: Tensor,
    targets_P: Tensor,
    weights_P: Tensor,
    excluded: tuple[Tensor, Tensor],
    *,
    users_at_once: int = 256,
) -> Tensor:
    """Softmax cross-entropy of P targets among C candidates, averaged by `weights_P`, in memory of a block of users.

    The gradient is formed while a block of scores is at hand, so that it is computed once and never kept.

    Args:
        bias_C: added to every score of a candidate; sampled ones come less the log of their chance to be drawn.
        targets_P: the place of each target among the candidates.
        excluded: (places in P, ascending; places in C), pairs that are no candidates, as other positives.
    """
    bounds = torch.searchsorted(excluded[0], torch.arange(0, len(users_PD) + users_at_once, users_at_once,
                                                          device=excluded[0].device)).tolist()  # fmt: skip
    log_sums = _LogSums.apply(users_PD, items_CD, bias_C, weights_P, excluded, bounds, users_at_once)
    positive_P = (users_PD * items_CD[targets_P]).sum(1) + bias_C[targets_P]
    loss: Tensor = (log_sums - (weights_P * positive_P).sum()) / weights_P.sum()
    return loss


class _LogSums(torch.autograd.Function):
    """The weighted sum over users of log(sum over candidates of exp(score))."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        users_PD: Tensor,
        items_CD: Tensor,
        bias_C: Tensor,
        weights_P: Tensor,
        excluded: tuple[Tensor, Tensor],
        bounds: list[int],
        users_at_once: int,
    ) -> Tensor:
        total = users_PD.new_zeros(())
        by_users, by_items, by_bias = (torch.zeros_like(x) for x in (users_PD, items_CD, bias_C))
        for block, (low, high) in enumerate(pairwise(bounds)):
            rows = slice(block * users_at_once, (block + 1) * users_at_once)
            scores_BC = torch.addmm(bias_C, users_PD[rows], items_CD.T)
            scores_BC[excluded[0][low:high] - rows.start, excluded[1][low:high]] = -torch.inf
            log_sum_B1 = scores_BC.logsumexp(1, keepdim=True)
            weights_B1 = weights_P[rows].unsqueeze(1)
            total += (weights_B1 * log_sum_B1).sum()
            shares_BC = scores_BC.sub_(log_sum_B1).exp_().mul_(weights_B1)
            by_users[rows] = shares_BC @ items_CD
            by_items.addmm_(shares_BC.T, users_PD[rows])
            by_bias += shares_BC.sum(0)
        ctx.save_for_backward(by_users, by_items, by_bias)
        return total

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        by_users, by_items, by_bias = ctx.saved_tensors  # type: ignore[attr-defined]
        return gradient * by_users, gradient * by_items, gradient * by_bias, None, None, None, None
