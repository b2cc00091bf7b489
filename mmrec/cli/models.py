"""The commands that fit a recommender and ask it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrec.cli.output import add_command, add_json, add_model, add_store, quiet_lightning, share
from mmrec.errors import ModelError

if TYPE_CHECKING:
    from mmrec.recommender import Recommender

USERS_AT_ONCE = 4096


def add_model_commands(commands: Any) -> None:
    fit = add_command(commands, "fit", _fit, "fit a recommender to a store and, where there are any, interactions")
    add_store(fit)
    fit.add_argument(
        "--interactions", type=Path, metavar="FILE", help="user_id, item_id and, if known, timestamp, weight"
    )
    fit.add_argument("--validation", type=Path, metavar="FILE", help="held-out interactions, to choose the epoch")
    add_model(fit)
    fit.add_argument("--config", type=Path, metavar="YAML", help="settings of the fusion and its training")
    fit.add_argument("--seed", type=int, help="of the fit (default: the configuration's)")
    fit.add_argument("--device", default="cpu", choices=["auto", "cpu", "cuda", "mps"], help="(default: cpu)")
    fit.add_argument(
        "--logs", type=Path, metavar="DIR", help="keep logs and checkpoints; go on from them if interrupted"
    )
    fit.add_argument("--wandb", metavar="PROJECT", help="log to Weights & Biases, if installed")
    add_json(fit)

    evaluate = add_command(commands, "evaluate", _evaluate, "judge a model by held-out interactions")
    add_model(evaluate)
    evaluate.add_argument("--interactions", type=Path, required=True, metavar="FILE")
    evaluate.add_argument("--k", type=int, nargs="+", default=[20], help="lengths of the lists (default: 20)")
    add_json(evaluate)

    recommend = add_command(commands, "recommend", _recommend, "the best items for users")
    add_model(recommend)
    who = recommend.add_mutually_exclusive_group(required=True)
    who.add_argument("--user", metavar="ID")
    who.add_argument("--users", type=Path, metavar="FILE", help="one id a line")
    who.add_argument("--all", action="store_true", help="every user of the training interactions")
    who.add_argument("--text", metavar="WORDS", help="somebody new, who says what they like")
    recommend.add_argument("--k", type=int, default=20, help="items per user (default: 20)")
    recommend.add_argument("--where", action="append", default=[], metavar="COLUMN=VALUE", help="keep only such items")
    recommend.add_argument("--diversity", type=share, default=0.0, metavar="SHARE", help="from 0 to 1 (default: 0)")
    recommend.add_argument("--explore-share", type=share, default=0.0, metavar="SHARE", help="places for untaken items")
    recommend.add_argument("--out", type=Path, metavar="FILE", help="write Parquet: user_id, rank, item_id, score")
    add_json(recommend)

    similar = add_command(commands, "similar", _similar, "the items nearest to an item")
    add_model(similar)
    similar.add_argument("--item", required=True, metavar="ID")
    similar.add_argument("--k", type=int, default=10, help="(default: 10)")
    add_json(similar)


def _fit(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from fusion.config import Hardware
    from mmrec.fitting import RecommenderConfig
    from mmrec.recommender import Recommender
    from mmrec.store import FeatureStore

    quiet_lightning()
    config = RecommenderConfig.from_mapping(read_settings(arguments.config))
    if arguments.seed is not None:
        config = replace(config, fusion=replace(config.fusion, seed=arguments.seed))
    hardware = Hardware(
        device=arguments.device, folder=arguments.logs, wandb_project=arguments.wandb, progress=sys.stderr.isatty()
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
    from mmrec.recommender import Recommender

    metrics = Recommender.load(arguments.model).evaluate(arguments.interactions, ks=arguments.k)
    if arguments.json:
        print(json.dumps(metrics))
        return 0
    print(f"{metrics['users']} users")
    for name, (low, high) in metrics["intervals"].items():
        print(f"  {name:16}{metrics[name]:.4f}  [{low:.4f}, {high:.4f}]")
    for name, value in {**metrics["catalog"], **metrics["cold_items"]}.items():
        print(f"  {name:24}{value:.4f}")
    return 0


def _recommend(arguments: argparse.Namespace) -> int:
    from mmrec.recommender import Recommender

    model = Recommender.load(arguments.model)
    options = {
        "k": arguments.k,
        "where": _parse_where(arguments.where),
        "diversity": arguments.diversity,
        "explore_share": arguments.explore_share,
    }
    if arguments.text is not None:
        vector_D = model.user_vector(text=arguments.text)
        ids, scores = model.recommend(vector_D, **options)
        lists = iter([("", ids, scores)])
    else:
        users = model.user_ids if arguments.all else _named_users(arguments)
        lists = _lists(model, users, options)
    if arguments.out is not None:
        print(f"{_write_lists(arguments.out, lists)} users in {arguments.out}", file=sys.stderr)
        return 0
    for user, ids, scores in lists:
        if arguments.json:
            items = [{"item_id": i, "score": float(s)} for i, s in zip(ids, scores, strict=True) if i]
            print(json.dumps({"user_id": user, "items": items}, ensure_ascii=False))
        else:
            _print_list(model, user, ids, scores)
    return 0


def _named_users(arguments: argparse.Namespace) -> list[str]:
    if arguments.user is not None:
        return [arguments.user]
    try:
        return [line for line in arguments.users.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{arguments.users} cannot be read as one user id a line: {error}") from None


def _lists(model: Recommender, users: Sequence[str], options: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for start in range(0, len(users), USERS_AT_ONCE):
        block = users[start : start + USERS_AT_ONCE]
        yield from zip(block, *model.recommend(block, **options), strict=True)


def _parse_where(conditions: Sequence[str]) -> dict[str, Any]:
    where: dict[str, set[str]] = {}
    for condition in conditions:
        column, separator, value = condition.partition("=")
        if not separator:
            raise ModelError(f"--where {condition!r}: expected COLUMN=VALUE")
        where.setdefault(column, set()).add(value)
    return dict(where)


def _write_lists(path: Path, lists: Iterator[tuple[str, Any, Any]]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [("user_id", pa.string()), ("rank", pa.int32()), ("item_id", pa.string()), ("score", pa.float32())]
    )
    count = 0
    try:
        with pq.ParquetWriter(path, schema) as writer:
            while block := list(islice(lists, USERS_AT_ONCE)):
                places = [
                    {"user_id": user, "rank": rank, "item_id": item_id, "score": score}
                    for user, ids, scores in block
                    for rank, (item_id, score) in enumerate(zip(ids, scores, strict=True), start=1)
                    if item_id
                ]
                writer.write_table(pa.Table.from_pylist(places, schema=schema))
                count += len(block)
    except OSError as error:
        raise ModelError(f"{path} cannot be written: {error.strerror or error}") from None
    return count


def _print_list(model: Recommender, user: str, ids: Any, scores: Any) -> None:
    print(user or "for these words:")
    for place, (item_id, score) in enumerate(zip(ids, scores, strict=True), start=1):
        if item_id:
            print(f"  {place:3} {score:8.3f}  {item_id}  {model.item(item_id)['title']}")


def _similar(arguments: argparse.Namespace) -> int:
    from mmrec.recommender import Recommender

    model = Recommender.load(arguments.model)
    ids, cosines = model.similar_items(arguments.item, k=arguments.k)
    if arguments.json:
        print(json.dumps([{"item_id": i, "cosine": float(c)} for i, c in zip(ids, cosines, strict=True) if i]))
    else:
        _print_list(model, arguments.item, ids, cosines)
    return 0
