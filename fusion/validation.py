"""Held-out interactions: the metrics of a tower, and the weights of the best epoch."""

from __future__ import annotations

from typing import Any

import lightning as L
import numpy as np
import scipy.sparse as sp
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from fusion.tower import HybridTower, user_vectors

EVALUATION_K = 20


class Holdout:
    """Validation users: their training histories, and the items held out."""

    def __init__(self, train_UI: sp.csr_array, validation_UI: sp.csr_array) -> None:
        users = np.flatnonzero(np.diff(validation_UI.indptr))
        self.history = sp.csr_array(train_UI[users])
        self.truth = sp.csr_array(validation_UI[users]).astype(bool)
        self.target_items = torch.from_numpy(np.unique(self.truth.indices).astype(np.int64))

    def __deepcopy__(self, memo: object) -> Holdout:
        return self

    def users(self, tower: HybridTower, vectors_ID: Tensor) -> Tensor:
        vectors = vectors_ID.float().cpu().numpy()
        null_D = tower.null_D.detach().cpu().numpy()
        users_UD = user_vectors(self.history, vectors, tower.history_power, null_D)
        return torch.from_numpy(users_UD).to(vectors_ID.device)

    def metrics(
        self, users_UD: Tensor, vectors_ID: Tensor, bias_I: Tensor, users_at_once: int = 1024
    ) -> dict[str, float]:
        """Mean Recall@20 and NDCG@20 over all items but those of the history; `val_score` is their sum."""
        k = min(EVALUATION_K, vectors_ID.shape[0])
        discounts_K = 1 / torch.log2(torch.arange(k, device=vectors_ID.device) + 2.0)
        ideal_K = discounts_K.cumsum(0)
        recall, ndcg = [], []
        for start in range(0, len(users_UD), users_at_once):
            rows = slice(start, start + users_at_once)
            scores_UI = users_UD[rows].float() @ vectors_ID.T.float() + bias_I
            seen = self.history[rows].tocoo()
            scores_UI[torch.from_numpy(seen.row).long(), torch.from_numpy(seen.col).long()] = -torch.inf
            truth_UI = torch.from_numpy(self.truth[rows].toarray()).to(scores_UI.device)
            hit_UK = truth_UI.gather(1, scores_UI.topk(k, dim=1).indices).float()
            total_U = truth_UI.sum(1)
            recall.append(hit_UK.sum(1) / total_U)
            ndcg.append(hit_UK @ discounts_K / ideal_K[total_U.clamp(max=k) - 1])
        values = {"val_recall@20": float(torch.cat(recall).mean()), "val_ndcg@20": float(torch.cat(ndcg).mean())}
        return {**values, "val_score": sum(values.values())}


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
