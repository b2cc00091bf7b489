"""A linear autoencoder of the users' histories, in closed form: items that the same users like, without any content.

EASE (Steck 2019) ranks by `X B`, where `X (U, I)` are histories and `B` reconstructs them under a ridge penalty. With
the singular values `s` and vectors `V` of `X`, the least |X - X B|^2 + penalty |B|^2 has

    B = V diag(s^2 / (s^2 + penalty)) V^T

Cut to the L largest singular values it is a product of item vectors with themselves, `B = A A^T`. So it is scored as
the item tower's own vectors are, and can stand beside them in one dot product.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import svds

from fusion.histories import Histories

Floats = NDArray[np.float32]

PENALTY = 400.0


def linear_factors(histories: Histories, num_items: int, width: int) -> Floats:
    """The vectors `A (I, L)` above, zero for items without a positive interaction.

    L is `width`, or less where there are fewer users or items than that; the same call gives the same factors.
    """
    liked_N = histories.weights_N > 0
    ends_U = np.concatenate([[0], np.cumsum(liked_N)])[histories.offsets_U]
    liked_UI = sp.csr_array(
        (np.ones(ends_U[-1], np.float32), histories.items_N[liked_N], ends_U), shape=(len(histories), num_items)
    )
    smaller = min(liked_UI.shape)
    width = min(width, smaller - 1)
    if width < 1:
        return np.zeros((num_items, 0), np.float32)
    _, values_L, vectors_LI = svds(liked_UI, k=width, v0=np.ones(smaller, np.float32))
    factors_IL: Floats = (vectors_LI.T * np.sqrt(values_L**2 / (values_L**2 + PENALTY))).astype(np.float32)
    return factors_IL
