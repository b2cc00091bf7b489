"""Held-out interactions: the metrics of towers on them, and the weights of the best epoch."""

from __future__ import annotations

from typing import Any

import lightning as L
import numpy as np
import scipy.sparse as sp
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from torch import Tensor

from fusion.histories import Histories
from fusion.item_tower import Items
from fusion.user_tower import UserTower

EVALUATION_K = 20
SPREAD_USERS = 100
SCORES_AT_ONCE = 2**24


class Holdout:
    """Validation users, a random sample where there are many: their histories, and the items held out."""

    def __init__(self, histories: Histories, validation_UI: sp.csr_array, max_users: int, seed: int) -> None:
        users = np.flatnonzero(np.diff(validation_UI.indptr))
        if len(users) > max_users:
            users = np.sort(np.random.default_rng(seed).choice(users, max_users, replace=False))
        self.histories = histories.select(users)
        self.truth = sp.csr_array(validation_UI[users]).astype(bool)
        self.target_items = torch.from_numpy(np.unique(self.truth.indices).astype(np.int64))

    def __deepcopy__(self, memo: object) -> Holdout:
        return self

    def metrics(self, users: UserTower, items: Items) -> dict[str, float]:
        """Mean Recall@20 and NDCG@20 over all items but those of the history; `val_score` is their sum."""
        device = users.null_D.device
        users_UD = torch.from_numpy(users.vectors(self.histories, items.vectors_ID.float().numpy())).to(device)
        vectors_ID, bias_I = items.vectors_ID.float().to(device), items.bias_I.float().to(device)
        k = min(EVALUATION_K, len(vectors_ID))
        discounts_K = 1 / torch.log2(torch.arange(k, device=device) + 2.0)
        recall, ndcg = [], []
        for rows in np.array_split(np.arange(len(users_UD)), -(-len(users_UD) * len(vectors_ID) // SCORES_AT_ONCE)):
            scores_UI = torch.addmm(bias_I, users_UD[rows], vectors_ID.T)
            seen = self.histories.select(rows)
            scores_UI[torch.from_numpy(seen.users_N), torch.from_numpy(seen.items_N)] = -torch.inf
            hit_UK = self._hits(rows, scores_UI.topk(k, dim=1).indices.cpu()).to(device)
            total_U = torch.from_numpy(np.diff(self.truth.indptr)[rows]).to(device)
            recall.append(hit_UK.sum(1) / total_U)
            ndcg.append(hit_UK @ discounts_K / discounts_K.cumsum(0)[total_U.clamp(max=k) - 1])
        values = {"val_recall@20": float(torch.cat(recall).mean()), "val_ndcg@20": float(torch.cat(ndcg).mean())}
        return {**values, "val_score": sum(values.values())}

    def spread(self, users: UserTower, items: Items) -> float:
        """How far a user's scores vary over the items: the mean standard deviation, of some users."""
        some = self.histories.select(np.arange(min(len(self.histories), SPREAD_USERS)))
        users_UD = torch.from_numpy(users.vectors(some, items.vectors_ID.float().numpy()))
        return float(torch.addmm(items.bias_I, users_UD, items.vectors_ID.T).std(dim=1).mean())

    def _hits(self, rows: NDArray[np.int64], listed_UK: Tensor) -> Tensor:
        """1 where a listed item is one of those held out of the user."""
        truth = self.truth[rows].tocoo()
        num_items = self.truth.shape[1]
        keys_UK = np.arange(len(rows))[:, None] * num_items + listed_UK.numpy()
        return torch.from_numpy(np.isin(keys_UK, truth.row.astype(np.int64) * num_items + truth.col)).float()


class BestWeights(Callback):
    """Keeps the weights of the best validated epoch in memory, as validated: averaged, where averages are kept."""

    def __init__(self) -> None:
        self.score, self.epoch, self.weights = -1.0, -1, dict[str, Tensor]()

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        if outputs["val_score"] > self.score:
            self.score, self.epoch = outputs["val_score"], trainer.current_epoch
            self.weights = {name: x.detach().cpu().clone() for name, x in pl_module.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score, "epoch": self.epoch, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.score, self.epoch, self.weights = state_dict["score"], state_dict["epoch"], state_dict["weights"]

    def restore(self, task: L.LightningModule) -> int:
        """Loads the best weights; their epoch."""
        task.cpu().load_state_dict(self.weights)
        return self.epoch
