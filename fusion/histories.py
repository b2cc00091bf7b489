"""Users' interactions as sequences, and the pieces of them that training learns from.

>>> histories = Histories.of(
...     users_N=np.array([1, 0, 1]), items_N=np.array([7, 7, 3]), num_users=2, days_N=np.array([2.0, 0.0, 1.0])
... )
>>> histories.items_N, histories.offsets_U
(array([7, 3, 7]), array([0, 1, 3]))
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from fusion.config import TrainingError
from fusion.sharing import ALONE, Share

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Histories:
    """N interactions of U users, user after user; those of user u are `offsets_U[u]` to `offsets_U[u + 1]`.

    `weights_N` are 1 for an ordinary interaction; 0 leaves one out of the user's vector, and a negative one speaks
    against what it names. `days_N` are days on any clock, ascending within a user; None where times are not known.
    With `ordered`, the interactions of a user stand in the order in which they happened; else in none.
    """

    offsets_U: Rows
    items_N: Rows
    weights_N: Floats
    days_N: NDArray[np.float64] | None
    ordered: bool

    @classmethod
    def of(
        cls,
        users_N: NDArray[np.integer],
        items_N: NDArray[np.integer],
        num_users: int,
        *,
        weights_N: Floats | None = None,
        days_N: NDArray[np.float64] | None = None,
        ordered: bool = True,
    ) -> Histories:
        """From interactions in any order of users; of one user, by time, and equal or unknown times by place."""
        keys = (users_N,) if days_N is None or not ordered else (days_N, users_N)
        order_N = np.lexsort(keys)
        counts_U = np.bincount(users_N, minlength=num_users)
        weights_N = np.ones(len(users_N), np.float32) if weights_N is None else weights_N
        return cls(
            np.concatenate([[0], np.cumsum(counts_U)]).astype(np.int64),
            items_N[order_N].astype(np.int64),
            weights_N[order_N].astype(np.float32),
            None if days_N is None else days_N[order_N],
            ordered,
        )

    def __len__(self) -> int:
        return len(self.offsets_U) - 1

    @property
    def lengths_U(self) -> Rows:
        return np.diff(self.offsets_U)

    @property
    def users_N(self) -> Rows:
        """The row of each interaction's user."""
        return np.repeat(np.arange(len(self)), self.lengths_U)

    @property
    def log_gaps_N(self) -> Floats:
        """log(1 + days since the user's interaction before); 0 for a first one and where times are not known."""
        if self.days_N is None or not self.ordered:
            return np.zeros(len(self.items_N), np.float32)
        gaps_N = np.diff(self.days_N, prepend=0.0)
        gaps_N[self.offsets_U[:-1][self.lengths_U > 0]] = 0.0
        return np.log1p(np.maximum(gaps_N, 0.0)).astype(np.float32)

    def select(self, users: NDArray[np.integer]) -> Histories:
        """The histories of these users, in this order."""
        lengths = self.lengths_U[users]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        source_N = np.arange(offsets[-1]) + np.repeat(self.offsets_U[users] - offsets[:-1], lengths)
        days_N = None if self.days_N is None else self.days_N[source_N]
        return Histories(offsets, self.items_N[source_N], self.weights_N[source_N], days_N, self.ordered)

    def arrays(self) -> Iterator[NDArray[Any]]:
        """All that tells these histories from others."""
        yield from (self.offsets_U, self.items_N, self.weights_N)
        if self.days_N is not None:
            yield self.days_N
        yield np.array([self.ordered])


@dataclass(frozen=True)
class ChunkBatch:
    """B pieces of histories, padded to T places.

    `items_BT`, `weights_BT` (0 for padding) and `log_gaps_BT`: as in `Histories`. `there_BT`: not padding.
    `targets_BT`: places that the others of the piece predict. `importance_BT`: the weight of each target in the loss.
    `ordered`: a place is predicted from those before it, else from all others.
    """

    items_BT: Tensor
    weights_BT: Tensor
    log_gaps_BT: Tensor
    there_BT: Tensor
    targets_BT: Tensor
    importance_BT: Tensor
    ordered: bool

    def to(self, device: torch.device) -> ChunkBatch:
        tensors: dict[str, Any] = {name: x.to(device) for name, x in vars(self).items() if isinstance(x, Tensor)}
        return replace(self, **tensors)


