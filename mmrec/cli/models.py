"""The command that fits a recommender."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmrec.cli.output import add_command, add_json, add_keep, add_model, add_store, count, open_store
from mmrec.cli.progress import fit_progress, stop_requested
from mmrec.errors import ModelError


def add_fit_command(commands: Any) -> None:
    fit = add_command(commands, "fit", _fit, "fit a recommender to a store and, where there are any, interactions")
    add_store(fit)
    fit.add_argument(
        "--interactions", type=Path, metavar="FILE", help="user_id, item_id and, if known, timestamp, weight"
    )
    fit.add_argument("--validation", type=Path, metavar="FILE", help="held-out interactions, to choose the epoch")
    add_model(fit)
    add_keep(fit)
    fit.add_argument("--config", type=Path, metavar="YAML", help="settings of the towers and their training")
    fit.add_argument("--seed", type=int, help="of the fit (default: the configuration's)")
    fit.add_argument("--device", default="cpu", choices=["auto", "cpu", "cuda", "mps"], help="(default: cpu)")
    fit.add_argument(
        "--devices", type=count, default=1, metavar="N", help="share the fit among so many, a process each (default: 1)"
    )
    fit.add_argument("--logs", type=Path, metavar="DIR", help="keep the course of the fit as CSV and for TensorBoard")
    fit.add_argument("--wandb", metavar="PROJECT", help="log to Weights & Biases, if installed")
    add_json(fit)


def _fit(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from mmrec.evaluation import check_sources

    if arguments.devices > 1:  # else torch tells, once a process, that a batch might lack a modality and did not
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    check_sources(arguments.interactions, arguments.validation)
    settings = read_settings(arguments.config)

    from fusion.config import Hardware
    from mmrec.recommending import Recommender, RecommenderConfig

    config = RecommenderConfig.from_mapping(settings)
    if arguments.seed is not None:
        config = replace(config, fusion=replace(config.fusion, seed=arguments.seed))
    with fit_progress() as show, stop_requested() as should_stop:
        hardware = Hardware(
            device=arguments.device,
            num_devices=arguments.devices,
            checkpoints=arguments.model / "checkpoints",
            logs=arguments.logs,
            wandb_project=arguments.wandb,
            on_progress=show,
            should_stop=should_stop,
        )
        model = Recommender.fit(
            open_store(arguments),
            arguments.interactions,
            validation=arguments.validation,
            config=config,
            hardware=hardware,
        )
    version = model.save(arguments.model, keep=arguments.keep)
    report = asdict(model.report)
    if arguments.json:
        print(json.dumps({"version": version, "items": len(model.item_ids), "users": len(model.user_ids), **report}))
        return 0
    print(
        f"{len(model.item_ids)} items, {len(model.user_ids)} users, {report['epochs']} epochs, "
        f"in {arguments.model} as version {version}"
    )
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
