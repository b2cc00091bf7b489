"""What every fusion takes, returns and checks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusion.projections import FusionError, TimeEmbedding, TokenProjection


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


class Fusion(nn.Module, ABC):
    """What all fusions share: checks, projections, modality and time embeddings, modality dropout.

    Args:
        widths: the width of the tokens of each modality.
        dim: the width of item vectors.
        num_heads: attention heads; must divide `dim`. Fusions without attention ignore it.
        input_dropout: share of the standardised input features dropped in training.
        dropout: share of attention weights dropped in training.
        modality_dropout: how often a modality is excluded in training; an item always keeps at least one.

    Raises:
        FusionError: for options, widths, shapes or masks that do not fit, and for items without a single token.
    """

    kind: ClassVar[str]
    """Its name in `fusion.attention.FUSIONS`."""

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
        standard: Collection[str] = (),
        details: bool = False,
    ) -> Fused:
        """Fuses a batch of items.

        Args:
            tokens: modality -> `(B, T, width)`; T may differ by modality. Values under a false mask are ignored.
            masks: modality -> `(B, T)` bool, true where a token is there.
            times: modality -> `(B, T)` seconds from the item's start; modalities that have none may be left out.
            standard: modalities whose tokens are standardised already (`TokenProjection.standardise`).
            details: whether to return the attention weights as well.
        """
        self._check_batch(tokens, masks, times or {})
        parts = {
            m: self._project(m, tokens[m], masks[m], (times or {}).get(m), m in standard)
            for m in self.widths
            if m in tokens
        }
        masks = self._drop_modalities({m: masks[m] for m in parts})
        own = {m: F.normalize(masked_mean(parts[m], masks[m]), dim=-1) for m in parts}
        return self._fuse(parts, masks, own, details)

    @abstractmethod
    def _fuse(
        self, parts: dict[str, Tensor], masks: dict[str, Tensor], own: dict[str, Tensor], details: bool
    ) -> Fused: ...

    def _project(
        self, modality: str, tokens_BTW: Tensor, mask_BT: Tensor, seconds_BT: Tensor | None, are_standard: bool
    ) -> Tensor:
        tokens_BTD: Tensor = self.projections[modality](
            tokens_BTW.masked_fill(~mask_BT.unsqueeze(-1), 0.0), are_standard=are_standard
        )
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


def masked_mean(tokens_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """The mean over the tokens that are there; zero where none is."""
    total_BD = (tokens_BTD * mask_BT.unsqueeze(-1)).sum(1)
    return total_BD / mask_BT.sum(1, keepdim=True).clamp(min=1)


def _check_options(widths: Mapping[str, int], dim: int, num_heads: int, dropouts: Mapping[str, float]) -> None:
    if not widths or min(widths.values()) < 1:
        raise FusionError(f"widths must name at least one modality, each with a positive width, got {dict(widths)}")
    if dim < 1 or num_heads < 1 or dim % num_heads:
        raise FusionError(f"dim {dim} must be a positive multiple of num_heads {num_heads}")
    for name, share in dropouts.items():
        if not 0 <= share < 1:
            raise FusionError(f"{name} must be in [0, 1), got {share}")
