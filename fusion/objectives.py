"""What a fusion is trained to minimise: each a plain function of tensors that returns a scalar mean loss.

    >>> import torch
    >>> from fusion.objectives import full_softmax
    >>> users_BD, items_ID = torch.randn(8, 16), torch.randn(100, 16)
    >>> full_softmax(users_BD, items_ID, targets_B=torch.arange(8)).shape
    torch.Size([])

`B` counts examples (a user and a positive item), `I` the items of the catalog, `N` negatives, `D` the width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations

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


def in_batch_softmax(
    users_BD: Tensor, items_BD: Tensor, targets_B: Tensor, log_popularity_B: Tensor, *, bias_B: Tensor | None = None
) -> Tensor:
    """Softmax over the items of the batch, corrected for how often each is drawn (logQ; Yi et al. 2019).

    A popular item stands in many batches as a negative; subtracting the log of its probability removes that bias.
    The same item twice in a batch is no negative of itself.

    Args:
        items_BD: the vector of each example's item.
        targets_B: the index of that item in the catalog, to find the duplicates.
        log_popularity_B: the log of the item's share of all interactions.
    """
    scores_BB = users_BD @ items_BD.T
    if bias_B is not None:
        scores_BB = scores_BB + bias_B
    scores_BB = (scores_BB - log_popularity_B).float()
    itself_BB = torch.eye(len(scores_BB), dtype=torch.bool, device=scores_BB.device)
    duplicate_BB = (targets_B.unsqueeze(0) == targets_B.unsqueeze(1)) & ~itself_BB
    return F.cross_entropy(
        scores_BB.masked_fill(duplicate_BB, -torch.inf), torch.arange(len(scores_BB), device=scores_BB.device)
    )


def sampled_binary(positive_B: Tensor, negative_BN: Tensor) -> Tensor:
    """Binary cross-entropy of positives and sampled negatives; the negatives of an example share the weight of one.

    Args:
        positive_B: scores of the positives.
        negative_BN: scores of the items sampled for the same users.
    """
    return (F.softplus(-positive_B) + F.softplus(negative_BN).mean(1)).mean() / 2


def bpr(positive_B: Tensor, negative_BN: Tensor) -> Tensor:
    """Bayesian personalised ranking: positives above sampled negatives (Rendle et al. 2009); see `sampled_binary`."""
    return F.softplus(negative_BN - positive_B.unsqueeze(1)).mean()


def adversarial(
    loss_of: Callable[[Mapping[str, Tensor]], Tensor], tokens: Mapping[str, Tensor], epsilon: float
) -> Tensor:
    """The loss under the worst small change of the modality tokens (AMR, Tang et al. 2019).

    Every modality's tokens `(B, T, width)` move by `epsilon` (an L2 norm per item) along the gradient of the loss.
    Add the result, weighted, to the plain loss.

    Args:
        loss_of: the loss as a function of the tokens; called twice; dropout is drawn anew each time.
    """
    leaves = {modality: tokens_BTW.detach().requires_grad_() for modality, tokens_BTW in tokens.items()}
    with torch.enable_grad():
        gradients: tuple[Tensor | None, ...] = torch.autograd.grad(
            loss_of(leaves), list(leaves.values()), allow_unused=True
        )
    moved = {}
    for (modality, tokens_BTW), gradient in zip(tokens.items(), gradients, strict=True):
        if gradient is None:
            moved[modality] = tokens_BTW
            continue
        norm_B11 = gradient.flatten(1).norm(dim=1).view(-1, 1, 1)
        moved[modality] = tokens_BTW + epsilon * gradient / norm_B11.clamp(min=1e-12)
    return loss_of(moved)
