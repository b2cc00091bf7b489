"""The commands that fit a recommender and ask it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrec.cli.output import add_command, add_json, add_model, add_store, quiet_lightning
from mmrec.cli.progress import fit_progress, stop_requested
from mmrec.errors import ModelError

if TYPE_CHECKING:
    pass

USERS_AT_ONCE = 4096


def add_model_commands(commands: Any) -> None:
    fit = add_command(commands, "fit", _fit, "fit a recommender to a store and, where there are any, interactions")
    add_store(fit)
    fit.add_argument(
        "--interactions", type=Path, metavar="FILE", help="user_id, item_id and, if known, timestamp, weight"
    )
    fit.add_argument("--validation", type=Path, metavar="FILE", help="held-out interactions, to choose the epoch")
    add_model(fit)
    fit.add_argument("--config", type=Path, metavar="YAML", help="settings of the towers and their training")
    fit.add_argument("--seed", type=int, help="of the fit (default: the configuration's)")
    fit.add_argument("--device", default="cpu", choices=["auto", "cpu", "cuda", "mps"], help="(default: cpu)")
    fit.add_argument("--logs", type=Path, metavar="DIR", help="keep the course of the fit as CSV and for TensorBoard")
    fit.add_argument("--wandb", metavar="PROJECT", help="log to Weights & Biases, if installed")
    add_json(fit)

    evaluate = add_command(commands, "evaluate", _evaluate, "evaluate a model by held-out interactions")
    add_model(evaluate)
    evaluate.add_argument("--interactions", type=Path, required=True, metavar="FILE")
    evaluate.add_argument("--k", type=int, nargs="+", default=[20], help="lengths of the lists (default: 20)")
    evaluate.add_argument(
        "--baselines", nargs="+", default=[], metavar="NAME", help="popularity, item_neighbours, ease, als"
    )
    add_json(evaluate)


def _fit(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from fusion.config import Hardware
    from mmrec.recommending import Recommender, RecommenderConfig
    from mmrec.store import FeatureStore

    quiet_lightning()
    config = RecommenderConfig.from_mapping(read_settings(arguments.config))
    if arguments.seed is not None:
        config = replace(config, fusion=replace(config.fusion, seed=arguments.seed))
    with fit_progress() as show, stop_requested() as should_stop:
        hardware = Hardware(
            device=arguments.device,
            checkpoints=arguments.model / "checkpoints",
            logs=arguments.logs,
            wandb_project=arguments.wandb,
            on_progress=show,
            should_stop=should_stop,
        )
        model = Recommender.fit(
            FeatureStore(arguments.store),
            arguments.interactions,
            validation=arguments.validation,
            config=config,
            hardware=hardware,
        )
    model.save(arguments.model)
    report = asdict(model.report)
    if arguments.json:
        print(json.dumps({"items": len(model.item_ids), "users": len(model.user_ids), **report}))
        return 0
    print(f"{len(model.item_ids)} items, {len(model.user_ids)} users, {report['epochs']} epochs, in {arguments.model}")
    for name, rule in report["rules"].items():
        print(f"  {name:16}{rule}")
    for name, value in report["metrics"].items():
        print(f"  {name:16}{value:.4f}")
    return 0


def read_settings(path: Path | None) -> dict[str, Any]:
    """What a YAML file says; nothing without a file."""
    import yaml

    if path is None:
        return {}
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ModelError(f"configuration {path} cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise ModelError(f"configuration {path}: expected settings such as dim: 64")
    return values


def _evaluate(arguments: argparse.Namespace) -> int:
    from mmrec.recommending import Recommender

    metrics = Recommender.load(arguments.model).evaluate(
        arguments.interactions, ks=arguments.k, baselines=arguments.baselines
    )
    if arguments.json:
        print(json.dumps(metrics))
        return 0
    print(f"{metrics['users']} users")
    for name, (low, high) in metrics["intervals"].items():
        print(f"  {name:16}{metrics[name]:.4f}  [{low:.4f}, {high:.4f}]")
    for name, value in {**metrics["catalog"], **metrics["cold_items"]}.items():
        print(f"  {name:24}{value:.4f}")
    for name, judged in metrics["baselines"].items():
        print(f"{name}: the model is better by")
        for metric, better_by in judged["better_by"].items():
            low, high = better_by["interval"]
            print(f"  {metric:16}{better_by['mean']:.4f}  [{low:.4f}, {high:.4f}]  p = {better_by['p_value']:.4f}")
    return 0
