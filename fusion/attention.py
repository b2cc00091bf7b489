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
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusion.whitening import is_collapsed, standardising, whitening

# Small, so that training grows useful features instead of carrying random ones along; large gains ruin ranking.
INITIAL_GAIN = 0.1


class FusionError(ValueError):
    """Tokens, masks or options that cannot be fused; the message says what was expected and what came."""


@dataclass(frozen=True)
class Fused:
    """What a fusion makes of a batch of items.

    `vectors_BD` are the item vectors, with unit norm; `pooled_BD` are the same before their length was set to one.
    `modality_vectors` holds a unit vector `(B, D)` of each modality before it has met the others; zero where the item
    lacks the modality.
    `token_weights` holds each token's share `(B, T)` in the item vector; an item's shares sum to one over all of them.
    `attention_BTT` is the mean over heads of the attention of every token to every token, in the order of `spans`;
    None unless asked for, or where the fusion has no attention.
    `spans` maps each modality to its slice of the token axis of `attention_BTT`.
    """

    vectors_BD: Tensor
    pooled_BD: Tensor
    modality_vectors: dict[str, Tensor]
    token_weights: dict[str, Tensor]
    spans: dict[str, slice]
    attention_BTT: Tensor | None = None

    @property
    def modality_weights(self) -> dict[str, Tensor]:
        """Each modality's share `(B,)` in the item vector."""
        return {modality: weights_BT.sum(1) for modality, weights_BT in self.token_weights.items()}


