"""The command that evaluates a model, and the picture that it draws."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmrec.cli.output import add_command, add_json, add_model
from mmrec.errors import EvaluationError

PLOTS = (".png", ".svg")


def add_evaluate_command(commands: Any) -> None:
    evaluate = add_command(commands, "evaluate", _evaluate, "evaluate a model by held-out interactions")
    add_model(evaluate)
    evaluate.add_argument("--interactions", type=Path, required=True, metavar="FILE")
    evaluate.add_argument("--k", type=int, nargs="+", default=[20], help="lengths of the lists (default: 20)")
    evaluate.add_argument(
        "--baselines", nargs="+", default=[], metavar="NAME", help="popularity, item_neighbours, ease, als"
    )
    evaluate.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw the metrics as .png or .svg (extra plots)",
    )
    add_json(evaluate)


def _evaluate(arguments: argparse.Namespace) -> int:
    from mmrec.recommending import Recommender

    plot = arguments.plot
    if plot is not None:
        _check_plot(plot)
    metrics = Recommender.load(arguments.model).evaluate(
        arguments.interactions, ks=arguments.k, baselines=arguments.baselines
    )
    if arguments.json:
        print(json.dumps(metrics))
    else:
        _print(metrics)
    if plot is not None:
        _draw(metrics, plot)
    return 0


def _check_plot(path: Path) -> None:
    """Raises `EvaluationError` before the work where there could be no plot after it."""
    if path.suffix.lower() not in PLOTS:
        raise EvaluationError(f"{path}: plots are files that end in {' or '.join(PLOTS)}")
    if not path.absolute().parent.is_dir():
        raise EvaluationError(f"{path}: there is no folder {path.parent}")
    if find_spec("matplotlib") is None:
        raise EvaluationError("--plot needs the package matplotlib: pip install 'mmrec[plots]'")


def _print(metrics: Mapping[str, Any]) -> None:
    print(f"{metrics['users']} users")
    for name, (low, high) in metrics["intervals"].items():
        print(f"  {name:16}{metrics[name]:.4f}  [{low:.4f}, {high:.4f}]")
    print("the lists")
    for name, value in metrics["catalog"].items():
        print(f"  {name:24}{value:.4f}")
    held_out, *recalls = metrics["cold_items"].items()
    print(f"cold items, without any interaction in training: {held_out[1]} interactions held out")
    for name, value in recalls:
        print(f"  {name:24}{value:.4f}")
    for name, judged in metrics["baselines"].items():
        print(f"{name:18}{'its own':8}the model is better by")
        for metric, better_by in judged["better_by"].items():
            low, high = better_by["interval"]
            print(
                f"  {metric:16}{judged[metric]:.4f}  {better_by['mean']:+.4f}  [{low:+.4f}, {high:+.4f}]  "
                f"p = {better_by['p_value']:.4f}"
            )


def _draw(metrics: Mapping[str, Any], path: Path) -> None:
    """Points with 95 % intervals, one for each metric; those of baselines beside them, as points alone."""
    import matplotlib
    from matplotlib.figure import Figure

    names = list(metrics["intervals"])
    means = [metrics[name] for name in names]
    below = [metrics[name] - metrics["intervals"][name][0] for name in names]
    above = [metrics["intervals"][name][1] - metrics[name] for name in names]
    with matplotlib.rc_context({"svg.hashsalt": "mmrec"}):
        figure = Figure(figsize=(7, 1.2 + 0.35 * len(names)), layout="constrained")
        axes = figure.subplots()
        axes.errorbar(means, range(len(names)), xerr=[below, above], fmt="o", capsize=3, label="the model")
        for name, judged in metrics["baselines"].items():
            axes.plot([judged[metric] for metric in names], range(len(names)), "x", label=name)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.set_title(f"{metrics['users']} users; mean and 95 % interval")
        axes.grid(axis="x", alpha=0.3)
        axes.legend()
        figure.savefig(path, dpi=150)
