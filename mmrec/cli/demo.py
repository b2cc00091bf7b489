"""The demo: a sample catalog, from nothing to recommendations and search."""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrec.cli.output import add_command
from mmrec.cli.stores import print_report, run_embed

if TYPE_CHECKING:
    from mmrec.recommending import Recommender
    from mmrec.store import FeatureStore

EXAMPLE_WORDS = ("I like slow piano music", "我喜欢慢速钢琴音乐")
SEARCHED_WORDS = ("rain at night", "夜晚的雨声")
MOMENT_LIKE = "item006"


def add_demo_command(commands: Any) -> None:
    demo = add_command(commands, "demo", _demo, "a sample catalog from nothing to recommendations")
    demo.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="where to work (default: demo)")


def _demo(arguments: argparse.Namespace) -> int:
    from mmrec.sample import make_sample_catalog
    from mmrec.store import FeatureStore

    folder = arguments.out
    _say(f"1. writing a sample catalog of short clips, and what simulated users watched, to {folder / 'catalog'}")
    catalog = make_sample_catalog(folder / "catalog")
    _say("2. embedding it: pictures, sound and words, with the preset that needs no download")
    report = run_embed(catalog, folder / "store", preset="light", replace=True)
    _say("3. fitting a recommender to what the users watched, but for the last item of each")
    model = _fit(folder)
    print_report(report, folder / "store")
    metrics = model.evaluate(folder / "catalog" / "interactions_validation.csv", ks=[5])
    print(
        f"\nOf the items that users watched next, {metrics['recall@5']:.0%} are among the first 5 recommended to them."
    )
    users = _middle_users(folder / "catalog" / "interactions.csv")
    _print_users(model, users)
    for words in EXAMPLE_WORDS:
        ids, _ = model.recommend(model.user_vector(text=words), k=4)
        print(f"\nSomebody new who says: {words}\n  is offered  {_titles(model, ids)}")
    store = FeatureStore(folder / "store")
    _print_found(model, store)
    _print_why(model, store, next(iter(users)))
    of_model, of_store = f"--model {folder / 'model'}", f"--store {folder / 'store'}"
    print(f"\nAll of it to look at, in any browser: {_write_report(folder, model)}")
    print(
        f"\nNext: mmrec serve {of_store} {of_model}     (a page to explore, at http://127.0.0.1:8000)"
        f"\n      mmrec recommend {of_model} --user user102 --k 10"
        f"\n      mmrec explain {of_model} {of_store} --user user102 --item item050"
        f"\n      mmrec similar {of_model} --item item050"
        f"\n      mmrec search {of_store} {of_model} --user user102 'calm music'"
        f"\n      mmrec export {of_store} --out {folder / 'export'} --format parquet"
        "\n      mmrec embed YOUR_FOLDER_OR_CATALOG --store YOUR_STORE --preset light"
    )
    return 0


def _say(message: str) -> None:
    print(f"mmrec: {message}", file=sys.stderr)


def _fit(folder: Path) -> Recommender:
    from fusion.config import Hardware
    from mmrec.recommending import Recommender
    from mmrec.store import FeatureStore

    model = Recommender.fit(
        FeatureStore(folder / "store"),
        folder / "catalog" / "interactions.csv",
        validation=folder / "catalog" / "interactions_validation.csv",
        hardware=Hardware(),
    )
    model.save(folder / "model")
    return model


def _write_report(folder: Path, model: Recommender) -> Path:
    from mmrec.reporting import write_report
    from mmrec.store import FeatureStore

    _say("4. writing a report on the store and the model")
    page = folder / "report.html"
    write_report(page, FeatureStore(folder / "store"), model, folder / "catalog" / "interactions_validation.csv")
    return page


def _middle_users(interactions: Path) -> dict[str, list[str]]:
    """Three users who watched neither few nor many, and what they watched."""
    watched = defaultdict(list)
    with open(interactions, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            watched[row["user_id"]].append(row["item_id"])
    users = sorted(watched, key=lambda user: (len(watched[user]), user))[len(watched) // 2 :][:3]
    return {user: watched[user] for user in users}


def _print_users(model: Recommender, watched: dict[str, list[str]]) -> None:
    """What users watched, and what they are offered."""
    for (user, items), ids in zip(watched.items(), model.recommend([*watched], k=4)[0], strict=True):
        print(f"\n{user} watched     {_titles(model, items)}\n  is offered  {_titles(model, ids)}")


def _print_found(model: Recommender, store: FeatureStore) -> None:
    """What is found by words of two languages, and the moment that is most like an item."""
    from mmrec.searching import Query, Searcher

    searcher = Searcher(store)
    for words in SEARCHED_WORDS:
        ids, _ = searcher.search(Query(words=[words]), k=4)
        print(f"\nA search for {words}\n  finds       {_titles(model, ids)}")
    (moment,) = searcher.moments(Query(items=[MOMENT_LIKE]), k=1)
    found = f"{moment.when} of  {_titles(model, [moment.item_id])}, by its {moment.modality} tokens"
    print(f"\nThe moment most like  {_titles(model, [MOMENT_LIKE])}\n  is          {found}")


def _print_why(model: Recommender, store: FeatureStore, user: str) -> None:
    """Why a user is offered the first item of their list."""
    item_id = model.recommend(user, k=1)[0][0]
    why = model.explain(user, item_id, store=store)
    print(f"\nWhy {user} is offered  {_titles(model, [item_id])}", *why.sentences(), sep="\n  ")


def _titles(model: Recommender, item_ids: Any) -> str:
    """Titles with their kinds, in words that a person can judge."""
    items = [model.item(item_id) for item_id in item_ids if item_id]
    return "; ".join(f"{item['title'] or item['item_id']} ({item['kind']})" for item in items)
