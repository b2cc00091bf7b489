"""What a model recommends: lists of sample users with the reasons, and what lists as a whole do with the catalog."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmrec.errors import ModelError
from mmrec.evaluation import BASELINES, Interactions, catalog_metrics
from mmrec.recommending import Recommender
from mmrec.reporting.items import Column, parts_by_count
from mmrec.store import FeatureStore

Rows = NDArray[np.int64]

LIST_LENGTH, EXPLAINED, HISTORY_LENGTH = 10, 3, 8
MAX_USERS, MIN_USERS = 2000, 200
SCORES_HELD = 50_000_000  # of users and items, by which large catalogs are looked at with fewer users


@dataclass(frozen=True)
class Training:
    """The interactions that a model was fitted to, as matrices `(U, I)`: what was seen, and what counts."""

    interactions: Interactions

    @cached_property
    def seen_UI(self) -> sp.csr_array:
        found = self.interactions
        shape = (len(found.user_ids), len(found.item_ids))
        return sp.csr_array((np.ones(len(found), np.float32), (found.user_rows, found.item_rows)), shape=shape)

    @cached_property
    def liked_UI(self) -> sp.csr_array:
        found = self.interactions.select(self.interactions.weights > 0)
        shape = (len(found.user_ids), len(found.item_ids))
        return sp.csr_array((np.ones(len(found), np.float32), (found.user_rows, found.item_rows)), shape=shape)

    @cached_property
    def popularity_I(self) -> NDArray[np.int64]:
        """How many users have each item in their history."""
        return np.bincount(self.liked_UI.indices, minlength=self.liked_UI.shape[1])


@dataclass(frozen=True, slots=True)
class ListedItem:
    """An item of a list; `sentences` say why it stands there, for the first of them."""

    item_id: str
    score: float
    sentences: list[str]


@dataclass(frozen=True, slots=True)
class UserList:
    """One user: the number of items in the history, the latest of them, and what is recommended."""

    user_id: str
    num_items: int
    latest: list[str]
    items: list[ListedItem]


@dataclass(frozen=True, slots=True)
class Exposure:
    """One group of items: its share of the catalog, of the interactions of training, and of the places in lists."""

    group: str
    of_catalog: float
    of_interactions: float
    of_lists: float


@dataclass(frozen=True, slots=True)
class UserGroup:
    """Users with about as long histories: how popular the items in these are, and those in their lists."""

    history: str
    users: int
    history_popularity: float
    list_popularity: float


@dataclass(frozen=True, slots=True)
class Bias:
    """What the lists of some users, `k` items each, do with the catalog; beside it those of the popularity baseline."""

    k: int
    users: int
    all_users: int
    catalog: dict[str, dict[str, float]]
    exposure: dict[str, list[Exposure]]
    by_history: list[UserGroup]


def num_users_looked_at(num_items: int) -> int:
    """How many users a report ranks the catalog for."""
    return int(np.clip(SCORES_HELD // max(1, num_items), MIN_USERS, MAX_USERS))


def ranked_rows(model: Recommender, users: Sequence[str], k: int) -> Rows:
    """The rows of the best items `(U, K)` by score alone, without those seen; -1 where none is left."""
    rows = {item_id: row for row, item_id in enumerate(model.item_ids)} | {"": -1}
    ids_UK, _ = model.recommend(list(users), k=k, diversity=0.0)
    return np.array([[rows[item_id] for item_id in ids_K] for ids_K in ids_UK], np.int64).reshape(len(users), -1)


def user_lists(model: Recommender, store: FeatureStore, training: Training, count: int) -> list[UserList]:
    """Users with few, some and many interactions, by the quantiles of their numbers."""
    found = training.interactions
    degrees_U = found.user_degrees()
    by_degree = np.argsort(degrees_U, kind="stable")
    by_degree = by_degree[degrees_U[by_degree] > 0]
    places = np.linspace(0, len(by_degree) - 1, min(count, len(by_degree)))
    order_N = found.order()
    lists = []
    for user in by_degree[places.round().astype(int)]:
        own = np.flatnonzero((found.user_rows == user) & (found.weights > 0))
        latest = found.item_rows[own[np.argsort(-order_N[own], kind="stable")][:HISTORY_LENGTH]]
        user_id = found.user_ids[user]
        ids, scores = model.recommend(user_id, k=LIST_LENGTH)
        listed = [
            ListedItem(item_id, float(score), _why(model, store, user_id, item_id) if place < EXPLAINED else [])
            for place, (item_id, score) in enumerate(zip(ids, scores, strict=True))
            if item_id
        ]
        lists.append(UserList(user_id, len(own), [found.item_ids[row] for row in latest], listed))
    return lists


def bias_of_lists(model: Recommender, training: Training, columns: Sequence[Column], seed: int) -> Bias:
    """Of a random sample of the users of training; `columns` have the rows of the model's items."""
    found, k = training.interactions, min(20, len(model.item_ids))
    active = np.flatnonzero(np.diff(training.seen_UI.indptr))
    users = np.sort(np.random.default_rng(seed).permutation(active)[: num_users_looked_at(len(model.item_ids))])
    rows_UK = ranked_rows(model, [found.user_ids[user] for user in users], k)
    popular_UK, _ = BASELINES["popularity"]().fit(training.liked_UI).recommend(training.seen_UI[users], k)
    popularity_I = training.popularity_I
    vectors_ID = model.item_vectors[1]
    groups = {"popularity in training": parts_by_count(popularity_I)}
    groups |= {column.name: column.groups for column in columns if len(column.groups) > 1}
    return Bias(
        k=k,
        users=len(users),
        all_users=len(active),
        catalog={
            name: catalog_metrics(listed_UK, popularity_I, len(found.user_ids), vectors_ID if k > 1 else None)
            for name, listed_UK in {"the model": rows_UK, "popularity": popular_UK}.items()
        },
        exposure={name: _exposure(parts, rows_UK, popularity_I) for name, parts in groups.items()},
        by_history=_by_history(training, users, rows_UK),
    )


