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

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fusion.attention import FUSIONS, Fused, Fusion, FusionError
from fusion.whitening import is_collapsed, whitening


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

    def means(self) -> dict[str, Tensor]:
        """Each item's mean token by modality `(I, width)`; NaN where it has none."""
        means = {}
        for modality, tokens_ITW in self.tokens.items():
            mask_IT1 = self.masks[modality].unsqueeze(-1)
            means[modality] = tokens_ITW.masked_fill(~mask_IT1, 0.0).sum(1) / mask_IT1.sum(1)
        return means


@dataclass(frozen=True)
class Items:
    """`vectors_ID` and `bias_I` of items, `base_ID` the vectors before smoothing, and what the fusion made of them.

    `fused` holds only the items that have content, and is None where none has.
    """

    vectors_ID: Tensor
    bias_I: Tensor
    base_ID: Tensor
    fused: Fused | None = None


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


class HybridTower(nn.Module):
    """Item and user vectors; see the module's text.

    Args:
        fusion: makes the content vectors.
        popularity_I: training examples of each item, where the learned biases start.
        offered_I: bool, the items that stand in training; the others have neither id nor learned bias.
        neighbours: the neighbours of the catalog's items.
        smoothing: s above; 0 for none. Items without neighbours are not smoothed.
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
        neighbours: ContentNeighbours,
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
        self.neighbours = neighbours
        self._own_graph: _Graph | None = None

    def forward(self, table: TokenTable) -> Items:
        """The vectors and biases of the items that the tower was built for."""
        content_ID, fused = self.content(table)
        base_ID = content_ID
        if self.ids_ID is not None:
            known_I1 = self.offered_I.unsqueeze(1)
            if self.training and self.id_dropout:
                known_I1 = known_I1 & (torch.rand_like(self.bias_I) >= self.id_dropout).unsqueeze(1)
            base_ID = base_ID + self.ids_ID * known_I1
        vectors_ID = self._smooth(base_ID, base_ID, self._graph())
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
    def embed(self, table: TokenTable, base_ID: Tensor) -> Items:
        """Vectors and biases of items that joined after training.

        Args:
            table: the new items.
            base_ID: the catalog's vectors before smoothing, as of `forward` in evaluation mode.
        """
        base_BD, fused = self.content(table)
        vectors_BD = base_BD
        if self.smoothing:
            vectors_BD = self._smooth(base_BD, base_ID, _Graph(self.neighbours.graph_of(table)))
        return Items(vectors_BD, self.cold_bias().expand(len(table)), base_BD, fused)

    def _graph(self) -> _Graph:
        if self._own_graph is None:
            self._own_graph = _Graph(self.neighbours.graph())
        return self._own_graph

    def _smooth(self, base_BD: Tensor, base_ID: Tensor, graph: _Graph) -> Tensor:
        if not self.smoothing:
            return base_BD
        share_B1 = self.smoothing * graph.connected(base_BD.device).unsqueeze(1)
        return (1 - share_B1) * base_BD + share_B1 * graph.average(base_ID)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes `tower.safetensors` and `tower.json` into a folder, which is made where it is missing."""
        from safetensors.torch import save_file

        fusion = self.fusion
        settings = {
            "fusion": {"kind": fusion.kind, "widths": fusion.widths, "dim": fusion.dim, "num_heads": fusion.num_heads},
            "neighbours": self.neighbours.count,
            "num_items": len(self.bias_I),
            "smoothing": self.smoothing,
            "history_power": self.history_power,
            "use_ids": self.ids_ID is not None,
        }
        Path(folder).mkdir(parents=True, exist_ok=True)
        save_file({name: x.contiguous() for name, x in self.state_dict().items()}, Path(folder) / "tower.safetensors")
        (Path(folder) / "tower.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> HybridTower:
        """The tower that `save` wrote, in evaluation mode.

        Raises:
            FusionError: where the files are missing, damaged or do not belong together.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            settings = json.loads((Path(folder) / "tower.json").read_text(encoding="utf-8"))
            weights = load_file(Path(folder) / "tower.safetensors")
            kind = FUSIONS[settings["fusion"].pop("kind")]
            widths, num_items = settings["fusion"]["widths"], settings.pop("num_items")
            tower = cls(
                kind(**settings.pop("fusion")),
                np.zeros(num_items, np.int64),
                np.ones(num_items, bool),
                ContentNeighbours(widths, num_items, settings.pop("neighbours")),
                id_dropout=0.0,
                **settings,
            )
            tower.load_state_dict(weights)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise FusionError(f"{folder} holds no tower that can be read: {error}") from error
        return tower.eval()

    def users(self, vectors_ID: Tensor, histories_BH: Tensor, weights_BH: Tensor) -> Tensor:
        """User vectors `(B, D)` from item rows and their weights; weight 0 where a history is shorter than H."""
        sums_BD = (vectors_ID[histories_BH] * weights_BH.unsqueeze(-1)).sum(1)
        return sums_BD / weights_BH.sum(1, keepdim=True).clamp(min=1e-6) ** self.history_power + self.null_D


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


class _Graph:
    """A fixed sparse matrix that averages rows, with a gradient."""

    def __init__(self, graph: sp.csr_array) -> None:
        self.forward = _to_torch(graph)
        self.backward = _to_torch(sp.csr_array(graph.T))
        self.connected_Q = torch.from_numpy(np.diff(graph.indptr) > 0)

    def __deepcopy__(self, memo: object) -> _Graph:
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
        torch.from_numpy(matrix.indptr.astype(np.int64)),
        torch.from_numpy(matrix.indices.astype(np.int64)),
        torch.from_numpy(matrix.data.astype(np.float32)),
        size=matrix.shape,
        check_invariants=True,
    )
