"""The part that one process has in a fit, and what processes tell each other while they share one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Share:
    """The part that one of `count` processes has in a fit; `rank` is its number, 0 the one that was asked for it."""

    rank: int = 0
    count: int = 1

    def of_loss(self, loss: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Of the mean loss of a process's batch, what it adds to the mean of all; and that mean.

        Batches count by their weights: averaged over the processes, the gradients are those of the mean of all.
        """
        if self.count == 1:
            return loss, loss.detach()
        totals = torch.stack([weight, weight * loss.detach()])
        dist.all_reduce(totals)
        return loss * (self.count * weight / totals[0]), totals[1] / totals[0]

    def union(self, rows: Tensor) -> Tensor:
        """The rows that any of the processes has, each once, ascending; so are those given."""
        if self.count == 1:
            return rows
        size = torch.tensor([len(rows)], device=rows.device)
        sizes = [torch.empty_like(size) for _ in range(self.count)]
        dist.all_gather(sizes, size)
        padded = rows.new_zeros(int(max(sizes)))
        padded[: len(rows)] = rows
        found = [torch.empty_like(padded) for _ in range(self.count)]
        dist.all_gather(found, padded)
        every: Tensor = torch.unique(torch.cat([own[: int(size)] for own, size in zip(found, sizes, strict=True)]))
        return every


ALONE = Share()
