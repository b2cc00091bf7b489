"""One pass over all items in a fast type, after which the exact best of most users are known.

1. Items are scored in a fast type, such as bfloat16; of each group of neighbouring items the greatest score is kept.
2. How far such a score may be from the true one is bounded. At least k items truly reach the k-th greatest of the kept
   scores less that bound, so a group whose greatest score, plus the bound, stays below it holds none of the best k.
3. The items of the few groups left are scored in float64.

A user with more groups left than are looked at, as where many items tie, is reported as not settled.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch.nn import functional

from mmrec.ranking import dot_products

LARGEST_GROUP = 16
"""Item vectors come padded to a multiple of it."""

SPARE_GROUPS = 32
SCORES_OF_A_THREAD = 2**15 - 1  # fewer than torch would spread over threads of its own
PRODUCTS_OF_A_THREAD = 2**25  # which take no longer than waking another
SCORES_AT_ONCE = {"cpu": 2**22, "cuda": 2**27}  # what stays in the cache, or what takes longer than its launch
SIFTED_AT_ONCE = {"cpu": 2**27, "cuda": 2**28}  # numbers, in the vectors that are scored again
BLOCK = 2**11
FEW_USERS = 12
ALIGNED = 8  # bfloat16 numbers: matrix units read rows that start at multiples of 16 bytes


class Exclusions:
    """Pairs of a user and an item that may not be listed together: every entry of a matrix, whatever its value."""

    def __init__(self, exclude_UI: sp.csr_array, device: str) -> None:
        self._num_items = exclude_UI.shape[1]
        users_N = np.repeat(np.arange(exclude_UI.shape[0]), np.diff(exclude_UI.indptr))
        items_N = exclude_UI.indices.astype(np.int64)
        order_N = np.argsort(items_N, kind="stable")
        self._sorted_N = items_N[order_N]
        self._items_N = torch.from_numpy(self._sorted_N).to(device)
        self._users_N = torch.from_numpy(users_N[order_N]).to(device)
        self._pairs_N = torch.from_numpy(np.sort(users_N * self._num_items + items_N)).to(device)

    def within(self, items: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """The pairs with these items: items, counted from the first of these, and users."""
        low, high = np.searchsorted(self._sorted_N, [items.start, items.stop])
        return self._items_N[low:high] - items.start, self._users_N[low:high]

    def holds(self, users_P: torch.Tensor, items_P: torch.Tensor) -> torch.Tensor:
        """Which of these pairs `(P,)` are exclusions."""
        if not len(self._pairs_N):
            return torch.zeros_like(users_P, dtype=torch.bool)
        pairs_P = users_P * self._num_items + items_P
        places_P = torch.searchsorted(self._pairs_N, pairs_P).clamp(max=len(self._pairs_N) - 1)
        return torch.eq(self._pairs_N[places_P], pairs_P)


class Best(NamedTuple):
    """The best items of each user, best first, equal scores by ascending row; -1 and -inf where no item is left."""

    rows_UK: torch.Tensor
    scores_UK: torch.Tensor
    """float64"""
    settled_U: torch.Tensor
    """For which users the rest holds; the others' rows mean nothing."""


