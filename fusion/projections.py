"""From an encoder's tokens, and their times, to vectors of the common width."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusion.dropout import dropout
from fusion.whitening import is_collapsed, standardising, whitening

# Small, so that training grows useful features instead of carrying random ones along; large gains ruin ranking.
INITIAL_GAIN = 0.1


class FusionError(ValueError):
    """Tokens, masks or options that cannot be fused; the message says what was expected and what came."""


class TokenProjection(nn.Module):
    """Tokens of one modality `(..., width)`, standardised, to the common width `(..., dim)`.

    The statistics are measured by `calibrate` and saved and loaded with the weights; until then they change nothing.
    Features whose variance has collapsed into few directions are whitened, so that all directions can be learned from.
    """

    centre_W: Tensor
    matrix_WW: Tensor
    is_diagonal: Tensor

    def __init__(self, width: int, dim: int, input_dropout: float) -> None:
        super().__init__()
        self.input_dropout = input_dropout
        self.linear = nn.Linear(width, dim)
        nn.init.normal_(self.linear.weight, std=INITIAL_GAIN / math.sqrt(width))
        nn.init.zeros_(self.linear.bias)
        self.register_buffer("centre_W", torch.zeros(width))
        self.register_buffer("matrix_WW", torch.eye(width))
        self.register_buffer("is_diagonal", torch.tensor(True))

    @torch.no_grad()
    def calibrate(self, tokens_NW: Tensor) -> None:
        """Takes the statistics of these tokens."""
        if not tokens_NW.isfinite().all():
            raise FusionError("there are tokens with values that are not finite")
        collapsed = is_collapsed(tokens_NW)
        centre_W, matrix_WW = (whitening if collapsed else standardising)(tokens_NW)
        self.centre_W.copy_(centre_W)
        self.matrix_WW.copy_(matrix_WW)
        self.is_diagonal.fill_(not collapsed)

    def forward(self, tokens: Tensor, *, are_standard: bool = False) -> Tensor:
        """The vectors of tokens, which may be standardised already."""
        if not (self.training or are_standard):  # both maps as one, which is as narrow as its result
            return F.linear(self._centred(tokens), self.linear.weight @ self.matrix_WW.T, self.linear.bias)
        standardised = tokens if are_standard else self.standardise(tokens)
        projected: Tensor = self.linear(dropout(standardised, self.input_dropout) if self.training else standardised)
        return projected

    def standardise(self, tokens: Tensor) -> Tensor:
        """Tokens on one footing, as wide as they are."""
        centred = self._centred(tokens)
        return centred * self.matrix_WW.diagonal() if self.is_diagonal else centred @ self.matrix_WW

    def _centred(self, tokens: Tensor) -> Tensor:
        return tokens.to(self.centre_W.dtype) - self.centre_W


class TimeEmbedding(nn.Module):
    """Times in seconds `(...)` to vectors `(..., dim)`, with periods from one second to about three hours.

    A learned gate per feature starts at zero: time counts only as far as training finds it useful.
    """

    def __init__(self, dim: int, longest_seconds: float = 10_000.0) -> None:
        super().__init__()
        self.rates = 2 * math.pi * torch.logspace(0, -math.log10(longest_seconds), (dim + 1) // 2)
        self.gate_D = nn.Parameter(torch.zeros(dim))

    def forward(self, seconds: Tensor) -> Tensor:
        angles = seconds.to(self.gate_D.dtype).unsqueeze(-1) * self.rates.to(self.gate_D)
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1)[..., : len(self.gate_D)]
        return waves * self.gate_D
