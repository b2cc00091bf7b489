"""What a model knows of its users: the histories that it was fitted to, live states, and how users may be named."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from fusion.histories import Histories
from fusion.user_tower import UserTower
from mmrec.errors import ModelError
from mmrec.recommending.model_files import ModelFiles
from mmrec.recommending.users import UserState, to_histories

logger = logging.getLogger(__name__)

Floats = NDArray[np.float32]
Users = (
    str
    | int
    | UserState
    | Sequence[str]
    | Sequence[int]
    | Sequence[UserState]
    | NDArray[Any]
    | Sequence[float]
    | torch.Tensor
)
"""Ids, states or vectors, one or several."""


@dataclass(frozen=True)
class FoundUsers:
    """U users: their vectors, the items of their histories (nonzero), who has none, and whether one was asked for."""

    vectors_UD: Floats
    seen_UI: sp.csr_array | None
    is_new_U: NDArray[np.bool_]
    is_one: bool


class UserProfiles:
    """The users of a model."""

    def __init__(self, order: str, tower: UserTower, item_rows: Mapping[str, int], files: ModelFiles) -> None:
        self._order, self._tower, self._item_rows, self._files = order, tower, item_rows, files
        self._states: dict[str, UserState] = {}
        self.read_interactions()

    def read_interactions(self) -> None:
        """Take up the histories as the files have them now; live states stay as they are."""
        interactions = self._files.interactions
        self._index = {} if interactions is None else interactions.user_index
        empty = np.zeros(0, np.int64)
        self._histories = (
            Histories.of(empty, empty, 0, ordered=self._tower.ordered)
            if interactions is None
            else to_histories(interactions, self._order)
        )

    def forget(self, user: str) -> bool:
        """Drop the live state of a user; False where there is none."""
        return self._states.pop(user, None) is not None

    @property
    def positives_UI(self) -> sp.csr_array:
        """The positive interactions of the fit."""
        histories = self._histories
        weights_N = np.maximum(histories.weights_N, 0)
        shape = (len(histories), len(self._item_rows))
        matrix = sp.csr_array((weights_N, histories.items_N.copy(), histories.offsets_U.copy()), shape=shape)
        matrix.eliminate_zeros()
        return matrix

    def state(self, user: str | int | None) -> UserState:
        """The live state of a user, which is kept; of nobody in particular, a new one."""
        if user is None:
            return self._fresh(None)
        name = str(user)
        if name not in self._states:
            self._states[name] = self._fresh(self._index.get(name))
        return self._states[name]

    def passing_state(self, user: str | int | None) -> UserState:
        """The state of a user as a copy to add to; of one that is unknown, that of somebody new."""
        if user is None:
            return self._fresh(None)
        name = str(user)
        return copy.copy(self._states[name]) if name in self._states else self._fresh(self._index.get(name))

    def copied_state(self, user: str | int | None) -> UserState:
        """As `passing_state`, with a warning where it is that of somebody new in the place of one who was named."""
        if user is not None and str(user) not in self._states and str(user) not in self._index:
            self._tell_of([str(user)])
        return self.passing_state(user)

    def known_state(self, user: str | int | UserState) -> tuple[str, UserState]:
        """The name, empty where there is none, and the state of a user whom the model knows; of others `ModelError`."""
        if isinstance(user, UserState):
            return "", user
        if str(user) not in self._index and str(user) not in self._states:
            raise ModelError(f"the model has no user {str(user)!r}; somebody new has a user_state")
        return str(user), self.copied_state(user)

    def _fresh(self, row: int | None) -> UserState:
        histories = self._histories.select(np.array([] if row is None else [row], np.int64))
        vectors_ID = self._files.vectors_ID
        if row is None:
            shape = (len(self._tower.log_rates_K), vectors_ID.shape[1])
            sums_KD, totals_K = np.zeros(shape, np.float32), np.zeros(shape[0], np.float32)
        else:
            sums_UKD, totals_UK = self._tower.sums(histories, vectors_ID)
            sums_KD, totals_K = sums_UKD[0], totals_UK[0]
        days_N = np.full(len(histories.items_N), np.nan) if histories.days_N is None else histories.days_N
        return UserState(
            self._tower, self._item_rows, self._files, sums_KD=sums_KD, totals_K=totals_K,
            seen=[self._files.item_ids[item] for item in histories.items_N],
            weights=histories.weights_N.tolist(), days=days_N.tolist(),
        )  # fmt: skip

    def resolve(self, users: Users) -> FoundUsers:
        """Who is meant; `ModelError` for what is neither ids, states nor vectors of the model's width."""
        if isinstance(users, str | int | np.integer | UserState):
            return self._of_names([self._name(users)], is_one=True)
        if isinstance(users, torch.Tensor):
            users = users.detach().cpu().numpy()
        several: Any = users if isinstance(users, np.ndarray) else list(users)
        if len(several) and all(isinstance(x, str | int | np.integer | UserState) for x in several):
            return self._of_names([self._name(x) for x in several], is_one=False)
        if not len(several) and getattr(several, "ndim", 1) == 1:
            return self._of_names([], is_one=False)
        try:
            vectors = np.asarray(several, np.float32)
        except (TypeError, ValueError):
            raise ModelError("users must be ids, states, or vectors of numbers, and all of one kind") from None
        dim = self._files.vectors_ID.shape[1]
        if vectors.ndim not in (1, 2) or vectors.shape[-1] != dim:
            raise ModelError(f"user vectors of shape {vectors.shape}: expected ({dim},) for one user or (U, {dim})")
        vectors_UD = np.atleast_2d(vectors)
        return FoundUsers(vectors_UD, None, np.zeros(len(vectors_UD), np.bool_), vectors.ndim == 1)

    def _name(self, user: str | int | np.integer | UserState) -> str | UserState:
        """A number is an id as well, but hardly where no user of the model is named by one."""
        if isinstance(user, str | UserState):
            return user
        name = str(user)
        if name not in self._index and name not in self._states and not self._has_numbers:
            known = next(iter(self._index), None)
            raise ModelError(f"user {name} is a number, and no user of this model is named by one, but as {known!r}")
        return name

    @cached_property
    def _has_numbers(self) -> bool:
        return not self._index or any(name.isdecimal() for name in self._index)

    def resolve_rows(self, rows: NDArray[np.integer]) -> FoundUsers:
        """The users of these rows of the fit; rows beyond them have no history. Live states do not count."""
        known = np.flatnonzero(rows < len(self._histories))
        return self._found(known, self._histories.select(rows[known]), {}, len(rows), is_one=False)

    def _of_names(self, users: Sequence[str | UserState], *, is_one: bool) -> FoundUsers:
        states = {
            place: user if isinstance(user, UserState) else self._states[user]
            for place, user in enumerate(users)
            if isinstance(user, UserState) or user in self._states
        }
        rows = {
            place: self._index[user]
            for place, user in enumerate(users)
            if isinstance(user, str) and place not in states and user in self._index
        }
        self._tell_of([str(user) for place, user in enumerate(users) if place not in states and place not in rows])
        histories = self._histories.select(np.array(list(rows.values()), np.int64))
        return self._found(np.array(list(rows), np.int64), histories, states, len(users), is_one=is_one)

    def _found(
        self,
        places: NDArray[np.integer],
        histories: Histories,
        states: Mapping[int, UserState],
        count: int,
        *,
        is_one: bool,
    ) -> FoundUsers:
        vectors_UD = np.tile(self._tower.null_D.detach().numpy(), (count, 1))
        if len(places):
            vectors_UD[places] = self._tower.vectors(histories, self._files.vectors_ID)
        users, items = [places[histories.users_N]], [histories.items_N]
        for place, state in states.items():
            vectors_UD[place] = state.vector
            items.append(np.array(state.seen_rows, np.int64))
            users.append(np.full(len(items[-1]), place))
        users_N, items_N = np.concatenate(users), np.concatenate(items)
        order_N = np.argsort(users_N, kind="stable")
        counts_U = np.bincount(users_N, minlength=count)
        offsets_U = np.concatenate([[0], np.cumsum(counts_U)])
        shape = (count, len(self._item_rows))
        seen_UI = sp.csr_array((np.ones(len(users_N), np.float32), items_N[order_N], offsets_U), shape=shape)
        is_new_U = counts_U == 0
        of_words = [place for place, state in states.items() if state.totals_K.any() or state.turn_D.any()]
        is_new_U[of_words] = False
        return FoundUsers(vectors_UD, seen_UI, is_new_U, is_one)

    def _tell_of(self, unknown: Sequence[str]) -> None:
        if len(unknown) and self._files.interactions is None:
            raise ModelError(
                f"the model was fitted without interactions and knows no user {unknown[0]!r}: ask it for similar "
                "items, or with the user_vector of a history or of words"
            )
        if len(unknown):
            logger.warning(
                "%d unknown users, such as %r, are ranked as users without history", len(unknown), unknown[0]
            )
