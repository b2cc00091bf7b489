"""Lists of the best items, spread over what there is where that is wanted."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmrec.ranking import Ranker, diversify

DIVERSIFIED_CANDIDATES = 5

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


def best_items(
    ranker: Ranker,
    vectors_ID: Floats,
    vectors_UD: Floats,
    k: int,
    *,
    exclude_UI: sp.csr_array | None,
    allowed_I: NDArray[np.bool_] | None,
    diversity: float,
) -> tuple[Rows, Floats]:
    """Rows and scores `(U, min(k, I))` of the best items of each user; -1 and -inf where none is left."""
    wanted = k * DIVERSIFIED_CANDIDATES if diversity else k
    rows_UC, scores_UC = ranker.top_k(vectors_UD, wanted, exclude_UI=exclude_UI, allowed_I=allowed_I)
    if not diversity:
        return rows_UC, scores_UC
    return diversify(rows_UC, scores_UC, vectors_ID, k, diversity=diversity)
