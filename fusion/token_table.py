"""The tokens of a catalog: padded tensors of some items, and all items in a file or in memory, without padding."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusion.projections import FusionError

VALUES_AT_ONCE = 2**24


@dataclass(frozen=True)
class TokenTable:
    """The tokens of I items: modality -> `(I, T, width)`, masks `(I, T)`, and times `(I, T)` in seconds where known.

    Items without any token are allowed here; their content is a zero vector. The tokens of the modalities in `standard`
    are standardised, as a fusion would do it first.
    """

    tokens: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    times: Mapping[str, Tensor] = field(default_factory=dict)
    standard: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        lengths = {len(x) for x in (*self.tokens.values(), *self.masks.values(), *self.times.values())}
        if len(lengths) != 1 or set(self.tokens) != set(self.masks):
            raise FusionError(f"tokens, masks and times do not describe the same items: lengths {sorted(lengths)}")

    def __len__(self) -> int:
        return len(next(iter(self.tokens.values())))

    def __deepcopy__(self, memo: object) -> TokenTable:
        return self  # never written to: copies of a model share it

    @property
    def widths(self) -> dict[str, int]:
        """The width of the tokens of each modality."""
        return {modality: tokens_ITW.shape[2] for modality, tokens_ITW in self.tokens.items()}

    @property
    def there_I(self) -> Tensor:
        """Whether an item has any token `(I,)`."""
        return torch.stack([mask_IT.any(1) for mask_IT in self.masks.values()]).any(0)

    @property
    def num_modalities_I(self) -> Tensor:
        """How many modalities an item has `(I,)`."""
        return torch.stack([mask_IT.any(1) for mask_IT in self.masks.values()]).sum(0)

    @property
    def num_values(self) -> int:
        """How many numbers the tokens are."""
        return sum(tokens_ITW.numel() for tokens_ITW in self.tokens.values())

    def select(self, rows: Tensor) -> TokenTable:
        """The items of these rows."""
        return self._map(lambda x: x[rows])

    def to(self, device: torch.device) -> TokenTable:
        return self._map(lambda x: x.to(device))

    def _map(self, function: Callable[[Tensor], Tensor]) -> TokenTable:
        tokens, masks, times = (
            {m: function(x) for m, x in part.items()} for part in (self.tokens, self.masks, self.times)
        )
        return TokenTable(tokens, masks, times, self.standard)

    def arrays(self) -> Iterator[NDArray[Any]]:
        """All that tells these tokens from others."""
        for part in (self.tokens, self.masks, self.times):
            for modality in sorted(part):
                yield np.frombuffer(modality.encode(), np.uint8)
                yield part[modality].numpy()


class Tokens(Protocol):
    """The tokens of a catalog, of which a step looks at some: a `TokenTable`, or `RaggedTokens`."""

    @property
    def widths(self) -> dict[str, int]: ...
    @property
    def there_I(self) -> Tensor: ...
    @property
    def num_modalities_I(self) -> Tensor: ...
    @property
    def num_values(self) -> int: ...
    def __len__(self) -> int: ...
    def select(self, rows: Tensor) -> TokenTable: ...
    def arrays(self) -> Iterator[NDArray[Any]]: ...


@dataclass(frozen=True)
class RaggedPart:
    """The tokens of one modality, without padding: item i has `counts_I[i]`, from `starts_I[i]` on.

    `values` holds them: an array `(N, width)` of float32, or a file of one, which is read where it is needed.
    `seconds_N` are their times.
    """

    width: int
    starts_I: NDArray[np.int64]
    counts_I: NDArray[np.int64]
    seconds_N: NDArray[np.float32]
    values: NDArray[np.float32] | BinaryIO

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy in another process of this machine opens the file anew: it has no name, but this process has it."""
        parts = (self.width, self.starts_I, self.counts_I, self.seconds_N)
        if isinstance(self.values, np.ndarray):
            return RaggedPart, (*parts, self.values)
        return _reopened, (*parts, f"/proc/{os.getpid()}/fd/{self.values.fileno()}")

    def read(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        """The tokens `(B, T, width)`, mask and times `(B, T)` of these items, padded to the longest of them."""
        starts_B, counts_B = self.starts_I[rows], self.counts_I[rows]
        mask_BT = np.arange(max(1, int(counts_B.max(initial=0)))) < counts_B[:, None]
        first_N = np.repeat(starts_B - (np.cumsum(counts_B) - counts_B), counts_B)
        place_N = first_N + np.arange(len(first_N))
        tokens_BTW = np.zeros((*mask_BT.shape, self.width), np.float32)
        seconds_BT = np.zeros(mask_BT.shape, np.float32)
        if isinstance(self.values, np.ndarray):
            tokens_BTW[mask_BT] = self.values[place_N]
        else:
            tokens_BTW[mask_BT] = self._from_file(self.values, starts_B, counts_B)
        seconds_BT[mask_BT] = self.seconds_N[place_N]
        return torch.from_numpy(tokens_BTW), torch.from_numpy(mask_BT), torch.from_numpy(seconds_BT)

    def _from_file(
        self, file: BinaryIO, starts_B: NDArray[np.int64], counts_B: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        values_NW = np.empty((int(counts_B.sum()), self.width), np.float32)
        buffer, at, size = values_NW.reshape(-1).view(np.uint8).data, 0, 4 * self.width
        for start, count in zip(starts_B.tolist(), counts_B.tolist(), strict=True):
            end = at + count * size
            if os.preadv(file.fileno(), [buffer[at:end]], start * size) != end - at:
                raise FusionError("the file of the tokens was cut short while it was read")
            at = end
        return values_NW


def _reopened(
    width: int, starts_I: NDArray[np.int64], counts_I: NDArray[np.int64], seconds_N: NDArray[np.float32], path: str
) -> RaggedPart:
    return RaggedPart(width, starts_I, counts_I, seconds_N, open(path, "rb"))


@dataclass(frozen=True)
class RaggedTokens:
    """The tokens of a catalog by modality, without padding, in memory or in files; `standard` as of a `TokenTable`."""

    parts: Mapping[str, RaggedPart]
    standard: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(next(iter(self.parts.values())).counts_I)

    def __deepcopy__(self, memo: object) -> RaggedTokens:
        return self

    @property
    def widths(self) -> dict[str, int]:
        """The width of the tokens of each modality."""
        return {modality: part.width for modality, part in self.parts.items()}

    @property
    def there_I(self) -> Tensor:
        """Whether an item has any token `(I,)`."""
        return self.num_modalities_I > 0

    @property
    def num_modalities_I(self) -> Tensor:
        """How many modalities an item has `(I,)`."""
        return torch.from_numpy(np.stack([part.counts_I > 0 for part in self.parts.values()]).sum(0))

    @property
    def num_values(self) -> int:
        """How many numbers the tokens are."""
        return sum(part.width * int(part.counts_I.sum()) for part in self.parts.values())

    def select(self, rows: Tensor) -> TokenTable:
        """The items of these rows, padded."""
        tokens, masks, times = {}, {}, {}
        for modality, part in self.parts.items():
            tokens[modality], masks[modality], times[modality] = part.read(rows.cpu().numpy())
        return TokenTable(tokens, masks, times, self.standard)

    def arrays(self) -> Iterator[NDArray[Any]]:
        """All that tells these tokens from others: of files, how many tokens each item has, and when they are."""
        for modality in sorted(self.parts):
            part = self.parts[modality]
            yield np.frombuffer(modality.encode(), np.uint8)
            yield from (part.starts_I, part.counts_I, part.seconds_N)
            if isinstance(part.values, np.ndarray):
                yield part.values


def row_blocks(tokens: Tokens, num_rows: int) -> Iterator[Tensor]:
    """The numbers up to `num_rows`, in blocks of items with about `VALUES_AT_ONCE` numbers in their tokens."""
    rows_at_once = max(1, VALUES_AT_ONCE * len(tokens) // max(1, tokens.num_values))
    yield from torch.split(torch.arange(num_rows), min(rows_at_once, 16_384))
