"""The tokens of a catalog as tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fusion.projections import FusionError


@dataclass(frozen=True)
class TokenTable:
    """The tokens of I items: modality -> `(I, T, width)`, masks `(I, T)`, and times `(I, T)` in seconds where known.

    Items without any token are allowed here; their content is a zero vector.
    """

    tokens: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    times: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {len(x) for x in (*self.tokens.values(), *self.masks.values(), *self.times.values())}
        if len(lengths) != 1 or set(self.tokens) != set(self.masks):
            raise FusionError(f"tokens, masks and times do not describe the same items: lengths {sorted(lengths)}")

    def __len__(self) -> int:
        return len(next(iter(self.tokens.values())))

    def __deepcopy__(self, memo: object) -> TokenTable:
        return self  # never written to: copies of a model share it

    @property
    def there_I(self) -> Tensor:
        """Whether an item has any token `(I,)`."""
        return torch.stack([mask_IT.any(1) for mask_IT in self.masks.values()]).any(0)

    def select(self, rows: Tensor) -> TokenTable:
        """The items of these rows."""
        return TokenTable(*({m: x[rows] for m, x in part.items()} for part in (self.tokens, self.masks, self.times)))

    def to(self, device: torch.device) -> TokenTable:
        return TokenTable(
            *({m: x.to(device) for m, x in part.items()} for part in (self.tokens, self.masks, self.times))
        )

    def means(self) -> dict[str, Tensor]:
        """Each item's mean token by modality `(I, width)`; NaN where it has none."""
        means = {}
        for modality, tokens_ITW in self.tokens.items():
            mask_IT1 = self.masks[modality].unsqueeze(-1)
            means[modality] = tokens_ITW.masked_fill(~mask_IT1, 0.0).sum(1) / mask_IT1.sum(1)
        return means
