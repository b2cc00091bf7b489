"""A fitted model as it is served: one loaded version, what its users did since it was fitted, and the next version."""

from __future__ import annotations

import copy
import logging
import threading
import time
from bisect import bisect_left
from collections import OrderedDict
from functools import cached_property
from pathlib import Path

import numpy as np

from mmrec.errors import MMRecError
from mmrec.recommending import Recommender, UserState, current_version
from mmrec.service.interaction_log import InteractionLog, LiveInteraction
from mmrec.service.problems import not_found

logger = logging.getLogger(__name__)
MOST_STATES = 10_000
RETRY_SECONDS = 10.0
SECONDS_PER_DAY = 86_400.0
Event = tuple[str, float | None, float]
"""Of a history: item, time in seconds where it is known, weight."""


class LoadedModel:
    """One version of a model, and its users with what the log says of them. It never changes but for these."""

    def __init__(self, name: str, version: int, model: Recommender, log: InteractionLog) -> None:
        self.name, self.version, self.model, self._log = name, version, model, log
        self.item_ids = model.item_ids
        self._states: OrderedDict[str, tuple[int, UserState]] = OrderedDict()
        self._generation = -1
        self._lock = threading.Lock()

    def warm(self) -> None:
        """Rank once, so that whoever asks first does not wait, and what is made then is shared by forked workers."""
        self.model.recommend(self.model.user_state(), k=1)
        _ = self.item_rows, self.user_ids

    @cached_property
    def item_rows(self) -> dict[str, int]:
        return {item_id: row for row, item_id in enumerate(self.item_ids)}

    @cached_property
    def user_ids(self) -> list[str]:
        """Those that the model was fitted to, sorted."""
        return sorted(self.model.user_ids)

    def title(self, item_id: str) -> str:
        return str(self.model.item(item_id).get("title") or "") if item_id in self.item_rows else ""

    def check_item(self, item_id: str) -> None:
        if item_id not in self.item_rows:
            raise not_found(f"the model has no item {item_id!r}")

    def was_fitted_to(self, user_id: str) -> bool:
        """Whether the model has a history of a user who was not forgotten since."""
        place = bisect_left(self.user_ids, user_id)
        is_there = place < len(self.user_ids) and self.user_ids[place] == user_id
        return is_there and not self._log.is_forgotten(user_id, self.name, self.version)

    def knows(self, user_id: str) -> bool:
        return self.was_fitted_to(user_id) or bool(self._log.of_user(user_id))

    def check_user(self, user_id: str) -> None:
        if not self.knows(user_id):
            raise not_found(f"the model has no user {user_id!r}")

    def named_users(self, prefix: str) -> list[str]:
        """The users of the fit and of the log whose ids begin so, sorted."""
        first, last = (bisect_left(self.user_ids, bound) for bound in (prefix, prefix + "\U0010ffff"))
        fitted = self.user_ids[first:last]
        return sorted({*fitted, *live}) if (live := self._log.users(prefix)) else fitted

    def user(self, user_id: str) -> str | UserState:
        """A user as `Recommender` takes them: by name where nothing is known but the fit, else as a live state."""
        generation = self._log.generation()
        number, state = self._kept(user_id, generation)
        rows = self._log.of_user(user_id, number)
        if state is not None and not rows:
            return state
        if state is None:
            was_fitted = self.was_fitted_to(user_id)
            if not rows and (was_fitted or not self.user_ids):
                return user_id
            state = self.model.user_state(user_id if was_fitted else None, kept=False)
            added = self._not_fitted(rows, state)
        else:
            state, added = copy.copy(state), rows
        for row in added:
            if row.item_id in self.item_rows:
                state.add(row.item_id, row.timestamp, row.weight)
        if rows:
            self._keep(user_id, generation, rows[-1].number, state)
        return state

    def passing(self, user_id: str, watched: list[str]) -> UserState:
        """A user as if they had watched these items, too."""
        user = self.user(user_id)
        state = self.model.user_state(user, kept=False) if isinstance(user, str) else copy.copy(user)
        for item_id in watched:
            state.add(item_id)
        return state

    def history(self, user_id: str) -> list[Event]:
        """What a user did, the newest first: in the fit, and since."""
        was_fitted = self.was_fitted_to(user_id)
        state = self.model.user_state(user_id if was_fitted else None, kept=False)
        past = state.history
        days_N = np.full(len(past.items_N), np.nan) if past.days_N is None else past.days_N
        fitted: list[Event] = [
            (self.item_ids[row], None if np.isnan(day) else day * SECONDS_PER_DAY, weight)
            for row, day, weight in zip(past.items_N, days_N.tolist(), past.weights_N.tolist(), strict=True)
            if row >= 0
        ]
        live = self._not_fitted(self._log.of_user(user_id), state)
        return [*((row.item_id, row.time, row.weight) for row in reversed(live)), *reversed(fitted)]

    def _not_fitted(self, rows: list[LiveInteraction], state: UserState) -> list[LiveInteraction]:
        """Those that the fit has not learned from already, told by item and time."""
        past = state.history
        if past.days_N is None or not rows:
            return rows
        times = (past.days_N * SECONDS_PER_DAY).round().tolist()
        known = {(self.item_ids[row], time) for row, time in zip(past.items_N, times, strict=True) if row >= 0}
        return [row for row in rows if (row.item_id, float(round(row.time))) not in known]

    def _kept(self, user_id: str, generation: int) -> tuple[int, UserState | None]:
        with self._lock:
            if generation != self._generation:
                self._states.clear()
                self._generation = generation
            if user_id not in self._states:
                return 0, None
            self._states.move_to_end(user_id)
            return self._states[user_id]

    def _keep(self, user_id: str, generation: int, number: int, state: UserState) -> None:
        """A state that is kept is never changed: who adds to it makes another."""
        with self._lock:
            if generation == self._generation and number > self._states.get(user_id, (0, None))[0]:
                self._states[user_id] = number, state
                self._states.move_to_end(user_id)
                if len(self._states) > MOST_STATES:
                    self._states.popitem(last=False)


class ServedModel:
    """A folder of a model: the version that answers, and the next one as soon as it is published."""

    def __init__(self, folder: Path, log: InteractionLog) -> None:
        self.folder, self.name, self._log = folder, folder.resolve().name, log
        self.loaded = self._load()
        self._not_before = 0.0

    def refresh(self) -> bool:
        """Load the current version where it is another one; requests that began go on with the one before.

        Returns whether the current one answers; one that cannot be loaded is tried again, after a while.
        """
        if time.monotonic() < self._not_before:
            return False
        try:
            if current_version(self.folder) != self.loaded.version:
                self.loaded = self._load()
                logger.info("model %s: version %d answers from now on", self.name, self.loaded.version)
        except (MMRecError, OSError) as error:
            logger.error("model %s: version %d goes on answering: %s", self.name, self.loaded.version, error)
            self._not_before = time.monotonic() + RETRY_SECONDS
            return False
        return True

    def _load(self) -> LoadedModel:
        while True:
            number = current_version(self.folder)
            model = Recommender.load(self.folder)
            if current_version(self.folder) == number:
                loaded = LoadedModel(self.name, number, model, self._log)
                loaded.warm()
                return loaded
