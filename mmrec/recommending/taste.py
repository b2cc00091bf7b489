"""How much a user likes items, in the form in which a search asks for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mmrec.ranking import Ranker

logger = logging.getLogger(__name__)

Floats = NDArray[np.float32]


def taste_of(user_D: Floats, item_rows: Mapping[str, int], ranker: Ranker) -> Callable[[Sequence[str]], Floats]:
    """Ids -> the user's scores of them `(N,)`, NaN for items that the model does not have."""

    def scores(item_ids: Sequence[str]) -> Floats:
        rows_N = np.array([item_rows.get(item_id, -1) for item_id in item_ids], np.int64)
        known_N = rows_N >= 0
        if len(item_ids) and not known_N.any():
            logger.warning(
                "the model has none of the %d items that were found, such as %r: the user does not count; was it "
                "fitted to another catalog, or before they came?",
                len(item_ids),
                item_ids[0],
            )
        scores_N = np.full(len(item_ids), np.nan, np.float32)
        users_ND = np.broadcast_to(user_D, (int(known_N.sum()), len(user_D)))
        scores_N[known_N] = ranker.score(users_ND, rows_N[known_N])
        return scores_N

    return scores
