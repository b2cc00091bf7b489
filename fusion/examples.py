"""Training examples: target items, each with the history that predicts it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from fusion.config import Targets, TrainingError


class Examples(Dataset[tuple[Tensor, Tensor, Tensor, Tensor]]):
    """Interactions as targets, each with a history of at least one other of the same user.

    An index is a batch: the user's items `(B, H)`, the weights of those that are the history `(B, H)`, a mask of those
    that are neither padding nor the target `(B, H)`, and targets `(B,)`. H is the longest history of all.

    Args:
        train_UI: positive weights of who interacted with what.
        order_N: for each entry of `train_UI.data`, a number that ascends with time; None where it is not known.
        targets: "next_item": all but a user's first, predicted from those before; "last_item": the last alone; "all":
            each, predicted from all the others. Without `order_N` it is "all".
        max_history: users with more interactions are left out.
    """

    def __init__(
        self, train_UI: sp.csr_array, order_N: NDArray[np.integer] | None, targets: Targets, max_history: int
    ) -> None:
        degrees_U = np.diff(train_UI.indptr)
        users = np.flatnonzero((degrees_U > 1) & (degrees_U <= max_history))
        if not len(users):
            raise TrainingError(f"no user has between 2 and {max_history} interactions: there is nothing to learn from")
        degrees, longest = degrees_U[users], int(degrees_U[users].max())
        users_N = np.repeat(np.arange(len(users)), degrees)
        positions_N = np.arange(len(users_N)) - np.repeat(np.cumsum(degrees) - degrees, degrees)
        source_N = np.repeat(train_UI.indptr[users], degrees) + positions_N
        if order_N is not None:
            source_N = source_N[np.lexsort((order_N[source_N], users_N))]
        shape = (len(users), longest)
        items_UH, weights_UH = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
        items_UH[users_N, positions_N] = train_UI.indices[source_N]
        weights_UH[users_N, positions_N] = train_UI.data[source_N]
        self._items_UH, self._weights_UH = torch.from_numpy(items_UH), torch.from_numpy(weights_UH)
        self._in_order = order_N is not None and targets != "all"
        chosen_N = np.ones(len(users_N), np.bool_)
        if self._in_order:
            chosen_N = positions_N == degrees[users_N] - 1 if targets == "last_item" else positions_N > 0
        self._users_N, self._positions_N = users_N[chosen_N], torch.from_numpy(positions_N[chosen_N])
        self.items_N: NDArray[np.int64] = items_UH[users_N, positions_N][chosen_N]

    def __len__(self) -> int:
        return len(self.items_N)

    def __deepcopy__(self, memo: object) -> Examples:
        return self

    def data(self) -> Iterator[NDArray[Any]]:
        """All that tells these examples from others."""
        yield from (self._items_UH.numpy(), self._weights_UH.numpy(), self._users_N, self._positions_N.numpy())

    def __getitem__(self, rows: NDArray[np.integer]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        users, target_B1 = self._users_N[rows], self._positions_N[rows].unsqueeze(1)
        weights_BH = self._weights_UH[users]
        place_H = torch.arange(weights_BH.shape[1])
        others_BH = (weights_BH > 0) & (place_H != target_B1)
        history_BH = others_BH & (place_H < target_B1) if self._in_order else others_BH
        return self._items_UH[users], weights_BH * history_BH, others_BH, torch.from_numpy(self.items_N[rows])


class Rows(Dataset[Tensor]):
    """Item rows; an index is a batch."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: NDArray[np.integer]) -> Tensor:
        return self.rows[torch.from_numpy(index)]


class Batches(Sampler[NDArray[np.integer]]):
    """Shuffled batches of indices, another order in every epoch, the same in every run with the same seed."""

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        self.size, self.batch_size, self.seed, self.epoch = size, batch_size, seed, 0

    def __len__(self) -> int:
        return -(-self.size // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of each epoch, also after a resume."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[NDArray[np.integer]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.size)
        return iter(np.array_split(order, len(self)))
