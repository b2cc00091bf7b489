"""The search for settings: it chooses by validation, goes on where it stopped, and refuses what does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import planted
import pytest
import yaml

from mmrec.cli import main
from mmrec.errors import ModelError
from mmrec.recommending.fitting import RecommenderConfig
from mmrec.recommending.tuning import TuningReport, tune
from mmrec.store.feature_store import FeatureStore

SPACE = {"learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}, "dim": [4, 16], "max_epochs": {"low": 1, "high": 3}}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureStore, Path, Path]:
    folder = tmp_path_factory.mktemp("tuning")
    train, held_out = planted.watched()
    paths = folder / "train.csv", folder / "held_out.csv"
    for path, interactions in zip(paths, (train, held_out), strict=True):
        planted.write_csv(path, interactions)
    return planted.write_store(folder / "store", planted.planted(planted.item_ids())), *paths


def run(files: tuple[FeatureStore, Path, Path], folder: Path, trials: int, **options: object) -> TuningReport:
    store, train, held_out = files
    options = {"config": planted.CONFIG, "space": SPACE, "hardware": planted.QUIET, **options}
    return tune(store, train, validation=held_out, folder=folder, trials=trials, **options)  # type: ignore[arg-type]


def test_the_best_on_validation_is_chosen(files: tuple[FeatureStore, Path, Path], tmp_path: Path) -> None:
    seen: list[int] = []
    report = run(files, tmp_path, 4, on_trial=lambda trial: seen.append(trial.number))
    scores = [trial.score for trial in report.trials]
    assert seen == [0, 1, 2, 3] and len(set(scores)) > 1
    best = report.trials[int(np.argmax(scores))]
    assert report.best_score == max(scores) == pytest.approx(sum(list(best.metrics.values())[:2]))
    chosen = RecommenderConfig.from_mapping(yaml.safe_load((tmp_path / "best.yaml").read_text()))
    assert chosen == report.best_config
    assert {name: chosen.to_mapping()[name] for name in SPACE} == best.settings
    assert chosen.fusion.input_dropout == planted.CONFIG.fusion.input_dropout


def test_a_stopped_study_goes_on(files: tuple[FeatureStore, Path, Path], tmp_path: Path) -> None:
    def stop(trial: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(files, tmp_path, 3, on_trial=stop)
    report = run(files, tmp_path, 3)
    assert [trial.number for trial in report.trials] == [0, 1, 2]
    again: list[object] = []
    assert run(files, tmp_path, 3, on_trial=again.append).trials == report.trials and not again


def test_a_study_that_goes_on_repeats_nothing(files: tuple[FeatureStore, Path, Path], tmp_path: Path) -> None:
    space = {"user_weight": {"low": 0.0, "high": 1.0}, "id_dropout": {"low": 0.0, "high": 0.4}}
    config = RecommenderConfig(fusion=replace(planted.SMALL, max_epochs=1))
    for trials in (1, 3, 5):
        stopped = run(files, tmp_path / "stopped", trials, space=space, config=config).trials
    whole = run(files, tmp_path / "whole", 5, space=space, config=config).trials
    settings = [tuple(trial.settings.values()) for trial in stopped]
    assert settings == [tuple(trial.settings.values()) for trial in whole] and len(set(settings)) == 5


def test_a_trial_cut_off_by_a_kill_is_made_again(
    files: tuple[FeatureStore, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*arguments: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr("mmrec.recommending.tuning.fit_towers", die)
        with pytest.raises(SystemExit):
            run(files, tmp_path, 2)
    assert len(run(files, tmp_path, 2).trials) == 2


def test_a_study_of_something_else_is_refused(files: tuple[FeatureStore, Path, Path], tmp_path: Path) -> None:
    run(files, tmp_path, 1)
    for other in ({"space": {"dim": [4, 8]}}, {"config": RecommenderConfig()}):
        with pytest.raises(ModelError, match="another folder"):
            run(files, tmp_path, 1, **other)


def test_settings_that_cannot_be_fitted_are_passed_over(files: tuple[FeatureStore, Path, Path], tmp_path: Path) -> None:
    report = run(files, tmp_path, 4, space={"num_heads": [2, 3]})
    assert {trial.settings["num_heads"]: trial.score is None for trial in report.trials} == {2: False, 3: True}
    with pytest.raises(ModelError, match="num_heads"):
        run(files, tmp_path / "none", 2, space={"num_heads": [3, 5]})


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({}, "nothing to search"),
        ({"dims": [3]}, "unknown settings"),
        ({"dim": 8}, "list of choices"),
        ({"dim": []}, "list of choices"),
        ({"dim": {"low": 8}}, "list of choices"),
        ({"dim": ["wide"]}, "dim must be int"),
        ({"user_weight": {"low": 0.5, "high": 1.5}}, "user_weight must be between"),
        ({"user_weight": {"low": 0.5, "high": 0.1}}, "low below high"),
    ],
)
def test_bad_spaces_are_refused(
    files: tuple[FeatureStore, Path, Path], tmp_path: Path, space: dict[str, object], words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        run(files, tmp_path, 1, space=space)


def test_the_command(
    files: tuple[FeatureStore, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, train, held_out = files
    (tmp_path / "space.yaml").write_text("dim: [4, 8]\n")
    (tmp_path / "config.yaml").write_text("max_epochs: 2\nbatch_size: 64\n")
    command = ["tune", "--store", store.folder, "--interactions", train, "--validation", held_out, "--trials", 2,
               "--out", tmp_path / "study", "--space", tmp_path / "space.yaml",
               "--config", tmp_path / "config.yaml"]  # fmt: skip
    assert main([str(part) for part in command]) == 0
    out, err = capsys.readouterr()
    assert "best of 2 trials" in out and err.count("mmrec: trial") == 2
    fit = ["fit", "--store", store.folder, "--interactions", train, "--model", tmp_path / "model", "--config",
           tmp_path / "study" / "best.yaml"]  # fmt: skip
    assert main([str(part) for part in fit]) == 0
