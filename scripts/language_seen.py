"""Words on posters: whose titles they are, and whether they help to recommend."""

from __future__ import annotations

import argparse
import csv
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from language_rows import Rows, plain, read_rows

import mmrec
from mmrec.evaluation import Interactions, align, compare, rank_metrics, read_interactions
from mmrec.store import FeatureStore, Findings
from mmrec.understanding import (
    ScreenReader,
    understand,
)

K = 20


def poster_stores(arguments: argparse.Namespace) -> tuple[Path, Path]:
    """The most rated movies that have posters, embedded by `light`; the second store has the posters' words as text."""
    folder = arguments.data / "movies"
    train = read_interactions(folder / "time" / "train.parquet")
    rated = Counter(train.item_rows.tolist()).most_common()
    most = {train.item_ids[row]: place for place, (row, _) in enumerate(rated)}
    rows = [row for row in read_rows(folder / "items.csv") if row["media"] and row["item_id"] in most]
    rows = sorted(rows, key=lambda row: most[row["item_id"]])[: arguments.posters]
    catalog = arguments.cache / "posters.csv"
    with catalog.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "media": str((folder / row["media"]).resolve())} for row in rows)
    before, after = arguments.cache / "before.store", arguments.cache / "after.store"
    if not after.exists():
        mmrec.embed(catalog, before, preset="light", device="cpu")
        shutil.copytree(before, after)
        understand(FeatureStore(after), screen=ScreenReader())
        mmrec.embed(catalog, after, preset="light", device="cpu")
    return before, after


def posters(arguments: argparse.Namespace) -> Rows:
    _, after = poster_stores(arguments)
    found = Findings(FeatureStore(after))
    counts, words, read_words = Counter[str](), 0, 0
    for row in read_rows(arguments.cache / "posters.csv"):
        finding = found.of([row["item_id"]]).get(row["item_id"], {}).get("seen")
        read = plain(finding.text if finding else "")
        title = re.sub(r"\s*\(.*", "", row["title"]).removesuffix(", The").removesuffix(", A").removesuffix(", An")
        wanted = plain(title).split()
        hits = sum(word in read.split() for word in wanted)
        words, read_words = words + len(wanted), read_words + hits
        counts.update(
            {"any text": bool(read), "a word of the title": hits > 0, "all words of the title": hits == len(wanted)}
        )
        counts["all words, as letters anywhere"] += plain(title).replace(" ", "") in read.replace(" ", "")
    shares = {name: counts[name] / arguments.posters for name in counts}
    return [{"posters": arguments.posters, **shares, "of all words of titles": read_words / words}]


def movies(arguments: argparse.Namespace) -> Rows:
    """Fitted to the ratings of these movies alone, by time; the epoch is chosen on validation, the figures are of test.

    What users rated in the validation part stays in their lists, with and without words.
    """
    stores = poster_stores(arguments)
    folder = arguments.data / "movies" / "time"
    item_ids = FeatureStore(stores[0]).to_arrow(["item_id"])["item_id"].to_pylist()
    train, validation, test = (
        read_interactions(folder / f"{part}.parquet", item_ids=item_ids, unknown_items="drop")
        for part in ("train", "validation", "test")
    )
    measured = [user_metrics(FeatureStore(store), train, validation, test) for store in stores]
    table = []
    for metric in ("recall@20", "ndcg@20"):
        without_U, with_U = (values[metric] for values in measured)
        difference = compare(with_U, without_U)
        row = {"metric": metric, "users": len(without_U), "without words": f"{without_U.mean():.4f}"}
        row |= {"with words seen": f"{with_U.mean():.4f}", "difference": str(difference.difference)}
        table.append({**row, "p": f"{difference.p_value:.3f}"})
    return table


def user_metrics(
    store: FeatureStore, train: Interactions, validation: Interactions, test: Interactions
) -> dict[str, Any]:
    model = mmrec.Recommender.fit(store, train, validation=validation)
    item_ids = store.to_arrow(["item_id"])["item_id"].to_pylist()
    row_of = {item_id: row for row, item_id in enumerate(item_ids)}
    held = align(test, user_ids=model.user_ids, item_ids=item_ids)
    relevant_UI = held.select(held.weights > 0).matrix()[: len(model.user_ids)]
    users = np.flatnonzero(np.diff(relevant_UI.indptr))
    ids_UK, _ = model.recommend([model.user_ids[user] for user in users], k=K)
    ranked_UK = np.array([[row_of.get(item_id, -1) for item_id in ids] for ids in ids_UK])
    return dict(rank_metrics(ranked_UK, sp.csr_array(relevant_UI[users] > 0, dtype=np.float32), [K]))
