"""The two towers of a hybrid recommender: items from content and interactions, users from their histories.

The score of a user and an item is one dot product plus a bias of the item:

    content = fusion(tokens)                                      what an item looks and sounds like
    base    = content + id                                        plus what its audience knows beyond that
    vector  = (1 - s) * base + s * mean(base of its neighbours)   neighbours by content
    user    = sum(weight * vectors of the history) / sum(weight) ** p + null

A cold item, one without any training interaction, has no id and a bias of its own kind (`cold_quantile`): it is ranked
among all the others by its content. An item that joins later gets its vector in the same way, by `embed`, without
training.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fusion.attention import FUSIONS
from fusion.base import Fused, Fusion
from fusion.neighbours import ContentNeighbours, NeighbourGraph
from fusion.projections import FusionError
from fusion.token_table import TokenTable


@dataclass(frozen=True)
class Items:
    """`vectors_ID` and `bias_I` of items, `base_ID` the vectors before smoothing, and what the fusion made of them.

    `fused` holds only the items that have content, and is None where none has.
    """

    vectors_ID: Tensor
    bias_I: Tensor
    base_ID: Tensor
    fused: Fused | None = None


class Tower(nn.Module, ABC):
    """What every tower offers: item vectors from tokens, what is needed to make user vectors, and its files.

    `fusion` makes the content vectors; `history_power` and `null_D` are those of `user_vectors`.
    """

    fusion: Fusion
    history_power: float
    null_D: Tensor

    @abstractmethod
    def forward(self, table: TokenTable) -> Items:
        """The vectors and biases of the items that the tower was built for."""

    @abstractmethod
    def embed(self, table: TokenTable, base_ID: Tensor) -> Items:
        """Vectors and biases of items that joined after training.

        Args:
            table: the new items; modalities that none of them has may be left out.
            base_ID: `Items.base_ID` of the items that the tower was built for, as of `forward` in evaluation mode.
        """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What `empty` needs beside the fusion."""

    @classmethod
    @abstractmethod
    def empty(cls, fusion: Fusion, settings: Mapping[str, Any]) -> Self:
        """A tower of these settings, for weights to be loaded into."""

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

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes `tower.safetensors` and `tower.json` into a folder, which is made where it is missing."""
        fusion = self.fusion
        settings = {
            "kind": next(kind for kind, tower in TOWERS.items() if type(self) is tower),
            "fusion": {"kind": fusion.kind, "widths": fusion.widths, "dim": fusion.dim, "num_heads": fusion.num_heads},
            "settings": self.settings(),
        }
        Path(folder).mkdir(parents=True, exist_ok=True)
        save_file({name: x.contiguous() for name, x in self.state_dict().items()}, Path(folder) / "tower.safetensors")
        (Path(folder) / "tower.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")


def load_tower(folder: str | os.PathLike[str]) -> Tower:
    """The tower that `save` wrote, in evaluation mode.

    Raises:
        FusionError: where the files are missing, damaged or do not belong together.
    """
    try:
        about = json.loads((Path(folder) / "tower.json").read_text(encoding="utf-8"))
        fusion = dict(about["fusion"])
        tower = TOWERS[about["kind"]].empty(FUSIONS[fusion.pop("kind")](**fusion), about["settings"])
        tower.load_state_dict(load_file(Path(folder) / "tower.safetensors"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise FusionError(f"{folder} holds no tower that can be read: {' '.join(str(error).split())}") from error
    return tower.eval()


class ContentTower(Tower):
    """Items by content alone, for catalogs that nobody has touched yet.

    Vectors of unit norm, zero for items without any token; biases zero; users the mean of their history.
    """

    history_power = 1.0

    def __init__(self, fusion: Fusion) -> None:
        super().__init__()
        self.fusion = fusion
        self.register_buffer("null_D", torch.zeros(fusion.dim), persistent=False)

    def forward(self, table: TokenTable) -> Items:
        content_ID, fused = self.content(table)
        vectors_ID = F.normalize(content_ID, dim=-1)
        return Items(vectors_ID, vectors_ID.new_zeros(len(table)), vectors_ID, fused)

    @torch.no_grad()
    def embed(self, table: TokenTable, base_ID: Tensor) -> Items:
        return self(table)  # type: ignore[no-any-return]

    def settings(self) -> dict[str, Any]:
        return {}

    @classmethod
    def empty(cls, fusion: Fusion, settings: Mapping[str, Any]) -> Self:
        return cls(fusion)


class HybridTower(Tower):
    """Item and user vectors; see the module's text.

    Args:
        fusion: makes the content vectors.
        popularity_I: training examples of each item, where the learned biases start.
        trained_I: bool, the items that stand in training; the others have neither id nor learned bias.
        neighbours: the neighbours of the catalog's items.
        smoothing: s above; 0 for none. Items without neighbours are not smoothed.
        history_power: p above; 1 is the mean of a history, 0 its sum.
        id_dropout: how often an item's id is excluded in training, so that its content learns to stand alone.
        use_ids: whether items have ids at all.
    """

    trained_I: Tensor
    cold_quantile: Tensor

    def __init__(
        self,
        fusion: Fusion,
        popularity_I: NDArray[np.integer],
        trained_I: NDArray[np.bool_],
        neighbours: ContentNeighbours,
        *,
        smoothing: float,
        history_power: float,
        id_dropout: float,
        use_ids: bool = True,
    ) -> None:
        super().__init__()
        if not trained_I.any():
            raise FusionError("there is no interaction with any item: there is nothing to learn a ranking from")
        self.fusion = fusion
        self.smoothing = smoothing
        self.history_power = history_power
        self.id_dropout = id_dropout
        self.register_buffer("trained_I", torch.as_tensor(trained_I, dtype=torch.bool))
        self.register_buffer("cold_quantile", torch.tensor(0.9))
        self.bias_I = nn.Parameter(torch.as_tensor(popularity_I, dtype=torch.float32).log1p())
        self.null_D = nn.Parameter(torch.randn(fusion.dim) * 0.03)
        self.ids_ID = nn.Parameter(torch.randn(len(popularity_I), fusion.dim) * 0.03) if use_ids else None
        self.neighbours = neighbours
        self._own_graph: NeighbourGraph | None = None

    def forward(self, table: TokenTable) -> Items:
        content_ID, fused = self.content(table)
        base_ID = content_ID
        if self.ids_ID is not None:
            known_I1 = self.trained_I.unsqueeze(1)
            if self.training and self.id_dropout:
                known_I1 = known_I1 & (torch.rand_like(self.bias_I) >= self.id_dropout).unsqueeze(1)
            base_ID = base_ID + self.ids_ID * known_I1
        vectors_ID = self._smooth(base_ID, base_ID, self._graph())
        return Items(vectors_ID, torch.where(self.trained_I, self.bias_I, self.cold_bias()), base_ID, fused)

    def cold_bias(self) -> Tensor:
        """The bias of cold items: a quantile of the learned ones."""
        return self.bias_I.detach()[self.trained_I].quantile(self.cold_quantile)

    @torch.no_grad()
    def embed(self, table: TokenTable, base_ID: Tensor) -> Items:
        base_BD, fused = self.content(table)
        vectors_BD = base_BD
        if self.smoothing:
            vectors_BD = self._smooth(base_BD, base_ID, NeighbourGraph(self.neighbours.graph_of(table)))
        return Items(vectors_BD, self.cold_bias().expand(len(table)), base_BD, fused)

    def _graph(self) -> NeighbourGraph:
        if self._own_graph is None:
            self._own_graph = NeighbourGraph(self.neighbours.graph())
        return self._own_graph

    def _smooth(self, base_BD: Tensor, base_ID: Tensor, graph: NeighbourGraph) -> Tensor:
        if not self.smoothing:
            return base_BD
        share_B1 = self.smoothing * graph.connected(base_BD.device).unsqueeze(1)
        return (1 - share_B1) * base_BD + share_B1 * graph.average(base_ID)

    def settings(self) -> dict[str, Any]:
        return {
            "num_items": len(self.bias_I),
            "neighbours": self.neighbours.count,
            "smoothing": self.smoothing,
            "history_power": self.history_power,
            "use_ids": self.ids_ID is not None,
        }

    @classmethod
    def empty(cls, fusion: Fusion, settings: Mapping[str, Any]) -> Self:
        num_items = settings["num_items"]
        return cls(
            fusion,
            np.zeros(num_items, np.int64),
            np.ones(num_items, np.bool_),
            ContentNeighbours(fusion.widths, num_items, settings["neighbours"]),
            smoothing=settings["smoothing"],
            history_power=settings["history_power"],
            id_dropout=0.0,
            use_ids=settings["use_ids"],
        )

    def users(self, vectors_ID: Tensor, histories_BH: Tensor, weights_BH: Tensor) -> Tensor:
        """User vectors `(B, D)` from item rows and their weights; weight 0 where a history is shorter than H."""
        sums_BD = (vectors_ID[histories_BH] * weights_BH.unsqueeze(-1)).sum(1)
        return sums_BD / weights_BH.sum(1, keepdim=True).clamp(min=1e-6) ** self.history_power + self.null_D


TOWERS: dict[str, type[Tower]] = {"hybrid": HybridTower, "content": ContentTower}


def user_vectors(
    history_UI: sp.csr_array, vectors_ID: NDArray[np.float32], history_power: float, null_D: NDArray[np.float32]
) -> NDArray[np.float32]:
    """One vector per row of weighted histories: `sum(w v) / sum(w) ** history_power + null`, `(U, D)`.

    A user without history gets the null vector, which ranks by the items' biases and what is liked in general.
    """
    total_U1 = np.maximum(np.asarray(history_UI.sum(axis=1)).reshape(-1, 1), 1e-6)
    vectors_UD = np.asarray(history_UI @ vectors_ID) / total_U1**history_power + null_D
    return np.asarray(vectors_UD, np.float32)
