"""How a fit runs on Lightning: epochs, early stopping, averaged weights, logs, and going on after a stop."""

from __future__ import annotations

import hashlib
import json
import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.callbacks import Callback, EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from fusion.config import FitProgress, FitReport, FitStopped, FusionConfig, Hardware, TrainingError
from fusion.processes import OwnSignals, shared, strategy_of
from fusion.sharing import Share
from fusion.tasks import Task
from fusion.validation import BestWeights

logger = logging.getLogger(__name__)


def run(task: Task, config: FusionConfig, hardware: Hardware) -> FitReport:
    """Fits a task; it holds the weights to keep afterwards, on the CPU."""
    checkpoint = _checkpoint(task, config, hardware)
    with _quiet_lightning():
        if hardware.num_devices == 1:
            return _run(task, config, hardware, checkpoint)
        theirs = replace(hardware, on_progress=None, should_stop=None)
        take_part = partial(_take_part, task, config, theirs, checkpoint)
        with shared(hardware.num_devices, hardware.device, take_part) as task.share:
            return _run(task, config, hardware, checkpoint)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Leave out what Lightning says of hardware that it did not find, of other products, and of its own code."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [its_logger.level for its_logger in loggers]
    for its_logger in loggers:
        its_logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=PossibleUserWarning)
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    finally:
        for its_logger, level in zip(loggers, levels, strict=True):
            its_logger.setLevel(level)


def _run(task: Task, config: FusionConfig, hardware: Hardware, checkpoint: Path | None) -> FitReport:
    started, curves, best = time.monotonic(), _Curves(), BestWeights()
    epochs = _train(task, config, hardware, checkpoint, curves, best)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
        with suppress(OSError):  # other fits may keep theirs there
            checkpoint.parent.rmdir()
    best_epoch = epochs - 1
    if task.holdout is not None:
        best_epoch = best.restore(task)
    task.cpu()
    seconds = time.monotonic() - started
    return FitReport(epochs, best_epoch, task.num_examples, seconds, curves=curves.values)


def _take_part(task: Task, config: FusionConfig, hardware: Hardware, checkpoint: Path | None, share: Share) -> None:
    """What another process does of a fit: to train as well, and keep nothing of it."""
    task.share = share
    with _quiet_lightning():
        _train(task, config, hardware, checkpoint, _Curves(), BestWeights())


def _train(
    task: Task,
    config: FusionConfig,
    hardware: Hardware,
    checkpoint: Path | None,
    curves: _Curves,
    best: BestWeights,
) -> int:
    """Trains to the end; returns the number of epochs."""
    try:
        watching = [curves] if task.holdout is None else [curves, best]
        trainer = _make_trainer(config, hardware, task.share, watching, checkpoint)
    except (MisconfigurationException, ModuleNotFoundError) as error:
        raise TrainingError(str(error)) from error
    resumed = checkpoint is not None and checkpoint.exists()
    logger.info("fitting %d examples on %s%s", task.num_examples, hardware.device, ", resumed" if resumed else "")
    try:
        with _memory_as_it_is():
            trainer.fit(task, task.batches(), ckpt_path=checkpoint if resumed else None, weights_only=False)
    except SIGTERMException:  # Lightning's own, of a signal that came between two steps
        if hardware.should_stop is None or not hardware.should_stop():
            raise
        raise FitStopped(f"the fit was stopped in epoch {trainer.current_epoch + 1}") from None
    return int(trainer.current_epoch)


@contextmanager
def _memory_as_it_is() -> Iterator[None]:
    """Where algorithms are deterministic, torch fills memory before it is written: a tenth of a small fit's time."""
    settings: Any = torch.utils.deterministic
    before, settings.fill_uninitialized_memory = settings.fill_uninitialized_memory, False
    try:
        yield
    finally:
        settings.fill_uninitialized_memory = before


