"""The command that searches a store, and what makes a store fast to search."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrec.cli.output import (
    add_command,
    add_fold,
    add_json,
    add_store,
    count,
    fail,
    open_store,
    positive,
    read_copies,
    share,
)
from mmrec.errors import SearchError

if TYPE_CHECKING:
    from mmrec.searching import Moment, Query, Searcher, Taste


def add_search_command(commands: Any) -> None:
    search = add_command(commands, "search", _search, "find items, and moments in them, by words and by example")
    search.add_argument("words", nargs="?", help="what to look for")
    add_store(search)
    search.add_argument("--media", type=Path, action="append", default=[], metavar="FILE", help="as in this file")
    search.add_argument("--item", action="append", default=[], metavar="ID", help="as this item of the store")
    search.add_argument(
        "--vector", type=Path, action="append", default=[], metavar="NPY", help="near (D,) or (T, D) numbers"
    )
    search.add_argument("--not", dest="without", action="append", default=[], metavar="WORDS", help="far from these")
    search.add_argument("--moments", action="store_true", help="the best frames or windows of each item, with times")
    search.add_argument(
        "--where", default="", metavar="FILTER", help="only such items: \"year >= 2001 and language = 'zh'\""
    )
    search.add_argument("--modalities", metavar="LIST", help="compare these alone, as in visual,audio")
    search.add_argument(
        "--weight",
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help="of the ranking by visual, audio, text or words, which is full text (default: 1 each)",
    )
    search.add_argument("--user", metavar="ID", help="rank what was found by what they like as well")
    search.add_argument("--model", type=Path, metavar="DIR", help="the fitted model that knows the user")
    search.add_argument(
        "--user-weight", type=positive, metavar="NUMBER", help="of the ranking by what the user likes (default: 1)"
    )
    add_fold(search)
    search.add_argument(
        "--diversity", type=share, default=0.0, metavar="SHARE", help="from 0 to 1: avoid what is alike (default: 0)"
    )
    search.add_argument("--k", type=count, default=10, help="(default: 10)")
    search.add_argument("--offset", type=int, default=0, metavar="N", help="leave out the first N (default: 0)")
    add_json(search)


def index_store(arguments: argparse.Namespace) -> int:
    from mmrec.store import SearchTables

    store = open_store(arguments)
    num_rows = SearchTables(store).refresh()
    report = {"rows": num_rows, "items": len(store)}
    print(json.dumps(report) if arguments.json else f"{len(store)} items can be searched; {num_rows} rows were written")
    return 0


def _search(arguments: argparse.Namespace) -> int:
    from mmrec.searching import Searcher

    query, searcher = _query(arguments), Searcher(open_store(arguments))
    paging = {"k": arguments.k, "offset": arguments.offset}
    if arguments.moments:
        num_found = print_moments(searcher, searcher.moments(query, **paging), as_json=arguments.json)
    else:
        ids, scores = searcher.search(query, **paging)
        num_found = print_items(searcher, ids, scores.tolist(), as_json=arguments.json)
    if not num_found:
        beyond = f" after the first {arguments.offset}" if arguments.offset else ""
        return fail(f"nothing was found{beyond}")
    return 0


def _query(arguments: argparse.Namespace) -> Query:
    from mmrec.searching import Query

    names: Any = None if arguments.modalities is None else arguments.modalities.replace(",", " ").split()
    return Query(
        words=[] if arguments.words is None else [arguments.words],
        media=arguments.media,
        items=arguments.item,
        vectors=[_vector(path) for path in arguments.vector],
        without=arguments.without,
        where=arguments.where,
        modalities=names,
        weights=dict(_weight(text) for text in arguments.weight) | _user_weight(arguments),
        taste=taste_of_user(arguments),
        fold=read_copies(arguments),
        diversity=arguments.diversity,
    )


def taste_of_user(arguments: argparse.Namespace) -> Taste | None:
    if (arguments.user is None) != (arguments.model is None):
        raise SearchError("--user and --model belong together: who searches, and the model that knows them")
    if arguments.user is None:
        return None
    from mmrec.recommending import Recommender

    return Recommender.load(arguments.model).taste(arguments.user)


def _user_weight(arguments: argparse.Namespace) -> dict[str, float]:
    if arguments.user_weight is None:
        return {}
    if arguments.user is None:
        raise SearchError("--user-weight says how much a user counts: name one with --user and --model")
    return {"user": arguments.user_weight}


def _weight(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        return name, float(number)
    except ValueError:
        raise SearchError(f"--weight {text!r}: expected NAME=NUMBER, as in words=0.5") from None


def _vector(path: Path) -> Any:
    import numpy as np

    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SearchError(f"{path} cannot be read as a .npy file: {error}") from None


def print_items(searcher: Searcher, ids: list[str], scores: list[float], *, as_json: bool) -> int:
    titles = searcher.tables.titles(ids) if ids else {}
    if as_json:
        found = [{"item_id": i, "score": s, "title": titles.get(i, "")} for i, s in zip(ids, scores, strict=True)]
        print(json.dumps(found, ensure_ascii=False))
    else:
        for place, (item_id, score) in enumerate(zip(ids, scores, strict=True), start=1):
            print(f"  {place:3} {score:8.4f}  {item_id}  {titles.get(item_id, '')}".rstrip())
    return len(ids)


def print_moments(searcher: Searcher, moments: list[Moment], *, as_json: bool) -> int:
    titles = searcher.tables.titles([moment.item_id for moment in moments]) if moments else {}
    if as_json:
        found = [{**asdict(moment), "title": titles.get(moment.item_id, "")} for moment in moments]
        print(json.dumps(found, ensure_ascii=False))
    else:
        for place, moment in enumerate(moments, start=1):
            named = f"{moment.item_id}  {titles.get(moment.item_id, '')}".rstrip()
            print(f"  {place:3} {moment.cosine:8.3f}  {moment.when}  {moment.modality:6}  {named}")
    return len(moments)
