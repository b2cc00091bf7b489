"""Modules that merge the tokens of several modalities into one item vector.

    >>> import torch
    >>> from fusion.attention import CrossModalFusion
    >>> fusion = CrossModalFusion({"visual": 512, "audio": 768}, dim=64)
    >>> tokens = {"visual": torch.randn(2, 16, 512), "audio": torch.randn(2, 6, 768)}
    >>> masks = {"visual": torch.ones(2, 16, dtype=torch.bool), "audio": torch.tensor([[True] * 6, [False] * 6])}
    >>> fusion(tokens, masks).vectors_BD.shape
    torch.Size([2, 64])

The second item has no sound: its audio tokens are masked and have no influence on any output. A modality that no item
of the batch has may be left out altogether. An item's vector depends neither on padding nor on its batch neighbours.
`FUSIONS` names the alternatives, all with the same constructor, inputs and outputs.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusion.base import Fused, Fusion, masked_mean


class CrossModalAttention(nn.Module):
    """A residual block in which a token attends to itself and to the tokens of the *other* modalities.

    What it adds are the attended tokens as they are, times a learned gain per feature that starts at zero: an untrained
    block changes nothing, and a trained one weighs evidence rather than making new features, which few interactions
    could not support.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(dim)
        self.query_key = nn.Linear(dim, 2 * dim)
        self.gain_D = nn.Parameter(torch.zeros(dim))
        self.dropout = dropout

    def _heads(self, tokens_BTE: Tensor) -> Tensor:
        batch, length, width = tokens_BTE.shape
        return tokens_BTE.reshape(batch, length, self.num_heads, width // self.num_heads).transpose(1, 2)

    def forward(self, tokens_BTD: Tensor, allowed_BTT: Tensor) -> Tensor:
        query, key = (self._heads(x) for x in self.query_key(self.norm(tokens_BTD)).chunk(2, dim=-1))
        dropout = self.dropout if self.training else 0.0
        mixed_BHTD = F.scaled_dot_product_attention(
            query, key, self._heads(tokens_BTD), allowed_BTT.unsqueeze(1), dropout
        )
        mixed: Tensor = tokens_BTD + self.gain_D * mixed_BHTD.transpose(1, 2).flatten(2)
        return mixed

    def weights(self, tokens_BTD: Tensor, allowed_BTT: Tensor) -> Tensor:
        """The attention weights `(B, T, T)`, mean over heads."""
        query, key = (self._heads(x) for x in self.query_key(self.norm(tokens_BTD)).chunk(2, dim=-1))
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        return scores.masked_fill(~allowed_BTT.unsqueeze(1), -torch.inf).softmax(-1).mean(1)


class MeanFusion(Fusion):
    """The mean of the modalities, each the mean of its tokens."""

    kind = "mean"

    def _fuse(self, parts: dict[str, Tensor], masks: dict[str, Tensor], own: dict[str, Tensor], details: bool) -> Fused:
        gates = {m: torch.zeros_like(part_BTD[..., 0]) for m, part_BTD in parts.items()}
        shares = dict.fromkeys(parts, torch.zeros((), device=next(iter(parts.values())).device))
        return _pool(parts, masks, own, gates, shares)


class GatedFusion(Fusion):
    """A gate for every token and one for every modality, each a softmax; both start uniform."""

    kind = "gated"

    def _build(self, num_heads: int, dropout: float) -> None:
        self.token_gate = nn.Linear(self.dim, 1)
        self.modality_gate = nn.Linear(self.dim, 1)
        for gate in (self.token_gate, self.modality_gate):
            nn.init.zeros_(gate.weight)
            nn.init.zeros_(gate.bias)

    def _fuse(self, parts: dict[str, Tensor], masks: dict[str, Tensor], own: dict[str, Tensor], details: bool) -> Fused:
        gates = {m: self.token_gate(part_BTD).squeeze(-1) for m, part_BTD in parts.items()}
        shares = {m: self.modality_gate(masked_mean(parts[m], masks[m])) for m in parts}
        return _pool(parts, masks, own, gates, shares)


class CrossModalFusion(GatedFusion):
    """Attention across modalities, then gated pooling; untrained, it is the mean."""

    kind = "attention"

    def _build(self, num_heads: int, dropout: float) -> None:
        super()._build(num_heads, dropout)
        self.attention = CrossModalAttention(self.dim, num_heads, dropout)

    def _fuse(self, parts: dict[str, Tensor], masks: dict[str, Tensor], own: dict[str, Tensor], details: bool) -> Fused:
        tokens_BTD = torch.cat(list(parts.values()), dim=1)
        allowed_BTT = _others_and_itself(list(masks.values()))
        mixed_BTD = self.attention(tokens_BTD, allowed_BTT)
        sizes = [part_BTD.shape[1] for part_BTD in parts.values()]
        mixed = dict(zip(parts, mixed_BTD.split(sizes, dim=1), strict=True))
        fused = super()._fuse(mixed, masks, own, details)
        if not details:
            return fused
        weights_BTT = self.attention.weights(tokens_BTD, allowed_BTT)
        there_BT = torch.cat(list(masks.values()), dim=1)
        return Fused(
            fused.vectors_BD,
            fused.pooled_BD,
            own,
            fused.token_weights,
            fused.spans,
            weights_BTT * there_BT.unsqueeze(-1),
        )


class ConcatFusion(Fusion):
    """The modalities' means side by side, projected; a missing modality has a learned stand-in."""

    kind = "concat"

    def _build(self, num_heads: int, dropout: float) -> None:
        self.absent = nn.ParameterDict({m: nn.Parameter(torch.zeros(self.dim)) for m in self.widths})
        self.output = nn.Linear(len(self.widths) * self.dim, self.dim)

    def _fuse(self, parts: dict[str, Tensor], masks: dict[str, Tensor], own: dict[str, Tensor], details: bool) -> Fused:
        batch_size = len(next(iter(parts.values())))
        columns = []
        for modality in self.widths:
            absent_BD = self.absent[modality].expand(batch_size, -1)
            if modality in parts:
                there_B1 = masks[modality].any(1, keepdim=True)
                absent_BD = torch.where(there_B1, masked_mean(parts[modality], masks[modality]), absent_BD)
            columns.append(absent_BD)
        pooled_BD = self.output(torch.cat(columns, dim=1))
        mean = MeanFusion._fuse(self, parts, masks, own, details)  # type: ignore[arg-type]
        return Fused(F.normalize(pooled_BD, dim=-1), pooled_BD, own, mean.token_weights, mean.spans)


FUSIONS: dict[str, type[Fusion]] = {
    fusion.kind: fusion for fusion in (MeanFusion, ConcatFusion, GatedFusion, CrossModalFusion)
}


def _masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last axis where the mask is true, zero elsewhere; all zero where nothing is."""
    weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1) * mask
    return weights / weights.sum(-1, keepdim=True).clamp(min=1e-12)


def _others_and_itself(masks: list[Tensor]) -> Tensor:
    """Which token may attend to which `(B, T, T)`: present tokens of other modalities, and the token itself."""
    mask_BT = torch.cat(masks, dim=1)
    modality_T = torch.cat([torch.full_like(mask_BT[0, :1], k, dtype=torch.long).expand(m.shape[1])
                            for k, m in enumerate(masks)])  # fmt: skip
    itself_TT = torch.eye(mask_BT.shape[1], dtype=torch.bool, device=mask_BT.device)
    return mask_BT.unsqueeze(1) & (modality_T.unsqueeze(1) != modality_T) | itself_TT


def _pool(
    parts: dict[str, Tensor],
    masks: dict[str, Tensor],
    own: dict[str, Tensor],
    gates: dict[str, Tensor],
    shares: dict[str, Tensor],
) -> Fused:
    """Weighs tokens by `gates` (B, T) within their modality and modalities by `shares` (B, 1), and sums them up."""
    there_BM = torch.stack([mask_BT.any(1) for mask_BT in masks.values()], dim=1)
    shares_BM = torch.cat([shares[m].expand(len(there_BM), 1) for m in parts], dim=1)
    modality_weights_BM = _masked_softmax(shares_BM, there_BM)
    weights = {m: _masked_softmax(gates[m], masks[m]) * modality_weights_BM[:, [k]] for k, m in enumerate(parts)}
    pooled_BD = torch.stack([(weights[m].unsqueeze(1) @ parts[m]).squeeze(1) for m in parts]).sum(0)
    ends = torch.tensor([part_BTD.shape[1] for part_BTD in parts.values()]).cumsum(0).tolist()
    spans = {m: slice(end - parts[m].shape[1], end) for m, end in zip(parts, ends, strict=True)}
    return Fused(F.normalize(pooled_BD, dim=-1), pooled_BD, own, weights, spans)
