"""Fitting: that it learns what is there to learn, repeats itself, resumes, and refuses what it cannot do."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import scipy.sparse as sp
import torch

from fusion.attention import FUSIONS
from fusion.config import FusionConfig, Hardware, TrainingError
from fusion.projections import FusionError
from fusion.token_table import TokenTable
from fusion.training import fit_alignment, fit_ranking

NUM_GROUPS, NUM_ITEMS, NUM_USERS = 4, 40, 200
QUIET = Hardware(progress=False)
SMALL = FusionConfig(dim=8, num_heads=2, max_epochs=8, batch_size=64, neighbours=3, input_dropout=0.1)


@pytest.fixture(scope="module")
def data() -> tuple[TokenTable, sp.csr_array, sp.csr_array]:
    """Items of four kinds that show in their content; each user takes items of one kind; items 0 to 3 are cold."""
    rng = np.random.default_rng(0)
    kind_I = np.arange(NUM_ITEMS) % NUM_GROUPS
    tokens, masks = {}, {}
    for modality, width in (("visual", 6), ("audio", 5)):
        centres = rng.normal(size=(NUM_GROUPS, width)) * 3
        noisy = centres[kind_I][:, None] + rng.normal(size=(NUM_ITEMS, 2, width))
        tokens[modality] = torch.tensor(noisy, dtype=torch.float32)
        masks[modality] = torch.ones(NUM_ITEMS, 2, dtype=torch.bool)
    masks["audio"][::7] = False
    train, held = [], []
    for user in range(NUM_USERS):
        own = rng.permutation(np.flatnonzero(kind_I == user % NUM_GROUPS))
        warm = own[own >= NUM_GROUPS]
        train += [(user, item) for item in warm[:3]]
        held.append((user, own[own < NUM_GROUPS][0] if user % 5 == 0 else warm[3]))
    return TokenTable(tokens, masks), to_matrix(train), to_matrix(held)


def to_matrix(pairs: list[tuple[int, int]]) -> sp.csr_array:
    rows, columns = np.array(pairs).T
    return sp.csr_array((np.ones(len(pairs), np.float32), (rows, columns)), shape=(NUM_USERS, NUM_ITEMS))


@pytest.mark.parametrize("objective", ["full_softmax", "in_batch_softmax", "binary", "bpr"])
def test_every_objective_learns_the_kinds(data, objective: str) -> None:  # type: ignore[no-untyped-def]
    table, train_UI, held_UI = data
    config = dataclasses.replace(SMALL, objective=objective, learning_rate=0.02)
    tower, report = fit_ranking(table, train_UI, validation_UI=held_UI, config=config, hardware=QUIET)
    assert report.metrics["val_recall@20"] > 0.9  # seven of forty are left of the right kind; chance is below 0.55
    assert report.examples == 600 and 0 <= report.best_epoch < report.epochs <= 8
    items = tower(table)
    cold = tower.users(items.vectors_ID, torch.tensor([[4], [5]]), torch.ones(2, 1)) @ items.vectors_ID[:4].T
    assert cold.argmax(1).tolist() == [0, 1]  # the cold item of the same kind is the nearest of the cold ones


@pytest.mark.parametrize("kind", FUSIONS)
def test_every_fusion_fits_with_every_extra(data, kind: str) -> None:  # type: ignore[no-untyped-def]
    table, train_UI, held_UI = data
    config = dataclasses.replace(
        SMALL, fusion=kind, max_epochs=1, alignment_weight=0.1, adversarial_weight=0.1, modality_dropout=0.2,
        shorten_history=0.3, label_smoothing=0.1, schedule="cosine", warmup_steps=3, optimizer="sgd",
    )  # fmt: skip
    _, report = fit_ranking(table, train_UI, validation_UI=held_UI, config=config, hardware=QUIET)
    assert np.isfinite(list(report.metrics.values())).all()


def test_same_seed_same_result_another_seed_another(data) -> None:  # type: ignore[no-untyped-def]
    table, train_UI, held_UI = data
    config = dataclasses.replace(SMALL, max_epochs=2)
    vectors = [
        fit_ranking(
            table, train_UI, validation_UI=held_UI, config=dataclasses.replace(config, seed=seed), hardware=QUIET
        )[0](table)
        for seed in (0, 0, 1)
    ]
    assert torch.equal(vectors[0].vectors_ID, vectors[1].vectors_ID)
    assert not torch.equal(vectors[0].vectors_ID, vectors[2].vectors_ID)


@pytest.fixture
def interrupted(data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hardware:  # type: ignore[no-untyped-def]
    """Hardware with the checkpoint of a fit that was stopped after two of eight epochs."""
    table, train_UI, held_UI = data
    hardware = dataclasses.replace(QUIET, folder=tmp_path)

    def crash(task: L.LightningModule) -> None:
        if task.current_epoch == 2:
            raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr("fusion.training._RankingTask.on_train_epoch_start", crash)
        with pytest.raises(InterruptedError):
            fit_ranking(table, train_UI, validation_UI=held_UI, config=SMALL, hardware=hardware)
    assert len(list(tmp_path.rglob("*.ckpt"))) == 1
    return hardware


def epochs_trained(folder: Path) -> list[int]:
    (log,) = folder.rglob("metrics.csv")
    with log.open() as file:
        return [int(row["epoch"]) for row in csv.DictReader(file) if row["train_loss"]]


def test_interrupted_fit_goes_on(data, interrupted: Hardware) -> None:  # type: ignore[no-untyped-def]
    table, train_UI, held_UI = data
    _, report = fit_ranking(table, train_UI, validation_UI=held_UI, config=SMALL, hardware=interrupted)
    assert interrupted.folder is not None
    assert epochs_trained(interrupted.folder) == list(range(2, report.epochs))
    assert report.metrics["val_recall@20"] > 0.8
    assert not list(interrupted.folder.rglob("*.ckpt"))
    assert list(interrupted.folder.rglob("events.*"))


@pytest.mark.parametrize("change", ["settings", "tokens", "training", "validation"])
def test_no_fit_goes_on_from_another(data, interrupted: Hardware, change: str) -> None:  # type: ignore[no-untyped-def]
    table, train_UI, held_UI = data
    config = SMALL
    if change == "settings":
        config = dataclasses.replace(SMALL, learning_rate=1e-3)
    elif change == "tokens":
        table = TokenTable({m: x + 1 for m, x in table.tokens.items()}, table.masks)
    elif change == "training":
        train_UI = train_UI * np.float32(2)
    else:
        held_UI = held_UI.tolil()
        held_UI[0] = 0
        held_UI = sp.csr_array(held_UI)
    fit_ranking(table, train_UI, validation_UI=held_UI, config=config, hardware=interrupted)
    assert interrupted.folder is not None
    assert epochs_trained(interrupted.folder)[0] == 0
    assert len(list(interrupted.folder.rglob("*.ckpt"))) == 1  # the other fit may still go on


def test_kept_weights_are_those_that_were_validated(data, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    table, train_UI, held_UI = data
    warm_UI = held_UI.tolil()
    warm_UI[:, :NUM_GROUPS] = 0  # no cold item, so that nothing is chosen after training
    _, report = fit_ranking(
        table, train_UI, validation_UI=sp.csr_array(warm_UI), config=dataclasses.replace(SMALL, ema_decay=0.9),
        hardware=dataclasses.replace(QUIET, folder=tmp_path),
    )  # fmt: skip
    (log,) = tmp_path.rglob("metrics.csv")
    with log.open() as file:
        scores = [float(row["val_score"]) for row in csv.DictReader(file) if row["val_score"]]
    assert report.metrics["val_score"] == pytest.approx(max(scores), abs=1e-6)
    assert report.best_epoch == scores.index(max(scores))


def test_without_validation_it_runs_to_the_end(data) -> None:  # type: ignore[no-untyped-def]
    table, train_UI, _ = data
    _, report = fit_ranking(table, train_UI, config=dataclasses.replace(SMALL, max_epochs=2), hardware=QUIET)
    assert report.epochs == 2 and report.metrics == {}


def test_very_active_users_are_left_out(data) -> None:  # type: ignore[no-untyped-def]
    table, train_UI, _ = data
    busy = train_UI.tolil()
    busy[0] = 1
    _, report = fit_ranking(
        table, sp.csr_array(busy), config=dataclasses.replace(SMALL, max_epochs=1, max_history=10), hardware=QUIET
    )
    assert report.examples == 597


def test_alignment_needs_no_interactions(data) -> None:  # type: ignore[no-untyped-def]
    table, _, _ = data
    fusion, _ = fit_alignment(
        table, config=dataclasses.replace(SMALL, max_epochs=30, learning_rate=0.01), hardware=QUIET
    )
    vectors = fusion(table.tokens, table.masks).vectors_BD
    cosines = vectors @ vectors.T
    same = torch.arange(NUM_ITEMS) % NUM_GROUPS == (torch.arange(NUM_ITEMS) % NUM_GROUPS).unsqueeze(1)
    assert cosines[same].mean() > cosines[~same].mean() + 0.3


def test_one_modality_alone_can_be_fitted(data) -> None:  # type: ignore[no-untyped-def]
    table, _, _ = data
    name = next(iter(table.tokens))
    alone = TokenTable({name: table.tokens[name]}, {name: table.masks[name]})
    fusion, report = fit_alignment(alone, config=dataclasses.replace(SMALL, max_epochs=20), hardware=QUIET)
    vectors = fusion(alone.tokens, alone.masks).vectors_BD
    cosines = vectors @ vectors.T
    same = torch.arange(NUM_ITEMS) % NUM_GROUPS == (torch.arange(NUM_ITEMS) % NUM_GROUPS).unsqueeze(1)
    assert report.examples == NUM_ITEMS and cosines[same].mean() > cosines[~same].mean() + 0.3
    with pytest.raises(TrainingError, match="1 of 1 items"):
        fit_alignment(alone.select(torch.arange(1)), config=SMALL, hardware=QUIET)


def test_wandb_that_is_not_installed(data) -> None:  # type: ignore[no-untyped-def]
    if importlib.util.find_spec("wandb") is not None:
        pytest.skip("it is installed here")
    with pytest.raises(TrainingError, match="wandb"):
        fit_alignment(data[0], config=SMALL, hardware=dataclasses.replace(QUIET, wandb_project="mine"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"targets": "earlier"}, "not one of"),
        ({"seed": -1}, "at least 0"),
        ({"fusion": "magic"}, "not one of"),
        ({"objective": "guess"}, "not one of"),
        ({"input_dropout": 1.0}, "below 1"),
        ({"learning_rate": 0.0}, "above 0"),
        ({"dim": 0}, "at least 1"),
        ({"smoothing": 2.0}, "between 0 and 1"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        FusionConfig(**change)  # type: ignore[arg-type]


def test_mappings_are_checked() -> None:
    config = FusionConfig(dim=32, schedule="cosine")
    assert FusionConfig.from_mapping(config.to_mapping()) == config
    assert FusionConfig.from_mapping({"smoothing": 0}).smoothing == 0
    with pytest.raises(TrainingError, match=r"unknown settings \['dims'\]"):
        FusionConfig.from_mapping({"dims": 3})
    for wrong in ({"dim": "64"}, {"dim": 6.5}, {"seed": True}, {"use_ids": 1}):
        with pytest.raises(TrainingError, match="must be"):
            FusionConfig.from_mapping(wrong)


def test_bad_interactions_are_refused(data) -> None:  # type: ignore[no-untyped-def]
    table, train_UI, held_UI = data

    def fit(train: sp.csr_array, validation: sp.csr_array | None = None) -> None:
        fit_ranking(table, train, validation_UI=validation, config=SMALL, hardware=QUIET)

    with pytest.raises(TrainingError, match="interactions with 39 items"):
        fit(train_UI[:, :39])
    with pytest.raises(TrainingError, match="positive"):
        fit(train_UI * -1)
    with pytest.raises(TrainingError, match="validation is empty"):
        fit(train_UI, sp.csr_array(train_UI.shape))
    with pytest.raises(TrainingError, match="600 of 600 validation interactions are present"):
        fit(train_UI, train_UI)
    with pytest.raises(TrainingError, match="nothing to learn"):
        fit(held_UI)


def test_nan_stops_with_words(data) -> None:  # type: ignore[no-untyped-def]
    table, train_UI, _ = data
    broken = {m: x.clone() for m, x in table.tokens.items()}
    broken["visual"][9, 0, 0] = torch.nan
    with pytest.raises(FusionError, match="not finite"):
        fit_ranking(TokenTable(broken, table.masks), train_UI, config=SMALL, hardware=QUIET)
    wild = dataclasses.replace(SMALL, optimizer="sgd", learning_rate=1e30, gradient_clip=0.0)
    with pytest.raises(TrainingError, match=r"the loss became .* lower the learning rate"):
        fit_ranking(table, train_UI, config=wild, hardware=QUIET)
