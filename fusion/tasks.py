"""What is learned in one step: the Lightning modules of the fits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import lightning as L
import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from fusion.base import Fusion
from fusion.config import FusionConfig, TrainingError
from fusion.examples import Batches, Examples, Rows
from fusion.objectives import adversarial, bpr, full_softmax, in_batch_softmax, modality_alignment, sampled_binary
from fusion.token_table import TokenTable
from fusion.tower import HybridTower, Items
from fusion.validation import Holdout

COLD_QUANTILES = (0.0, 0.5, 0.7, 0.8, 0.85, 0.9, 0.93, 0.96, 0.98)
ALIGNMENT_ITEMS = 1024


class Task(L.LightningModule):
    """What both fits share: the catalog, the optimiser, the schedule, and the check of the loss."""

    def __init__(self, table: TokenTable, config: FusionConfig) -> None:
        super().__init__()
        self.table = table
        self.config = config

    def data(self) -> Iterator[NDArray[Any]]:
        """All that a fit learns from and is validated by."""
        for part in (self.table.tokens, self.table.masks, self.table.times):
            for modality in sorted(part):
                yield np.frombuffer(modality.encode(), np.uint8)
                yield part[modality].numpy()

    def configure_optimizers(self) -> Any:
        plain = [p for p in self.parameters() if p.ndim > 1]
        free = [p for p in self.parameters() if p.ndim < 2]  # biases, gains and gates do not decay
        groups = [{"params": plain, "weight_decay": self.config.weight_decay}, {"params": free, "weight_decay": 0.0}]
        optimizer: torch.optim.Optimizer
        if self.config.optimizer == "adamw":
            optimizer = torch.optim.AdamW(groups, lr=self.config.learning_rate)
        else:
            optimizer = torch.optim.SGD(groups, lr=self.config.learning_rate, momentum=0.9)
        total = max(1, int(self.trainer.estimated_stepping_batches))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self._schedule(optimizer, total), "interval": "step"},
        }

    def _schedule(self, optimizer: torch.optim.Optimizer, total: int) -> LambdaLR:
        warmup, cosine = self.config.warmup_steps, self.config.schedule == "cosine"

        def factor(step: int) -> float:
            rise = min(1.0, (step + 1) / (warmup + 1))
            return rise * (0.5 + 0.5 * float(np.cos(np.pi * min(step / total, 1.0)))) if cosine else rise

        return LambdaLR(optimizer, factor)

    def _checked(self, loss: Tensor) -> Tensor:
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss.item()} in step {self.global_step}: check the tokens for values that are not "
                "finite, or lower the learning rate"
            )
        self.log("train_loss", loss.detach(), on_step=False, on_epoch=True, batch_size=1)
        return loss


class RankingTask(Task):
    def __init__(
        self,
        tower: HybridTower,
        table: TokenTable,
        examples: Examples,
        config: FusionConfig,
        validation_UI: sp.csr_array | None,
        train_UI: sp.csr_array,
    ) -> None:
        super().__init__(table, config)
        self.tower = tower
        self.examples, self.train_UI, self.validation_UI = examples, train_UI, validation_UI
        self.holdout = None if validation_UI is None else Holdout(train_UI, validation_UI)
        self.log_popularity_I = torch.from_numpy(
            np.log(np.maximum(np.bincount(examples.items_N, minlength=len(table)), 0.5) / len(examples))
        ).float()
        self.trained = tower.trained_I.nonzero().flatten()
        self.place_I = torch.full((len(table),), -1).index_copy(0, self.trained, torch.arange(len(self.trained)))

    def data(self) -> Iterator[NDArray[Any]]:
        yield from super().data()
        yield from self.examples.data()
        for taken_UI in (self.train_UI, self.validation_UI):
            if taken_UI is not None:
                yield from (taken_UI.indptr, taken_UI.indices, taken_UI.data)

    def on_fit_start(self) -> None:
        for name in ("table", "log_popularity_I", "trained", "place_I"):
            setattr(self, name, getattr(self, name).to(self.device))

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor, Tensor], batch_index: int) -> Tensor:
        histories_BH, weights_BH, others_BH, targets_B = batch
        seen = others_BH.nonzero(as_tuple=True)
        excluded = (seen[0], self.place_I[histories_BH[seen]])
        weights_BH = self._shorten(weights_BH)

        def loss_of(tokens: Mapping[str, Tensor]) -> Tensor:
            items = self.tower(TokenTable(tokens, self.table.masks, self.table.times))
            users_BD = self.tower.users(items.vectors_ID, histories_BH, weights_BH)
            loss = self._objective(users_BD, items, targets_B, excluded)
            if self.config.alignment_weight:
                loss = loss + self.config.alignment_weight * self._alignment(items)
            return loss

        loss = loss_of(self.table.tokens)
        if self.config.adversarial_weight:
            worst = adversarial(loss_of, self.table.tokens, self.config.adversarial_epsilon)
            loss = loss + self.config.adversarial_weight * worst
        return self._checked(loss)

    def _shorten(self, weights_BH: Tensor) -> Tensor:
        if not self.config.shorten_history:
            return weights_BH
        draw_BH = torch.rand_like(weights_BH) * (weights_BH > 0)
        one_BH = torch.zeros_like(weights_BH).scatter(1, draw_BH.argmax(1, keepdim=True), 1.0) * weights_BH
        short_B1 = torch.rand_like(weights_BH[:, :1]) < self.config.shorten_history
        return torch.where(short_B1, one_BH, weights_BH)

    def _objective(self, users_BD: Tensor, items: Items, targets_B: Tensor, excluded: tuple[Tensor, Tensor]) -> Tensor:
        if self.config.objective == "full_softmax":
            return full_softmax(
                users_BD,
                items.vectors_ID[self.trained],
                self.place_I[targets_B],
                bias_I=items.bias_I[self.trained],
                excluded=excluded,
                label_smoothing=self.config.label_smoothing,
            )
        vectors_BD, bias_B = items.vectors_ID[targets_B], items.bias_I[targets_B]
        if self.config.objective == "in_batch_softmax":
            return in_batch_softmax(users_BD, vectors_BD, targets_B, self.log_popularity_I[targets_B], bias_B=bias_B)
        size = (len(targets_B), self.config.num_negatives)
        negatives_BN = self.trained[torch.randint(len(self.trained), size, device=self.device)]
        positive_B = (users_BD * vectors_BD).sum(1) + bias_B
        negative_BN = torch.einsum("bd,bnd->bn", users_BD, items.vectors_ID[negatives_BN]) + items.bias_I[negatives_BN]
        return (sampled_binary if self.config.objective == "binary" else bpr)(positive_B, negative_BN)

    def _alignment(self, items: Items) -> Tensor:
        assert items.fused is not None
        weights = items.fused.token_weights
        chosen = torch.randperm(len(items.fused.vectors_BD), device=self.device)[:ALIGNMENT_ITEMS]
        vectors = {m: x[chosen] for m, x in items.fused.modality_vectors.items()}
        there = {m: (weights[m] > 0).any(1)[chosen] for m in vectors}
        return modality_alignment(vectors, there, self.config.temperature)

    def val_dataloader(self) -> Any:
        return [] if self.holdout is None else DataLoader(Rows(torch.zeros(1, dtype=torch.long)), batch_size=None,
                                                          sampler=Batches(1, 1, 0))  # fmt: skip

    def validation_step(self, batch: Tensor, batch_index: int) -> dict[str, float]:
        metrics = self._evaluate()
        self.log_dict(metrics, prog_bar=True, batch_size=1)
        return metrics

    def _evaluate(self) -> dict[str, float]:
        assert self.holdout is not None
        with torch.no_grad():
            items = self.tower(self.table)
            users_UD = self.holdout.users(self.tower, items.vectors_ID)
        return self.holdout.metrics(users_UD, items.vectors_ID, items.bias_I)

    def choose_cold_quantile(self) -> dict[str, float]:
        """Sets the bias of items unknown to training to what serves validation best; its metrics."""
        assert self.holdout is not None
        self.table = self.table.to(torch.device("cpu"))
        best = self._evaluate()
        if self.tower.trained_I[self.holdout.target_items].all():
            return best
        kept = float(self.tower.cold_quantile)
        for quantile in COLD_QUANTILES:
            self.tower.cold_quantile.fill_(quantile)
            metrics = self._evaluate()
            if metrics["val_score"] > best["val_score"]:
                best, kept = metrics, quantile
        self.tower.cold_quantile.fill_(kept)
        return best


class AlignmentTask(Task):
    def __init__(self, fusion: Fusion, table: TokenTable, config: FusionConfig) -> None:
        super().__init__(table, config)
        self.fusion = fusion

    def training_step(self, rows: Tensor, batch_index: int) -> Tensor:
        items = self.table.select(rows.cpu()).to(self.device)
        fused = self.fusion(items.tokens, items.masks, items.times)
        # The fused vector stands beside the modalities: it has to agree with each, so attention and gates learn too.
        vectors = {**fused.modality_vectors, "": fused.vectors_BD}
        there = {**{m: mask_BT.any(1) for m, mask_BT in items.masks.items()}, "": items.there_I}
        return self._checked(modality_alignment(vectors, there, self.config.temperature))


class TwoViewsTask(AlignmentTask):
    def training_step(self, rows: Tensor, batch_index: int) -> Tensor:
        items = self.table.select(rows.cpu()).to(self.device)
        views = {str(k): self.fusion(items.tokens, items.masks, items.times).vectors_BD for k in range(2)}
        return self._checked(modality_alignment(views, dict.fromkeys(views, items.there_I), self.config.temperature))
