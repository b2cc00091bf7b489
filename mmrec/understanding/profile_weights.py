"""How much the words of profiles count beside histories: chosen on validation, not at all where they do not help."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmrec.errors import ModelError
from mmrec.evaluation import InteractionSource, check_no_leak, compare, rank_metrics, read_catalog_interactions
from mmrec.recommending import Recommender, UserState
from mmrec.understanding.profiles import Profile

WEIGHTS = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Of words beside a history that counts 1; they are tried beside 0."""
K = 20
LARGEST_P_VALUE = 0.05


@dataclass(frozen=True, slots=True)
class WordVectors:
    """What the words of a profile are among the items; None where there are none."""

    wanted_D: NDArray[np.float32] | None
    unwanted_D: NDArray[np.float32] | None

    @classmethod
    def of(cls, model: Recommender, profile: Profile) -> WordVectors:
        said = (profile.wanted, profile.unwanted)
        return cls(*(model.words_vector(words) if words else None for words in said))

    def count_in(self, state: UserState, share: float) -> None:
        """Let them count so much beside a history, which counts 1."""
        if self.wanted_D is not None:
            state.add_vector(self.wanted_D, share=share)
        if self.unwanted_D is not None:
            state.turn_away(self.unwanted_D, share=min(1.0, share))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileWeight:
    """The weight that was chosen, by the scores of each that was tried, Recall@20 plus NDCG@20 over so many users.

    `p_value` is of the best of them against 0, by a paired permutation test; above .05, or below the score of 0, the
    weight is 0.
    """

    weight: float = 0.0
    scores: Mapping[str, float] = field(default_factory=dict)
    num_users: int = 0
    p_value: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiles:
    """The profiles of users by their ids, and how much they count; on disk as one JSON file.

    >>> from mmrec.understanding import Profile, Profiles
    >>> Profiles(of={"u1": Profile(user_id="u1")}).write("profiles.json")
    >>> Profiles.read("profiles.json").of["u1"].text
    ''
    """

    of: Mapping[str, Profile]
    chosen: ProfileWeight = field(default_factory=ProfileWeight)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Raises `ModelError` where it cannot be written."""
        said = {**asdict(self.chosen), "profiles": [profile.to_dict() for profile in self.of.values()]}
        with _told_of(path, "written"):
            beside = Path(f"{os.fspath(path)}.partial")
            beside.write_text(json.dumps(said, ensure_ascii=False, indent=1), encoding="utf-8")
            beside.replace(path)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Profiles:
        """Raises `ModelError` for what is no file of profiles."""
        with _told_of(path, "read"):
            said = json.loads(Path(path).read_text(encoding="utf-8"))
            profiles = [Profile.from_dict(one) for one in said.pop("profiles")]
            return cls(of={profile.user_id: profile for profile in profiles}, chosen=ProfileWeight(**said))

    def without(self, user: str) -> Profiles:
        return replace(self, of={user_id: profile for user_id, profile in self.of.items() if user_id != user})

    def state(self, model: Recommender, user: str, *, not_text: str = "") -> UserState:
        """The state of a user, where words count by the chosen weight.

        Of somebody without a history, they are all that is known. `not_text` speaks against items besides, and counts
        as much as the history.
        """
        state, profile = model.user_state(user, kept=False), self.of.get(user)
        share = self.chosen.weight if len(state.seen_rows) else 1.0
        if profile is not None and share:
            WordVectors.of(model, profile).count_in(state, share)
        if not_text:
            state.turn_away(model.words_vector(not_text))
        return state


def choose_weight(
    model: Recommender,
    profiles: Sequence[Profile],
    validation: InteractionSource,
    *,
    weights: Sequence[float] = WEIGHTS,
) -> ProfileWeight:
    """How much the words of profiles shall count beside the histories, by held-out interactions of the same users.

    Raises `ModelError` where none of the users has both a history and held-out interactions.
    """
    held_out = read_catalog_interactions(validation, model.item_ids)
    if model.interactions is not None:
        check_no_leak(model.interactions, held_out)
    wanted = held_out.select(held_out.weights > 0).matrix()
    judged = [
        profile
        for profile in profiles
        if profile.user_id in held_out.user_index
        and wanted[[held_out.user_index[profile.user_id]]].nnz
        and len(model.user_state(profile.user_id, kept=False).seen_rows)
    ]
    if not judged:
        raise ModelError("no user has a profile, a history and held-out interactions: no weight can be chosen")
    relevant_UI = sp.csr_array(wanted[[held_out.user_index[profile.user_id] for profile in judged]])
    words = [WordVectors.of(model, profile) for profile in judged]
    scores = {share: _scores(model, judged, words, share, relevant_UI) for share in (0.0, *weights)}
    best = max(scores, key=lambda share: float(scores[share].mean()))
    p_value = compare(scores[best], scores[0.0]).p_value if best else 1.0
    return ProfileWeight(
        weight=best if p_value <= LARGEST_P_VALUE else 0.0,
        scores={f"{share:g}": round(float(found.mean()), 5) for share, found in scores.items()},
        num_users=len(judged),
        p_value=round(p_value, 5),
    )


def _scores(
    model: Recommender,
    profiles: Sequence[Profile],
    words: Sequence[WordVectors],
    share: float,
    relevant_UI: sp.csr_array,
) -> NDArray[np.float64]:
    """Recall plus NDCG of each user."""
    states = [model.user_state(profile.user_id, kept=False) for profile in profiles]
    if share:
        for state, vectors in zip(states, words, strict=True):
            vectors.count_in(state, share)
    k = min(K, len(model.item_ids))
    ids_UK, _ = model.recommend(states, k=k)
    rows = {item_id: row for row, item_id in enumerate(model.item_ids)}
    ranked_UK = np.array([[rows.get(item_id, -1) for item_id in ids] for ids in ids_UK], np.int64)
    metrics = rank_metrics(ranked_UK, relevant_UI, [k])
    return np.asarray(metrics[f"recall@{k}"] + metrics[f"ndcg@{k}"], np.float64)


@contextmanager
def _told_of(path: str | os.PathLike[str], done: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelError(f"{path} cannot be {done}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is no file that `mmrec profiles` wrote: {error}") from None
