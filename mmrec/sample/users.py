"""The users of the sample catalog: what each likes, and what each watched when."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from mmrec.sample.items import KINDS, Entry

NUM_USERS = 200
NUM_DAYS = 90
FIRST_DAY = 1_735_689_600  # 2025-01-01, seconds since 1970
TASTE_FACTOR = 40.0  # how much more often users choose an item of a kind they like

Interaction = tuple[str, str, int, float]


def simulate_users(entries: Sequence[Entry], rng: Generator) -> tuple[list[Interaction], list[Interaction]]:
    """All interactions but each user's last, and the last ones, both in order of time."""
    popularity = rng.permutation(1 / np.arange(1, len(entries) + 1) ** 0.6)
    train, held_out = [], []
    for user in range(NUM_USERS):
        history = _watch(f"user{user:03d}", entries, popularity, rng)
        train += history[:-1]
        held_out.append(history[-1])
    return sorted(train, key=lambda row: row[2]), sorted(held_out, key=lambda row: row[2])


def _watch(
    user_id: str, entries: Sequence[Entry], popularity: NDArray[np.float64], rng: Generator
) -> list[Interaction]:
    """What one user watched, in order of time."""
    tastes = rng.choice(len(KINDS), size=rng.integers(1, 3), replace=False)
    liked = np.isin([KINDS.index(entry.kind) for entry in entries], tastes)
    chances = popularity * np.where(liked, TASTE_FACTOR, 1.0)
    num_watched = min(4 + int(rng.geometric(0.25)) - 1, 20)
    # Drawn without replacement, the likely ones come first: shuffled, the last one watched is like the others.
    watched = rng.permutation(rng.choice(len(entries), size=num_watched, replace=False, p=chances / chances.sum()))
    times = FIRST_DAY + np.sort(rng.choice(NUM_DAYS * 86_400, size=num_watched, replace=False))
    shares = np.where(liked[watched], rng.beta(6, 2, num_watched), rng.beta(2, 4, num_watched))
    weights = np.clip(shares.round(3), 0.001, 1)
    return [
        (user_id, entries[item].item_id, int(time), float(weight))
        for item, time, weight in zip(watched, times, weights, strict=True)
    ]
