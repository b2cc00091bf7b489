"""Settings of a fit chosen by validation: an Optuna study on disk that goes on where it stopped.

>>> report = tune("store", "train.csv", validation="held_out.csv", folder="study", trials=30)    # doctest: +SKIP
>>> report.best_score                                                                        # doctest: +SKIP
0.2581
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from fusion.config import Hardware
from mmrec.errors import ModelError
from mmrec.evaluation import InteractionSource, check_sources
from mmrec.recommending.fitting import FitData, RecommenderConfig, fit_towers, read_fit_data
from mmrec.store import FeatureStore

if TYPE_CHECKING:
    import optuna

# A list: one of these. A pair of numbers under `low` and `high`: between them, evenly or, with `log`, by ratio.
SPACE: Mapping[str, Any] = {
    "learning_rate": {"low": 1e-3, "high": 1e-2, "log": True},
    "weight_decay": {"low": 1e-2, "high": 1.0, "log": True},
    "input_dropout": {"low": 0.1, "high": 0.6},
    "history_dropout": {"low": 0.0, "high": 0.5},
    "id_dropout": {"low": 0.0, "high": 0.4},
    "user_weight": {"low": 0.3, "high": 1.0},
    "dim": [64, 128, 256],
    "batch_size": [1024, 2048, 4096],
}


@dataclass(frozen=True)
class Trial:
    """One fit: its settings, and its score, Recall@20 plus NDCG@20 on validation; None where it could not be fitted."""

    number: int
    settings: dict[str, Any]
    score: float | None
    metrics: dict[str, float]


@dataclass(frozen=True)
class TuningReport:
    """All trials of a study, those of earlier runs included, and the best, whose settings `best.yaml` holds."""

    trials: list[Trial]
    best_config: RecommenderConfig
    best_score: float


def tune(
    store: FeatureStore | str | os.PathLike[str],
    interactions: InteractionSource,
    *,
    validation: InteractionSource,
    folder: str | os.PathLike[str],
    trials: int = 30,
    config: RecommenderConfig | None = None,
    space: Mapping[str, Any] | None = None,
    hardware: Hardware | None = None,
    on_trial: Callable[[Trial], None] | None = None,
) -> TuningReport:
    """Search the settings that rank held-out interactions best, by a tree-structured Parzen estimator.

    Every trial is kept in `folder` as soon as it is done: a study that was stopped goes on, until it has `trials` in
    all. The first trial is `config` as it is. Nothing but training and validation is looked at.

    Args:
        config: the settings that are not searched.
        space: setting -> a list of choices, or `{low, high}` with or without `log: true`; default `SPACE`.

    Raises:
        ModelError: for a space that does not fit the settings, a folder with a study of other data or another space,
            and where no trial could be fitted; for bad data as `Recommender.fit`.
    """
    if trials < 1:
        raise ModelError(f"trials is {trials}: expected at least 1")
    check_sources(interactions, validation)
    store = store if isinstance(store, FeatureStore) else FeatureStore(store)
    config, space = config or RecommenderConfig(), dict(SPACE if space is None else space)
    _check_space(space, config)
    data = read_fit_data(store, interactions, validation)
    study = _open_study(Path(folder), _digest(data, space, config))
    base = config.to_mapping()
    if not study.trials:
        study.enqueue_trial({name: base[name] for name in space if _holds(space[name], base[name])})

    def objective(trial: optuna.Trial) -> float:
        settings = {name: _suggest(trial, name, choice) for name, choice in space.items()}
        try:
            _, report = fit_towers(data, RecommenderConfig.from_mapping({**base, **settings}), hardware)
        except ModelError as error:
            trial.set_user_attr("error", str(error))
            raise
        trial.set_user_attr("metrics", report.metrics)
        return report.metrics["val_score"]

    def after(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if on_trial is not None:
            on_trial(_to_trial(trial))

    for _ in range(trials - len(_ended(study))):
        study.sampler = _sampler(config.fusion.seed, len(study.trials))
        study.optimize(objective, n_trials=1, catch=(ModelError,), callbacks=[after])
    return _conclude(study, Path(folder), base)


def _check_space(space: Mapping[str, Any], config: RecommenderConfig) -> None:
    known = config.to_mapping()
    if unknown := sorted(set(space) - set(known)):
        raise ModelError(f"space: unknown settings {unknown}; known are {sorted(known)}")
    if not space:
        raise ModelError("space: there is nothing to search")
    for name, choice in space.items():
        if isinstance(choice, list) and choice:
            ends = choice
        elif isinstance(choice, Mapping) and {"low", "high"} <= set(choice) <= {"low", "high", "log"}:
            ends = [choice["low"], choice["high"]]
        else:
            raise ModelError(f"space: {name} must be a list of choices or {{low, high, log}}, got {choice!r}")
        for value in ends:
            RecommenderConfig.from_mapping({**known, name: value})
        if isinstance(choice, Mapping) and not choice["low"] < choice["high"]:
            raise ModelError(f"space: {name} goes from {choice['low']} to {choice['high']}: expected low below high")


def _suggest(trial: optuna.Trial, name: str, choice: Any) -> Any:
    if isinstance(choice, list):
        return trial.suggest_categorical(name, choice)
    low, high, log = choice["low"], choice["high"], bool(choice.get("log"))
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(name, low, high, log=log)
    return trial.suggest_float(name, low, high, log=log)


def _holds(choice: Any, value: Any) -> bool:
    return value in choice if isinstance(choice, list) else bool(choice["low"] <= value <= choice["high"])


def _digest(data: FitData, space: Mapping[str, Any], config: RecommenderConfig) -> str:
    """What a study was made of: other tokens, interactions, settings or choices are another study."""
    assert data.train is not None and data.held_out is not None
    digest = hashlib.blake2b(
        repr((sorted(space.items()), sorted(config.to_mapping().items()))).encode(), digest_size=16
    )
    arrays = list(data.tokens.arrays())
    for interactions in (data.train, data.held_out):
        arrays += [interactions.user_rows, interactions.item_rows, interactions.weights, interactions.order()]
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _open_study(folder: Path, digest: str) -> optuna.Study:
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise ModelError("tuning needs the package optuna: pip install 'mmrec[tune]'") from error

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(f"{folder} cannot be made: {error.strerror or error}") from error
    storage = JournalStorage(JournalFileBackend(str(folder / "trials.log")))
    study = optuna.create_study(storage=storage, study_name="mmrec", direction="maximize", load_if_exists=True)
    if study.user_attrs.get("digest", digest) != digest:
        raise ModelError(f"{folder} holds a study of other data, settings or choices: take another folder")
    study.set_user_attr("digest", digest)
    for trial in study.trials:  # one that a kill left behind is tried again
        if trial.state == optuna.trial.TrialState.RUNNING:
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            study.enqueue_trial(trial.params)
    return study


def _sampler(seed: int, number: int) -> optuna.samplers.BaseSampler:
    """What proposes a trial: by its number, so that a study goes on in the same way whether it was stopped or not."""
    import optuna

    own_seed = np.random.SeedSequence([seed, number]).generate_state(1)
    return optuna.samplers.TPESampler(seed=int(own_seed[0]), multivariate=True)


def _ended(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Trials that were fitted, or that cannot be; those that a kill left behind have neither score nor error."""
    return [t for t in study.trials if t.state.is_finished() and (t.value is not None or "error" in t.user_attrs)]


def _to_trial(trial: optuna.trial.FrozenTrial) -> Trial:
    score = trial.value if trial.value is not None and math.isfinite(trial.value) else None
    return Trial(trial.number, dict(trial.params), score, dict(trial.user_attrs.get("metrics", {})))


def _conclude(study: optuna.Study, folder: Path, base: Mapping[str, Any]) -> TuningReport:
    ended = _ended(study)
    fitted = [trial for trial in ended if trial.value is not None]
    if not fitted:
        raise ModelError(f"no trial could be fitted: {ended[0].user_attrs['error']}")
    best = max(fitted, key=lambda trial: (trial.value, -trial.number))
    config = RecommenderConfig.from_mapping({**base, **best.params})
    (folder / "best.yaml").write_text(yaml.safe_dump(config.to_mapping(), sort_keys=False), encoding="utf-8")
    assert best.value is not None
    return TuningReport([_to_trial(trial) for trial in ended], config, best.value)
