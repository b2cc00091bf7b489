"""A fit that was stopped goes on where it was, and no fit goes on from another."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from fusion_data import SMALL, Planted, planted_kinds

from fusion.config import FitProgress, FitReport, FitStopped, FusionConfig, Hardware
from fusion.histories import Histories
from fusion.token_table import TokenTable
from fusion.tower import Towers
from fusion.training import fit_alignment, fit_ranking

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIG = replace(SMALL, max_epochs=5, patience=5)
SAMPLED = {"full_softmax_items": 0, "num_uniform": 12, "num_popular": 4}


@pytest.fixture(scope="module")
def data() -> Planted:
    return planted_kinds(ordered=True)


def fit(data: Planted, config: FusionConfig, hardware: Hardware, *, validated: bool = True) -> tuple[Towers, FitReport]:
    return fit_ranking(
        data.table,
        data.histories,
        validation_UI=data.held_out_UI if validated else None,
        config=config,
        hardware=hardware,
    )


def stopped_in(epoch: int, folder: Path) -> Hardware:
    """Hardware that stops a fit after the first step of an epoch, the first being 1."""
    epochs: list[int] = []

    def on_progress(progress: FitProgress) -> None:
        epochs.append(progress.epoch)

    return Hardware(
        checkpoints=folder, on_progress=on_progress, should_stop=lambda: bool(epochs) and epochs[-1] >= epoch
    )


def stop(data: Planted, config: FusionConfig, folder: Path, epoch: int = 3, *, validated: bool = True) -> None:
    with pytest.raises(FitStopped, match=f"stopped in epoch {epoch}"):
        fit(data, config, stopped_in(epoch, folder), validated=validated)


@pytest.mark.parametrize(
    "change",
    [{}, SAMPLED, {"ema_decay": 0.9}, {"input_dropout": 0.0, "history_dropout": 0.0, "id_dropout": 0.0}],
    ids=["full", "sampled", "averaged", "without chance"],
)
@pytest.mark.parametrize("validated", [True, False])
def test_a_stopped_fit_ends_as_one_that_was_not(
    data: Planted, tmp_path: Path, change: dict[str, Any], validated: bool
) -> None:
    config = replace(CONFIG, **change)
    whole, expected = fit(data, config, Hardware(), validated=validated)
    stop(data, config, tmp_path, validated=validated)
    assert len(list(tmp_path.rglob("*.ckpt"))) == 1
    steps: list[int] = []
    hardware = Hardware(checkpoints=tmp_path, on_progress=lambda progress: steps.append(progress.step))
    towers, report = fit(data, config, hardware, validated=validated)
    assert report.epochs == expected.epochs == 5 and report.best_epoch == expected.best_epoch
    assert report.metrics == pytest.approx(expected.metrics, abs=1e-5)
    assert report.curves.keys() == {"train_loss", *(["val_recall@20", "val_ndcg@20"] if validated else [])}
    for name, curve in report.curves.items():
        assert len(curve) == 5 and curve == pytest.approx(expected.curves[name], abs=1e-4)
    for ours, theirs in zip(towers.state_dict().values(), whole.state_dict().values(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    assert steps == list(range(steps[0], steps[-1] + 1)) and steps[0] == 2 * steps[-1] // 5 + 1
    assert not list(tmp_path.rglob("*.ckpt"))


def test_it_may_be_stopped_again_and_again(data: Planted, tmp_path: Path) -> None:
    for epoch in (1, 2, 4):
        stop(data, CONFIG, tmp_path, epoch)
    _, report = fit(data, CONFIG, Hardware(checkpoints=tmp_path))
    assert report.epochs == 5 and report.metrics["val_recall@20"] > 0.8


def test_content_alone_goes_on_as_well(data: Planted, tmp_path: Path) -> None:
    config = replace(CONFIG, batch_size=10)
    whole, _ = fit_alignment(data.table, config=config)
    with pytest.raises(FitStopped):
        fit_alignment(data.table, config=config, hardware=stopped_in(3, tmp_path))
    epochs: list[int] = []
    hardware = Hardware(checkpoints=tmp_path, on_progress=lambda progress: epochs.append(progress.epoch))
    towers, _ = fit_alignment(data.table, config=config, hardware=hardware)
    assert epochs[0] == 3
    assert torch.allclose(
        towers.embed_catalog(data.table).vectors_ID, whole.embed_catalog(data.table).vectors_ID, atol=1e-5
    )


def epochs_trained(folder: Path) -> list[int]:
    (log,) = folder.rglob("metrics.csv")
    with log.open() as file:
        return [int(row["epoch"]) for row in csv.DictReader(file) if row["train_loss"]]


def _times(data: Planted) -> Planted:
    assert data.histories.days_N is not None
    return replace(data, histories=replace(data.histories, days_N=data.histories.days_N * 2))


def _tokens(data: Planted) -> Planted:
    tokens = {m: x + 1 for m, x in data.table.tokens.items()}
    return replace(data, table=TokenTable(tokens, data.table.masks, data.table.times))


def _training(data: Planted) -> Planted:
    histories: Histories = replace(data.histories, weights_N=data.histories.weights_N * np.float32(2))
    return replace(data, histories=histories)


def _held_out(data: Planted) -> Planted:
    held_out_UI = data.held_out_UI.tolil()
    held_out_UI[0] = 0
    return replace(data, held_out_UI=sp.csr_array(held_out_UI))


CHANGES: dict[str, Any] = {
    "settings": lambda data: data,
    "tokens": _tokens,
    "training": _training,
    "times": _times,
    "validation": _held_out,
}


@pytest.mark.parametrize("change", CHANGES)
def test_no_fit_goes_on_from_another(data: Planted, change: str, tmp_path: Path) -> None:
    stop(data, CONFIG, tmp_path / "checkpoints", 2)
    config = replace(CONFIG, learning_rate=1e-3) if change == "settings" else CONFIG
    fit(CHANGES[change](data), replace(config), Hardware(checkpoints=tmp_path / "checkpoints", logs=tmp_path / "logs"))
    assert epochs_trained(tmp_path / "logs")[0] == 0
    assert len(list((tmp_path / "checkpoints").rglob("*.ckpt"))) == 1  # the other fit may still go on


def test_the_same_fit_goes_on_and_says_so_in_its_logs(data: Planted, tmp_path: Path) -> None:
    stop(data, CONFIG, tmp_path / "checkpoints", 3)
    fit(data, CONFIG, Hardware(checkpoints=tmp_path / "checkpoints", logs=tmp_path / "logs"))
    assert epochs_trained(tmp_path / "logs") == [2, 3, 4]
