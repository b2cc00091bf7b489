"""The commands that ask a recommender."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrec.cli.output import (
    add_command,
    add_engine,
    add_fold,
    add_json,
    add_keep,
    add_model,
    place,
    read_copies,
    share,
)
from mmrec.cli.progress import progress_bar
from mmrec.cli.reranking import add_rerank, open_reranking
from mmrec.cli.searching import index_store
from mmrec.errors import ModelError
from mmrec.tables import read_lines

if TYPE_CHECKING:
    from mmrec.cli.reranking import Ranked, Reranking
    from mmrec.recommending import Recommender, UserState


def add_ranking_commands(commands: Any) -> None:
    recommend = add_command(commands, "recommend", _recommend, "the best items for users")
    add_model(recommend)
    who = recommend.add_mutually_exclusive_group(required=True)
    who.add_argument("--user", metavar="ID")
    who.add_argument("--users", type=Path, metavar="FILE", help="one id a line")
    who.add_argument("--all", action="store_true", help="every user of the training interactions")
    who.add_argument("--text", metavar="WORDS", help="somebody new, who says what they like")
    recommend.add_argument("--not-text", metavar="WORDS", default="", help="lower what these words name")
    recommend.add_argument(
        "--profiles", type=Path, metavar="FILE", help="as `mmrec profiles` wrote them: their words count by its weight"
    )
    recommend.add_argument("--k", type=int, default=20, help="items per user (default: 20)")
    recommend.add_argument("--where", action="append", default=[], metavar="COLUMN=VALUE", help="keep only such items")
    add_fold(recommend)
    recommend.add_argument("--diversity", type=share, metavar="SHARE", help="from 0 to 1 (default: 0)")
    recommend.add_argument("--explore-share", type=share, default=0.0, metavar="SHARE", help="places for untaken items")
    recommend.add_argument(
        "--out", type=place, metavar="FILE|URL", help="write .csv, .jsonl or .parquet: user, rank, item, score"
    )
    add_engine(recommend)
    add_rerank(recommend)
    add_json(recommend)

    similar = add_command(commands, "similar", _similar, "the items nearest to an item")
    add_model(similar)
    similar.add_argument("--item", required=True, metavar="ID")
    similar.add_argument("--k", type=int, default=10, help="(default: 10)")
    add_json(similar)

    index = add_command(commands, "index", _index, "make large models rank, or a store's items be found, fast")
    what = index.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", type=Path, metavar="DIR", help="a fitted model: rank approximately from now on")
    what.add_argument("--store", type=place, metavar="DIR|URL", help="a feature store: bring its search up to date")
    index.add_argument(
        "--set", default="", metavar="NAME", help="the set of features in the store (default: the first)"
    )
    index.add_argument("--recall", type=share, default=0.95, help="share of the best to find (default: 0.95)")
    index.add_argument("--k", type=int, default=20, help="length of the lists to measure by (default: 20)")
    add_keep(index)
    add_json(index)


def _recommend(arguments: argparse.Namespace) -> int:
    from mmrec.cluster import uses_ray
    from mmrec.recommending import Recommender, recommend_in_blocks, write_recommendations, writer_of

    if arguments.out is not None:
        writer_of(arguments.out)  # refused before the work
    if uses_ray(arguments.engine, address=arguments.address) and not (arguments.all or arguments.users):
        raise ModelError("--engine ray divides many users among machines: name them by --users or --all")
    model = Recommender.load(arguments.model)
    options = {
        "k": arguments.k,
        "where": _parse_where(arguments.where),
        "diversity": arguments.diversity,
        "explore_share": arguments.explore_share,
        "fold": read_copies(arguments),
    }
    reranking = open_reranking(arguments, model)
    if reranking is not None:
        options["k"] = reranking.depth
    if arguments.text is not None:
        if arguments.out is not None or arguments.profiles is not None:
            raise ModelError("--out and --profiles belong to users; --text prints its list")
        vector_D = model.user_vector(text=arguments.text, not_text=arguments.not_text)
        lists = [("", *model.recommend(vector_D, **options))]
        return _print_lists(model, lists, arguments, reranking)
    if arguments.not_text or arguments.profiles is not None:
        options["state_of"] = _states(arguments, model)
    users = model.user_ids if arguments.all else named_users(arguments)
    if arguments.all and not users:
        raise ModelError(f"model {arguments.model} was fitted without interactions: it knows no users")
    options |= {"engine": arguments.engine, "address": arguments.address}
    if arguments.out is not None:
        with progress_bar("recommending", len(users)) as show:
            write_recommendations(model, users, arguments.out, on_users=show, **options)
        print(f"{len(users)} users in {arguments.out}", file=sys.stderr)
        return 0
    blocks = recommend_in_blocks(model, users, **options)
    every = (found for block, ids_UK, scores_UK in blocks for found in zip(block, ids_UK, scores_UK, strict=True))
    return _print_lists(model, every, arguments, reranking)


def _states(arguments: argparse.Namespace, model: Recommender) -> Callable[[str], UserState]:
    """Of a user, what their profile says and what they do not want beside what the model knows."""
    from mmrec.understanding import Profiles

    profiles = Profiles(of={}) if arguments.profiles is None else Profiles.read(arguments.profiles)
    return partial(profiles.state, model, not_text=arguments.not_text)


def _print_lists(
    model: Recommender, lists: Iterable[Ranked], arguments: argparse.Namespace, reranking: Reranking | None
) -> int:
    if reranking is not None:
        return reranking.print_lists(lists)
    for user, ids, scores in lists:
        _print_list(model, user, ids, scores, as_json=arguments.json)
    return 0


def named_users(arguments: argparse.Namespace) -> list[str]:
    if arguments.user is not None:
        return [arguments.user]
    try:
        return [line for _, line in read_lines(arguments.users, ModelError)]
    except OSError as error:
        raise ModelError(f"{arguments.users} cannot be read as one user id a line: {error.strerror}") from None


def _parse_where(conditions: Sequence[str]) -> dict[str, Any]:
    where: dict[str, set[str]] = {}
    for condition in conditions:
        column, separator, value = condition.partition("=")
        if not separator:
            raise ModelError(f"--where {condition!r}: expected COLUMN=VALUE")
        where.setdefault(column, set()).add(value)
    return dict(where)


def _print_list(model: Recommender, user: str, ids: Any, scores: Any, *, as_json: bool = False) -> None:
    if as_json:
        items = [_named(model, i, "score", s) for i, s in zip(ids, scores, strict=True) if i]
        print(json.dumps({"user_id": user, "items": items}, ensure_ascii=False))
        return
    print(user or "for these words:")
    for rank, (item_id, score) in enumerate(zip(ids, scores, strict=True), start=1):
        if item_id:
            print(f"  {rank:3} {score:8.3f}  {item_id}  {model.item(item_id)['title']}")


def _named(model: Recommender, item_id: str, kind: str, number: Any) -> dict[str, Any]:
    """An item of a list, with its title where it has one."""
    title = model.item(item_id)["title"]
    return {"item_id": item_id, kind: float(number), **({"title": title} if title else {})}


def _similar(arguments: argparse.Namespace) -> int:
    from mmrec.recommending import Recommender

    model = Recommender.load(arguments.model)
    ids, cosines = model.similar_items(arguments.item, k=arguments.k)
    if arguments.json:
        items = [_named(model, i, "cosine", c) for i, c in zip(ids, cosines, strict=True) if i]
        print(json.dumps(items, ensure_ascii=False))
    else:
        _print_list(model, arguments.item, ids, cosines)
    return 0


def _index(arguments: argparse.Namespace) -> int:
    if arguments.store is not None:
        return index_store(arguments)
    from mmrec.recommending import Recommender, current_version, model_lock

    current_version(arguments.model)
    with model_lock(arguments.model):
        model = Recommender.load(arguments.model)
        recall = model.build_index(k=arguments.k, recall=arguments.recall)
        model.save(arguments.model, keep=arguments.keep)
    found = f"{recall:.3f} of the best {arguments.k} are found"
    print(json.dumps({"recall": recall, "k": arguments.k}) if arguments.json else f"{found}; in {arguments.model}")
    return 0
