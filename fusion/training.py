"""Fitting a fusion: to rank what users take, or, without any interaction, to agree across the modalities of an item.

    >>> tower, report = fit_ranking(table, train, validation=held_out)          # doctest: +SKIP
    >>> items = tower.eval()(table)                                             # doctest: +SKIP
    >>> fusion, report = fit_alignment(table)                                   # doctest: +SKIP

Every step makes the vectors of all items anew: the catalog's tokens and, for the full softmax, batch size times items
must fit in memory.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import scipy.sparse as sp
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping, EMAWeightAveraging, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset

from fusion.attention import FUSIONS, Fusion
from fusion.config import FitReport, FusionConfig, Hardware, TrainingError
from fusion.examples import Batches, Examples, Rows
from fusion.neighbours import ContentNeighbours
from fusion.objectives import adversarial, bpr, full_softmax, in_batch_softmax, modality_alignment, sampled_binary
from fusion.token_table import TokenTable
from fusion.tower import HybridTower, Items, user_vectors

logger = logging.getLogger(__name__)

COLD_QUANTILES = (0.0, 0.5, 0.7, 0.8, 0.85, 0.9, 0.93, 0.96, 0.98)
ALIGNMENT_ITEMS = 1024
EVALUATION_K = 20


def fit_ranking(
    table: TokenTable,
    train_UI: sp.csr_array,
    *,
    order_N: NDArray[np.integer] | None = None,
    validation_UI: sp.csr_array | None = None,
    config: FusionConfig | None = None,
    hardware: Hardware | None = None,
) -> tuple[HybridTower, FitReport]:
    """Fits item and user vectors so that held-out items rank high.

    Args:
        table: tokens of all I items; items that nobody took are ranked by their content.
        train_UI: positive weights of who took what. Rows may be empty.
        order_N: for each entry of `train_UI.data`, a number that ascends with time. Without it every interaction is
            told from all the others of its user, whatever `config.targets` says.
        validation_UI: held-out interactions of the same users and items, disjoint from training. They choose the epoch
            and the bias of items that training does not know. Without them the fit runs for `max_epochs`.

    Returns:
        The tower in evaluation mode, on the CPU, and a report.

    Raises:
        TrainingError: for shapes that do not fit, weights that are not positive, no user with two interactions,
            validation that is empty or present in training, or a loss that is not finite.
    """
    config, hardware = config or FusionConfig(), hardware or Hardware()
    _check_interactions(table, train_UI, validation_UI)
    L.seed_everything(config.seed, verbose=False)
    examples = Examples(train_UI, order_N, config.targets, config.max_history)
    fusion = _make_fusion(table, config)
    usual_U = np.diff(train_UI.indptr) <= config.max_history
    tower = HybridTower(
        fusion,
        np.bincount(train_UI[usual_U].indices, minlength=len(table)),
        np.bincount(train_UI.indices, minlength=len(table)) > 0,
        ContentNeighbours.of(table, config.neighbours),
        smoothing=config.smoothing,
        history_power=config.history_power,
        id_dropout=config.id_dropout,
        use_ids=config.use_ids,
    )
    task = _RankingTask(tower, table, examples, config, validation_UI, train_UI)
    report = _run(task, examples, config, hardware)
    tower.eval()
    if validation_UI is not None:
        report.metrics.update(task.choose_cold_quantile())
    return tower, report


def fit_alignment(
    table: TokenTable, *, config: FusionConfig | None = None, hardware: Hardware | None = None
) -> tuple[Fusion, FitReport]:
    """Fits a fusion from content alone: the modalities of an item are drawn to each other, and from other items'.

    `config.modality_dropout` does not apply: alignment alone makes modalities stand for each other, and hiding them
    would only weaken it. Where no two items have two modalities, two views of an item are drawn together, each with
    other features dropped (SimCSE, Gao et al. 2021).

    Raises:
        TrainingError: where fewer than two items have any token.
    """
    config, hardware = config or FusionConfig(), hardware or Hardware()
    L.seed_everything(config.seed, verbose=False)
    num_modalities_I = torch.stack([mask_IT.any(1) for mask_IT in table.masks.values()]).sum(0)
    fusion = _make_fusion(table, replace(config, modality_dropout=0.0))
    task: _Task = _AlignmentTask(fusion, table, config)
    rows = (num_modalities_I > 1).nonzero().flatten()
    if len(rows) < 2:
        task, rows = _ViewsTask(fusion, table, config), num_modalities_I.nonzero().flatten()
    if len(rows) < 2:
        raise TrainingError(f"{len(rows)} of {len(table)} items have content: a fit needs at least two")
    report = _run(task, Rows(rows), config, hardware)
    return fusion.eval(), report


def _make_fusion(table: TokenTable, config: FusionConfig) -> Fusion:
    widths = {modality: tokens_ITW.shape[2] for modality, tokens_ITW in table.tokens.items()}
    fusion = FUSIONS[config.fusion](
        widths,
        dim=config.dim,
        num_heads=config.num_heads,
        input_dropout=config.input_dropout,
        dropout=config.attention_dropout,
        modality_dropout=config.modality_dropout,
    )
    fusion.calibrate(table.tokens, table.masks)
    return fusion


def _check_interactions(table: TokenTable, train_UI: sp.csr_array, validation_UI: sp.csr_array | None) -> None:
    if train_UI.shape[1] != len(table):
        raise TrainingError(f"interactions with {train_UI.shape[1]} items, tokens of {len(table)}")
    if not (np.isfinite(train_UI.data) & (train_UI.data > 0)).all():
        raise TrainingError("the weights of interactions must be positive and finite")
    if validation_UI is None:
        return
    if validation_UI.shape != train_UI.shape:
        raise TrainingError(f"validation of shape {validation_UI.shape}, training of shape {train_UI.shape}")
    if not validation_UI.nnz:
        raise TrainingError("validation is empty: leave it out to train for a fixed number of epochs")
    if leaked := (train_UI.astype(bool).multiply(validation_UI.astype(bool))).nnz:
        raise TrainingError(f"{leaked} of {validation_UI.nnz} validation interactions are present in training")


class _Task(L.LightningModule):
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
        free = [p for p in self.parameters() if p.ndim < 2]  # biases, gains and gates are not drawn to zero
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


class _RankingTask(_Task):
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
        self.holdout = None if validation_UI is None else _Holdout(train_UI, validation_UI)
        self.log_popularity_I = torch.from_numpy(
            np.log(np.maximum(np.bincount(examples.items_N, minlength=len(table)), 0.5) / len(examples))
        ).float()
        self.offered = tower.offered_I.nonzero().flatten()
        self.place_I = torch.full((len(table),), -1).index_copy(0, self.offered, torch.arange(len(self.offered)))

    def data(self) -> Iterator[NDArray[Any]]:
        yield from super().data()
        yield from self.examples.data()
        for taken_UI in (self.train_UI, self.validation_UI):
            if taken_UI is not None:
                yield from (taken_UI.indptr, taken_UI.indices, taken_UI.data)

    def on_fit_start(self) -> None:
        for name in ("table", "log_popularity_I", "offered", "place_I"):
            setattr(self, name, getattr(self, name).to(self.device))

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor, Tensor], batch_index: int) -> Tensor:
        histories_BH, weights_BH, others_BH, targets_B = batch
        seen = others_BH.nonzero(as_tuple=True)
        hidden = (seen[0], self.place_I[histories_BH[seen]])
        weights_BH = self._shorten(weights_BH)

        def loss_of(tokens: Mapping[str, Tensor]) -> Tensor:
            items = self.tower(TokenTable(tokens, self.table.masks, self.table.times))
            users_BD = self.tower.users(items.vectors_ID, histories_BH, weights_BH)
            loss = self._objective(users_BD, items, targets_B, hidden)
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

    def _objective(self, users_BD: Tensor, items: Items, targets_B: Tensor, hidden: tuple[Tensor, Tensor]) -> Tensor:
        if self.config.objective == "full_softmax":
            return full_softmax(
                users_BD,
                items.vectors_ID[self.offered],
                self.place_I[targets_B],
                bias_I=items.bias_I[self.offered],
                hidden=hidden,
                label_smoothing=self.config.label_smoothing,
            )
        vectors_BD, bias_B = items.vectors_ID[targets_B], items.bias_I[targets_B]
        if self.config.objective == "in_batch_softmax":
            return in_batch_softmax(users_BD, vectors_BD, targets_B, self.log_popularity_I[targets_B], bias_B=bias_B)
        size = (len(targets_B), self.config.num_negatives)
        negatives_BN = self.offered[torch.randint(len(self.offered), size, device=self.device)]
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
        if self.tower.offered_I[self.holdout.target_items].all():
            return best
        kept = float(self.tower.cold_quantile)
        for quantile in COLD_QUANTILES:
            self.tower.cold_quantile.fill_(quantile)
            metrics = self._evaluate()
            if metrics["val_score"] > best["val_score"]:
                best, kept = metrics, quantile
        self.tower.cold_quantile.fill_(kept)
        return best


class _AlignmentTask(_Task):
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


class _ViewsTask(_AlignmentTask):
    def training_step(self, rows: Tensor, batch_index: int) -> Tensor:
        items = self.table.select(rows.cpu()).to(self.device)
        views = {str(k): self.fusion(items.tokens, items.masks, items.times).vectors_BD for k in range(2)}
        return self._checked(modality_alignment(views, dict.fromkeys(views, items.there_I), self.config.temperature))


class _Holdout:
    """Validation users: their training histories, and the items held out."""

    def __init__(self, train_UI: sp.csr_array, validation_UI: sp.csr_array) -> None:
        users = np.flatnonzero(np.diff(validation_UI.indptr))
        self.history = sp.csr_array(train_UI[users])
        self.truth = sp.csr_array(validation_UI[users]).astype(bool)
        self.target_items = torch.from_numpy(np.unique(self.truth.indices).astype(np.int64))

    def __deepcopy__(self, memo: object) -> _Holdout:
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


def _run(task: _Task, dataset: Dataset[Any], config: FusionConfig, hardware: Hardware) -> FitReport:
    started = time.monotonic()
    size = len(dataset)  # type: ignore[arg-type]
    loader = DataLoader(dataset, batch_size=None, sampler=Batches(size, config.batch_size, config.seed))
    validated = getattr(task, "holdout", None) is not None
    best = _BestWeights() if validated else None
    checkpoint = _checkpoint(task, config, hardware)
    try:
        trainer = _make_trainer(config, hardware, best, checkpoint)
    except (MisconfigurationException, ModuleNotFoundError) as error:
        raise TrainingError(str(error)) from error
    resumed = checkpoint is not None and checkpoint.exists()
    logger.info("fitting %d examples on %s%s", size, hardware.device, ", resumed" if resumed else "")
    trainer.fit(task, loader, ckpt_path=checkpoint if resumed else None, weights_only=False)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    best_epoch = trainer.current_epoch - 1
    if best is not None:
        best_epoch = best.restore(task)
    return FitReport(trainer.current_epoch, best_epoch, size, time.monotonic() - started)


def _checkpoint(task: _Task, config: FusionConfig, hardware: Hardware) -> Path | None:
    """Where a fit is kept while it runs; the name says of which settings and data, so that no other goes on from it."""
    if hardware.folder is None:
        return None
    settings = json.dumps([type(task).__name__, config.to_mapping()], sort_keys=True)
    digest = hashlib.blake2b(settings.encode(), digest_size=16)
    for array in task.data():
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return hardware.folder / "checkpoints" / f"{digest.hexdigest()}.ckpt"


class _BestWeights(Callback):
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


def _make_trainer(
    config: FusionConfig, hardware: Hardware, best: _BestWeights | None, checkpoint: Path | None
) -> L.Trainer:
    callbacks: list[Callback] = []
    if config.ema_decay:
        callbacks.append(_WarmAverage(config.ema_decay))
    if best is not None:
        callbacks += [best, EarlyStopping("val_score", mode="max", patience=config.patience)]
    if hardware.progress:
        callbacks.append(TQDMProgressBar())
    loggers: list[Logger] = []
    if hardware.folder is not None:
        loggers = [CSVLogger(hardware.folder, "logs", "csv"), TensorBoardLogger(hardware.folder, "logs", "tensorboard")]
    if hardware.wandb_project is not None:
        loggers.append(WandbLogger(project=hardware.wandb_project))
    if checkpoint is not None:
        callbacks.append(ModelCheckpoint(checkpoint.parent, checkpoint.stem, enable_version_counter=False))
    return L.Trainer(
        accelerator=hardware.device,
        devices=hardware.num_devices,
        strategy=hardware.strategy,
        precision=hardware.precision,  # type: ignore[arg-type]
        max_epochs=config.max_epochs,
        gradient_clip_val=config.gradient_clip or None,
        callbacks=callbacks,
        logger=loggers,
        enable_checkpointing=checkpoint is not None,
        enable_progress_bar=hardware.progress,
        enable_model_summary=False,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        deterministic=hardware.device == "cpu",
        use_distributed_sampler=False,
    )


class _WarmAverage(EMAWeightAveraging):
    """Averaged weights that do not remember the start: the decay rises to its value over the first steps."""

    def __init__(self, decay: float) -> None:
        super().__init__(decay=decay)

        def average(old: Tensor, new: Tensor, num_averaged: Tensor) -> Tensor:
            steps = num_averaged.to(old.device)
            weight = torch.minimum(torch.tensor(decay, device=old.device), (1 + steps) / (10 + steps))
            return torch.lerp(new, old, weight.to(old.dtype)) if old.is_floating_point() else new

        self._kwargs = {"avg_fn": average}
