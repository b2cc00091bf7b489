"""The item tower: what an item looks, sounds and reads like, and what its audience knows beyond that.

    vector = (1 - s) * own + s * mean(own of its neighbours by content)         own = fusion(tokens) + id

Beside it may stand, in further places of the vector, the item's factors of a linear autoencoder (`fusion/linear.py`).
A cold item, one without any training interaction, has no id, but it has neighbours; its bias is one that all cold items
share. It is ranked among all the others. The content of neighbours, which are many, is not made anew in every step but
remembered from when they were last seen.
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
    neighbours: who an item is smoothed over, all of them items with ids; None for nobody.
    smoothing: s above; 0 for items without neighbours.
    sparse: only the ids and biases of a step have gradients.
    """

    trained_I: Tensor
    content_ID: Tensor
    factors_IL: Tensor
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
        self.register_buffer("neighbours_IN", torch.zeros(len(counts_I), count, dtype=torch.int32))
        self.register_buffer("shares_IN", torch.zeros(len(counts_I), count))
        self.register_buffer("content_ID", torch.zeros(len(counts_I) if self.smoothing else 0, fusion.dim))
        self.register_buffer("trained_I", counts_I > 0)
        self.register_buffer("factors_IL", torch.zeros(len(counts_I), 0))
        self.bias = nn.Embedding(len(counts_I), 1, sparse=sparse, _weight=counts_I.float().log1p().unsqueeze(1))
        ids_ID = torch.randn(len(counts_I), fusion.dim) * ID_DEVIATION if use_ids else torch.zeros(0, fusion.dim)
        self.ids = nn.Embedding(len(ids_ID), fusion.dim, sparse=sparse, _weight=ids_ID)
        self.register_buffer("cold_bias", self.bias.weight.detach()[self.trained_I].median())

    @property
    def use_ids(self) -> bool:
        return len(self.ids.weight) > 0

    @property
    def width(self) -> int:
        """Of an item's vector."""
        return int(self.fusion.dim + self.factors_IL.shape[1])

    def connect(self, tokens: Tokens, search: Search | None, rows_B: Tensor | None = None) -> None:
        """Finds the neighbours of all items of the catalog, or of those in these rows, whose tokens these are."""
        if self.neighbours is not None:
            rows_B = torch.arange(len(self.trained_I)) if rows_B is None else rows_B
            rows_BN, shares_BN = self.neighbours.rows_of(tokens, search, rows_B)
            self.neighbours_IN[rows_B] = rows_BN.to(self.neighbours_IN.dtype)
            self.shares_IN[rows_B] = shares_BN

    def remember(self, content_BD: Tensor, rows: Tensor | slice) -> None:
        """Keeps the content of items of the catalog for those that they are neighbours of."""
        if self.smoothing:
            self.content_ID[rows] = content_BD.detach().to(self.content_ID.dtype)

    def embed_new(self, table: TokenTable, search: Search | None = None) -> Items:
        """Vectors and biases of items that training did not see."""
        vectors_BD = self.content(table)
        if self.neighbours is not None and self.smoothing:
            vectors_BD = self.smoothed(vectors_BD, *self.neighbours.rows_of(table, search))
        vectors_BD = F.pad(vectors_BD, (0, self.factors_IL.shape[1]))
        return Items(vectors_BD, self.cold_bias.expand(len(table)))

    def content(self, table: TokenTable) -> Tensor:
        """The content vectors `(B, D)`, zero for items without tokens."""
        return content_vectors(self.fusion, table)

    def forward(self, table: TokenTable, rows_B: Tensor) -> Items:
        """Vectors and biases of the catalog's items in these rows, whose tokens the table holds."""
        content_BD = self.content(table)
        self.remember(content_BD, rows_B)
        return self.with_audience(content_BD, rows_B)

    def with_audience(self, content_BD: Tensor, rows_B: Tensor) -> Items:
        """Vectors and biases of items of the catalog, from their content: with their ids, smoothed."""
        own_BD, known_B = content_BD, self.trained_I[rows_B]
        bias_B = torch.where(known_B, self.bias(rows_B).squeeze(1), self.cold_bias)
        if self.use_ids:
            if self.training and self.id_dropout:
                known_B = known_B & (torch.rand(len(rows_B), device=rows_B.device) >= self.id_dropout)
            own_BD = own_BD + self.ids(rows_B) * known_B.unsqueeze(1)
        if self.smoothing:
            own_BD = self.smoothed(own_BD, self.neighbours_IN[rows_B], self.shares_IN[rows_B])
        return Items(torch.cat([own_BD, self.factors_IL[rows_B]], dim=1), bias_B)

    def smoothed(self, own_BD: Tensor, rows_BN: Tensor, shares_BN: Tensor) -> Tensor:
        """Vectors averaged with those of the neighbours in these rows, by their shares."""
        tables = [self.content_ID, self.ids.weight] if self.use_ids else [self.content_ID]
        theirs_BD = sum(
            F.embedding_bag(
                rows_BN.long(),
                table_ID,
                mode="sum",
                per_sample_weights=shares_BN,
                sparse=self.ids.sparse and table_ID is self.ids.weight,
            )
            for table_ID in tables
        )
        share_B1 = self.smoothing * shares_BN.sum(1, keepdim=True)  # nothing where there are no neighbours
        return (1 - share_B1) * own_BD + self.smoothing * theirs_BD


def content_vectors(fusion: Fusion, table: TokenTable) -> Tensor:
    """The content vectors `(B, D)` that a fusion makes, zero for items without tokens."""
    there_B = table.there_I
    if there_B.all():
        pooled_BD: Tensor = fusion(table.tokens, table.masks, table.times, standard=table.standard).pooled_BD
        return pooled_BD
    content_BD = next(fusion.parameters()).new_zeros(len(table), fusion.dim)
    if not there_B.any():
        return content_BD
    rows = there_B.nonzero().flatten()
    present = table.select(rows)
    fused = fusion(present.tokens, present.masks, present.times, standard=present.standard)
    return content_BD.index_copy(0, rows, fused.pooled_BD.to(content_BD.dtype))
