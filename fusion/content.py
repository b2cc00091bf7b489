"""Items by content alone: what a fusion makes of their tokens, for catalogs that nobody has touched yet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusion.attention import Fusion
from fusion.tower import Items, TokenTable


class ContentTower(nn.Module):
    """Item vectors of unit norm from a fusion, all biases zero, users the mean of their history.

    Offers what `fusion.tower.HybridTower` offers: `forward`, `embed` and the user's `history_power` and `null_D`.
    """

    history_power = 1.0
    smoothing = 0.0

    def __init__(self, fusion: Fusion) -> None:
        super().__init__()
        self.fusion = fusion
        self.register_buffer("null_D", torch.zeros(fusion.dim), persistent=False)

    null_D: Tensor

    @torch.no_grad()
    def forward(self, table: TokenTable) -> Items:
        """Vectors and zero biases; the vectors of items without any token are zero."""
        vectors_ID = torch.zeros(len(table), self.fusion.dim)
        there_I = table.there_I
        fused = None
        if there_I.any():
            present = table.select(there_I.nonzero().flatten())
            fused = self.fusion(present.tokens, present.masks, present.times)
            vectors_ID[there_I] = fused.vectors_BD
        return Items(vectors_ID, torch.zeros(len(table)), vectors_ID, fused)

    def embed(self, table: TokenTable, catalog: TokenTable, base_ID: Tensor, neighbours: int) -> Items:
        """Vectors of items that joined later: the same as `forward` gives them."""
        return self.forward(table)
