"""Scores of few users from bfloat16 items, at the speed that memory gives them.

Matrix libraries are made for many columns: for one, theirs take three times as long as reading the items does.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import torch
from numpy.typing import NDArray

ITEMS_AT_ONCE = 2**15


def score_few(items_IE: torch.Tensor, users_UE: torch.Tensor) -> torch.Tensor:
    """Float32 scores `(I, U)` of bfloat16 items by float32 users, summed in float32 in any order."""
    items, users = items_IE.view(torch.uint16).numpy(), users_UE.numpy()
    scores = np.empty((len(items), len(users)), np.float32)
    blocks = [slice(start, start + ITEMS_AT_ONCE) for start in range(0, len(items), ITEMS_AT_ONCE)]
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for done in [threads.submit(_score, items[block], users, scores[block]) for block in blocks]:
            done.result()
    return torch.from_numpy(scores)


@numba.njit(nogil=True, fastmath={"reassoc", "contract"}, cache=True)
def _score(items_IE: NDArray[np.uint16], users_UE: NDArray[np.float32], scores_IU: NDArray[np.float32]) -> None:
    for item in range(items_IE.shape[0]):
        for user in range(users_UE.shape[0]):
            total = np.float32(0)
            for at in range(items_IE.shape[1]):
                # A bfloat16 is the upper half of a float32.
                wide = np.uint32(np.uint32(items_IE[item, at]) << 16).view(np.float32)
                total += wide * users_UE[user, at]
            scores_IU[item, user] = total
