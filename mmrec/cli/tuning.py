"""The commands that hold interactions out, and search settings by them."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrec.cli.models import read_settings
from mmrec.cli.output import add_command, add_json, add_store, open_store, share

if TYPE_CHECKING:
    from mmrec.recommending import Trial


def add_tuning_commands(commands: Any) -> None:
    split = add_command(commands, "split", _split, "hold some interactions out, to choose settings by or to evaluate")
    split.add_argument("--interactions", type=Path, required=True, metavar="FILE")
    split.add_argument(
        "--how",
        choices=["random", "last", "time", "cold"],
        default="last",
        help="any, each user's last, the latest of all, or whole items (default: last)",
    )
    split.add_argument("--share", type=share, default=0.1, help="to hold out; not for last (default: 0.1)")
    split.add_argument("--seed", type=int, default=0, help="for random and cold (default: 0)")
    split.add_argument("--train", type=Path, required=True, metavar="FILE", help=".csv or .parquet to write")
    split.add_argument(
        "--validation", "--held-out", type=Path, required=True, metavar="FILE", help="what is held out of it, to write"
    )
    split.add_argument("--test", type=Path, metavar="FILE", help="held out first, by the same rule, to write")

    tune = add_command(commands, "tune", _tune, "search the settings that rank held-out interactions best")
    add_store(tune)
    tune.add_argument("--interactions", type=Path, required=True, metavar="FILE")
    tune.add_argument(
        "--validation", type=Path, required=True, metavar="FILE", help="held-out interactions to evaluate by"
    )
    tune.add_argument("--out", type=Path, required=True, metavar="DIR", help="the study; one that is there goes on")
    tune.add_argument("--trials", type=int, default=30, help="in all, those of earlier runs included (default: 30)")
    tune.add_argument("--config", type=Path, metavar="YAML", help="the settings that are not searched")
    tune.add_argument("--space", type=Path, metavar="YAML", help="setting: [choices], or {low, high, log}")
    tune.add_argument("--device", default="cpu", choices=["auto", "cpu", "cuda", "mps"], help="(default: cpu)")
    add_json(tune)


def _split(arguments: argparse.Namespace) -> int:
    from mmrec.evaluation import read_interactions, split, split_in_three, write_interactions

    paths = [arguments.train, arguments.validation]
    if arguments.test is not None:
        paths.append(arguments.test)
    make = split if arguments.test is None else split_in_three
    parts = make(read_interactions(arguments.interactions), arguments.how, share=arguments.share, seed=arguments.seed)
    for part, path in zip(parts, paths, strict=True):
        write_interactions(part, path)
        print(f"{len(part)} interactions in {path}")
    return 0


def _tune(arguments: argparse.Namespace) -> int:
    from fusion.config import Hardware
    from mmrec.recommending import RecommenderConfig, tune

    report = tune(
        open_store(arguments),
        arguments.interactions,
        validation=arguments.validation,
        folder=arguments.out,
        trials=arguments.trials,
        config=RecommenderConfig.from_mapping(read_settings(arguments.config)),
        space=None if arguments.space is None else read_settings(arguments.space),
        hardware=Hardware(device=arguments.device),
        on_trial=_show,
    )
    best = arguments.out / "best.yaml"
    if arguments.json:
        trials = [asdict(trial) for trial in report.trials]
        print(json.dumps({"best_score": report.best_score, "best_config": str(best), "trials": trials}))
    else:
        print(f"best of {len(report.trials)} trials: {report.best_score:.4f}, in {best}")
        print(f"next: mmrec fit --store {arguments.store} --config {best} ...")
    return 0


def _show(trial: Trial) -> None:
    score = "could not be fitted" if trial.score is None else f"{trial.score:.4f}"
    print(f"mmrec: trial {trial.number}: {score}  {json.dumps(trial.settings)}", file=sys.stderr)
