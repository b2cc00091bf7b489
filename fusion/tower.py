"""The two towers of a hybrid recommender: items from content and interactions, users from the items they took.

The score of a user and an item is one dot product plus a bias of the item:

    content = fusion(tokens)                                      what an item looks and sounds like
    base    = content + id                                        plus what its audience knows beyond that
    vector  = (1 - s) * base + s * mean(base of its neighbours)   neighbours by content
    user    = sum(weight * vector of the items taken) / sum(weight) ** p + null

An item that training offered to nobody has no id and a bias of its own kind (`cold_quantile`): it is ranked among all
the others by its content. An item that joins later gets its vector in the same way, by `embed`, without training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fusion.attention import Fused, Fusion, FusionError


@dataclass(frozen=True)
class TokenTable:
    """The tokens of I items: modality -> `(I, T, width)`, masks `(I, T)`, and times `(I, T)` in seconds where known.

    Items without any token are allowed here; their content is a zero vector.
    """

    tokens: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    times: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {len(x) for x in (*self.tokens.values(), *self.masks.values(), *self.times.values())}
        if len(lengths) != 1 or set(self.tokens) != set(self.masks):
            raise FusionError(f"tokens, masks and times do not describe the same items: lengths {sorted(lengths)}")

    def __len__(self) -> int:
        return len(next(iter(self.tokens.values())))

    def __deepcopy__(self, memo: object) -> TokenTable:
        return self  # never written to: copies of a model share it

    @property
    def there_I(self) -> Tensor:
        """Whether an item has any token `(I,)`."""
        return torch.stack([mask_IT.any(1) for mask_IT in self.masks.values()]).any(0)

    def select(self, rows: Tensor) -> TokenTable:
        """The items of these rows."""
        return TokenTable(*({m: x[rows] for m, x in part.items()} for part in (self.tokens, self.masks, self.times)))

    def to(self, device: torch.device) -> TokenTable:
        return TokenTable(
            *({m: x.to(device) for m, x in part.items()} for part in (self.tokens, self.masks, self.times))
        )

    def features(self, fusion: Fusion) -> dict[str, Tensor]:
        """Each item's mean token by modality, standardised, of unit norm `(I, width)`; zero where it has none."""
        features = {}
        for modality, tokens_ITW in self.tokens.items():
            mask_IT1 = self.masks[modality].unsqueeze(-1)
            mean_IW = tokens_ITW.masked_fill(~mask_IT1, 0.0).sum(1) / mask_IT1.sum(1).clamp(min=1)
            projection = fusion.projections[modality]
            standard_IW = (mean_IW - projection.mean_W) * projection.scale_W * mask_IT1.any(1)  # type: ignore[operator]
            features[modality] = F.normalize(standard_IW, dim=1)
        return features


@dataclass(frozen=True)
class Items:
    """`vectors_ID` and `bias_I` of items, `base_ID` the vectors before smoothing, and what the fusion made of them.

    `fused` holds only the items that have content, and is None where none has.
    """

    vectors_ID: Tensor
    bias_I: Tensor
    base_ID: Tensor
    fused: Fused | None = None