def _checkpoint(task: Task, config: FusionConfig, hardware: Hardware) -> Path | None:
    """Where a fit is kept while it runs; the name says of which settings and data, so that no other goes on from it."""
    if hardware.checkpoints is None:
        return None
    settings = json.dumps([type(task).__name__, config.to_mapping()], sort_keys=True)
    digest = hashlib.blake2b(settings.encode(), digest_size=16)
    for array in task.arrays():
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return hardware.checkpoints / f"{digest.hexdigest()}.ckpt"


def _make_trainer(
    config: FusionConfig, hardware: Hardware, share: Share, watching: Sequence[Callback], checkpoint: Path | None
) -> L.Trainer:
    callbacks: list[Callback] = [_Watch(hardware), *watching]
    if share.count > 1:
        callbacks.append(OwnSignals())
    if config.ema_decay:
        callbacks.append(_WarmAverage(config.ema_decay))
    if any(isinstance(callback, BestWeights) for callback in watching):
        callbacks.append(EarlyStopping("val_score", mode="max", patience=config.patience))
    loggers: list[Logger] = []
    if hardware.logs is not None:
        loggers = [CSVLogger(hardware.logs, "logs", "csv"), TensorBoardLogger(hardware.logs, "logs", "tensorboard")]
    if hardware.wandb_project is not None:
        loggers.append(WandbLogger(project=hardware.wandb_project))
    if checkpoint is not None:
        callbacks.append(ModelCheckpoint(checkpoint.parent, checkpoint.stem, enable_version_counter=False))
    return L.Trainer(
        accelerator=hardware.device,
        devices=hardware.num_devices,
        strategy=strategy_of(share),
        precision=hardware.precision,  # type: ignore[arg-type]
        max_epochs=config.max_epochs,
        callbacks=callbacks,
        logger=loggers,
        enable_checkpointing=checkpoint is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        deterministic=hardware.device == "cpu",
        use_distributed_sampler=False,
    )


class _Watch(Callback):
    """Tells how far the fit is, and ends it where it is asked to."""

    def __init__(self, hardware: Hardware) -> None:
        self._hardware, self._start, self._first_step, self._metrics = hardware, 0.0, 0, dict[str, float]()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start, self._first_step = time.monotonic(), _steps(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._hardware.should_stop is not None and self._hardware.should_stop():
            raise FitStopped(f"the fit was stopped in epoch {trainer.current_epoch + 1}")
        if self._hardware.on_progress is not None:
            self._hardware.on_progress(self._progress(trainer))

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        self._metrics = dict(outputs)

    def _progress(self, trainer: L.Trainer) -> FitProgress:
        step, seconds = _steps(trainer), time.monotonic() - self._start
        total = int(trainer.estimated_stepping_batches)
        left = seconds / max(1, step - self._first_step) * max(0, total - step)
        return FitProgress(trainer.current_epoch + 1, step, total, seconds, left, self._metrics)


class _Curves(Callback):
    """Keeps the loss and the validation metrics of each epoch."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for name, value in trainer.callback_metrics.items():
            if name != "val_score":
                self.values.setdefault(name, []).append(float(value))

    def state_dict(self) -> dict[str, Any]:
        return {"values": self.values}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.values = state_dict["values"]


def _steps(trainer: L.Trainer) -> int:
    """Batches done, over all epochs."""
    return int(trainer.fit_loop.epoch_loop.total_batch_idx) + 1


class _WarmAverage(EMAWeightAveraging):
    """Averaged weights that do not remember the start: the decay rises to its value over the first steps."""

    def __init__(self, decay: float) -> None:
        super().__init__(decay=decay)

        def average(old: Tensor, new: Tensor, num_averaged: Tensor) -> Tensor:
            steps = num_averaged.to(old.device)
            weight = torch.minimum(torch.tensor(decay, device=old.device), (1 + steps) / (10 + steps))
            return torch.lerp(new, old, weight.to(old.dtype)) if old.is_floating_point() else new

        self._kwargs = {"avg_fn": average}
