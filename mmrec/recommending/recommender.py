"""The recommender: fitted from a store and interactions, it ranks the catalog's items for users, old and new.

    >>> config = RecommenderConfig.from_mapping({"dim": 16, "max_epochs": 1})
    >>> model = Recommender.fit(FeatureStore("store"), "interactions.csv", config=config)
    >>> user, other = model.user_ids[:2]
    >>> ids, scores = model.recommend([user, other], k=3)
    >>> ids.shape, scores.shape
    ((2, 3), (2, 3))
    >>> bool(np.allclose(model.score(user, list(ids[0])), scores[0]))
    True
    >>> model.recommend(model.user_state(user).add(ids[0, 0]), k=3)[0][0] == ids[0, 0]
    False

One contract: lookups return `(ids, scores)`, and one user or item gets the same as it would among many.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from encoders.cleaning import clean_text
from fusion.config import FitReport, Hardware
from fusion.tower import Towers
from mmrec.errors import ModelError
from mmrec.evaluation import Interactions, InteractionSource
from mmrec.ranking import ApproximateRanker, Ranker
from mmrec.recommending.changes import add_items, drop_items, drop_user, remake_items
from mmrec.recommending.evaluating import evaluate_model
from mmrec.recommending.explaining import Explainer
from mmrec.recommending.explanations import Explanation
from mmrec.recommending.exploration import places_of_share, with_cold_items
from mmrec.recommending.filters import CatalogFilter, Where
from mmrec.recommending.fitting import RecommenderConfig, fit_files
from mmrec.recommending.lists import best_items, same_items, with_copies
from mmrec.recommending.model_files import ModelFiles, read_model, write_model
from mmrec.recommending.model_versions import KEPT, Summary, publish, read_current
from mmrec.recommending.profiles import UserProfiles, Users
from mmrec.recommending.taste import taste_of
from mmrec.recommending.users import UserState
from mmrec.recommending.words import WordEncoder
from mmrec.searching import Copies, Taste
from mmrec.store import FeatureStore

NEWCOMER_DIVERSITY, INDEX_USERS = 0.3, 1000

Ids = NDArray[np.str_]
Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


class Recommender:
    """Item vectors, what is needed to make user vectors, and the interactions. Made by `fit` or `load`."""

    def __init__(
        self, files: ModelFiles, towers: Towers, config: RecommenderConfig, ranker: Ranker | None = None
    ) -> None:
        self._files, self._towers, self.config = files, towers, config
        self._item_rows = {item_id: row for row, item_id in enumerate(files.item_ids)}
        self._profiles = UserProfiles(config.fusion.order, towers.users, self._item_rows, files)
        self._ranker = Ranker(files.vectors_ID, files.bias_I) if ranker is None else ranker
        self._filter = CatalogFilter(files.catalog)
        self._similar: Ranker | None = None
        self._names: Ids = np.zeros(0, dtype=object)
        self._words = WordEncoder(files.encoders.get("text"))

    def __repr__(self) -> str:
        sizes = f"{len(self.item_ids)} items, {len(self.user_ids)} users"
        widths = ", ".join(f"{modality} {width}" for modality, width in self._towers.fusion.widths.items())
        return f"Recommender({sizes}, width {self._towers.width}, from {widths})"

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

        The order of interactions counts where there are timestamps, or where `order: rows` says that the rows are in
        order. `validation` chooses the epoch and is never trained on; users that training does not know do not count in
        it. Without it training runs for its `max_epochs`.

        Raises `ModelError` for a configuration, interactions or features that cannot be fitted, `InteractionError` for
        files that cannot be read, items that the store does not hold, and validation present in training, and
        `FitInterrupted` where `hardware.should_stop` said so.
        """
        config = config or RecommenderConfig()
        files, towers = fit_files(store, interactions, validation, config, hardware)
        return cls(files, towers, config)

    def save(self, folder: str | os.PathLike[str], *, keep: int = KEPT) -> int:
        """Make this model the current version of those in a folder; returns its number.

        Readers of the folder find the version before until this one is whole. The latest `keep` stay, this one
        included, for `rollback`. What live states took up after the fit is not written.

        Raises `ModelError` where it cannot be written; then the folder is as it was.
        """

        def write(path: Path) -> None:
            write_model(path, self._files, self._towers, self.config.to_mapping(), self._ranker)

        summary = Summary(len(self._files.item_ids), len(self.user_ids), self.report.metrics)
        return publish(folder, write, read_model, summary, keep)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Recommender:
        """The current version; `ModelError` where there is no model, or one that is damaged or of another version."""
        files, towers, settings, ranker = read_current(folder, read_model)
        return cls(files, towers, RecommenderConfig.from_mapping(settings), ranker)

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
    def interactions(self) -> Interactions | None:
        """What it was fitted to, with the rows of `item_ids` and `user_ids`; None where to content alone."""
        return self._files.interactions

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

    def user_state(self, user: str | int | None = None, *, kept: bool = True) -> UserState:
        """The live state of a user: what it takes up by `add` counts at once, and is left out of lists as seen.

        The model keeps the state of a named user, also of one that training did not know: `recommend` and `score` know
        the user by it from now on. Without a name it is that of somebody new, which it forgets, as where not `kept`.
        """
        return self._profiles.state(user) if kept else self._profiles.passing_state(user)

    def user_vector(
        self,
        user: str | int | None = None,
        *,
        history: Sequence[str] = (),
        text: str | None = None,
        not_text: str | None = None,
        weights: Sequence[float] = (),
    ) -> Floats:
        """The vector `(D,)` of a user: of a known one's interactions, of the items in `history`, of words, of all.

        `history` follows what is known of the user, in order; `weights` belong to it, as `UserState.add` takes them.
        `text` counts as one more item, one that has these words and nothing else, and weighs as much as all the rest;
        what `not_text` names falls. With nothing, or blank text, it is the vector of a user without history.

        A vector does not say what it was made of: to leave the history out of lists, `exclude` it, or recommend to a
        state instead, as `model.user_state().add("i3")`.

        Raises `ModelError` for unknown items, weights that are not finite, and text where the model knows no text.
        """
        if len(weights) and len(weights) != len(history):
            raise ModelError(f"{len(weights)} weights for a history of {len(history)} items")
        state = self._profiles.copied_state(user)
        for item_id, weight in zip(history, weights if len(weights) else [1.0] * len(history), strict=True):
            state.add(item_id, weight=weight)
        if text is not None and clean_text(text):
            state.add_vector(self.words_vector(text))
        if not_text is not None and clean_text(not_text):
            state.turn_away(self.words_vector(not_text))
        return state.vector.astype(np.float32)

    def words_vector(self, text: str) -> Floats:
        """What words are among the items `(D,)`, for a state's `add_vector` and `turn_away`."""
        return self._words.vector(self._towers, clean_text(text))

    def user_vectors(self, users: Users) -> Floats:
        """The vectors `(U, D)` of users; of unknown ids, that of a user without history."""
        return self._profiles.resolve(users).vectors_UD

    # --- rankings -----------------------------------------------------------------------------------------------------

    def recommend(
        self,
        users: Users,
        k: int = 20,
        *,
        exclude_seen: bool = True,
        exclude: Collection[str] = (),
        where: Where | None = None,
        candidates: Collection[str] | None = None,
        diversity: float | None = None,
        explore_share: float = 0.0,
        fold: Copies | None = None,
    ) -> tuple[Ids, Floats]:
        """The best items: ids and scores `(U, K)`, or `(K,)` for one user; K is at most the number of items.

        Args:
            users: one or several: ids (text or whole numbers), states as `user_state` makes them, or vectors of D
                numbers as `user_vector` makes them (an array, a tensor or a list). Unknown ids are ranked as users
                without history, with a warning.
            exclude_seen: leave out what the history of an id or a state names. A vector has none: see `exclude`.
            exclude: items to leave out for everyone, as the history that a new user's vector was made of.
            where: column of the catalog -> a value, a collection of values, or a predicate; other items are left out.
                Columns of one's own are compared as text; `tags`, a list, matches where any of its tags does.
            candidates: the only items that may be recommended.
            diversity: from 0 (by score alone) to 1, by maximal marginal relevance. By default 0, but for users without
                history: they get what is popular, spread over what there is (0.3).
            explore_share: at least this share of the places goes to items that training does not know. Where fewer
                come so far by themselves, the best of them take the last places of the list.
            fold: copies of items, of which only the best one stands in a list, and none of what `exclude_seen` names.

        Places that no item is left for hold an empty id and the score -inf.
        """
        found = self._profiles.resolve(users)
        same_II = None if fold is None else same_items(fold, self._item_rows)
        exclude_UI = with_copies(found.seen_UI, same_II) if exclude_seen else None
        wanted = None if candidates is None else self._rows(candidates)
        allowed_I = self._filter.allowed(where or {}, wanted, self._rows(exclude))
        best = partial(best_items, self._ranker, self._files.vectors_ID, k=k, allowed_I=allowed_I, same_II=same_II)
        rows_UK, scores_UK = best(found.vectors_UD, exclude_UI=exclude_UI, diversity=diversity or 0.0)
        if diversity is None and (new_U := found.is_new_U).any():
            one_1D = found.vectors_UD[new_U][:1]
            rows_UK[new_U], scores_UK[new_U] = best(one_1D, exclude_UI=None, diversity=NEWCOMER_DIVERSITY)
        if cold_places := places_of_share(rows_UK.shape[1], explore_share):
            cold_I = ~self._files.trained_I & (True if allowed_I is None else allowed_I)
            rows_UK, scores_UK = with_cold_items(
                self._ranker, rows_UK, scores_UK, found.vectors_UD, cold_places, exclude_UI, cold_I, same_II
            )
        ids_UK = self._to_ids(rows_UK)
        return (ids_UK[0], scores_UK[0]) if found.is_one else (ids_UK, scores_UK)

    def score(self, users: Users, items: Sequence[str]) -> Floats:
        """Fused scores `(N,)`: of one user for each of the items, or of pairs; users are given as for `recommend`."""
        found = self._profiles.resolve(users)
        rows_N = self._rows(items)
        if not found.is_one and len(found.vectors_UD) != len(rows_N):
            raise ModelError(
                f"{len(found.vectors_UD)} users and {len(items)} items are no pairs; name one user, or one for each"
            )
        return self._ranker.score(np.broadcast_to(found.vectors_UD, (len(rows_N), found.vectors_UD.shape[1])), rows_N)

    def taste(self, user: str | int | UserState) -> Taste:
        """What a search takes to be personal, as `mmrec.Query(words=["rain"], taste=model.taste("u1"))`.

        Raises `ModelError` for a user that the model does not know; somebody new has a state. Items that the model does
        not have, as those embedded after the fit, are found as if nobody had asked.
        """
        _, state = self._profiles.known_state(user)
        return taste_of(state.vector.astype(np.float32), self._item_rows, self._ranker)

    def similar_items(self, items: str | Sequence[str], k: int = 10) -> tuple[Ids, Floats]:
        """The items nearest by cosine, without the item itself: ids and cosines `(N, K)`, or `(K,)` for one item."""
        rows_N = self._rows([items] if isinstance(items, str) else items)
        if self._similar is None:
            norms_I1 = np.linalg.norm(self._files.vectors_ID, axis=1, keepdims=True)
            self._similar = Ranker(self._files.vectors_ID / np.maximum(norms_I1, 1e-12))
        shape = (len(rows_N), len(self._files.item_ids))
        itself_NI = sp.csr_array((np.ones(len(rows_N)), (np.arange(len(rows_N)), rows_N)), shape=shape)
        rows_NK, cosines_NK = self._similar.top_k(self._similar.vectors_IE[rows_N, :-1], k, exclude_UI=itself_NI)
        ids_NK = self._to_ids(rows_NK)
        return (ids_NK[0], cosines_NK[0]) if isinstance(items, str) else (ids_NK, cosines_NK)

    def explain(
        self, user: str | int | UserState, item: str, *, store: FeatureStore | None = None, top: int = 5
    ) -> Explanation:
        """Why an item stands where it does in a user's list: the parts of its score, by the item and by the history.

        The `store` that the vectors were made from tells modalities and tokens apart. The `top` items of the history
        that matter most are left out in turn, and compared by moments. Raises `ModelError` for unknown users and items,
        and for a store with other tokens.
        """
        name, state = self._profiles.known_state(user)
        return Explainer(self._files, self._towers, state, store, top).explain(self._row(item), name)

    # --- between two fits ---------------------------------------------------------------------------------------------

    def embed_items(self, store: FeatureStore, item_ids: Sequence[str]) -> None:
        """Give items of the store their vectors, without fitting anew: from now on they are ranked among the others.

        Modalities that the model was not fitted with do not count. An approximate index takes them up.

        Raises `ModelError` where the store was made by other encoders than those that the model was fitted with, or the
        model has an item already, and `StoreError` where the store has not all of them.
        """
        if known := [item_id for item_id in item_ids if item_id in self._item_rows]:
            raise ModelError(f"the model has the item {known[0]!r} already; update_items makes its vector anew")
        if len(item_ids):
            self._renew(self._ranker.extended(*add_items(self._files, self._towers, store, item_ids)))

    def update_items(self, store: FeatureStore, item_ids: Sequence[str]) -> None:
        """Make the vectors of items anew, from what the store holds of them now, and with what their audience adds.

        Their neighbours by content keep what they borrowed of them until the next fit. Raises as `embed_items`, and
        `ModelError` for items that the model does not have.
        """
        self._rows(item_ids)
        if len(item_ids):
            remake_items(self._files, self._towers, store, self._item_rows, item_ids)
            self._renew(self._ranker.replaced(self._files.vectors_ID, self._files.bias_I))

    def remove_items(self, item_ids: Collection[str]) -> None:
        """Take items out of all lists, and out of the histories of users; live states keep what they learned of them.

        What neighbours by content borrowed of them stays until the next fit. Raises `ModelError` for items that the
        model does not have, and where none would be left.
        """
        self._rows(item_ids)
        if len(item_ids):
            drop_items(self._files, item_ids)
            self._renew(self._ranker.replaced(self._files.vectors_ID, self._files.bias_I))

    def forget_user(self, user: str | int) -> None:
        """Drop the history and the live state of a user, who is unknown from now on.

        Versions saved before still hold the history: `save(folder, keep=1)` deletes them. The weights, which learned
        from all users together, stay until the next fit. Raises `ModelError` for a user that the model does not know.
        """
        name, train = str(user), self._files.interactions
        was_live = self._profiles.forget(name)
        if train is not None and name in train.user_index:
            self._files.interactions = drop_user(train, name)
            self._profiles.read_interactions()
        elif not was_live:
            raise ModelError(f"the model knows no user {name!r}: there is nothing to forget")

    def _renew(self, ranker: Ranker) -> None:
        """Follow the files, whose rows may be others than before; the row numbers are shared with all states."""
        self._item_rows.clear()
        self._item_rows |= {item_id: row for row, item_id in enumerate(self._files.item_ids)}
        self._profiles.read_interactions()
        self._ranker, self._similar = ranker, None
        self._filter, self._names = CatalogFilter(self._files.catalog), np.zeros(0, dtype=object)

    # --- evaluation ---------------------------------------------------------------------------------------------------

    def evaluate(
        self, held_out: InteractionSource, *, ks: Sequence[int] = (20,), baselines: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Full-ranking metrics over the users of held-out interactions; see `mmrec.evaluation.evaluate_rankings`.

        `baselines` are names of `mmrec.evaluation.BASELINES`, fitted to the same interactions. Held-out interactions
        with a weight of 0 or below are not counted.

        Raises `InteractionError` where held-out interactions are present in training, or name unknown items.
        """
        return evaluate_model(self._files, self._profiles, self._ranker, held_out, ks, baselines)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _row(self, item_id: str) -> int:
        if item_id not in self._item_rows:
            raise ModelError(f"the model has no item {item_id!r}; new items get their vectors with embed_items")
        return self._item_rows[item_id]

    def _rows(self, item_ids: Collection[str]) -> Rows:
        return np.array([self._row(item_id) for item_id in item_ids], np.int64)

    def _to_ids(self, rows: Rows) -> Ids:
        if len(self._names) != len(self._files.item_ids) + 1:
            self._names = np.array([*self._files.item_ids, ""], dtype=object)
        return self._names[rows]