class HybridTower(nn.Module):
    """Item and user vectors; see the module's text.

    Args:
        fusion: makes the content vectors.
        popularity_I: training examples of each item, where the learned biases start.
        offered_I: bool, the items that stand in training; the others have neither id nor learned bias.
        graph_II: each item's neighbours by content, rows summing to one (or to zero), as of `content_graph`.
        smoothing: s above; 0 for none.
        history_power: p above; 1 is the mean of a history, 0 its sum.
        id_dropout: how often an item's id is hidden in training, so that its content learns to stand alone.
        use_ids: whether items have ids at all.
    """

    offered_I: Tensor
    cold_quantile: Tensor

    def __init__(
        self,
        fusion: Fusion,
        popularity_I: NDArray[np.integer],
        offered_I: NDArray[np.bool_],
        graph_II: sp.csr_array,
        *,
        smoothing: float,
        history_power: float,
        id_dropout: float,
        use_ids: bool = True,
    ) -> None:
        super().__init__()
        if not offered_I.any():
            raise FusionError("no item has been taken by anyone: there is nothing to learn a ranking from")
        self.fusion = fusion
        self.smoothing = smoothing
        self.history_power = history_power
        self.id_dropout = id_dropout
        self.register_buffer("offered_I", torch.as_tensor(offered_I, dtype=torch.bool))
        self.register_buffer("cold_quantile", torch.tensor(0.9))
        self.bias_I = nn.Parameter(torch.as_tensor(popularity_I, dtype=torch.float32).log1p())
        self.null_D = nn.Parameter(torch.randn(fusion.dim) * 0.03)
        self.ids_ID = nn.Parameter(torch.randn(len(popularity_I), fusion.dim) * 0.03) if use_ids else None
        self._graph = _Graph(graph_II)

    def forward(self, table: TokenTable) -> Items:
        """The vectors and biases of the items that the tower was built for."""
        content_ID, fused = self.content(table)
        base_ID = content_ID
        if self.ids_ID is not None:
            known_I1 = self.offered_I.unsqueeze(1)
            if self.training and self.id_dropout:
                known_I1 = known_I1 & (torch.rand_like(self.bias_I) >= self.id_dropout).unsqueeze(1)
            base_ID = base_ID + self.ids_ID * known_I1
        vectors_ID = base_ID
        if self.smoothing:
            vectors_ID = (1 - self.smoothing) * base_ID + self.smoothing * self._graph.average(base_ID)
        return Items(vectors_ID, torch.where(self.offered_I, self.bias_I, self.cold_bias()), base_ID, fused)

    def content(self, table: TokenTable) -> tuple[Tensor, Fused | None]:
        """The content vectors `(I, D)`, zero for items without tokens, and the details of the others."""
        there_I = table.there_I
        if there_I.all():
            fused = self.fusion(table.tokens, table.masks, table.times)
            return fused.pooled_BD, fused
        content_ID = self.null_D.new_zeros(len(table), len(self.null_D))
        if not there_I.any():
            return content_ID, None
        rows = there_I.nonzero().flatten()
        present = table.select(rows)
        fused = self.fusion(present.tokens, present.masks, present.times)
        return content_ID.index_copy(0, rows, fused.pooled_BD.to(content_ID.dtype)), fused

    def cold_bias(self) -> Tensor:
        """The bias of items that nobody was offered: a quantile of the learned ones."""
        return self.bias_I.detach()[self.offered_I].quantile(self.cold_quantile)

    @torch.no_grad()
    def embed(self, table: TokenTable, catalog: TokenTable, base_ID: Tensor, neighbours: int) -> Items:
        """Vectors and biases of items that joined after training.

        Args:
            table: the new items.
            catalog: the items of training, among which the neighbours are found.
            base_ID: their vectors before smoothing, as of `forward` in evaluation mode.
            neighbours: as many as the graph of training was made with.
        """
        base_BD, fused = self.content(table)
        vectors_BD = base_BD
        if self.smoothing:
            graph = _Graph(neighbour_graph(table.features(self.fusion), catalog.features(self.fusion), neighbours))
            vectors_BD = (1 - self.smoothing) * base_BD + self.smoothing * graph.average(base_ID)
        return Items(vectors_BD, self.cold_bias().expand(len(table)), base_BD, fused)

    def users(self, vectors_ID: Tensor, histories_BH: Tensor, weights_BH: Tensor) -> Tensor:
        """User vectors `(B, D)` from item rows and their weights; weight 0 where a history is shorter than H."""
        sums_BD = (vectors_ID[histories_BH] * weights_BH.unsqueeze(-1)).sum(1)
        return sums_BD / weights_BH.sum(1, keepdim=True).clamp(min=1e-6) ** self.history_power + self.null_D


def content_graph(table: TokenTable, fusion: Fusion, neighbours: int) -> sp.csr_array:
    """The nearest items of each item by content: the mean of one graph per modality that it has, itself left out."""
    features = table.features(fusion)
    return neighbour_graph(features, features, neighbours, same=True)


def neighbour_graph(
    queries: Mapping[str, Tensor], keys: Mapping[str, Tensor], neighbours: int, *, same: bool = False
) -> sp.csr_array:
    """Unit features by modality `(Q, width)` and `(I, width)` to a graph `(Q, I)` with rows that sum to one.

    Row sums are zero for items that share no modality with another.
    """
    num_queries, num_keys = (len(next(iter(features.values()))) for features in (queries, keys))
    total = sp.csr_array((num_queries, num_keys), dtype=np.float32)
    present_Q = np.zeros(num_queries, np.float32)
    for modality, queries_QW in queries.items():
        if modality in keys:
            one = _one_graph(queries_QW, keys[modality], neighbours, same)
            total = total + one
            present_Q += np.asarray(one.sum(axis=1)).ravel().round()
    return sp.csr_array(sp.diags_array(1 / np.maximum(present_Q, 1)) @ total)


def _one_graph(
    queries_QW: Tensor, keys_IW: Tensor, neighbours: int, same: bool, rows_at_once: int = 2048
) -> sp.csr_array:
    has_key_I, has_query_Q = keys_IW.abs().sum(1) > 0, queries_QW.abs().sum(1) > 0
    shape = (len(queries_QW), len(keys_IW))
    count = min(neighbours, int(has_key_I.sum()) - int(same))
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


class _Graph:
    """A fixed sparse matrix that averages rows, with a gradient."""

    def __init__(self, graph: sp.csr_array) -> None:
        self.forward = _to_torch(graph)
        self.backward = _to_torch(sp.csr_array(graph.T))

    def __deepcopy__(self, memo: object) -> _Graph:
        return self

    def average(self, vectors_ID: Tensor) -> Tensor:
        if self.forward.device != vectors_ID.device:
            self.forward, self.backward = (x.to(vectors_ID.device) for x in (self.forward, self.backward))
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
        torch.from_numpy(matrix.indptr.astype(np.int64)),
        torch.from_numpy(matrix.indices.astype(np.int64)),
        torch.from_numpy(matrix.data.astype(np.float32)),
        size=matrix.shape,
        check_invariants=True,
    )
