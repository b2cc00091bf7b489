"""Dot products that matrix libraries are slow at, compiled.

Those are made for products of many with many. For one user theirs take three times as long as reading the items does,
and a few items for each of many users would have to be copied together first.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from encoders.compiling import ensure_compiler_cache

ensure_compiler_cache(__file__)


def score_all(items_IE: torch.Tensor, users_UE: torch.Tensor) -> torch.Tensor:
    """Scores `(I, U)` of bfloat16 items by few float32 users, summed in float32 in any order, on one core."""
    scores = np.empty((len(items_IE), len(users_UE)), np.float32)
    _score_all(items_IE.view(torch.uint16).numpy(), users_UE.numpy(), scores)
    return torch.from_numpy(scores)


def score_groups(vectors_IE: torch.Tensor, users_UE: torch.Tensor, groups_US: torch.Tensor, size: int) -> torch.Tensor:
    """Float64 scores `(U, S, size)` of the items of each user's own groups of `size` items; -inf for group -1."""
    vectors, users, groups = vectors_IE.numpy(), users_UE.numpy(), groups_US.numpy()
    scores = np.full((*groups.shape, size), -np.inf)
    step = -(-len(users) // (4 * torch.get_num_threads()))
    parts = [slice(start, start + step) for start in range(0, len(users), step)]
    on_all_cores(lambda part: _score_groups(vectors, users[part], groups[part], scores[part]), parts)
    return torch.from_numpy(scores)


def on_all_cores(work: Callable[[slice], None], parts: list[slice]) -> None:
    """Do the parts of some work that leaves the interpreter to others."""
    if len(parts) == 1:
        work(parts[0])
    else:
        list(_threads(torch.get_num_threads()).map(work, parts))


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="dots")


def _without_threads() -> None:
    """A fork has none of its parent's threads, and would wait without end for those above, and for those of OpenMP."""
    _threads.cache_clear()
    torch.set_num_threads(1)


os.register_at_fork(after_in_child=_without_threads)


@numba.njit(nogil=True, fastmath={"reassoc", "contract"}, cache=True)
def _score_all(items_IE: NDArray[np.uint16], users_UE: NDArray[np.float32], scores_IU: NDArray[np.float32]) -> None:
    for item in range(items_IE.shape[0]):
        for user in range(users_UE.shape[0]):
            total = np.float32(0)
            for at in range(items_IE.shape[1]):
                # A bfloat16 is the upper half of a float32.
                wide = np.uint32(np.uint32(items_IE[item, at]) << 16).view(np.float32)
                total += wide * users_UE[user, at]
            scores_IU[item, user] = total


@numba.njit(nogil=True, fastmath={"reassoc", "contract"}, cache=True)
def _score_groups(
    vectors_IE: NDArray[np.float32],
    users_UE: NDArray[np.float32],
    groups_US: NDArray[np.int64],
    scores_USG: NDArray[np.float64],
) -> None:
    for user in range(groups_US.shape[0]):
        for place in range(groups_US.shape[1]):
            if groups_US[user, place] < 0:
                continue
            first = groups_US[user, place] * scores_USG.shape[2]
            for member in range(scores_USG.shape[2]):
                total = 0.0
                for at in range(users_UE.shape[1]):
                    total += np.float64(vectors_IE[first + member, at]) * np.float64(users_UE[user, at])
                scores_USG[user, place, member] = total
