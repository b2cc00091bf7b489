"""How much each interaction of a history counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mmrec.evaluation import Interactions

Floats = NDArray[np.float32]
SECONDS_PER_DAY = 86_400.0


def recency_weights(interactions: Interactions, half_life_days: float) -> Floats:
    """The weights `(N,)`, halved for every `half_life_days` before the user's latest interaction; 0 keeps them.

    Without timestamps they stay as they are. However old, a weight stays positive.
    """
    if not half_life_days or interactions.timestamps is None:
        return interactions.weights
    latest_U = np.full(len(interactions.user_ids), -np.inf)
    np.maximum.at(latest_U, interactions.user_rows, interactions.timestamps)
    age_N = (latest_U[interactions.user_rows] - interactions.timestamps) / SECONDS_PER_DAY
    weights_N = interactions.weights * 0.5 ** (age_N / half_life_days)
    return np.maximum(weights_N, np.finfo(np.float32).tiny).astype(np.float32)
