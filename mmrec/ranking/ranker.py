"""Exact top-k of users against items.

    >>> import numpy as np
    >>> from mmrec.ranking import Ranker
    >>> ranker = Ranker(np.eye(4, dtype=np.float32))
    >>> rows_UK, scores_UK = ranker.top_k(np.array([[0.1, 0.4, 0.3, 0.2]], dtype=np.float32), k=2)
    >>> rows_UK
    array([[1, 2]])

The result is that of sorting all scores computed in float64, equal scores by ascending item row. Most items are pruned
in a faster type, by a bound that prunes none wrongly (see `mmrec/ranking/pruning.py`); where that leaves too many, the
user is ranked in the next wider type, at last in float64 altogether; few products are done at once (see
`mmrec/ranking/direct.py`). Memory is bounded by a batch of users, not by
users times items. Places that no item is left for hold row -1 and score -inf.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmrec.errors import RankingError
from mmrec.ranking.direct import rank_directly

if TYPE_CHECKING:
    import scipy.sparse as sp
    import torch

    from mmrec.ranking.pruning import PruningPass

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]

ITEMS_AT_ONCE = 65_536
PRODUCTS_DONE_DIRECTLY = 2**23  # of numbers: on a processor, two milliseconds; of one user as many as there are
USERS_AT_ONCE = {"cpu": 256, "cuda": 4096}
MAXIMA_AT_ONCE = {"cpu": 2**26, "cuda": 2**28}


class Ranker:
    """Ranks items by the dot product of user and item vectors, plus a bias of the item.

    The first ranking prepares the items, once: where bfloat16 is native, by a copy of half their size.

    >>> import mmrec
    >>> from mmrec.ranking import Ranker
    >>> ids, vectors_ID = mmrec.FeatureStore("store").vectors("visual")
    >>> ranker = Ranker(vectors_ID)
    >>> ranker
    Ranker(16 items x 16, 'cpu')
    >>> rows_UK, scores_UK = ranker.top_k(vectors_ID[:1], k=3)
    >>> [ids[row] for row in rows_UK[0]]
    ['piano-0', 'piano-...', 'piano-...']

    Args:
        vectors_ID: item vectors.
        bias_I: added to every score of an item; none is zero.
        device: where items are kept and scored: "cpu" or a CUDA device.

    Raises:
        RankingError: for shapes that do not fit, or values that are not finite.
    """

    def __init__(self, vectors_ID: Floats, bias_I: Floats | None = None, *, device: str = "cpu") -> None:
        from mmrec.ranking.pruning import LARGEST_GROUP

        bias_I = np.zeros(len(vectors_ID), np.float32) if bias_I is None else bias_I
        if vectors_ID.ndim != 2 or bias_I.shape != vectors_ID.shape[:1]:
            raise RankingError(f"item vectors {vectors_ID.shape} and biases {bias_I.shape} do not fit")
        if not (_is_finite(vectors_ID) and _is_finite(bias_I)):
            raise RankingError("item vectors and biases must be finite")
        # The bias is one more feature, to which every user has weight one; rows beyond the items are padding.
        self.num_items, width = len(vectors_ID), vectors_ID.shape[1] + 1
        self.vectors_IE = np.zeros((-(-self.num_items // LARGEST_GROUP) * LARGEST_GROUP, width), np.float32)
        self.vectors_IE[: self.num_items, :-1], self.vectors_IE[: self.num_items, -1] = vectors_ID, bias_I
        self.device = device
        self._largest_E = np.abs(self.vectors_IE).max(0, initial=0)
        self._passes: dict[torch.dtype, PruningPass] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.num_items} items x {self.vectors_IE.shape[1] - 1}, {self._kind()})"

    def _kind(self) -> str:
        return repr(self.device)

    def extended(self, vectors_BD: Floats, bias_B: Floats) -> Ranker:
        """A ranker of these items and, in the rows after them, of more."""
        return Ranker(*self._joined(vectors_BD, bias_B), device=self.device)

    def replaced(self, vectors_ID: Floats, bias_I: Floats) -> Ranker:
        """A ranker of the same kind, of these items alone."""
        return Ranker(vectors_ID, bias_I, device=self.device)

    def _joined(self, vectors_BD: Floats, bias_B: Floats) -> tuple[Floats, Floats]:
        own_IE = self.vectors_IE[: self.num_items]
        return np.vstack([own_IE[:, :-1], vectors_BD]), np.concatenate([own_IE[:, -1], bias_B])

    def top_k(
        self,
        users_UD: Floats,
        k: int,
        *,
        exclude_UI: sp.csr_array | None = None,
        allowed_I: NDArray[np.bool_] | None = None,
    ) -> tuple[Rows, Floats]:
        """The best items of each user: rows and scores, each `(U, min(k, I))`, best first.

        Args:
            exclude_UI: nonzero where an item must not stand in a user's list, as what was seen already.
            allowed_I: the items that may stand in any list; none is all of them.
        """
        users_UE = self._extend(users_UD)
        k = self._check_k(k)
        if exclude_UI is not None and exclude_UI.shape != (len(users_UE), self.num_items):
            raise RankingError(f"exclusions {exclude_UI.shape}, expected {(len(users_UE), self.num_items)}")
        if allowed_I is not None and (allowed_I.shape != (self.num_items,) or allowed_I.dtype != bool):
            raise RankingError(
                f"allowed items must be bool {(self.num_items,)}, got {allowed_I.dtype} {allowed_I.shape}"
            )
        disallowed_I = np.ones(len(self.vectors_IE), np.bool_)
        disallowed_I[: self.num_items] = False if allowed_I is None else ~allowed_I
        rows_UK, scores_UK = np.full((len(users_UE), k), -1, np.int64), np.full((len(users_UE), k), -np.inf, np.float32)
        for start in range(0, len(users_UE) if k else 0, users_at_once := self._users_at_once(k)):
            block = slice(start, start + users_at_once)
            users_BE = users_UE[block]
            excluded_BI = _rows(exclude_UI, block, len(users_BE))
            rows_UK[block], scores_UK[block] = self._rank_block(users_BE, k, excluded_BI, disallowed_I)
        return rows_UK, scores_UK

    def rank_candidates(self, users_UD: Floats, candidates_UC: Rows, k: int) -> tuple[Rows, Floats]:
        """The best of each user's own candidates (rows, -1 for none): rows and scores, each `(U, min(k, C))`."""
        users_UE = self._extend(users_UD)
        if candidates_UC.ndim != 2 or len(candidates_UC) != len(users_UE):
            raise RankingError(f"candidates {candidates_UC.shape} for {len(users_UE)} users, expected (U, C)")
        if candidates_UC.size and (candidates_UC.max() >= self.num_items or candidates_UC.min() < -1):
            raise RankingError(f"candidates name item rows outside 0 to {self.num_items - 1}")
        return self._sort_exactly(users_UE, candidates_UC, min(self._check_k(k), candidates_UC.shape[1]))

    def score(self, users_ND: Floats, items_N: Rows) -> Floats:
        """The scores of N pairs of a user vector and an item row `(N,)`."""
        users_NE = self._extend(users_ND)
        if items_N.shape != (len(users_NE),):
            raise RankingError(f"{len(users_NE)} user vectors and item rows of shape {items_N.shape} are no pairs")
        if items_N.size and (items_N.min() < 0 or items_N.max() >= self.num_items):
            raise RankingError(f"items name rows outside 0 to {self.num_items - 1}")
        scores_N: Floats = np.einsum(
            "ne,ne->n", users_NE, self.vectors_IE[items_N], dtype=np.float64, optimize=False
        ).astype(np.float32)
        return scores_N

    def _extend(self, users_UD: Floats) -> Floats:
        if users_UD.ndim != 2 or users_UD.shape[1] != self.vectors_IE.shape[1] - 1:
            raise RankingError(f"user vectors {users_UD.shape}, expected (U, {self.vectors_IE.shape[1] - 1})")
        if not _is_finite(users_UD):
            raise RankingError("user vectors must be finite")
        users_UE = np.ones((len(users_UD), self.vectors_IE.shape[1]), np.float32)
        users_UE[:, :-1] = users_UD
        return users_UE

    def _check_k(self, k: int) -> int:
        if k < 1:
            raise RankingError(f"k must be at least 1, got {k}")
        return min(k, self.num_items)

    def _users_at_once(self, k: int) -> int:
        from mmrec.ranking.pruning import group_size

        num_groups = len(self.vectors_IE) // group_size(len(self.vectors_IE), k)
        kind = self.device.split(":")[0]
        return max(1, min(USERS_AT_ONCE[kind], MAXIMA_AT_ONCE[kind] // max(num_groups, 1)))

    def _rank_block(
        self, users_UE: Floats, k: int, exclude_UI: sp.csr_array | None, disallowed_I: NDArray[np.bool_]
    ) -> tuple[Rows, Floats]:
        is_little = len(users_UE) == 1 or len(users_UE) * self.vectors_IE.size <= PRODUCTS_DONE_DIRECTLY
        is_direct = is_little and self.device == "cpu"
        directly = self._rank_directly(users_UE, k, exclude_UI, disallowed_I) if is_direct else None
        if directly is not None:
            return directly
        import torch

        from mmrec.ranking.pruning import Exclusions

        rows_UK, scores_UK = np.empty((len(users_UE), k), np.int64), np.empty((len(users_UE), k), np.float32)
        left_N = np.arange(len(users_UE))
        for pruning_pass in self._each_pass():
            users = torch.from_numpy(users_UE[left_N]).to(self.device)
            excluded_NI = _rows(exclude_UI, left_N, len(left_N))
            exclusions = None if excluded_NI is None else Exclusions(excluded_NI, self.device)
            best = pruning_pass.top_k(users, k, disallowed_I, exclusions)
            rows_UK[left_N], scores_UK[left_N] = best.rows_UK.cpu().numpy(), best.scores_UK.cpu().numpy()
            left_N = left_N[~best.settled_U.cpu().numpy()]
            if not len(left_N):
                break
        for user in left_N.tolist():
            rows_UK[user], scores_UK[user] = self._rank_in_float64(users_UE[user], user, k, exclude_UI, disallowed_I)
        return rows_UK, scores_UK

    def _rank_directly(
        self, users_UE: Floats, k: int, exclude_UI: sp.csr_array | None, disallowed_I: NDArray[np.bool_]
    ) -> tuple[Rows, Floats] | None:
        rows_UK, scores_UK = np.empty((len(users_UE), k), np.int64), np.empty((len(users_UE), k), np.float32)
        excluded_N = np.zeros(0, np.int64)
        for user, user_E in enumerate(users_UE):
            if exclude_UI is not None:
                excluded_N = exclude_UI.indices[exclude_UI.indptr[user] : exclude_UI.indptr[user + 1]]
            best = rank_directly(self.vectors_IE, self._largest_E, user_E, k, (disallowed_I, excluded_N))
            if best is None:
                return None
            rows_UK[user], scores_UK[user] = best
        return rows_UK, scores_UK

    def _each_pass(self) -> Iterator[PruningPass]:
        """One pruning_pass after another, each wider than the one before, made when first wanted."""
        import torch

        from mmrec.ranking.pruning import PruningPass, fast_types

        for dtype in fast_types(self.device):
            if dtype not in self._passes:
                there = next(iter(self._passes.values()), None)
                vectors = torch.from_numpy(self.vectors_IE).to(self.device) if there is None else there.vectors_IE
                self._passes[dtype] = PruningPass(vectors, dtype)
            yield self._passes[dtype]

    def _sort_exactly(self, users_UE: Floats, rows_UC: Rows, k: int) -> tuple[Rows, Floats]:
        """The best k of each user's candidates by float64 score, equal ones by row."""
        vectors_UCE = self.vectors_IE[rows_UC].astype(np.float64)
        scores_UC = np.einsum("ue,uce->uc", users_UE.astype(np.float64), vectors_UCE)
        scores_UC[rows_UC < 0] = -np.inf
        order_UK = np.lexsort((rows_UC, -scores_UC), axis=1)[:, :k]
        return np.take_along_axis(rows_UC, order_UK, 1), np.take_along_axis(scores_UC, order_UK, 1).astype(np.float32)

    def _rank_in_float64(
        self, user_E: Floats, user: int, k: int, exclude_UI: sp.csr_array | None, disallowed_I: NDArray[np.bool_]
    ) -> tuple[Rows, Floats]:
        scores_I = np.concatenate(
            [
                np.einsum(
                    "e,ie->i", user_E.astype(np.float64), self.vectors_IE[at : at + ITEMS_AT_ONCE].astype(np.float64)
                )
                for at in range(0, len(self.vectors_IE), ITEMS_AT_ONCE)
            ]
        )
        scores_I[disallowed_I] = -np.inf
        if exclude_UI is not None:
            scores_I[exclude_UI.indices[exclude_UI.indptr[user] : exclude_UI.indptr[user + 1]]] = -np.inf
        rows_K = np.argsort(-scores_I, kind="stable")[:k]
        scores_K = scores_I[rows_K]
        return np.where(np.isneginf(scores_K), -1, rows_K), scores_K.astype(np.float32)


def _rows(matrix_UI: sp.csr_array | None, rows: slice | NDArray[np.integer], num_rows: int) -> sp.csr_array | None:
    """Some rows of a matrix, distinct and ascending; where they are all, the matrix itself: a copy costs time."""
    return matrix_UI if matrix_UI is None or num_rows == matrix_UI.shape[0] else matrix_UI[rows]


def _is_finite(array: Floats) -> bool:
    return bool(np.isfinite(array.min(initial=0)) and np.isfinite(array.max(initial=0)))


def diversify(rows_UC: Rows, scores_UC: Floats, vectors_ID: Floats, k: int, *, diversity: float) -> tuple[Rows, Floats]:
    """Re-ranks lists by maximal marginal relevance (Carbonell and Goldstein 1998).

    One place after another goes to the item with the best `(1 - diversity) * relevance - diversity * similarity`, where
    relevance is the score scaled to 0..1 within the list and similarity the greatest cosine to an item chosen before.

    Args:
        rows_UC: lists to choose from, longer than k, -1 for none.
        diversity: 0 keeps the order of the scores; 1 looks at similarity alone after the first item.

    Returns:
        Rows and their scores, each `(U, min(k, C))`.

    >>> import numpy as np
    >>> from mmrec.ranking import diversify
    >>> vectors_ID = np.array([[1, 0], [1, 0.1], [0, 1]], np.float32)
    >>> rows_UC, scores_UC = np.array([[0, 1, 2]]), np.array([[0.9, 0.8, 0.5]], np.float32)
    >>> diversify(rows_UC, scores_UC, vectors_ID, k=2, diversity=0.6)
    (array([[0, 2]]), array([[0.9, 0.5]], dtype=float32))
    """
    if not 0 <= diversity <= 1:
        raise RankingError(f"diversity must be between 0 and 1, got {diversity}")
    there_UC = rows_UC >= 0
    unit_ID = vectors_ID / np.maximum(np.linalg.norm(vectors_ID, axis=1, keepdims=True), 1e-12)
    vectors_UCD = unit_ID[rows_UC]
    high_U1 = np.where(there_UC, scores_UC, -np.inf).max(1, keepdims=True, initial=-np.inf)
    low_U1 = np.where(there_UC, scores_UC, np.inf).min(1, keepdims=True, initial=np.inf)
    range_U1 = np.where(high_U1 > low_U1, high_U1 - low_U1, 1.0)
    relevance_UC = np.where(there_UC, (scores_UC - np.where(there_UC, low_U1, 0.0)) / range_U1, -np.inf)
    users = np.arange(len(rows_UC))
    value_UC, nearest_UC = relevance_UC.copy(), np.full(rows_UC.shape, -1.0)
    picks = []
    for _ in range(min(k, rows_UC.shape[1])):
        pick_U = value_UC.argmax(1)
        picks.append(np.where(np.isneginf(value_UC[users, pick_U]), -1, pick_U))
        relevance_UC[users, pick_U] = -np.inf
        cosine_UC = np.einsum("ucd,ud->uc", vectors_UCD, vectors_UCD[users, pick_U])
        nearest_UC = np.maximum(nearest_UC, cosine_UC)
        with np.errstate(invalid="ignore"):
            value_UC = (1 - diversity) * relevance_UC - diversity * nearest_UC
        value_UC[np.isneginf(relevance_UC)] = -np.inf
    picks_UK = np.stack(picks, axis=1)
    rows_UK = np.where(picks_UK >= 0, np.take_along_axis(rows_UC, picks_UK, 1), -1)
    scores_UK = np.where(picks_UK >= 0, np.take_along_axis(scores_UC, picks_UK, 1), np.float32(-np.inf))
    return rows_UK, scores_UK
