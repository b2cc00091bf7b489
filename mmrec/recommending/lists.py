"""Lists of the best items: one of several copies, and spread over what there is, where that is wanted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmrec.ranking import Ranker, diversify
from mmrec.searching import Copies

DIVERSIFIED_CANDIDATES = 5

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Allowed = NDArray[np.bool_] | None


def same_items(copies: Copies, item_rows: Mapping[str, int]) -> sp.csr_array:
    """Nonzero where two items of a model are copies of each other."""
    pairs = [(item_rows[a], item_rows[b]) for a in copies.same for b in copies.same[a] if {a, b} <= item_rows.keys()]
    rows_N, columns_N = np.array(pairs, np.int64).reshape(-1, 2).T
    shape = (len(item_rows), len(item_rows))
    return sp.csr_array((np.ones(len(pairs), np.float32), (rows_N, columns_N)), shape=shape)


def with_copies(items_UI: sp.csr_array | None, same_II: sp.csr_array | None) -> sp.csr_array | None:
    """Nonzero where an item of a user, or a copy of one, stands."""
    return items_UI if items_UI is None or same_II is None else sp.csr_array(items_UI + items_UI @ same_II)


def best_items(
    ranker: Ranker,
    vectors_ID: Floats,
    vectors_UD: Floats,
    k: int,
    *,
    exclude_UI: sp.csr_array | None,
    allowed_I: Allowed,
    diversity: float,
    same_II: sp.csr_array | None,
) -> tuple[Rows, Floats]:
    """Rows and scores `(U, min(k, I))` of the best items of each user; -1 and -inf where none is left."""
    wanted = k * DIVERSIFIED_CANDIDATES if diversity else k
    rows_UC, scores_UC = folded_top_k(ranker, vectors_UD, wanted, exclude_UI, allowed_I, same_II)
    if not diversity:
        return rows_UC, scores_UC
    return diversify(rows_UC, scores_UC, vectors_ID, k, diversity=diversity)


def folded_top_k(
    ranker: Ranker,
    vectors_UD: Floats,
    k: int,
    exclude_UI: sp.csr_array | None,
    allowed_I: Allowed,
    same_II: sp.csr_array | None,
) -> tuple[Rows, Floats]:
    """The best k of each user of which no copy stands before them; so many are asked for that k are left."""
    copies_I = np.zeros(0, np.int64) if same_II is None else np.diff(same_II.indptr)
    hidden = int(np.sort(copies_I)[::-1][: max(0, k)].sum())
    rows_UC, scores_UC = ranker.top_k(vectors_UD, k + hidden, exclude_UI=exclude_UI, allowed_I=allowed_I)
    if same_II is None or not hidden:
        return rows_UC, scores_UC
    falls_UC = rows_UC < 0
    has_copies_UC = ~falls_UC & (copies_I[rows_UC] > 0)
    for user in np.flatnonzero(has_copies_UC.sum(axis=1) > 1).tolist():
        before: set[int] = set()
        for place in np.flatnonzero(has_copies_UC[user]).tolist():
            row = rows_UC[user, place]
            falls_UC[user, place] = row in before
            if row not in before:
                before.update(same_II.indices[same_II.indptr[row] : same_II.indptr[row + 1]].tolist())
    order_UK = np.argsort(falls_UC, axis=1, kind="stable")[:, : min(k, ranker.num_items)]
    falls_UK = np.take_along_axis(falls_UC, order_UK, 1)
    rows_UK = np.where(falls_UK, -1, np.take_along_axis(rows_UC, order_UK, 1))
    return rows_UK, np.where(falls_UK, np.float32(-np.inf), np.take_along_axis(scores_UC, order_UK, 1))