def _why(model: Recommender, store: FeatureStore, user_id: str, item_id: str) -> list[str]:
    """The reasons in words; without modalities where the store has other tokens than the model was fitted to."""
    try:
        return model.explain(user_id, item_id, store=store, top=2).sentences()
    except ModelError:
        return model.explain(user_id, item_id, top=2).sentences()


def _exposure(
    groups: Sequence[tuple[str, NDArray[np.bool_]]], rows_UK: Rows, popularity_I: NDArray[np.int64]
) -> list[Exposure]:
    listed_I = np.bincount(rows_UK[rows_UK >= 0], minlength=len(popularity_I))
    return [
        Exposure(
            group=name,
            of_catalog=float(inside_I.mean()),
            of_interactions=float(popularity_I[inside_I].sum() / max(1, popularity_I.sum())),
            of_lists=float(listed_I[inside_I].sum() / max(1, listed_I.sum())),
        )
        for name, inside_I in groups
    ]


def _by_history(training: Training, users: Rows, rows_UK: Rows) -> list[UserGroup]:
    popularity_I, liked_UI = training.popularity_I, sp.csr_array(training.liked_UI[users])
    lengths_U = np.diff(liked_UI.indptr)
    history_U = (liked_UI @ popularity_I) / np.maximum(lengths_U, 1)
    there_UK = rows_UK >= 0
    listed_U = np.where(there_UK, popularity_I[rows_UK], 0).sum(1) / np.maximum(there_UK.sum(1), 1)
    groups = []
    for name, inside_U in parts_by_count(lengths_U):
        means = float(history_U[inside_U].mean()), float(listed_U[inside_U].mean())
        groups.append(UserGroup(name, int(inside_U.sum()), *means))
    return groups
