"""Fitting a fusion: to rank what users take, or, without any interaction, to agree across the modalities of an item.

    >>> tower, report = fit_ranking(table, train, validation=held_out)          # doctest: +SKIP
    >>> items = tower.eval()(table)                                             # doctest: +SKIP
    >>> fusion, report = fit_alignment(table)                                   # doctest: +SKIP

Every step makes the vectors of all items anew: the catalog's tokens and, for the full softmax, batch size times items
must fit in memory.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import lightning as L
import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from fusion.attention import FUSIONS
from fusion.base import Fusion
from fusion.config import FitReport, FusionConfig, Hardware, TrainingError
from fusion.examples import Examples, Rows
from fusion.neighbours import ContentNeighbours
from fusion.runs import run
from fusion.tasks import AlignmentTask, RankingTask, Task, TwoViewsTask
from fusion.token_table import TokenTable
from fusion.tower import HybridTower

logger = logging.getLogger(__name__)


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
        table: tokens of all I items; items without interactions are ranked by their content.
        train_UI: positive weights of who interacted with what. Rows may be empty.
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
    task = RankingTask(tower, table, examples, config, validation_UI, train_UI)
    report = run(task, examples, config, hardware)
    tower.eval()
    if validation_UI is not None:
        report.metrics.update(task.choose_cold_quantile())
    return tower, report


def fit_alignment(
    table: TokenTable, *, config: FusionConfig | None = None, hardware: Hardware | None = None
) -> tuple[Fusion, FitReport]:
    """Fits a fusion from content alone: the modalities of an item are trained to agree (contrastively).

    `config.modality_dropout` does not apply: alignment alone makes modalities stand for each other, and hiding them
    would only weaken it. Where no two items have two modalities, two views of an item are trained to agree, each with
    other features dropped (SimCSE, Gao et al. 2021).

    Raises:
        TrainingError: where fewer than two items have any token.
    """
    config, hardware = config or FusionConfig(), hardware or Hardware()
    L.seed_everything(config.seed, verbose=False)
    num_modalities_I = torch.stack([mask_IT.any(1) for mask_IT in table.masks.values()]).sum(0)
    fusion = _make_fusion(table, replace(config, modality_dropout=0.0))
    task: Task = AlignmentTask(fusion, table, config)
    rows = (num_modalities_I > 1).nonzero().flatten()
    if len(rows) < 2:
        task, rows = TwoViewsTask(fusion, table, config), num_modalities_I.nonzero().flatten()
    if len(rows) < 2:
        raise TrainingError(f"{len(rows)} of {len(table)} items have content: a fit needs at least two")
    report = run(task, Rows(rows), config, hardware)
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
