"""Users as the ranker sees them: their histories from interactions, and live states that grow as users go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fusion.histories import Histories
from fusion.user_tower import LEAST_WEIGHT, UserTower
from mmrec.errors import ModelError
from mmrec.evaluation import Interactions
from mmrec.recommending.model_files import ModelFiles

Floats = NDArray[np.float32]
SECONDS_PER_DAY = 86_400.0
AWAY = 0.5
"""Of the length of a user's vector: how far it turns away from what is not wanted."""


def to_histories(interactions: Interactions, order: str) -> Histories:
    """The histories of all users, in order by the rule that `order` names: "auto", "rows" or "none".

    "auto": by timestamps, and in no order where there are none; "rows": as they stand, whatever the timestamps. Weights
    count by their sign alone: a positive one is an interaction like any other, 0 is seen and not liked, which says
    nothing of what the user likes, and a negative one speaks against its item.
    """
    has_order = order == "rows" or (order == "auto" and interactions.timestamps is not None)
    days_N = None if interactions.timestamps is None else interactions.timestamps / SECONDS_PER_DAY
    return Histories.of(
        interactions.user_rows,
        interactions.item_rows,
        len(interactions.user_ids),
        weights_N=np.sign(interactions.weights).astype(np.float32),
        days_N=days_N if order == "auto" else None,
        ordered=has_order,
    )


class UserState:
    """What a model knows of one user: some running sums, which each interaction brings up to date in microseconds.

    Made by `Recommender.user_state`; `Recommender.recommend` and `score` take it in the place of a user.

        >>> state = model.user_state("u1")                      # doctest: +SKIP
        >>> ids, scores = model.recommend(state.add("i3"), k=10)    # doctest: +SKIP
    """

    def __init__(
        self,
        tower: UserTower,
        item_rows: Mapping[str, int],
        files: ModelFiles,
        *,
        sums_KD: Floats,
        totals_K: Floats,
        seen: Sequence[str] = (),
        weights: Sequence[float] = (),
        days: Sequence[float] = (),
    ) -> None:
        self._tower, self._item_rows, self._files = tower, item_rows, files
        self._rates_K = (tower.log_rates_K.detach().exp() * tower.ordered).numpy()
        self._gap_rates_K = (tower.log_gap_rates_K.detach().exp() * tower.ordered).numpy()
        self._mix_KE = tower.mix_KDE.detach().flatten(0, 1).numpy()
        self._null_D = tower.null_D.detach().numpy()
        self.sums_KD, self.totals_K = sums_KD.copy(), totals_K.copy()
        self.turn_D: Floats = np.zeros(sums_KD.shape[1], np.float32)
        self._seen, self._weights, self._days = list(seen), list(weights), list(days)

    def __repr__(self) -> str:
        return f"UserState({len(self._seen)} interactions)"

    def __copy__(self) -> UserState:
        """One that goes on by itself."""
        twin = UserState(
            self._tower, self._item_rows, self._files, sums_KD=self.sums_KD, totals_K=self.totals_K,
            seen=self._seen, weights=self._weights, days=self._days,
        )  # fmt: skip
        twin.turn_D = self.turn_D.copy()
        return twin

    @property
    def seen_rows(self) -> Sequence[int]:
        """The rows of the items that the user has interacted with, of those that the model still has."""
        return [self._item_rows[item_id] for item_id in self._seen if item_id in self._item_rows]

    @property
    def history(self) -> Histories:
        """The interactions as the history of one user; the row of an item that the model no longer has is -1.

        Those before the first whose day is known count as of that day.
        """
        rows_N = np.array([self._item_rows.get(item_id, -1) for item_id in self._seen], np.int64)
        days_N = np.array(self._days)
        known_N = ~np.isnan(days_N)
        days_N[~known_N] = days_N[known_N][:1] if known_N.any() else np.nan
        offsets_U, weights_N = np.array([0, len(rows_N)]), np.array(self._weights, np.float32)
        return Histories(offsets_U, rows_N, weights_N, days_N if known_N.any() else None, self._tower.ordered)

    @property
    def vector(self) -> Floats:
        """The user vector `(D,)`."""
        averages_KD = self.sums_KD / np.maximum(self.totals_K, LEAST_WEIGHT)[:, None] ** self._tower.power
        vector_D: Floats = averages_KD.ravel() @ self._mix_KE + self._null_D + self.turn_D
        return vector_D

    def add(self, item_id: str, timestamp: float | None = None, weight: float = 1.0) -> UserState:
        """Takes up an interaction that comes after all the others; returns the state.

        Args:
            timestamp: seconds since 1970; without it no time passes.
            weight: above 0 an interaction like any other, 0 seen and not liked, below 0 against the item.

        Raises:
            ModelError: for an item that the model does not have, and numbers that are not finite.
        """
        row = self._item_rows.get(item_id)
        if row is None:
            raise ModelError(f"the model has no item {item_id!r}; new items get their vectors with embed_items")
        if not np.isfinite(weight) or not np.isfinite(0.0 if timestamp is None else timestamp):
            raise ModelError(f"timestamp {timestamp} and weight {weight} of {item_id!r} must be finite numbers")
        before = self._days[-1] if self._days else np.nan
        day = before if timestamp is None else timestamp / SECONDS_PER_DAY
        gap = 0.0 if np.isnan(before) else float(np.log1p(max(0.0, day - before)))
        kept_K = np.exp(-(self._rates_K + gap * self._gap_rates_K))
        self.sums_KD *= kept_K[:, None]
        self.totals_K *= kept_K
        sign = float(np.sign(weight))
        self.sums_KD += sign * self._files.vectors_ID[row]
        self.totals_K += abs(sign)
        self._seen.append(item_id)
        self._weights.append(sign)
        self._days.append(day)
        return self

    def add_vector(self, vector_D: Floats, weight: float | None = None, *, share: float = 1.0) -> UserState:
        """Takes up what is like an item, as words are; by default it weighs `share` times the whole history.

        Unlike an interaction it does not age what was there before.
        """
        weights_K = share * np.maximum(1.0, self.totals_K) if weight is None else np.full_like(self.totals_K, weight)
        self.sums_KD += weights_K[:, None] * vector_D
        self.totals_K += weights_K
        return self

    def turn_away(self, vector_D: Floats, *, share: float = 1.0) -> UserState:
        """Lowers what is like an item, as words are, whatever speaks for it so far.

        Along what the item has and items in general have not, the user's vector loses what it has of it, and half its
        own length besides; `share` is how much of both. Other directions stay.
        """
        away_D = vector_D - self._files.vectors_ID.mean(axis=0)
        away_D = away_D / max(float(np.linalg.norm(away_D)), 1e-12)
        user_D = self.vector
        loss = max(0.0, float(user_D @ away_D)) + AWAY * float(np.linalg.norm(user_D))
        self.turn_D = np.asarray(self.turn_D - share * loss * away_D, np.float32)
        return self