class TokenProjection(nn.Module):
    """Tokens of one modality `(..., width)`, standardised, to the common width `(..., dim)`.

    The statistics are measured by `calibrate` and saved and loaded with the weights; until then they change nothing.
    Features whose variance has collapsed into few directions are whitened, so that all directions can be learned from.
    """

    centre_W: Tensor
    matrix_WW: Tensor
    is_diagonal: Tensor

    def __init__(self, width: int, dim: int, input_dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(input_dropout)
        self.linear = nn.Linear(width, dim)
        nn.init.normal_(self.linear.weight, std=INITIAL_GAIN / math.sqrt(width))
        nn.init.zeros_(self.linear.bias)
        self.register_buffer("centre_W", torch.zeros(width))
        self.register_buffer("matrix_WW", torch.eye(width))
        self.register_buffer("is_diagonal", torch.tensor(True))

    @torch.no_grad()
    def calibrate(self, tokens_NW: Tensor) -> None:
        """Takes the statistics of these tokens."""
        if not tokens_NW.isfinite().all():
            raise FusionError("there are tokens with values that are not finite")
        collapsed = is_collapsed(tokens_NW)
        centre_W, matrix_WW = (whitening if collapsed else standardising)(tokens_NW)
        self.centre_W.copy_(centre_W)
        self.matrix_WW.copy_(matrix_WW)
        self.is_diagonal.fill_(not collapsed)

    def forward(self, tokens: Tensor) -> Tensor:
        centred = tokens.to(self.centre_W.dtype) - self.centre_W
        if not self.training:  # both maps as one, which is as narrow as its result
            return F.linear(centred, self.linear.weight @ self.matrix_WW.T, self.linear.bias)
        standardised = centred * self.matrix_WW.diagonal() if self.is_diagonal else centred @ self.matrix_WW
        projected: Tensor = self.linear(self.dropout(standardised))
        return projected


class TimeEmbedding(nn.Module):
    """Times in seconds `(...)` to vectors `(..., dim)`, with periods from one second to about three hours.

    A learned gate per feature starts at zero: time counts only as far as training finds it useful.
    """

    def __init__(self, dim: int, longest_seconds: float = 10_000.0) -> None:
        super().__init__()
        self.rates = 2 * math.pi * torch.logspace(0, -math.log10(longest_seconds), (dim + 1) // 2)
        self.gate_D = nn.Parameter(torch.zeros(dim))

    def forward(self, seconds: Tensor) -> Tensor:
        angles = seconds.to(self.gate_D.dtype).unsqueeze(-1) * self.rates.to(self.gate_D)
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1)[..., : len(self.gate_D)]
        return waves * self.gate_D


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


class Fusion(nn.Module, ABC):
    """What all fusions share: checks, projections, modality and time embeddings, modality dropout.

    Args:
        widths: the width of the tokens of each modality.
        dim: the width of item vectors.
        num_heads: attention heads; must divide `dim`. Fusions without attention ignore it.
        input_dropout: share of the standardised input features dropped in training.
        dropout: share of attention weights dropped in training.
        modality_dropout: how often a modality is hidden in training; an item always keeps at least one.

    Raises:
        FusionError: for options, widths, shapes or masks that do not fit, and for items without a single token.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        *,
        dim: int = 64,
        num_heads: int = 4,
        input_dropout: float = 0.3,
        dropout: float = 0.0,
        modality_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check_options(widths, dim, num_heads, {"input_dropout": input_dropout, "dropout": dropout,
                                                "modality_dropout": modality_dropout})  # fmt: skip
        self.widths = dict(widths)
        self.dim = dim
        self.num_heads = num_heads
        self.modality_dropout = modality_dropout
        self.projections = nn.ModuleDict({m: TokenProjection(width, dim, input_dropout) for m, width in widths.items()})
        self.modality_embeddings = nn.ParameterDict({m: nn.Parameter(torch.zeros(dim)) for m in widths})
        self.time_embedding = TimeEmbedding(dim)
        self._build(num_heads, dropout)

    @property
    def kind(self) -> str:
        """Its name in `FUSIONS`."""
        return next(name for name, fusion in FUSIONS.items() if type(self) is fusion)

    def _build(self, num_heads: int, dropout: float) -> None:
        """Adds what a fusion needs beyond the projections."""

    def calibrate(self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
        """Standardises each modality by the statistics of these tokens `(B, T, width)` under true masks `(B, T)`."""
        for modality, tokens_BTW in tokens.items():
            there_NW = tokens_BTW[masks[modality]]
            if len(there_NW):
                self.projections[modality].calibrate(there_NW)  # type: ignore[operator]

    def forward(
        self,
        tokens: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        times: Mapping[str, Tensor] | None = None,
        *,
        details: bool = False,
    ) -> Fused:
        """Fuses a batch of items.

        Args:
            tokens: modality -> `(B, T, width)`; T may differ by modality. Values under a false mask are ignored.
            masks: modality -> `(B, T)` bool, true where a token is there.
            times: modality -> `(B, T)` seconds from the item's start; modalities that have none may be left out.
            details: whether to return the attention weights as well.
        """
        self._check_batch(tokens, masks, times or {})
        parts = {m: self._project(m, tokens[m], masks[m], (times or {}).get(m)) for m in self.widths if m in tokens}
        masks = self._drop_modalities({m: masks[m] for m in parts})
        own = {m: F.normalize(_masked_mean(parts[m], masks[m]), dim=-1) for m in parts}
        return self._fuse(parts, masks, own, details)

    @abstractmethod
    def _fuse(
        self, parts: dict[str, Tensor], masks: dict[str, Tensor], own: dict[str, Tensor], details: bool
    ) -> Fused: ...

    def _project(self, modality: str, tokens_BTW: Tensor, mask_BT: Tensor, seconds_BT: Tensor | None) -> Tensor:
        tokens_BTD: Tensor = self.projections[modality](tokens_BTW.masked_fill(~mask_BT.unsqueeze(-1), 0.0))
        tokens_BTD = tokens_BTD + self.modality_embeddings[modality]
        if seconds_BT is not None:
            tokens_BTD = tokens_BTD + self.time_embedding(seconds_BT.masked_fill(~mask_BT, 0.0))
        return tokens_BTD

    def _drop_modalities(self, masks: dict[str, Tensor]) -> dict[str, Tensor]:
        if not self.training or not self.modality_dropout:
            return masks
        there_BM = torch.stack([mask_BT.any(1) for mask_BT in masks.values()], dim=1)
        kept_BM = torch.rand(there_BM.shape, device=there_BM.device) >= self.modality_dropout
        kept_BM |= ~(kept_BM & there_BM).any(1, keepdim=True)
        return {m: mask_BT & kept_BM[:, [k]] for k, (m, mask_BT) in enumerate(masks.items())}

    def _check_batch(
        self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor], times: Mapping[str, Tensor]
    ) -> None:
        if unknown := sorted((set(tokens) | set(masks) | set(times)) - set(self.widths)):
            raise FusionError(f"unknown modalities {unknown}; this fusion knows {sorted(self.widths)}")
        if not tokens or set(tokens) != set(masks) or not set(times) <= set(tokens):
            raise FusionError(f"tokens of {sorted(tokens)}, masks of {sorted(masks)}, times of {sorted(times)}: "
                              "every modality needs tokens and a mask")  # fmt: skip
        sizes = {m: len(x) for m, x in tokens.items()}
        if len(set(sizes.values())) > 1:
            raise FusionError(f"modalities disagree on the number of items: {sizes}")
        for modality, tokens_BTW in tokens.items():
            expected = (*masks[modality].shape, self.widths[modality])
            if tokens_BTW.shape != expected or tokens_BTW.ndim != 3:
                raise FusionError(f"{modality} tokens of shape {tuple(tokens_BTW.shape)} with a mask of shape "
                                  f"{expected[:-1]}, expected (B, T, {self.widths[modality]}) and (B, T)")  # fmt: skip
            if masks[modality].dtype != torch.bool:
                raise FusionError(f"{modality} mask is {masks[modality].dtype}, expected torch.bool")
            if modality in times and times[modality].shape != expected[:-1]:
                raise FusionError(f"{modality} times of shape {tuple(times[modality].shape)}, expected {expected[:-1]}")
        there_B = torch.stack([mask_BT.any(1) for mask_BT in masks.values()]).any(0)
        if not there_B.all():
            rows = (~there_B).nonzero().flatten().tolist()
            raise FusionError(f"{len(rows)} of {len(there_B)} items have no token in any modality: rows {rows[:5]}")


class MeanFusion(Fusion):
    """The mean of the modalities, each the mean of its tokens."""

    def _fuse(self, parts: dict[str, Tensor], masks: dict[str, Tensor], own: dict[str, Tensor], details: bool) -> Fused:
        gates = {m: torch.zeros_like(part_BTD[..., 0]) for m, part_BTD in parts.items()}
        shares = dict.fromkeys(parts, torch.zeros((), device=next(iter(parts.values())).device))
        return _pool(parts, masks, own, gates, shares)


class GatedFusion(Fusion):
    """A gate for every token and one for every modality, each a softmax; both start uniform."""

    def _build(self, num_heads: int, dropout: float) -> None:
        self.token_gate = nn.Linear(self.dim, 1)
        self.modality_gate = nn.Linear(self.dim, 1)
        for gate in (self.token_gate, self.modality_gate):
            nn.init.zeros_(gate.weight)
            nn.init.zeros_(gate.bias)

    def _fuse(self, parts: dict[str, Tensor], masks: dict[str, Tensor], own: dict[str, Tensor], details: bool) -> Fused:
        gates = {m: self.token_gate(part_BTD).squeeze(-1) for m, part_BTD in parts.items()}
        shares = {m: self.modality_gate(_masked_mean(parts[m], masks[m])) for m in parts}
        return _pool(parts, masks, own, gates, shares)


class CrossModalFusion(GatedFusion):
    """Attention across modalities, then gated pooling; untrained, it is the mean."""

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
                absent_BD = torch.where(there_B1, _masked_mean(parts[modality], masks[modality]), absent_BD)
            columns.append(absent_BD)
        pooled_BD = self.output(torch.cat(columns, dim=1))
        mean = MeanFusion._fuse(self, parts, masks, own, details)  # type: ignore[arg-type]
        return Fused(F.normalize(pooled_BD, dim=-1), pooled_BD, own, mean.token_weights, mean.spans)


FUSIONS: dict[str, type[Fusion]] = {
    "mean": MeanFusion,
    "concat": ConcatFusion,
    "gated": GatedFusion,
    "attention": CrossModalFusion,
}


def _masked_mean(tokens_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """The mean over the tokens that are there; zero where none is."""
    total_BD = (tokens_BTD * mask_BT.unsqueeze(-1)).sum(1)
    return total_BD / mask_BT.sum(1, keepdim=True).clamp(min=1)


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


def _check_options(widths: Mapping[str, int], dim: int, num_heads: int, dropouts: Mapping[str, float]) -> None:
    if not widths or min(widths.values()) < 1:
        raise FusionError(f"widths must name at least one modality, each with a positive width, got {dict(widths)}")
    if dim < 1 or num_heads < 1 or dim % num_heads:
        raise FusionError(f"dim {dim} must be a positive multiple of num_heads {num_heads}")
    for name, share in dropouts.items():
        if not 0 <= share < 1:
            raise FusionError(f"{name} must be in [0, 1), got {share}")