class Chunks(Dataset[ChunkBatch]):
    """Histories cut into pieces of at most `size` targets; an index is a batch of pieces.

    No user is left out for being active. An ordered piece starts with up to `size` places that are context alone.
    Where there is no order, a history longer than `size` is cut at random, by `seed`. Interactions with a weight of 0
    or below are no targets; neither is the only interaction of a user without order: there is nothing to go by.

    Args:
        user_weight: how much the targets of a user with n interactions count together: `n ** user_weight`, so that 1
            counts interactions and 0 counts users, alike.
    """

    def __init__(self, histories: Histories, *, size: int, user_weight: float, seed: int) -> None:
        self.ordered = histories.ordered
        self._items_N, self._weights_N = histories.items_N, histories.weights_N
        self._log_gaps_N = histories.log_gaps_N
        if not self.ordered:
            order_N = np.lexsort((np.random.default_rng(seed).random(len(self._items_N)), histories.users_N))
            self._items_N, self._weights_N = self._items_N[order_N], self._weights_N[order_N]
        lengths_U = histories.lengths_U
        pieces_U = -(-lengths_U // size)
        if not self.ordered:
            pieces_U = np.minimum(pieces_U, np.maximum(1, lengths_U // 2))  # a piece of one could predict nothing
        users_C = np.repeat(np.arange(len(histories)), pieces_U)
        place_C = np.arange(len(users_C)) - np.repeat(np.cumsum(pieces_U) - pieces_U, pieces_U)
        begins_C, ends_C = histories.offsets_U[users_C], histories.offsets_U[users_C + 1]
        if self.ordered:
            self._targets_C = begins_C + place_C * size
            self._starts_C = np.maximum(begins_C, self._targets_C - size)
            self._ends_C = np.minimum(ends_C, self._targets_C + size)
        else:  # pieces of even length
            length_C, pieces_C = lengths_U[users_C], pieces_U[users_C]
            self._starts_C = self._targets_C = begins_C + place_C * length_C // pieces_C
            self._ends_C = begins_C + (place_C + 1) * length_C // pieces_C
        positive_N = np.concatenate([[0], np.cumsum(self._weights_N > 0)])
        self.num_targets_C = positive_N[self._ends_C] - positive_N[self._targets_C]
        enough_C = self.num_targets_C > 0
        if not self.ordered:
            enough_C &= self._ends_C - self._starts_C > 1
        if not enough_C.any():
            raise TrainingError(
                "no user has two interactions: there is nothing to learn from"
                if not self.ordered
                else "no interaction has a positive weight: there is nothing to learn from"
            )
        importance_U = np.maximum(lengths_U, 1).astype(np.float64) ** (user_weight - 1.0)
        for name in ("_starts_C", "_targets_C", "_ends_C", "num_targets_C"):
            setattr(self, name, getattr(self, name)[enough_C])
        importance_C = importance_U[users_C[enough_C]]
        self._importance_C = (importance_C / np.average(importance_C, weights=self.num_targets_C)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.num_targets_C)

    def __deepcopy__(self, memo: object) -> Chunks:
        return self

    @property
    def num_targets(self) -> int:
        return int(self.num_targets_C.sum())

    def __getitem__(self, pieces: NDArray[np.integer]) -> ChunkBatch:
        starts_B, ends_B, targets_B = self._starts_C[pieces], self._ends_C[pieces], self._targets_C[pieces]
        place_BT = starts_B[:, None] + np.arange((ends_B - starts_B).max())
        there_BT = place_BT < ends_B[:, None]
        place_BT = np.minimum(place_BT, len(self._items_N) - 1)
        weights_BT = self._weights_N[place_BT] * there_BT
        targets_BT = there_BT & (place_BT >= targets_B[:, None]) & (weights_BT > 0)
        return ChunkBatch(
            items_BT=torch.from_numpy(self._items_N[place_BT] * there_BT),
            weights_BT=torch.from_numpy(weights_BT),
            log_gaps_BT=torch.from_numpy(self._log_gaps_N[place_BT] * there_BT),
            there_BT=torch.from_numpy(there_BT),
            targets_BT=torch.from_numpy(targets_BT),
            importance_BT=torch.from_numpy(self._importance_C[pieces])[:, None].expand(place_BT.shape),
            ordered=self.ordered,
        )


class ChunkBatches(Sampler[NDArray[np.integer]]):
    """Shuffled batches of pieces with about `num_targets` targets each, the same for the same seed.

    Every epoch has equally many, as Lightning counts them once. Where processes share a fit, `num_targets` are those of
    a step of all; each gets other batches, smaller by their number. Raises `TrainingError` for too many processes.
    """

    def __init__(self, chunks: Chunks, num_targets: int, seed: int, share: Share = ALONE) -> None:
        self._targets_C, self._seed, self._epoch, self._share = chunks.num_targets_C, seed, 0, share
        self._steps = min(max(1, round(chunks.num_targets / num_targets)), len(chunks) // share.count)
        if not self._steps:
            raise TrainingError(f"{share.count} processes are too many to share {len(chunks)} pieces of histories")
        self._count = self._steps * share.count

    def __len__(self) -> int:
        return self._steps

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of each epoch, also after a resume."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[NDArray[np.integer]]:
        # A generator: where a fit goes on, Lightning asks for an iterator first and then sets the epoch.
        random = np.random.default_rng((self._seed, self._epoch))
        order = random.permutation(len(self._targets_C))
        total = np.cumsum(self._targets_C[order])
        number = np.arange(1, self._count)
        cuts = np.searchsorted(total, total[-1] * number / self._count)
        cuts = number + np.maximum.accumulate(np.maximum(cuts - number, 0))  # no batch is empty
        batches = np.split(order, np.minimum(cuts, len(order) - self._count + number))
        for place in random.permutation(len(batches))[self._share.rank :: self._share.count]:
            yield batches[place]
