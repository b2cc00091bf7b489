"""How a fit runs on Lightning: epochs, early stopping, averaged weights, logs, and going on after a stop."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping, EMAWeightAveraging, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fusion.config import FitReport, FusionConfig, Hardware, TrainingError
from fusion.examples import Batches
from fusion.tasks import Task
from fusion.validation import BestWeights

logger = logging.getLogger(__name__)


def run(task: Task, dataset: Dataset[Any], config: FusionConfig, hardware: Hardware) -> FitReport:
    started = time.monotonic()
    size = len(dataset)  # type: ignore[arg-type]
    loader = DataLoader(dataset, batch_size=None, sampler=Batches(size, config.batch_size, config.seed))
    validated = getattr(task, "holdout", None) is not None
    best = BestWeights() if validated else None
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


def _checkpoint(task: Task, config: FusionConfig, hardware: Hardware) -> Path | None:
    """Where a fit is kept while it runs; the name says of which settings and data, so that no other goes on from it."""
    if hardware.folder is None:
        return None
    settings = json.dumps([type(task).__name__, config.to_mapping()], sort_keys=True)
    digest = hashlib.blake2b(settings.encode(), digest_size=16)
    for array in task.data():
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return hardware.folder / "checkpoints" / f"{digest.hexdigest()}.ckpt"


def _make_trainer(
    config: FusionConfig, hardware: Hardware, best: BestWeights | None, checkpoint: Path | None
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