class PruningPass:
    """Item vectors in one type, and how far a score from them may be from the true one.

    Args:
        vectors_IE: float32, I a multiple of `LARGEST_GROUP`, on the device that scores them.
        dtype: the type of the pass over all items; bfloat16 takes half as much memory again, float32 none.
    """

    def __init__(self, vectors_IE: torch.Tensor, dtype: torch.dtype) -> None:
        self.vectors_IE, self.items_IE, self.dtype = vectors_IE, vectors_IE, dtype
        self.centre_E = torch.zeros_like(vectors_IE[0])
        self.longest = torch.stack([_longest(block) for block in torch.split(vectors_IE, BLOCK)]).amax(0)
        self.longest_item, self.largest_loss = self.longest, torch.zeros_like(self.longest)
        if dtype != torch.float32:
            self._narrow()

    def _narrow(self) -> None:
        # What all items share adds the same to every score of a user, but would cost the narrow type its digits.
        self.centre_E = self.vectors_IE.mean(0)
        num_items, width = self.vectors_IE.shape
        self.items_IE = self.vectors_IE.new_zeros((num_items, -(-width // ALIGNED) * ALIGNED), dtype=self.dtype)
        narrow_IE = self.items_IE[:, :width]
        longest, losses = [], []
        for vectors, items in zip(torch.split(self.vectors_IE, BLOCK), torch.split(narrow_IE, BLOCK), strict=True):
            centred = vectors - self.centre_E
            items.copy_(centred)
            longest.append(_longest(items.float()))
            losses.append(_longest(centred.sub_(items)))
        self.longest_item = torch.stack(longest).amax(0)
        of_centring = 2 * torch.finfo(torch.float32).eps * self.longest_item
        self.largest_loss = torch.stack(losses).amax(0) + of_centring

    def top_k(
        self, users_UE: torch.Tensor, k: int, disallowed_I: NDArray[np.bool_], exclusions: Exclusions | None
    ) -> Best:
        """The best k items of each user, none of them disallowed (the padding must be) nor exclusions from the user."""
        group = group_size(len(self.items_IE), k)
        maxima_UJ = self._group_maxima(users_UE, group, disallowed_I, exclusions)
        groups_US, floor_U, settled_U = self._groups_left(users_UE, maxima_UJ, k)
        disallowed = torch.from_numpy(disallowed_I).to(users_UE.device)
        users_at_once = SIFTED_AT_ONCE[users_UE.device.type] // (groups_US.shape[1] * group * users_UE.shape[1] + 1) + 1
        parts = [
            self._best_of_groups(users_UE, users, k, groups_US[users], group, floor_U[users], disallowed, exclusions)
            for users in torch.split(torch.arange(len(users_UE), device=users_UE.device), users_at_once)
        ]
        return Best(torch.cat([rows for rows, _ in parts]), torch.cat([scores for _, scores in parts]), settled_U)

    def _group_maxima(
        self, users_UE: torch.Tensor, group: int, disallowed_I: NDArray[np.bool_], exclusions: Exclusions | None
    ) -> torch.Tensor:
        """The greatest score of each `group` neighbouring items `(U, I / group)`, in the fast type."""
        num_users, num_items = len(users_UE), len(self.items_IE)
        maxima_UJ = torch.empty((num_users, num_items // group), dtype=self.dtype, device=users_UE.device)
        by_dot_products = self.dtype == torch.bfloat16 and users_UE.device.type == "cpu" and num_users <= FEW_USERS
        users_UE = functional.pad(users_UE, (0, self.items_IE.shape[1] - users_UE.shape[1]))
        users_UE = users_UE if by_dot_products else users_UE.to(self.dtype)

        def fill(items: slice) -> None:
            multiply = dot_products.score_all if by_dot_products else _multiply
            scores_BU = multiply(self.items_IE[items], users_UE)
            if disallowed_I[items].any():
                disallowed_B = torch.from_numpy(disallowed_I[items]).to(users_UE.device)
                scores_BU.masked_fill_(disallowed_B[:, None], -torch.inf)
            if exclusions is not None:
                scores_BU[exclusions.within(items)] = -torch.inf
            maxima_UJ[:, items.start // group : items.stop // group] = scores_BU.view(-1, group, num_users).amax(1).T

        scores_at_once = SCORES_OF_A_THREAD if by_dot_products else SCORES_AT_ONCE[users_UE.device.type]
        step = max(1, scores_at_once // (num_users * group)) * group
        blocks = [slice(start, min(start + step, num_items)) for start in range(0, num_items, step)]
        if by_dot_products and self.items_IE.numel() * num_users > PRODUCTS_OF_A_THREAD:
            dot_products.on_all_cores(fill, blocks)
        else:
            for block in blocks:
                fill(block)
        return maxima_UJ

    def _groups_left(
        self, users_UE: torch.Tensor, maxima_UJ: torch.Tensor, k: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Groups that may hold one of the best k `(U, S)`, ascending, -1 for none; what those reach; who is settled."""
        top = maxima_UJ.topk(min(2 * k + SPARE_GROUPS, maxima_UJ.shape[1]), dim=1)
        maxima_US, error_U1 = top.values.double(), self._error(users_UE)[:, None]
        error_US = error_U1 + _rounding(self.dtype) * maxima_US.abs()
        floor_U1 = (maxima_US - error_US)[:, k - 1 : k]
        left_US = (maxima_US + error_US >= floor_U1) & maxima_US.isfinite()
        settled_U = error_U1[:, 0].isfinite()
        if top.indices.shape[1] < maxima_UJ.shape[1]:
            settled_U &= ~left_US[:, -1]
        left_US &= settled_U[:, None]
        groups_US = torch.where(left_US, top.indices, -1)[:, : int(left_US.sum(1).max())].sort(1).values
        return groups_US, floor_U1[:, 0] + users_UE.double() @ self.centre_E.double(), settled_U

    def _best_of_groups(
        self,
        users_UE: torch.Tensor,
        users_N: torch.Tensor,
        k: int,
        groups_NS: torch.Tensor,
        group: int,
        floor_N: torch.Tensor,
        disallowed_I: torch.Tensor,
        exclusions: Exclusions | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows and float64 scores `(N, k)` of some of the users, from their groups."""
        scores_NSG = score_groups(self.vectors_IE, users_UE[users_N], groups_NS, group)
        rows_NSG = groups_NS[:, :, None] * group + torch.arange(group, device=groups_NS.device)
        users_P, *places_P = (scores_NSG >= floor_N[:, None, None]).nonzero(as_tuple=True)
        rows_P, scores_P = rows_NSG[users_P, *places_P], scores_NSG[users_P, *places_P]
        listed_P = ~disallowed_I[rows_P]
        if exclusions is not None:
            listed_P &= ~exclusions.holds(users_N[users_P], rows_P)
        users_P, rows_P, scores_P = users_P[listed_P], rows_P[listed_P], scores_P[listed_P]
        top = _as_rows(users_P, scores_P, len(users_N), k, -torch.inf).sort(dim=1, descending=True, stable=True)
        rows_NC = _as_rows(users_P, rows_P, len(users_N), k, -1)
        return rows_NC.gather(1, top.indices[:, :k]), top.values[:, :k]

    def _error(self, users_UE: torch.Tensor) -> torch.Tensor:
        """How far a score may be from the true one before it is rounded `(U,)`; infinite where it may overflow."""
        wide_UE, narrow_UE = users_UE.double(), users_UE.to(self.dtype).double()
        length_UV, width = _lengths(wide_UE), users_UE.shape[1]
        error_U = (
            length_UV @ self.largest_loss
            + _lengths(wide_UE - narrow_UE) @ self.longest_item
            + _sum_error(_lengths(narrow_UE) @ self.longest_item, width)
            + 2 * width * torch.finfo(torch.float64).eps * (length_UV @ self.longest)
        )
        overflows_U = 2 * (length_UV @ torch.maximum(self.longest, self.longest_item)) > torch.finfo(torch.float32).max
        return error_U.masked_fill(overflows_U, torch.inf)


def fast_types(device: str) -> tuple[torch.dtype, ...]:
    """The types that items are scored in on a device, from fast to wide.

    >>> from mmrec.ranking import fast_types
    >>> fast_types("cpu")[-1]
    torch.float32
    """
    if torch.device(device).type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return (torch.bfloat16, torch.float32) if native else (torch.float32,)


def group_size(num_items: int, k: int) -> int:
    """The largest power of two, up to `LARGEST_GROUP`, that leaves eight groups and more to each place of a list."""
    group = LARGEST_GROUP
    while group > 1 and num_items < 8 * k * group:
        group //= 2
    return group


# The bias of an item may be far greater than its other features; users all have weight one for it. So lengths are taken
# of either part `V`, and the greatest score of two vectors is that of their parts, by Cauchy and Schwarz, added up.


def _lengths(vectors_NE: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.linalg.vector_norm(vectors_NE[:, :-1], dim=1), vectors_NE[:, -1].abs()], dim=1)


def _longest(vectors_IE: torch.Tensor) -> torch.Tensor:
    """The greatest lengths `(V,)`, in float64, or a little more: what float32 may round or drop is added."""
    return 1.001 * _lengths(vectors_IE).amax(0).double() + 1e-18


def _multiply(items_BE: torch.Tensor, users_UE: torch.Tensor) -> torch.Tensor:
    """Scores `(B, U)` summed in float32; from bfloat16 they may come out rounded to that."""
    if items_BE.device.type == "cpu" and items_BE.dtype == torch.float32:
        return torch.from_numpy(items_BE.numpy() @ users_UE.numpy().T)  # numpy's BLAS is the faster one on many CPUs
    if items_BE.device.type == "cuda" and items_BE.dtype == torch.bfloat16:
        return torch.mm(items_BE, users_UE.T, out_dtype=torch.float32)  # else parts of sums may be rounded, too
    return items_BE @ users_UE.T


def _rounding(dtype: torch.dtype) -> float:
    """The most that rounding to a type moves a number, relative to what it becomes: a little over half a last place."""
    return 0.51 * torch.finfo(dtype).eps


def _sum_error(greatest_U: torch.Tensor, width: int) -> torch.Tensor:
    """What scores no greater than this may lose in float32, summed in any order (Higham 2002, section 3.1), doubled."""
    float32 = torch.finfo(torch.float32)
    relative = 2 * width * float32.eps
    if greatest_U.device.type == "cuda" and torch.backends.cuda.matmul.fp32_precision == "tf32":
        relative += 2**-9  # TensorFloat-32 keeps ten digits of either factor
    return relative * greatest_U + width * float32.tiny


def score_groups(vectors_IE: torch.Tensor, users_UE: torch.Tensor, groups_US: torch.Tensor, size: int) -> torch.Tensor:
    """Float64 scores `(U, S, size)` of the items of each user's own groups of `size` items; -inf for group -1."""
    if vectors_IE.device.type == "cpu":
        return dot_products.score_groups(vectors_IE, users_UE, groups_US, size)
    return _score_copies(vectors_IE, users_UE, groups_US, size)


def _score_copies(vectors_IE: torch.Tensor, users_UE: torch.Tensor, groups_US: torch.Tensor, size: int) -> torch.Tensor:
    num_users, width = users_UE.shape
    vectors_USX = vectors_IE.view(-1, size * width)[groups_US.clamp(min=0)].double()
    scores_UC1 = vectors_USX.view(num_users, -1, width) @ users_UE.double()[:, :, None]
    return scores_UC1.view(*groups_US.shape, size).masked_fill((groups_US < 0)[:, :, None], -torch.inf)


def _as_rows(users_P: torch.Tensor, values_P: torch.Tensor, num_users: int, least: int, empty: float) -> torch.Tensor:
    """Values listed by ascending user as one row a user, of the length of the longest or `least`, the rest `empty`."""
    counts_U = users_P.bincount(minlength=num_users)
    places_P = torch.arange(len(users_P), device=users_P.device) - (counts_U.cumsum(0) - counts_U)[users_P]
    shape = (num_users, max(least, int(counts_U.max())))
    rows_UC = torch.full(shape, empty, dtype=values_P.dtype, device=values_P.device)
    rows_UC[users_P, places_P] = values_P
    return rows_UC
