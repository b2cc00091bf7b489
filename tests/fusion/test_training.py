"""Fitting: it learns what is there to learn, repeats itself, tells how far it is, and refuses what it cannot do."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from fusion_data import NUM_GROUPS, NUM_ITEMS, SMALL, Planted, planted_kinds, planted_order, ragged

from fusion.attention import FUSIONS
from fusion.config import FitProgress, FitStopped, FusionConfig, Hardware, TrainingError
from fusion.histories import Histories
from fusion.projections import FusionError
from fusion.token_table import TokenTable
from fusion.training import fit_alignment, fit_ranking

pytestmark = pytest.mark.usefixtures("one_thread")
QUIET = Hardware()
SAMPLED = {"full_softmax_items": 0, "num_uniform": 12, "num_popular": 4}
GROUP_I = torch.arange(NUM_ITEMS) % NUM_GROUPS


@pytest.fixture(scope="module")
def data() -> Planted:
    return planted_kinds(ordered=False)


@pytest.fixture(scope="module")
def timed() -> Planted:
    return planted_kinds(ordered=True)


def fit(data: Planted, *, hardware: Hardware = QUIET, validated: bool = True, **changes: Any) -> Any:
    return fit_ranking(
        data.table,
        data.histories,
        validation_UI=data.held_out_UI if validated else None,
        config=replace(SMALL, **changes),
        hardware=hardware,
    )


# --- what it learns ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("softmax", ["full", "sampled"])
@pytest.mark.parametrize("ordered", [False, True])
def test_the_kinds_are_learned(data: Planted, timed: Planted, softmax: str, ordered: bool) -> None:
    planted = timed if ordered else data
    towers, report = fit(planted, **(SAMPLED if softmax == "sampled" else {}))
    assert report.metrics["val_recall@20"] > 0.9  # seven of forty are left of the right kind; chance is below 0.55
    assert report.metrics["val_ndcg@20"] > 0.3
    assert report.examples == 600 and 0 <= report.best_epoch < report.epochs <= SMALL.max_epochs
    assert report.rules["order"] == ("by time" if ordered else "none")
    assert report.rules["softmax"].startswith("over the whole" if softmax == "full" else "over sampled")
    vectors_ID = towers.embed_catalog(planted.table).vectors_ID
    users_UD = torch.from_numpy(towers.users.vectors(planted.histories, vectors_ID.numpy()))
    cold = (users_UD @ vectors_ID[:NUM_GROUPS].T).argmax(1)  # the cold item of the same kind is the best of the cold
    assert (cold == torch.arange(len(users_UD)) % NUM_GROUPS).float().mean() > 0.9
    assert not towers.training and all(parameter.device.type == "cpu" for parameter in towers.parameters())


@pytest.mark.parametrize("softmax", [{}, SAMPLED], ids=["full", "sampled"])
def test_order_is_learned_where_there_is_any(softmax: dict[str, int]) -> None:
    """What comes next depends on the last item alone."""
    settings = {"dim": 32, "max_epochs": 12, "batch_size": 128, **softmax}
    ordered, unordered = (fit(planted_order(ordered=ordered), **settings)[1] for ordered in (True, False))
    assert ordered.metrics["val_ndcg@20"] > 0.8
    assert unordered.metrics["val_ndcg@20"] < 0.6


def test_interactions_that_do_not_count_teach_nothing(data: Planted) -> None:
    """Users also saw a kind that they did not like; the weights say so."""
    histories = data.histories
    others = np.concatenate([np.flatnonzero(GROUP_I.numpy() == (user + 1) % NUM_GROUPS)[1:4] for user in range(200)])
    users = np.concatenate([histories.users_N, np.repeat(np.arange(200), 3)])
    for weight in (0.0, -1.0):
        weights = np.concatenate([histories.weights_N, np.full(600, weight, np.float32)])
        mixed = Histories.of(users, np.concatenate([histories.items_N, others]), 200, weights_N=weights, ordered=False)
        _, report = fit(replace(data, histories=mixed))
        assert report.examples == 600 and report.metrics["val_recall@20"] > 0.9


@pytest.mark.parametrize("kind", FUSIONS)
def test_every_fusion_fits_with_every_extra(timed: Planted, kind: str) -> None:
    _, report = fit(
        timed, fusion=kind, max_epochs=1, modality_dropout=0.2, attention_dropout=0.1, history_dropout=0.3,
        id_dropout=0.3, user_weight=0.5, ema_decay=0.9, warmup_steps=3, chunk=2, half_lives=(1.0,), weight_decay=0.3,
    )  # fmt: skip
    assert np.isfinite(list(report.metrics.values())).all()


@pytest.mark.parametrize("change", [{"use_ids": False}, {"ema_decay": 0.9}, {"user_weight": 0.0}, {"chunk": 2}])
def test_every_setting_learns(data: Planted, change: dict[str, Any]) -> None:
    assert fit(data, **change)[1].metrics["val_recall@20"] > 0.9


def test_tokens_without_padding_fit_as_well(data: Planted) -> None:
    expected, ours = (
        fit(replace(data, table=table), max_epochs=2, validated=False)[0].embed_catalog(table).vectors_ID
        for table in (data.table, ragged(data.table))
    )
    assert torch.allclose(ours, expected, atol=1e-4)


# --- repeating itself, and telling how far it is ----------------------------------------------------------------------


@pytest.mark.parametrize("softmax", [{}, SAMPLED], ids=["full", "sampled"])
def test_same_seed_same_result_another_seed_another(timed: Planted, softmax: dict[str, int]) -> None:
    fitted = [fit(timed, max_epochs=2, seed=seed, **softmax) for seed in (0, 0, 1)]
    vectors = [towers.embed_catalog(timed.table).vectors_ID for towers, _ in fitted]
    assert torch.equal(vectors[0], vectors[1]) and fitted[0][1].metrics == fitted[1][1].metrics
    assert not torch.equal(vectors[0], vectors[2])


def test_progress_goes_to_its_end(data: Planted) -> None:
    seen: list[FitProgress] = []
    _, report = fit(data, max_epochs=3, hardware=replace(QUIET, on_progress=seen.append))
    total = seen[0].total_steps
    assert [progress.step for progress in seen] == list(range(1, total + 1)) and seen[-1].step == seen[-1].total_steps
    assert [seen[0].epoch, seen[-1].epoch] == [1, 3]
    assert seen[-1].seconds_left == 0 < seen[0].seconds_left and seen[-1].seconds <= report.seconds
    assert not seen[0].metrics and seen[-1].metrics["val_recall@20"] > 0


@pytest.mark.parametrize("softmax", [{}, SAMPLED], ids=["full", "sampled"])
def test_it_stops_where_it_is_asked_to(data: Planted, softmax: dict[str, int]) -> None:
    asked: list[int] = []

    def should_stop() -> bool:
        asked.append(1)
        return len(asked) == 3

    seen: list[FitProgress] = []
    hardware = replace(QUIET, should_stop=should_stop, on_progress=seen.append)
    with pytest.raises(FitStopped, match="stopped in epoch 1"):
        fit(data, hardware=hardware, **softmax)
    assert len(asked) == 3 and len(seen) == 2  # not a step more
    with pytest.raises(FitStopped):
        fit_alignment(data.table, config=SMALL, hardware=replace(QUIET, should_stop=lambda: True))


def test_kept_weights_are_those_that_were_validated(
    data: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusion.tasks.FACTOR_SHARES", ())
    warm_UI = data.held_out_UI.tolil()
    warm_UI[:, :NUM_GROUPS] = 0  # no cold item, so that nothing is chosen after training
    warm = replace(data, held_out_UI=sp.csr_array(warm_UI))
    _, report = fit(warm, ema_decay=0.9, hardware=replace(QUIET, logs=tmp_path))
    (log,) = tmp_path.rglob("metrics.csv")
    with log.open() as file:
        scores = [float(row["val_score"]) for row in csv.DictReader(file) if row["val_score"]]
    assert report.metrics["val_score"] == pytest.approx(max(scores), abs=1e-6)
    assert report.best_epoch == scores.index(max(scores)) and len(scores) == report.epochs
    assert list(tmp_path.rglob("events.*")) and not list(tmp_path.rglob("*.ckpt"))


def test_it_ends_where_validation_gets_no_better(data: Planted) -> None:
    _, report = fit(data, max_epochs=40, patience=2)
    assert report.epochs == report.best_epoch + 3 < 40


def test_without_validation_it_runs_to_the_end(data: Planted) -> None:
    _, report = fit(data, max_epochs=2, validated=False)
    assert report.epochs == 2 and report.best_epoch == 1 and report.metrics == {}


def test_the_bias_of_cold_items_is_chosen_by_validation(data: Planted) -> None:
    """Where cold items alone were held out, their bias is no lower than where none was."""
    warm_UI, cold_UI = data.held_out_UI.tolil(), data.held_out_UI.tolil()
    warm_UI[:, :NUM_GROUPS] = 0
    cold_UI[:, NUM_GROUPS:] = 0
    biases = []
    for held_out_UI in (warm_UI, cold_UI):
        towers, report = fit(replace(data, held_out_UI=sp.csr_array(held_out_UI)), max_epochs=2)
        (bias,) = towers.embed_catalog(data.table).bias_I[:NUM_GROUPS].unique().tolist()
        biases.append(bias)
        assert report.metrics["val_score"] == pytest.approx(
            report.metrics["val_recall@20"] + report.metrics["val_ndcg@20"], abs=1e-6
        )
    assert biases[0] <= biases[1]


def test_many_validation_users_are_sampled(data: Planted) -> None:
    whole, sampled = (fit(data, max_epochs=1, validation_users=count)[1].metrics for count in (200, 10))
    share = sampled["val_recall@20"] * 10  # of ten users, each with one item
    assert share == pytest.approx(round(share), abs=1e-4) and whole["val_recall@20"] > 0
    again = fit(data, max_epochs=1, validation_users=10)[1].metrics
    assert again == sampled


# --- content alone ----------------------------------------------------------------------------------------------------


def kinds_apart(table: TokenTable, vectors_ID: torch.Tensor) -> float:
    """How much nearer items lie to those of their kind."""
    cosines = vectors_ID @ vectors_ID.T
    same = GROUP_I.unsqueeze(1) == GROUP_I
    return float(cosines[same].mean() - cosines[~same].mean())


def test_alignment_needs_no_interactions(data: Planted) -> None:
    config = replace(SMALL, max_epochs=30, learning_rate=0.01)
    towers, report = fit_alignment(data.table, config=config, hardware=QUIET)
    vectors_ID = towers.embed_catalog(data.table).vectors_ID
    assert kinds_apart(data.table, vectors_ID) > 0.3 and towers.items is None
    assert report.examples == int((data.table.num_modalities_I == 2).sum()) and report.epochs == 30
    again, _ = fit_alignment(data.table, config=config, hardware=QUIET)
    assert torch.equal(again.embed_catalog(data.table).vectors_ID, vectors_ID)


def test_one_modality_alone_can_be_fitted(data: Planted) -> None:
    alone = TokenTable({"visual": data.table.tokens["visual"]}, {"visual": data.table.masks["visual"]})
    towers, report = fit_alignment(alone, config=replace(SMALL, max_epochs=20), hardware=QUIET)
    assert report.examples == NUM_ITEMS and kinds_apart(alone, towers.embed_catalog(alone).vectors_ID) > 0.3
    with pytest.raises(TrainingError, match="1 of 1 items"):
        fit_alignment(alone.select(torch.arange(1)), config=SMALL, hardware=QUIET)


# --- what cannot be fitted --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"order": "earlier"}, "not one of"),
        ({"seed": -1}, "at least 0"),
        ({"fusion": "magic"}, "not one of"),
        ({"input_dropout": 1.0}, "below 1"),
        ({"history_dropout": -0.1}, "at least 0"),
        ({"learning_rate": 0.0}, "above 0"),
        ({"dim": 0}, "at least 1"),
        ({"chunk": 1}, "at least 2"),
        ({"user_weight": 1.5}, "between 0 and 1"),
        ({"half_lives": ()}, "positive numbers"),
        ({"half_lives": (2.0, 0.0)}, "positive numbers"),
        ({"num_uniform": -1}, "at least 0"),
        ({"validation_users": 0}, "at least 1"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        FusionConfig(**change)


def test_mappings_are_checked() -> None:
    config = FusionConfig(dim=32, order="rows", half_lives=(1.0, 3.0))
    assert FusionConfig.from_mapping(config.to_mapping()) == config
    assert FusionConfig.from_mapping({"weight_decay": 0}).weight_decay == 0
    assert FusionConfig.from_mapping({"half_lives": [1, 2]}).half_lives == (1.0, 2.0)
    with pytest.raises(TrainingError, match=r"unknown settings \['dims'\]"):
        FusionConfig.from_mapping({"dims": 3})
    for wrong in ({"dim": "64"}, {"dim": 6.5}, {"seed": True}, {"use_ids": 1}, {"order": 3}):
        with pytest.raises(TrainingError, match="must be"):
            FusionConfig.from_mapping(wrong)
    for wrong in ({"half_lives": 3}, {"half_lives": ["2"]}, {"half_lives": [True]}, {"half_lives": "12"}):
        with pytest.raises(TrainingError, match="list of numbers"):
            FusionConfig.from_mapping(wrong)


def _histories(change: Callable[[Histories], dict[str, Any]]) -> Callable[[Planted], Planted]:
    return lambda data: replace(data, histories=replace(data.histories, **change(data.histories)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_histories(lambda h: {"items_N": h.items_N + 1}), "items outside 0 to 39"),
        (_histories(lambda h: {"items_N": h.items_N - 5}), "items outside 0 to 39"),
        (_histories(lambda h: {"weights_N": h.weights_N * np.nan}), "finite"),
        (_histories(lambda h: {"weights_N": h.weights_N * -1}), "nothing to learn"),
        (_histories(lambda h: {"weights_N": h.weights_N * 0}), "nothing to learn"),
        (lambda data: replace(data, held_out_UI=data.held_out_UI[:, :39]), "validation of shape"),
        (lambda data: replace(data, held_out_UI=data.held_out_UI[:9]), "validation of shape"),
        (lambda data: replace(data, held_out_UI=sp.csr_array((200, 40))), "validation is empty"),
        (lambda data: replace(data, held_out_UI=data.train_UI), "600 of 600 validation interactions are present"),
    ],
)
def test_bad_interactions_are_refused(data: Planted, change: Callable[[Planted], Planted], words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        fit(change(data))


def test_users_of_one_interaction_teach_nothing_without_order(data: Planted, timed: Planted) -> None:
    first = [
        planted.histories.select(np.array([], int)) for planted in (data, timed)
    ]  # nobody at all: the same as no interaction
    for histories in first:
        with pytest.raises(TrainingError, match="nothing to learn"):
            fit_ranking(data.table, histories, config=SMALL, hardware=QUIET)
    one_each = Histories.of(np.arange(3), np.array([5, 6, 7]), 3, ordered=False)
    with pytest.raises(TrainingError, match="no user has two interactions"):
        fit_ranking(data.table, one_each, config=SMALL, hardware=QUIET)


def test_nan_stops_with_words(data: Planted) -> None:
    broken = {m: x.clone() for m, x in data.table.tokens.items()}
    broken["visual"][9, 0, 0] = torch.nan
    with pytest.raises(FusionError, match="not finite"):
        fit(replace(data, table=TokenTable(broken, data.table.masks, data.table.times)))
    with pytest.raises(TrainingError, match=r"the loss became .* lower the learning rate"):
        fit(data, learning_rate=1e30, gradient_clip=0.0)


def test_wandb_that_is_not_installed(data: Planted) -> None:
    if importlib.util.find_spec("wandb") is not None:
        pytest.skip("it is installed here")
    with pytest.raises(TrainingError, match="wandb"):
        fit_alignment(data.table, config=SMALL, hardware=replace(QUIET, wandb_project="mine"))
