"""Explaining: a user vector and an item vector are cut into parts, and a score into their dot products.

`Recommender.explain` says what comes of it, `fusion.attributions` how vectors are cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fusion.attributions import id_part, in_user_vector, item_parts, nearest_tokens
from fusion.histories import Histories
from fusion.token_table import TokenTable
from fusion.tower import Towers
from fusion.user_tower import UserTower
from mmrec.errors import ModelError
from mmrec.recommending.explanations import (
    WITH_STORE,
    WITHOUT_STORE,
    Cause,
    Explanation,
    Likeness,
    Moment,
    Part,
    Seconds,
)
from mmrec.recommending.model_files import ModelFiles
from mmrec.recommending.tokens import check_encoders
from mmrec.recommending.users import UserState
from mmrec.store import MODALITIES, Features, FeatureStore, Tokens

ALIKE = 0.5  # the cosine from which two tokens are said to be alike
CHANGED = 1e-3  # how far a vector may be from that of its parts, as a share of its length
ITEMS_AT_ONCE = 65_536

Doubles = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class UserParts:
    """The parts of a user vector: of the H items of the history, of everybody, and the rest."""

    rows_H: Rows
    times_H: Rows
    history_HD: Doubles
    anyone_D: Doubles
    rest_D: Doubles

    @property
    def vector_D(self) -> Doubles:
        vector_D: Doubles = self.history_HD.sum(0) + self.anyone_D + self.rest_D
        return vector_D


@dataclass(frozen=True)
class ItemSide:
    """An item vector, its parts by name, the vector without each, and what it loses without each token."""

    vector_D: Doubles
    parts: Mapping[str, Doubles]
    without: Mapping[str, Doubles]
    tokens: Mapping[str, Doubles]


class Explainer:
    """Explains the items of a model to one user.

    Args:
        top: how many items of the history, those that matter most, are left out in turn and compared by their tokens.
    """

    def __init__(self, files: ModelFiles, towers: Towers, state: UserState, store: FeatureStore | None, top: int):
        if store is not None:
            check_encoders(store, files.encoders)
        if top < 0:
            raise ModelError(f"top is {top}: expected 0 or more items of the history to look at closely")
        self._files, self._towers, self._state, self._store, self._top = files, towers, state, store, top
        self._history, self._weights_NK = _of_items_there(state.history, towers.users)
        self._user = self._user_parts()
        self._scores_I = self._scores(self._user.vector_D[None])[0]
        self._others_I = np.ones(len(files.item_ids), np.bool_)
        self._others_I[self._history.items_N] = False

    def explain(self, row: int, user_id: str) -> Explanation:
        """The score of the item in this row."""
        files, user = self._files, self._user
        strength_H = np.abs(user.history_HD @ files.vectors_ID[row])
        close_H = np.argsort(-strength_H, kind="stable")[: self._top]
        features = self._features([row, *user.rows_H[close_H]])
        item = self._without_tokens(row) if self._store is None else self._with_tokens(row, features)
        bias, is_seen = float(files.bias_I[row]), not self._others_I[row]
        return Explanation(
            user_id=user_id,
            item_id=files.item_ids[row],
            title=self._title(row),
            score=bias + float(user.vector_D @ item.vector_D),
            place=self._place(row, self._scores_I),
            num_ranked=int(self._others_I.sum()) + is_seen,
            is_seen=is_seen,
            popularity=bias,
            more_popular_than=float((files.bias_I < bias).mean()),
            parts=self._parts(row, item),
            anyone=float(user.anyone_D @ item.vector_D),
            rest=float(user.rest_D @ item.vector_D),
            history=self._causes(row, item, close_H, features),
            moments=self._moments(item, features.get(row)),
            methods=WITHOUT_STORE if self._store is None else WITH_STORE,
        )

    # --- the two sides ------------------------------------------------------------------------------------------------

    def _user_parts(self) -> UserParts:
        tower, history, state = self._towers.users, self._history, self._state
        vectors_ND = self._files.vectors_ID[history.items_N].astype(np.float64)
        sums_NKD = self._weights_NK[:, :, None] * vectors_ND[:, None]
        parts_ND = in_user_vector(tower, sums_NKD, state.totals_K)
        rows_H, places_N, times_H = np.unique(history.items_N, return_inverse=True, return_counts=True)
        history_HD = np.zeros((len(rows_H), parts_ND.shape[1]))
        np.add.at(history_HD, places_N, parts_ND)
        rest_KD = state.sums_KD - sums_NKD.sum(0)
        return UserParts(
            rows_H,
            times_H,
            history_HD,
            tower.null_D.detach().double().numpy(),
            in_user_vector(tower, rest_KD, state.totals_K) + state.turn_D,
        )

    def _with_tokens(self, row: int, features: Mapping[int, Features]) -> ItemSide:
        name = self._files.item_ids[row]
        assert self._store is not None
        if row not in features:
            raise ModelError(f"store {self._store.folder} has no item {name!r}: explain without the store, or fit anew")
        found = item_parts(self._towers, _table(features[row], self._towers.fusion.widths), self._tower_row(row))
        item = ItemSide(
            found.vector_D,
            {**found.modalities, **self._id(found.id_D)},
            {**found.without, **self._id(found.vector_D - found.id_D)},
            found.tokens,
        )
        vector_D = self._files.vectors_ID[row]
        if np.linalg.norm(found.vector_D - vector_D) > CHANGED * max(1e-3, float(np.linalg.norm(vector_D))):
            raise ModelError(
                f"item {name!r} has other tokens in store {self._store.folder} than the model made its vector of: fit "
                "anew, or explain without the store"
            )
        return item

    def _without_tokens(self, row: int) -> ItemSide:
        id_D = id_part(self._towers, self._tower_row(row))
        content_D = self._files.vectors_ID[row] - id_D
        parts, without = {"content": content_D, **self._id(id_D)}, {"content": id_D, **self._id(content_D)}
        return ItemSide(content_D + id_D, parts, without, {})

    def _id(self, vector_D: Doubles) -> dict[str, Doubles]:
        return {"id": vector_D} if self._towers.items is not None and self._towers.items.use_ids else {}

    def _features(self, rows: Iterable[int]) -> dict[int, Features]:
        """What the store has of these items."""
        if self._store is None:
            return {}
        names = {self._files.item_ids[row]: int(row) for row in rows}
        return {names[found.item.item_id]: found for found in self._store.features(list(names))}

    # --- the parts of the score ---------------------------------------------------------------------------------------

    def _parts(self, row: int, item: ItemSide) -> list[Part]:
        user_D, bias = self._user.vector_D, float(self._files.bias_I[row])
        parts = []
        for name, part_D in item.parts.items():
            score_without = bias + float(user_D @ item.without[name])
            parts.append(Part(name, float(user_D @ part_D), self._place(row, self._scores_I, score_without)))
        return sorted(parts, key=lambda part: -part.contribution)

    def _causes(self, row: int, item: ItemSide, close_H: Rows, features: Mapping[int, Features]) -> list[Cause]:
        user = self._user
        without = self._places_without(row, user.rows_H[close_H])
        causes = []
        for at, part_D in enumerate(user.history_HD):
            cause = int(user.rows_H[at])
            through = {name: float(part_D @ vector_D) for name, vector_D in item.parts.items()}
            causes.append(
                Cause(
                    item_id=self._files.item_ids[cause],
                    title=self._title(cause),
                    times=int(user.times_H[at]),
                    contribution=sum(through.values()),
                    through=through,
                    place_without=without.get(cause),
                    likeness=self._likeness(features[row], features[cause], through)
                    if cause in features and cause != row
                    else None,
                )
            )
        return sorted(causes, key=lambda cause: -cause.contribution)

    def _moments(self, item: ItemSide, features: Features | None) -> list[Moment]:
        moments = [
            Moment(modality, at + 1, len(losses_TD), _seconds(features.tokens[modality], at), float(contribution))
            for modality in MODALITIES
            if features is not None and (losses_TD := item.tokens.get(modality)) is not None
            for at, contribution in enumerate(losses_TD @ self._user.vector_D)
        ]
        return sorted(moments, key=lambda moment: -moment.contribution)

    def _likeness(self, item: Features, other: Features, through: Mapping[str, float]) -> Likeness | None:
        shared = [m for m in MODALITIES if m in through and m in other.tokens and through[m] > 0]
        if not shared:
            return None
        modality = max(shared, key=through.__getitem__)
        own, theirs = item.tokens[modality], other.tokens[modality]
        token, their_token, cosine = nearest_tokens(
            self._towers.fusion, modality, torch.tensor(own.vectors_TD), torch.tensor(theirs.vectors_TD)
        )
        if cosine < ALIKE:
            return None
        seconds, their_seconds = _seconds(own, token), _seconds(theirs, their_token)
        return Likeness(modality, cosine, token + 1, seconds, their_token + 1, their_seconds)

    def _tower_row(self, row: int) -> int:
        return int(self._files.tower_rows_I[row])

    def _title(self, row: int) -> str:
        return str(self._files.catalog[row].get("title") or "")

    # --- places -------------------------------------------------------------------------------------------------------

    def _places_without(self, row: int, causes: Rows) -> dict[int, int]:
        """Where the item would be if each of these had never been in the history; none of them joins the list."""
        if not len(causes):
            return {}
        tower, vectors_ID, state = self._towers.users, self._files.vectors_ID, self._state
        (own_1KD, own_1K), (sums_UKD, totals_UK) = (
            tower.sums(history, vectors_ID) for history in (self._history, _without_each(self._history, causes))
        )
        rest_KD, rest_K = state.sums_KD - own_1KD[0], np.maximum(state.totals_K - own_1K[0], 0)
        scores_UI = self._scores(tower.vectors_of(sums_UKD + rest_KD, totals_UK + rest_K) + state.turn_D)
        return {int(cause): self._place(row, scores_I) for cause, scores_I in zip(causes, scores_UI, strict=True)}

    def _scores(self, users_UD: NDArray[np.floating]) -> Doubles:
        """The scores of users and all items `(U, I)`."""
        users_DU, files = users_UD.astype(np.float64).T, self._files
        blocks = [
            files.vectors_ID[start : start + ITEMS_AT_ONCE].astype(np.float64) @ users_DU
            for start in range(0, len(files.vectors_ID), ITEMS_AT_ONCE)
        ]
        scores_UI: Doubles = np.concatenate(blocks).T + files.bias_I
        return scores_UI

    def _place(self, row: int, scores_I: Doubles, score: float | None = None) -> int:
        """The place, from 1, of an item by its score, or with another, among those that may be recommended."""
        score = scores_I[row] if score is None else score
        before_I = scores_I > score
        before_I[:row] |= scores_I[:row] == score
        before_I[row] = False
        return 1 + int((before_I & self._others_I).sum())


def _table(features: Features, widths: Mapping[str, int]) -> TokenTable:
    """The tokens of one item; a modality that it lacks is one absent token."""
    tokens, masks, times = dict[str, torch.Tensor](), dict[str, torch.Tensor](), dict[str, torch.Tensor]()
    for modality in [modality for modality in MODALITIES if modality in widths]:
        found = features.tokens.get(modality)
        vectors_TW = np.zeros((1, widths[modality]), np.float32) if found is None else found.vectors_TD
        seconds_T = np.zeros(1) if found is None else found.spans_T2.mean(1)
        tokens[modality] = torch.tensor(vectors_TW, dtype=torch.float32)[None]
        masks[modality] = torch.full((1, len(vectors_TW)), found is not None)
        times[modality] = torch.tensor(seconds_T, dtype=torch.float32)[None]
    return TokenTable(tokens, masks, times)


def _seconds(tokens: Tokens, at: int) -> Seconds | None:
    """When a token is; None where none of its modality has a time."""
    if not np.any(tokens.spans_T2):
        return None
    start, end = tokens.spans_T2[at].tolist()
    return start, end


def _of_items_there(history: Histories, tower: UserTower) -> tuple[Histories, NDArray[np.float32]]:
    """The history without items that left the model, and what the others weigh `(N, K)`, as old as they are."""
    places_N = np.flatnonzero(history.items_N >= 0)
    return _at(history, [places_N]), tower.weights(history)[places_N]


def _without_each(history: Histories, rows: Sequence[int] | Rows) -> Histories:
    """The history of one user as those of several, each without one item."""
    return _at(history, [np.flatnonzero(history.items_N != row) for row in rows])


def _at(history: Histories, places: Sequence[Rows]) -> Histories:
    """The interactions at these places of one user's history, as those of so many users."""
    places_N = np.concatenate(places)
    return Histories(
        np.cumsum([0, *map(len, places)]),
        history.items_N[places_N],
        history.weights_N[places_N],
        None if history.days_N is None else history.days_N[places_N],
        history.ordered,
    )
