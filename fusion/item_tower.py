"""The item tower: what an item looks, sounds and reads like, and what its audience knows beyond that.

    vector = content + (1 - s) * id + s * mean(ids of its neighbours by content)        content = fusion(tokens)

A cold item, one without any training interaction, has no id, but it has neighbours; its bias is one that all cold items
share. It is ranked among all the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusion.base import Fusion
from fusion.neighbours import ContentNeighbours, Search
from fusion.token_table import Tokens, TokenTable

ID_DEVIATION = 0.05


@dataclass(frozen=True)
class Items:
    """`vectors_ID` and `bias_I` of items."""

    vectors_ID: Tensor
    bias_I: Tensor


class ItemTower(nn.Module):
    """Args:
    fusion: makes the content vectors.
    counts_I: how often each item is a target in training; where the learned biases start (log1p), and 0 for cold items.
    id_dropout: how often an item's id is hidden in training, so that its content learns to stand alone.
    use_ids: whether items have ids at all.
    neighbours: who an item borrows ids from; None for nobody.
    smoothing: s above; 0 without neighbours.
    sparse: only the ids and biases of a step have gradients.
    """

    trained_I: Tensor
    neighbours_IN: Tensor
    shares_IN: Tensor
    cold_bias: Tensor

    def __init__(
        self,
        fusion: Fusion,
        counts_I: Tensor,
        *,
        id_dropout: float,
        use_ids: bool = True,
        neighbours: ContentNeighbours | None = None,
        smoothing: float = 0.0,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        self.fusion, self.id_dropout = fusion, id_dropout
        self.neighbours, self.smoothing = neighbours, smoothing if neighbours is not None else 0.0
        count = 0 if neighbours is None else len(neighbours.modalities) * neighbours.num_places
        self.register_buffer("neighbours_IN", torch.zeros(len(counts_I), count, dtype=torch.int32), persistent=False)
        self.register_buffer("shares_IN", torch.zeros(len(counts_I), count), persistent=False)
        self.register_buffer("trained_I", counts_I > 0)
        self.bias = nn.Embedding(len(counts_I), 1, sparse=sparse, _weight=counts_I.float().log1p().unsqueeze(1))
        ids_ID = torch.randn(len(counts_I), fusion.dim) * ID_DEVIATION if use_ids else torch.zeros(0, fusion.dim)
        self.ids = nn.Embedding(len(ids_ID), fusion.dim, sparse=sparse, _weight=ids_ID)
        self.register_buffer("cold_bias", self.bias.weight.detach()[self.trained_I].median())

    @property
    def use_ids(self) -> bool:
        return len(self.ids.weight) > 0

    def connect(self, tokens: Tokens, search: Search | None) -> None:
        """Finds the neighbours of all items of the catalog, which are not saved with the weights."""
        if self.neighbours is not None:
            rows_IN, shares_IN = self.neighbours.rows_of(tokens, search, torch.arange(len(self.trained_I)))
            self.neighbours_IN.copy_(rows_IN)
            self.shares_IN.copy_(shares_IN)

    def borrowed(self, rows_BN: Tensor, shares_BN: Tensor) -> Tensor:
        """What items get from their neighbours' ids `(B, D)`."""
        summed_BD = F.embedding_bag(
            rows_BN.long(), self.ids.weight, mode="sum", per_sample_weights=shares_BN, sparse=self.ids.sparse
        )
        return self.smoothing * summed_BD

    def embed_new(self, table: TokenTable, search: Search | None = None) -> Items:
        """Vectors and biases of items that training did not see."""
        vectors_BD = self.content(table)
        if self.use_ids and self.neighbours is not None and self.smoothing:
            vectors_BD = vectors_BD + self.borrowed(*self.neighbours.rows_of(table, search))
        return Items(vectors_BD, self.cold_bias.expand(len(table)))

    def content(self, table: TokenTable) -> Tensor:
        """The content vectors `(B, D)`, zero for items without tokens."""
        return content_vectors(self.fusion, table)

    def forward(self, table: TokenTable, rows_B: Tensor) -> Items:
        """Vectors and biases of the catalog's items in these rows, whose tokens the table holds."""
        vectors_BD, trained_B = self.content(table), self.trained_I[rows_B]
        if self.use_ids:
            known_B = trained_B
            if self.training and self.id_dropout:
                known_B = known_B & (torch.rand(len(rows_B), device=rows_B.device) >= self.id_dropout)
            vectors_BD = vectors_BD + (1 - self.smoothing) * self.ids(rows_B) * known_B.unsqueeze(1)
            if self.smoothing:
                vectors_BD = vectors_BD + self.borrowed(self.neighbours_IN[rows_B], self.shares_IN[rows_B])
        return Items(vectors_BD, torch.where(trained_B, self.bias(rows_B).squeeze(1), self.cold_bias))


def content_vectors(fusion: Fusion, table: TokenTable) -> Tensor:
    """The content vectors `(B, D)` that a fusion makes, zero for items without tokens."""
    there_B = table.there_I
    if there_B.all():
        pooled_BD: Tensor = fusion(table.tokens, table.masks, table.times).pooled_BD
        return pooled_BD
    content_BD = next(fusion.parameters()).new_zeros(len(table), fusion.dim)
    if not there_B.any():
        return content_BD
    rows = there_B.nonzero().flatten()
    present = table.select(rows)
    fused = fusion(present.tokens, present.masks, present.times)
    return content_BD.index_copy(0, rows, fused.pooled_BD.to(content_BD.dtype))
