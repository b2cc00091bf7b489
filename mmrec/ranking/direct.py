"""One user, or few against few items: all of these are scored in float32, and those that may be the best in float64.

With so little to do, what the batched passes prepare would take longer than the products themselves.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def rank_directly(
    vectors_IE: NDArray[np.float32],
    largest_E: NDArray[np.float32],
    user_E: NDArray[np.float32],
    k: int,
    hidden: tuple[NDArray[np.bool_], NDArray[np.integer]],
) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """The rows and float64 scores `(K,)` of the best items, -1 and -inf where none is left.

    None where float32 may overflow.

    Args:
        largest_E: the greatest absolute value of each column of the items.
        hidden: items that may not be listed, as a mask of all and as rows.
    """
    disallowed_I, excluded_N = hidden
    # What float32 may lose of a sum of products, in any order of summation (Higham 2002, section 3.1), doubled.
    float32, width = np.finfo(np.float32), len(user_E)
    reach = float(np.abs(user_E).astype(np.float64) @ largest_E)
    if not 2 * reach < float(float32.max):
        return None
    error = 2 * width * (float(float32.eps) * reach + float(float32.tiny))
    scores_I = vectors_IE @ user_E
    scores_I[disallowed_I] = -np.inf
    scores_I[excluded_N] = -np.inf
    floor = float(np.partition(scores_I, len(scores_I) - k)[len(scores_I) - k])
    rows_C = np.flatnonzero((scores_I >= floor - 2 * error) & (scores_I > -np.inf))
    exact_C = np.einsum("ce,e->c", vectors_IE[rows_C].astype(np.float64), user_E.astype(np.float64))
    best_K = np.argsort(-exact_C, kind="stable")[:k]
    rows_K, scores_K = np.full(k, -1, np.int64), np.full(k, -np.inf)
    rows_K[: len(best_K)], scores_K[: len(best_K)] = rows_C[best_K], exact_C[best_K]
    return rows_K, scores_K
