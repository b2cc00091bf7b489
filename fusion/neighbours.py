"""Neighbours by content, and averages over them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusion.token_table import TokenTable
from fusion.whitening import is_collapsed, whitening


class ContentNeighbours(nn.Module):
    """The nearest items of a catalog by content, for items of the catalog and for others.

    Every modality has a graph of its own, by the cosine of mean tokens as the encoder gives them, or whitened where
    their variance has collapsed. An item's neighbours are those of the modalities that it has, in equal shares.

    Args:
        widths: the width of each modality's tokens.
        num_items: the size of the catalog.
        count: neighbours per modality.
    """

    def __init__(self, widths: Mapping[str, int], num_items: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.modalities = list(widths)
        for modality, width in widths.items():
            self.register_buffer(f"{modality}_centre_W", torch.zeros(width))
            self.register_buffer(f"{modality}_matrix_WW", torch.eye(width))
            self.register_buffer(f"{modality}_features_IW", torch.zeros(num_items, width))

    @classmethod
    def of(cls, table: TokenTable, count: int) -> ContentNeighbours:
        """The neighbours in this catalog."""
        neighbours = cls({m: tokens_ITW.shape[2] for m, tokens_ITW in table.tokens.items()}, len(table), count)
        for modality, mean_IW in table.means().items():
            there_NW = mean_IW[~mean_IW.isnan().any(1)]
            if is_collapsed(there_NW):
                for name, value in zip(("centre_W", "matrix_WW"), whitening(there_NW), strict=True):
                    neighbours.get_buffer(f"{modality}_{name}").copy_(value)
            neighbours.get_buffer(f"{modality}_features_IW").copy_(neighbours._unit(modality, mean_IW))
        return neighbours

    def _unit(self, modality: str, mean_IW: Tensor) -> Tensor:
        """Unit vectors, zero where the modality is missing."""
        centre_W, matrix_WW = self.get_buffer(f"{modality}_centre_W"), self.get_buffer(f"{modality}_matrix_WW")
        return F.normalize(((mean_IW - centre_W) @ matrix_WW).nan_to_num(0.0), dim=1)

    def graph(self) -> sp.csr_array:
        """The catalog's own graph `(I, I)`, rows summing to one, or to zero where an item has no neighbour."""
        graphs = []
        for modality in self.modalities:
            features_IW = self.get_buffer(f"{modality}_features_IW")
            graphs.append(_nearest(features_IW, features_IW, self.count, same=True))
        return _mean_of_graphs(graphs)

    def graph_of(self, table: TokenTable) -> sp.csr_array:
        """The graph from other items to the catalog `(B, I)`."""
        graphs = []
        for modality, mean_BW in table.means().items():
            keys_IW = self.get_buffer(f"{modality}_features_IW")
            graphs.append(_nearest(self._unit(modality, mean_BW), keys_IW, self.count, same=False))
        return _mean_of_graphs(graphs)


class NeighbourGraph:
    """A fixed sparse matrix that averages rows, with a gradient."""

    def __init__(self, graph: sp.csr_array) -> None:
        self.forward = _to_torch(graph)
        self.backward = _to_torch(sp.csr_array(graph.T))
        self.connected_Q = torch.from_numpy(np.diff(graph.indptr) > 0)

    def __deepcopy__(self, memo: object) -> NeighbourGraph:
        return self

    def connected(self, device: torch.device) -> Tensor:
        """Which rows have neighbours `(Q,)`."""
        return self.connected_Q.to(device)

    def average(self, vectors_ID: Tensor) -> Tensor:
        if self.forward.device != vectors_ID.device:
            self.forward, self.backward = (x.to(vectors_ID.device) for x in (self.forward, self.backward))
        with torch.autocast(vectors_ID.device.type, enabled=False):  # there is no sparse product in half precision
            averaged: Tensor = _SparseProduct.apply(vectors_ID.float(), self.forward, self.backward)
        return averaged


class _SparseProduct(torch.autograd.Function):
    """Sparse times dense; torch has no gradient for that product in compressed rows."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, dense: Tensor, sparse: Tensor, transposed: Tensor) -> Tensor:
        ctx.transposed = transposed  # type: ignore[attr-defined]
        return sparse @ dense

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.transposed @ gradient.contiguous(), None, None  # type: ignore[attr-defined]


def _to_torch(matrix: sp.csr_array) -> Tensor:
    matrix.sort_indices()
    return torch.sparse_csr_tensor(
        _copied(matrix.indptr, torch.int64),
        _copied(matrix.indices, torch.int64),
        _copied(matrix.data, torch.float32),
        size=matrix.shape,
        check_invariants=True,
    )


def _copied(array: np.ndarray, dtype: torch.dtype) -> Tensor:
    """A tensor whose stride is one even where it is empty, which torch 2.11 asks for in a sparse one."""
    return torch.empty(len(array), dtype=dtype).copy_(torch.from_numpy(array))


def _nearest(queries_QW: Tensor, keys_IW: Tensor, count: int, *, same: bool, rows_at_once: int = 2048) -> sp.csr_array:
    """Unit features to a graph `(Q, I)` of the `count` nearest keys, each with weight `1 / count`; none for zeros.

    `same` says that queries and keys are the same items, and no item is its own neighbour.
    """
    has_key_I, has_query_Q = keys_IW.any(1), queries_QW.any(1)
    shape = (len(queries_QW), len(keys_IW))
    count = min(count, int(has_key_I.sum()) - int(same))
    if count < 1 or not has_query_Q.any():
        return sp.csr_array(shape, dtype=np.float32)
    found = []
    for start in range(0, len(queries_QW), rows_at_once):
        similarity = queries_QW[start : start + rows_at_once] @ keys_IW.T
        similarity[:, ~has_key_I] = -torch.inf
        if same:
            similarity.diagonal(start).fill_(-torch.inf)
        found.append(similarity.topk(count, dim=1).indices)
    nearest_QN = torch.cat(found)[has_query_Q].cpu().numpy()
    rows = np.repeat(has_query_Q.nonzero().flatten().cpu().numpy(), count)
    return sp.csr_array((np.full(len(rows), 1 / count, dtype=np.float32), (rows, nearest_QN.ravel())), shape=shape)


def _mean_of_graphs(graphs: list[sp.csr_array]) -> sp.csr_array:
    """The mean over the graphs in which a row is not empty."""
    total = sum(graphs[1:], start=graphs[0])
    present_Q = sum((np.diff(graph.indptr) > 0).astype(np.float32) for graph in graphs)
    return sp.csr_array(sp.diags_array(1 / np.maximum(present_Q, 1)) @ total)
