"""Neighbours by content: from which items an item borrows what their audiences know of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fusion.token_table import Tokens, TokenTable, row_blocks
from fusion.whitening import is_collapsed, principal_axes, whitening

WIDTH = 128
EXACT_ITEMS = 50_000
QUERIES_AT_ONCE = 2048

Find = Callable[[NDArray[np.float32], int], NDArray[np.int64]]
"""Queries (Q, P) and a count -> the places of the nearest keys (Q, count) by inner product, -1 for none."""

Search = Callable[[NDArray[np.float32]], Find]
"""Makes ready to find among keys (K, P)."""


class ContentNeighbours(nn.Module):
    """The nearest items with ids, for items of the catalog and for others.

    Every modality has neighbours of its own, by the cosine of mean tokens as the encoder gives them, or whitened where
    their variance has collapsed, in at most `WIDTH` principal components. An item has the neighbours of the modalities
    that it has, in equal shares.

    Args:
        widths: the width of each modality's tokens.
        num_keys: the number of items with ids.
        count: neighbours per modality.
    """

    key_rows_K: Tensor

    def __init__(self, widths: Mapping[str, int], num_keys: int, count: int) -> None:
        super().__init__()
        self.count, self.modalities = count, list(widths)
        self.register_buffer("key_rows_K", torch.zeros(num_keys, dtype=torch.long))
        for modality, width in widths.items():
            self.register_buffer(f"{modality}_centre_W", torch.zeros(width))
            self.register_buffer(f"{modality}_matrix_WP", torch.zeros(width, min(width, WIDTH)))
            self.register_buffer(f"{modality}_keys_KP", torch.zeros(num_keys, min(width, WIDTH), dtype=torch.float16))

    @property
    def num_places(self) -> int:
        """How many places each modality has among the neighbours of an item: one more than it fills."""
        return min(self.count + 1, len(self.key_rows_K))

    @classmethod
    @torch.no_grad()
    def of(cls, tokens: Tokens, key_rows_K: Tensor, sample: TokenTable, count: int) -> ContentNeighbours:
        """The neighbours among the items of these rows; `sample` are some items to measure the features by."""
        neighbours = cls(tokens.widths, len(key_rows_K), count)
        neighbours.key_rows_K.copy_(key_rows_K)
        for modality in neighbours.modalities:
            mean_BW = _means(sample, modality)
            centre_W, matrix_WP = _principal(mean_BW[~mean_BW.isnan().any(1)])
            neighbours.get_buffer(f"{modality}_centre_W").copy_(centre_W)
            neighbours.get_buffer(f"{modality}_matrix_WP").copy_(matrix_WP)
        for rows in row_blocks(tokens, len(key_rows_K)):
            table = tokens.select(key_rows_K[rows])
            for modality in neighbours.modalities:
                neighbours.get_buffer(f"{modality}_keys_KP")[rows] = neighbours._unit(table, modality).half()
        return neighbours

    def _unit(self, table: TokenTable, modality: str) -> Tensor:
        """Unit vectors `(B, P)`, zero where the modality is missing."""
        centre_W, matrix_WP = self.get_buffer(f"{modality}_centre_W"), self.get_buffer(f"{modality}_matrix_WP")
        if modality not in table.tokens:
            return centre_W.new_zeros(len(table), matrix_WP.shape[1])
        return F.normalize(((_means(table, modality) - centre_W) @ matrix_WP).nan_to_num(0.0), dim=1)

    @torch.no_grad()
    def rows_of(
        self, tokens: Tokens, search: Search | None = None, rows_B: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Rows of neighbours `(B, N)` and their weights, which sum to 1, or to 0 where an item has no neighbour.

        Args:
            tokens: of the items that neighbours are looked for.
            search: how to find; by default all keys are compared.
            rows_B: the rows of these items in the catalog, where they are of it: no item is its own neighbour.
        """
        make = _exact if search is None or len(self.key_rows_K) <= EXACT_ITEMS else search
        finds = {m: make(self.get_buffer(f"{m}_keys_KP").float().numpy()) for m in self.modalities}
        found: list[tuple[Tensor, Tensor]] = []
        for block in row_blocks(tokens, len(tokens)):
            table = tokens.select(block)
            own_B = torch.full((len(block),), -1) if rows_B is None else rows_B[block]
            parts = [self._nearest(self._unit(table, m), m, own_B, finds[m]) for m in self.modalities]
            rows_BN, weights_BN = torch.cat([rows for rows, _ in parts], 1), torch.cat([w for _, w in parts], 1)
            found.append((rows_BN, weights_BN / weights_BN.sum(1, keepdim=True).clamp(min=1e-9)))
        return torch.cat([rows for rows, _ in found]), torch.cat([weights for _, weights in found])

    def _nearest(self, queries_BP: Tensor, modality: str, own_B: Tensor, find: Find) -> tuple[Tensor, Tensor]:
        """Rows and weights `(B, count)` by one modality; the weights of each item sum to 1, or to 0."""
        keys_KP = self.get_buffer(f"{modality}_keys_KP")
        places_BN = torch.from_numpy(find(queries_BP.numpy(), self.num_places))
        rows_BN = self.key_rows_K[places_BN.clamp(min=0)]
        there_BN = (places_BN >= 0) & (rows_BN != own_B[:, None]) & queries_BP.any(1, keepdim=True)
        there_BN &= keys_KP.any(1)[places_BN.clamp(min=0)]
        there_BN &= there_BN.cumsum(1) <= self.count
        weights_BN = there_BN / there_BN.sum(1, keepdim=True).clamp(min=1)
        return rows_BN, weights_BN


def _exact(keys_KP: NDArray[np.float32]) -> Find:
    keys = torch.from_numpy(keys_KP)

    def find(queries_QP: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        blocks = torch.split(torch.from_numpy(queries_QP), QUERIES_AT_ONCE)
        places: NDArray[np.int64] = torch.cat([(block @ keys.T).topk(count, dim=1).indices for block in blocks]).numpy()
        return places

    return find


def _means(table: TokenTable, modality: str) -> Tensor:
    """Each item's mean token `(B, width)`; NaN where it has none."""
    mask_BT1 = table.masks[modality].unsqueeze(-1)
    return table.tokens[modality].masked_fill(~mask_BT1, 0.0).sum(1) / mask_BT1.sum(1)


def _principal(mean_NW: Tensor) -> tuple[Tensor, Tensor]:
    """(centre `(W,)`, matrix `(W, P)`): as they are, or whitened where they have collapsed, in principal components."""
    width = mean_NW.shape[1]
    centre_W, matrix_WW = torch.zeros(width), torch.eye(width)
    if is_collapsed(mean_NW):
        centre_W, matrix_WW = whitening(mean_NW)
    if width <= WIDTH:
        return centre_W, matrix_WW
    mapped_NW = (mean_NW - centre_W) @ matrix_WW
    _, basis_WW = principal_axes(mapped_NW.T.double() @ mapped_NW.double())
    return centre_W, matrix_WW @ basis_WW[:, -WIDTH:].float()
