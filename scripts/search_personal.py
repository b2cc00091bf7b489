"""What knowing the user adds to a search: the item that each took next is sought by its kind, with and without them.

The words are two tags of an item that the user liked in the held-out part, or the first words of its title; items of
the user's history are left out of the lists. The weight of the user is chosen on the validation part, the figures are
of the test part; the model was fitted to the training part alone.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

import mmrec
from fusion.config import FusionConfig
from mmrec.recommending import RecommenderConfig
from mmrec.searching import Query, Searcher

WEIGHTS = (1.0, 2.0, 4.0)
LIKED = 4.0
CHOSEN_ON, MOST_USERS = 60, 150
DEPTH, BEST = 100, 10
NUM_SAMPLES = 2000

Case = tuple[str, str, str]
"""A user, the item that is sought, and the words for it."""


def measure_personal(data: Path, work: Path, preset: str) -> list[dict[str, Any]]:
    with (data / "items.csv").open(encoding="utf-8", newline="") as file:
        items = {row["item_id"]: row for row in csv.DictReader(file)}
    parts = {name: pq.read_table(data / "time" / f"{name}.parquet") for name in ("train", "validation", "test")}
    store = _store(items, work, preset)
    model = _model(store, data / "time", work)
    cases, seen, known = {}, {}, set(model.user_ids)
    before: dict[str, set[str]] = {}
    for part, table in parts.items():
        rows = table.to_pylist()
        cases[part] = _liked(rows, items, known, before)
        seen[part] = {user: set(ids) for user, ids in before.items()}
        for row in rows:
            before.setdefault(row["user_id"], set()).add(row["item_id"])
    searcher = Searcher(store)
    rng = np.random.default_rng(0)
    figures = []
    for what, words_of in {"by two tags": _tags, "by the title's first words": _title}.items():
        chosen_on, judged_on = (
            [(user, item_id, words_of(items[item_id], rng)) for user, item_id in cases[part]]
            for part in ("validation", "test")
        )
        on, off = chosen_on[:CHOSEN_ON], seen["validation"]
        tried = {w: _gains(searcher, model, on, off, w).mean() for w in (0.0, *WEIGHTS)}
        figures += [{"what": f"{what}, validation", "weight": w, "MRR": float(mrr)} for w, mrr in tried.items()]
        weights = sorted({0.0, 1.0, max(WEIGHTS, key=lambda w: tried[w])})
        gains = {w: _gains(searcher, model, judged_on[:MOST_USERS], seen["test"], w) for w in weights}
        figures += [{"what": f"{what}, test", "weight": w, **_summary(gains[w], gains[0.0])} for w in weights]
    return figures


def _tags(item: Mapping[str, str], rng: np.random.Generator) -> str:
    return " ".join(rng.permutation(item["tags"].split("|"))[:2])


def _title(item: Mapping[str, str], rng: np.random.Generator) -> str:
    return " ".join(item["title"].split()[:2])


def _liked(
    rows: Sequence[Mapping[str, Any]],
    items: Mapping[str, Mapping[str, str]],
    known: set[str],
    seen: Mapping[str, set[str]],
) -> list[tuple[str, str]]:
    """One item for each user whom the model knows, drawn from those that they liked then and had not seen before."""
    liked: dict[str, list[str]] = {}
    for row in rows:
        user, item_id = row["user_id"], row["item_id"]
        if user in known and row["weight"] >= LIKED and items[item_id]["tags"] and item_id not in seen.get(user, ()):
            liked.setdefault(user, []).append(item_id)
    rng = np.random.default_rng(0)
    cases = [(user, str(rng.choice(of_user))) for user, of_user in sorted(liked.items())]
    return [cases[place] for place in rng.permutation(len(cases))]


def _gains(
    searcher: Searcher, model: mmrec.Recommender, cases: Sequence[Case], seen: Mapping[str, set[str]], weight: float
) -> NDArray[np.float64]:
    """One over the place of what is sought, 0 where it was not found."""
    return np.array([1 / place if place else 0.0 for place in _places(searcher, model, cases, seen, weight)])


def _places(
    searcher: Searcher, model: mmrec.Recommender, cases: Sequence[Case], seen: Mapping[str, set[str]], weight: float
) -> Iterator[int]:
    for user, item_id, words in cases:
        query = Query(words=[words], taste=model.taste(user) if weight else None, weights={"user": weight})
        ids = [found for found in searcher.search(query, k=DEPTH)[0] if found == item_id or found not in seen[user]]
        yield ids.index(item_id) + 1 if item_id in ids else 0


def _summary(gains_Q: NDArray[np.float64], plain_Q: NDArray[np.float64]) -> dict[str, Any]:
    recall_Q, plain_recall_Q = gains_Q >= 1 / BEST, plain_Q >= 1 / BEST
    draws_SQ = np.random.default_rng(0).integers(len(gains_Q), size=(NUM_SAMPLES, len(gains_Q)))
    intervals = [
        np.quantile((values_Q * 1.0)[draws_SQ].mean(axis=1), [0.025, 0.975])
        for values_Q in (gains_Q - plain_Q, recall_Q * 1.0 - plain_recall_Q)
    ]
    return {
        "users": len(gains_Q),
        "MRR": float(gains_Q.mean()),
        "more, 95 %": "{:+.3f} to {:+.3f}".format(*intervals[0]),
        "recall@10": float(recall_Q.mean()),
        "more recall, 95 %": "{:+.3f} to {:+.3f}".format(*intervals[1]),
    }


def _store(items: Mapping[str, Mapping[str, str]], work: Path, preset: str) -> mmrec.FeatureStore:
    """Of the words of the items: what the pictures add is measured elsewhere."""
    names = [name for name in next(iter(items.values())) if name != "media"]
    with (work / "items.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(items.values())
    mmrec.embed(work / "items.csv", work / preset, preset=preset)
    return mmrec.FeatureStore(work / preset)


def _model(store: mmrec.FeatureStore, parts: Path, work: Path) -> mmrec.Recommender:
    """Its epoch is chosen on the validation part as well."""
    if not (work / "model").exists():
        config = RecommenderConfig(fusion=FusionConfig(dim=64, max_epochs=6, patience=2))
        fitted = mmrec.Recommender.fit(
            store, parts / "train.parquet", validation=parts / "validation.parquet", config=config
        )
        fitted.save(work / "model")
    return mmrec.Recommender.load(work / "model")
