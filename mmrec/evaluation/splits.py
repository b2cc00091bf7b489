"""Ways to hold some interactions out, to choose settings by or to evaluate a model.

All parts have the id maps of what was split: a row number means the same user or item.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mmrec.errors import InteractionError
from mmrec.evaluation.interactions import Interactions

Split = Literal["random", "last", "time", "cold"]


def split(
    interactions: Interactions, how: Split, *, share: float = 0.1, seed: int = 0
) -> tuple[Interactions, Interactions]:
    """(train, held out) by one of the ways below; "last" takes no share, "last" and "time" no seed.

    >>> from mmrec.evaluation import read_interactions, split
    >>> interactions = read_interactions("interactions.csv")
    >>> split(interactions, "last")[1]
    Interactions(24 users, 16 items, 24 interactions, with timestamps)
    >>> split(interactions, "random", share=0.25)[0]
    Interactions(24 users, 16 items, 72 interactions, with timestamps)
    """
    if how not in get_args(Split):
        raise InteractionError(f"split {how!r} is not one of {', '.join(get_args(Split))}")
    if how == "random":
        return split_random(interactions, share, seed=seed)
    if how == "last":
        return split_leave_last_out(interactions)
    if how == "time":
        return split_by_time(interactions, share)
    return split_cold_items(interactions, share, seed=seed)


def split_in_three(
    interactions: Interactions, how: Split, *, share: float = 0.1, seed: int = 0
) -> tuple[Interactions, Interactions, Interactions]:
    """(train, validation, test): test is held out of all, then validation, as much, of what is left, by the same rule.

    >>> from mmrec.evaluation import read_interactions, split_in_three
    >>> [len(part) for part in split_in_three(read_interactions("interactions.csv"), "last")]
    [48, 24, 24]
    >>> [len(part) for part in split_in_three(read_interactions("interactions.csv"), "random", share=0.25)]
    [48, 24, 24]
    """
    rest, test = split(interactions, how, share=share, seed=seed)
    if how != "last" and share >= 0.5:
        raise InteractionError(f"the share to hold out is {share}, twice: expected below 0.5")
    train, validation = split(rest, how, share=share / (1 - share), seed=seed)
    return train, validation, test


def split_random(interactions: Interactions, share: float, *, seed: int = 0) -> tuple[Interactions, Interactions]:
    """Holds out a random `share` of all interactions: (train, held out)."""
    _check_share(share)
    order = np.random.default_rng(seed).permutation(len(interactions))
    held_N = np.zeros(len(interactions), bool)
    held_N[order[: round(share * len(interactions))]] = True
    return interactions.select(~held_N), interactions.select(held_N)


def split_leave_last_out(interactions: Interactions) -> tuple[Interactions, Interactions]:
    """Holds out the latest interaction of every user that has at least two: (train, held out).

    Of equal or unknown times, the one that stands last in the file counts as the latest.
    """
    order = np.lexsort((interactions.order(), interactions.user_rows))
    users = interactions.user_rows[order]
    last_N = np.append(users[1:] != users[:-1], True)
    held_N = np.zeros(len(interactions), bool)
    held_N[order[last_N]] = True
    held_N &= interactions.user_degrees()[interactions.user_rows] > 1
    return interactions.select(~held_N), interactions.select(held_N)


def split_by_time(interactions: Interactions, share: float) -> tuple[Interactions, Interactions]:
    """Holds out about the latest `share` of all interactions: (train, held out).

    The cut is one moment for everyone: nothing in training is as late as anything held out.
    """
    _check_share(share)
    times = _required_timestamps(interactions)
    held_N = times >= np.quantile(times, 1 - share, method="higher")
    return interactions.select(~held_N), interactions.select(held_N)


def split_cold_items(interactions: Interactions, share: float, *, seed: int = 0) -> tuple[Interactions, Interactions]:
    """Holds out all interactions of a random `share` of the items that have any: (train, held out)."""
    _check_share(share)
    items = np.unique(interactions.item_rows)
    cold = np.random.default_rng(seed).permutation(items)[: round(share * len(items))]
    held_N = np.isin(interactions.item_rows, cold)
    return interactions.select(~held_N), interactions.select(held_N)


def _required_timestamps(interactions: Interactions) -> NDArray[np.float64]:
    if interactions.timestamps is None:
        raise InteractionError("these interactions have no timestamps, and this split needs them")
    return interactions.timestamps


def _check_share(share: float) -> None:
    if not 0 < share < 1:
        raise InteractionError(f"the share to hold out must be between 0 and 1, got {share}")
