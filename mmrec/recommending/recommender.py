"""The recommender: fitted from a store and interactions, it ranks the catalog's items for users, old and new.

    >>> model = Recommender.fit(store, interactions, validation=validation)     # doctest: +SKIP
    >>> ids, scores = model.recommend(["u1", "u2"], k=20)                       # doctest: +SKIP
    >>> scores = model.score("u1", ["i3", "i9"])                                # doctest: +SKIP

One contract: lookups return `(ids, scores)`, and one user or item gets the same as it would among many.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from encoders.text import clean_text
from fusion.config import FitReport, Hardware
from fusion.token_table import TokenTable
from fusion.tower import Tower, user_vectors
from mmrec.errors import ModelError
from mmrec.evaluation import (
    Interactions,
    InteractionSource,
    align,
    check_no_leak,
    evaluate_rankings,
    read_catalog_interactions,
)
from mmrec.ranking import ApproximateRanker, Ranker, diversify, remove_index
from mmrec.recommending.exploration import places_of_share, with_cold_items
from mmrec.recommending.filters import Where, matching
from mmrec.recommending.fitting import RecommenderConfig, catalog_rows, fit_files
from mmrec.recommending.model_files import ModelFiles, load_model, save_model
from mmrec.recommending.tokens import read_tokens
from mmrec.recommending.users import recency_weights
from mmrec.recommending.words import WordEncoder
from mmrec.store import FeatureStore

logger = logging.getLogger(__name__)

DIVERSIFIED_CANDIDATES = 5
NEWCOMER_DIVERSITY = 0.3
INDEX = "items.index"
INDEX_USERS = 1000

Ids = NDArray[np.str_]
Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


class Recommender:
    """Item vectors, what is needed to make user vectors, and who interacted with what. Made by `fit` or `load`."""

    def __init__(self, files: ModelFiles, tower: Tower, config: RecommenderConfig) -> None:
        self._files, self._tower, self.config = files, tower, config
        self._item_rows = {item_id: row for row, item_id in enumerate(files.item_ids)}
        self._ranker = Ranker(files.vectors_ID, files.bias_I)
        self._similar: Ranker | None = None
        self._words = WordEncoder(files.encoders.get("text"))
        self._history_UI = self._histories(files.interactions)

    # --- making, saving, loading --------------------------------------------------------------------------------------

    @classmethod
    def fit(
        cls,
        store: FeatureStore,
        interactions: InteractionSource | None = None,
        *,
        validation: InteractionSource | None = None,
        config: RecommenderConfig | None = None,
        hardware: Hardware | None = None,
    ) -> Recommender:
        """Fit item and user vectors to interactions; without any, a fusion to the content alone.

        `validation` chooses the epoch and is never trained on; users that training does not know do not count in it.
        Without it training runs for its `max_epochs`.

        Raises `ModelError` for a configuration, interactions or features that cannot be fitted, and `InteractionError`
        for files that cannot be read, items that the store does not hold, and validation present in training.
        """
        config = config or RecommenderConfig()
        files, tower = fit_files(store, interactions, validation, config, hardware)
        return cls(files, tower, config)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the model: weights and vectors as safetensors, the rest as Parquet and JSON."""
        save_model(folder, self._files, self._tower, self.config.to_mapping())
        index = Path(folder) / INDEX
        remove_index(index)
        if isinstance(self._ranker, ApproximateRanker):
            self._ranker.save(index)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Recommender:
        """Raises `ModelError` where there is no model, or one that is damaged or of another version."""
        files, tower, settings = load_model(folder)
        model = cls(files, tower, RecommenderConfig.from_mapping(settings))
        if (Path(folder) / INDEX).exists():
            ranker = ApproximateRanker(files.vectors_ID, files.bias_I)
            ranker.load(Path(folder) / INDEX)
            model._ranker = ranker
        return model

    def build_index(self, *, k: int = 20, recall: float = 0.95, seed: int = 0) -> float:
        """Rank approximately from now on, by an index of the items that is saved with the model.

        Worth it from some 100,000 items. Scores stay exact, and so do filters and exclusions; of the best `k` items
        about the wanted share is found. Needs the extra `approximate`.

        Returns the share that was found for a sample of the model's users. Raises `RankingError` where there is no user
        to measure by, or faiss is not installed.
        """
        sample = np.random.default_rng(seed).permutation(len(self.user_ids))[:INDEX_USERS]
        ranker = ApproximateRanker(self._files.vectors_ID, self._files.bias_I)
        ranker.build(self.user_vectors([self.user_ids[row] for row in sample]), k=k, recall=recall, seed=seed)
        self._ranker = ranker
        return ranker.recall

    # --- what it knows ------------------------------------------------------------------------------------------------

    @property
    def item_ids(self) -> list[str]:
        return list(self._files.item_ids)

    @property
    def user_ids(self) -> list[str]:
        """The users of the interactions that it was fitted to."""
        return [] if self._files.interactions is None else list(self._files.interactions.user_ids)

    @property
    def report(self) -> FitReport:
        return self._files.report

    @property
    def item_vectors(self) -> tuple[list[str], Floats]:
        """The ids, and `vectors_ID`: what a nearest-neighbour index would hold."""
        return self.item_ids, self._files.vectors_ID

    def item(self, item_id: str) -> dict[str, Any]:
        """What the catalog says of an item."""
        return dict(self._files.catalog[self._row(item_id)])

    # --- users --------------------------------------------------------------------------------------------------------

    def user_vector(
        self,
        user: str | None = None,
        *,
        history: Sequence[str] = (),
        text: str | None = None,
        weights: Sequence[float] = (),
    ) -> Floats:
        """The vector `(D,)` of a user: of a known one's interactions, of the items in `history`, of words, of all.

        `text` counts as one more item, one that has these words and nothing else, and weighs as much as the whole
        history. `weights` belong to `history`; without them each counts 1. With nothing at all, or blank text alone, it
        is the vector of a user without history.

        Raises `ModelError` for unknown items, weights that are not positive, and text where the model knows no text.
        """
        history_UI = self._known_history([user] if user is not None else [None])
        row = sp.lil_array(history_UI)
        if len(weights) and len(weights) != len(history):
            raise ModelError(f"{len(weights)} weights for a history of {len(history)} items")
        for item_id, weight in zip(history, weights if len(weights) else [1.0] * len(history), strict=True):
            if not (np.isfinite(weight) and weight > 0):
                raise ModelError(f"the weight of {item_id!r} is {weight}: expected a positive number")
            row[0, self._row(item_id)] += weight
        vectors_ID = self._files.vectors_ID
        weighted = sp.csr_array(row)
        if text is not None and (words := clean_text(text)):
            vectors_ID = np.vstack([vectors_ID, self._embed(self._words.tokens(words))[0]])
            weighted = sp.hstack([weighted, sp.csr_array([[max(1.0, float(weighted.sum()))]])]).tocsr()
        vector_D: Floats = self._user_vectors(weighted, vectors_ID)[0]
        return vector_D

    def user_vectors(self, users: Sequence[str]) -> Floats:
        """The vectors `(U, D)` of known users; of the others, that of a user without history."""
        return self._user_vectors(self._known_history(list(users)), self._files.vectors_ID)

    # --- rankings -----------------------------------------------------------------------------------------------------

    def recommend(
        self,
        users: str | Sequence[str] | Floats,
        k: int = 20,
        *,
        exclude_seen: bool = True,
        exclude: Collection[str] = (),
        where: Where | None = None,
        candidates: Collection[str] | None = None,
        diversity: float | None = None,
        explore_share: float = 0.0,
    ) -> tuple[Ids, Floats]:
        """The best items: ids and scores `(U, K)`, or `(K,)` for one user; K is at most the number of items.

        Args:
            users: ids, or float vectors `(U, D)` as `user_vector` makes them, `(D,)` for one. Unknown ids are ranked as
                users without history, with a warning.
            exclude_seen: leave out the items of a known user's training history.
            exclude: items to leave out for everyone, as the history that a new user's vector was made of.
            where: column of the catalog -> a value, a collection of values, or a predicate; other items are left out.
                Columns of one's own are compared as text; `tags`, a list, matches where any of its tags does.
            candidates: the only items that may be recommended.
            diversity: from 0 (by score alone) to 1, by maximal marginal relevance. By default 0, but for users without
                history: they get what many take, spread over what there is (0.3).
            explore_share: at least this share of the places goes to items that training does not know. Where fewer
                come so far by themselves, the best of them take the last places of the list.

        Places that no item is left for hold an empty id and the score -inf.
        """
        vectors_UD, seen_UI = self._users(users)
        exclude_UI = seen_UI if exclude_seen else None
        allowed_I = self._allowed(where, candidates, exclude)
        rows_UK, scores_UK = self._ranked(vectors_UD, k, exclude_UI, allowed_I, diversity or 0.0)
        if diversity is None and seen_UI is not None and (new_U := np.diff(seen_UI.indptr) == 0).any():
            one_1D = vectors_UD[new_U][:1]
            rows_UK[new_U], scores_UK[new_U] = self._ranked(one_1D, k, None, allowed_I, NEWCOMER_DIVERSITY)
        if cold_places := places_of_share(rows_UK.shape[1], explore_share):
            cold_I = ~self._files.trained_I & (True if allowed_I is None else allowed_I)
            rows_UK, scores_UK = with_cold_items(
                self._ranker, rows_UK, scores_UK, vectors_UD, cold_places, exclude_UI, cold_I
            )
        ids_UK = self._to_ids(rows_UK)
        is_one = isinstance(users, str) or (_are_vectors(users) and np.ndim(users) == 1)
        return (ids_UK[0], scores_UK[0]) if is_one else (ids_UK, scores_UK)

    def score(self, users: str | Sequence[str], items: Sequence[str]) -> Floats:
        """Fused scores `(N,)`: of one user for each of the items, or of pairs of as many users as items."""
        names = [users] * len(items) if isinstance(users, str) else list(users)
        if len(names) != len(items):
            raise ModelError(f"{len(names)} users and {len(items)} items are no pairs; name one user, or one for each")
        unique = list(dict.fromkeys(names))
        vectors = dict(zip(unique, self.user_vectors(unique), strict=True))
        rows_N = np.array([self._row(item_id) for item_id in items], np.int64)
        if not len(rows_N):
            return np.zeros(0, np.float32)
        return self._ranker.score(np.stack([vectors[name] for name in names]), rows_N)

    def similar_items(self, items: str | Sequence[str], k: int = 10) -> tuple[Ids, Floats]:
        """The items nearest by cosine, without the item itself: ids and cosines `(N, K)`, or `(K,)` for one item."""
        names = [items] if isinstance(items, str) else list(items)
        rows_N = np.array([self._row(item_id) for item_id in names], np.int64)
        unit_ID = _unit(self._files.vectors_ID)
        self._similar = self._similar or Ranker(unit_ID)
        itself_NI = sp.csr_array(
            (np.ones(len(rows_N)), (np.arange(len(rows_N)), rows_N)), shape=(len(rows_N), len(unit_ID))
        )
        rows_NK, cosines_NK = self._similar.top_k(unit_ID[rows_N], k, exclude_UI=itself_NI)
        ids_NK = self._to_ids(rows_NK)
        return (ids_NK[0], cosines_NK[0]) if isinstance(items, str) else (ids_NK, cosines_NK)

    # --- items that join later ----------------------------------------------------------------------------------------

    def embed_items(self, store: FeatureStore, item_ids: Sequence[str]) -> None:
        """Give items of the store their vectors, without fitting anew: from now on they are ranked among the others.

        Modalities that the model was not fitted with do not count. An approximate index is dropped: build it anew.

        Raises `ModelError` where the store was made by other encoders than those that the model was fitted with, or the
        model has an item already, and `StoreError` where the store has not all of them.
        """
        if not len(item_ids):
            return
        fingerprints = store.fingerprints()
        for modality, record in self._files.encoders.items():
            if modality in fingerprints and fingerprints[modality] != record.fingerprint:
                raise ModelError(
                    f"store {store.folder} holds {modality} tokens of another encoder than the model was fitted with: "
                    "embed with the same preset and precision, or fit anew"
                )
        known = [item_id for item_id in item_ids if item_id in self._item_rows]
        if known:
            raise ModelError(f"the model has the item {known[0]!r} already")
        names, table = read_tokens(store, item_ids, self._tower.fusion.widths)
        self._files.append(names, catalog_rows(store, names), *self._embed(table))
        self._item_rows |= {name: len(self._item_rows) + place for place, name in enumerate(names)}
        self._ranker, self._similar = Ranker(self._files.vectors_ID, self._files.bias_I), None
        self._history_UI.resize((self._history_UI.shape[0], len(self._item_rows)))

    # --- evaluation ---------------------------------------------------------------------------------------------------

    def evaluate(
        self, held_out: InteractionSource, *, ks: Sequence[int] = (20,), baselines: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Full-ranking metrics over the users of held-out interactions; see `mmrec.evaluation.evaluate_rankings`.

        `baselines` are names of `mmrec.evaluation.BASELINES`, fitted to the same interactions.

        Raises `InteractionError` where held-out interactions are present in training, or name unknown items.
        """
        files = self._files
        held_out = read_catalog_interactions(held_out, files.item_ids)
        if files.interactions is not None:
            check_no_leak(files.interactions, held_out)
        aligned = align(held_out, user_ids=self.user_ids, item_ids=files.item_ids)
        relevant_UI = aligned.matrix()
        users = np.flatnonzero(np.diff(relevant_UI.indptr))
        history_UI = self._known_history([aligned.user_ids[row] if row < len(self.user_ids) else None for row in users])
        return evaluate_rankings(
            self._ranker,
            files.vectors_ID,
            self._user_vectors(history_UI, files.vectors_ID),
            history_UI,
            sp.csr_array(relevant_UI[users]),
            files.trained_I,
            self._history_UI,
            ks,
            baselines,
        )

    # --- inside -------------------------------------------------------------------------------------------------------

    def _row(self, item_id: str) -> int:
        if item_id not in self._item_rows:
            raise ModelError(f"the model has no item {item_id!r}; new items get their vectors with embed_items")
        return self._item_rows[item_id]

    def _histories(self, interactions: Interactions | None) -> sp.csr_array:
        if interactions is None:
            return sp.csr_array((0, len(self._item_rows)), dtype=np.float32)
        weights = recency_weights(interactions, self.config.half_life_days)
        rows = (interactions.user_rows, interactions.item_rows)
        return sp.csr_array((weights, rows), shape=(len(interactions.user_ids), len(self._item_rows)))

    def _known_history(self, users: Sequence[str | None]) -> sp.csr_array:
        """The weighted histories of users; an empty row for one who is not known."""
        index = {} if self._files.interactions is None else self._files.interactions.user_index
        unknown = [user for user in users if user is not None and user not in index]
        if unknown:
            logger.warning(
                "%d unknown users, such as %r, are ranked as users without history", len(unknown), unknown[0]
            )
        known = [(place, index[user]) for place, user in enumerate(users) if user is not None and user in index]
        places, rows = np.array(known, np.int64).reshape(-1, 2).T
        choose = sp.csr_array(
            (np.ones(len(rows), np.float32), (places, rows)), shape=(len(users), self._history_UI.shape[0])
        )
        return sp.csr_array(choose @ self._history_UI)

    def _user_vectors(self, history_UI: sp.csr_array, vectors_ID: Floats) -> Floats:
        null_D = self._tower.null_D.detach().numpy()
        return user_vectors(history_UI, vectors_ID, self._tower.history_power, null_D)

    def _users(self, users: str | Sequence[str] | Floats) -> tuple[Floats, sp.csr_array | None]:
        if _are_vectors(users):
            return np.atleast_2d(users), None
        history_UI = self._known_history([users] if isinstance(users, str) else list(users))
        return self._user_vectors(history_UI, self._files.vectors_ID), history_UI

    def _allowed(
        self, where: Where | None, candidates: Collection[str] | None, exclude: Collection[str]
    ) -> NDArray[np.bool_] | None:
        if not where and candidates is None and not len(exclude):
            return None
        allowed_I = np.full(len(self._item_rows), candidates is None)
        allowed_I[[self._row(item_id) for item_id in candidates or ()]] = True
        allowed_I[[self._row(item_id) for item_id in exclude]] = False
        return allowed_I & matching(self._files.catalog, where or {})

    def _ranked(
        self,
        vectors_UD: Floats,
        k: int,
        exclude_UI: sp.csr_array | None,
        allowed_I: NDArray[np.bool_] | None,
        diversity: float,
    ) -> tuple[Rows, Floats]:
        wanted = k * DIVERSIFIED_CANDIDATES if diversity else k
        rows_UK, scores_UK = self._ranker.top_k(vectors_UD, wanted, exclude_UI=exclude_UI, allowed_I=allowed_I)
        if diversity:
            return diversify(rows_UK, scores_UK, self._files.vectors_ID, k, diversity=diversity)
        return rows_UK, scores_UK

    def _to_ids(self, rows: Rows) -> Ids:
        names = np.array([*self._files.item_ids, ""], dtype=object)
        return names[rows]

    def _embed(self, table: TokenTable) -> tuple[Floats, Floats]:
        """Vectors and biases of items that training did not see."""
        items = self._tower.embed(table, torch.from_numpy(self._files.base_ID))
        return items.vectors_ID.numpy(), items.bias_I.numpy()


def _are_vectors(users: Any) -> TypeGuard[Floats]:
    return isinstance(users, np.ndarray) and np.issubdtype(users.dtype, np.floating)


def _unit(vectors_ID: Floats) -> Floats:
    unit_ID: Floats = vectors_ID / np.maximum(np.linalg.norm(vectors_ID, axis=1, keepdims=True), 1e-12)
    return unit_ID
