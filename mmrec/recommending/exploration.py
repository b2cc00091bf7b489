"""Places in lists for items that nobody has interacted with yet."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmrec.errors import ModelError
from mmrec.ranking import Ranker
from mmrec.recommending.lists import folded_top_k, with_copies

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


def places_of_share(k: int, share: float) -> int:
    if not 0 <= share <= 1:
        raise ModelError(f"the explore share is {share}: expected 0 to 1")
    return round(share * k)


def with_cold_items(
    ranker: Ranker,
    rows_UK: Rows,
    scores_UK: Floats,
    vectors_UD: Floats,
    places: int,
    exclude_UI: sp.csr_array | None,
    cold_I: NDArray[np.bool_],
    same_II: sp.csr_array | None,
) -> tuple[Rows, Floats]:
    """The lists with at least so many cold items, as far as there are any: the last warm ones make way for them."""
    cold_UK = (rows_UK >= 0) & cold_I[rows_UK]
    missing_U1 = np.maximum(min(places, int(cold_I.sum())) - cold_UK.sum(1, keepdims=True), 0)
    if not missing_U1.any():
        return rows_UK, scores_UK
    users, taken = np.nonzero(rows_UK >= 0)
    listed_UI = sp.csr_array((np.ones(len(users)), (users, rows_UK[users, taken])), (len(rows_UK), len(cold_I)))
    hidden_UI = with_copies(listed_UI if exclude_UI is None else sp.csr_array(listed_UI + exclude_UI), same_II)
    new_UC, new_scores_UC = folded_top_k(ranker, vectors_UD, int(missing_U1.max()), hidden_UI, cold_I, same_II)
    missing_U1 = np.minimum(missing_U1, (new_UC >= 0).sum(1, keepdims=True))
    warm_UK = (rows_UK >= 0) & ~cold_UK
    leaves_UK = warm_UK & (warm_UK[:, ::-1].cumsum(1)[:, ::-1] <= missing_U1)
    order_UK = np.argsort(leaves_UK, axis=1, kind="stable")
    rows_UK, scores_UK = np.take_along_axis(rows_UK, order_UK, 1), np.take_along_axis(scores_UK, order_UK, 1)
    place_UK = np.arange(rows_UK.shape[1]) - (rows_UK.shape[1] - missing_U1)
    users, free = np.nonzero(place_UK >= 0)
    rows_UK[users, free] = new_UC[users, place_UK[users, free]]
    scores_UK[users, free] = new_scores_UC[users, place_UK[users, free]]
    return rows_UK, scores_UK
