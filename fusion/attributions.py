"""What item and user vectors are made of: parts whose sum they are, so that parts of a score are dot products of them.

A user vector is linear in the item vectors of the history, and an item vector in the item's id: those parts are exact
by themselves. What the tokens make of an item is not linear; its parts are Shapley values, of vectors here, which sum
to what all modalities make together (Shapley 1953; Lundberg and Lee 2017). Of a modality's tokens each is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import factorial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fusion.base import Fusion
from fusion.item_tower import ItemTower, content_vectors
from fusion.token_table import TokenTable
from fusion.tower import Towers
from fusion.user_tower import LEAST_WEIGHT, UserTower

VALUES_AT_ONCE = 2**22

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class ItemParts:
    """The parts of one item's vector; `id_D`, which holds its factors too, and the sum of `modalities` are the vector.

    `modalities` maps each modality that the item has to its Shapley value `(D,)`; `without` to the vector of the item
    without that modality. `tokens` maps it to `(T, D)`: what the vector loses where one token is left out and the
    neighbours by content stay.
    """

    id_D: Doubles
    modalities: dict[str, Doubles]
    without: dict[str, Doubles]
    tokens: dict[str, Doubles]

    @property
    def vector_D(self) -> Doubles:
        return sum(self.modalities.values(), self.id_D)


@torch.no_grad()
def item_parts(towers: Towers, table: TokenTable, row: int) -> ItemParts:
    """The parts of the vector of the one item of a table; `row` is its row in the towers, -1 for one that joined later.

    An item without a modality has no neighbours by it either: that is what a modality brings with it.
    """
    present = [modality for modality, mask_1T in table.masks.items() if mask_1T.any()]
    subsets_SM = np.array([*product([False, True], repeat=len(present))], np.bool_)
    subsets = _Subsets(present, torch.from_numpy(subsets_SM))
    content_SD = content_vectors(towers.fusion, subsets.of(table))
    id_SD = torch.zeros_like(content_SD)
    if towers.items is None:
        content_SD = F.normalize(content_SD, dim=-1)
        token_scale = None
    else:
        rows_1N, shares_1N = _neighbours(towers.items, table, row)
        shares_SN = subsets.shares(towers.items, shares_1N)
        id_SD = (1 - towers.items.smoothing * shares_SN.sum(1, keepdim=True)) * _id(towers.items, row)
        if towers.items.smoothing:
            content_SD = towers.items.smoothed(content_SD, rows_1N.expand(len(shares_SN), -1), shares_SN)
        token_scale = 1 - towers.items.smoothing * float(shares_SN[-1].sum())
        factors_SL = _factors(towers.items, row).expand(len(id_SD), -1)
        id_SD = torch.cat([id_SD, factors_SL], dim=1)
        content_SD = F.pad(content_SD, (0, factors_SL.shape[1]))
    num_factors = towers.width - towers.fusion.dim
    values_SD, ids_SD = content_SD.double().numpy(), id_SD.double().numpy()
    totals = _shapley(values_SD, subsets_SM)
    without = {m: int(np.flatnonzero(~subsets_SM[:, k] & (subsets_SM.sum(1) == len(present) - 1))[0])
               for k, m in enumerate(present)}  # fmt: skip
    return ItemParts(
        id_D=ids_SD[-1],
        modalities=dict(zip(present, totals, strict=True)),
        without={m: values_SD[place] + ids_SD[place] for m, place in without.items()},
        tokens={
            modality: np.pad(losses_TD, ((0, 0), (0, num_factors)))
            for modality, losses_TD in _token_losses(towers.fusion, table, present, token_scale).items()
        },
    )


def id_part(towers: Towers, row: int) -> Doubles:
    """What of an item's vector is its own id and factors `(D,)`; zero for one that joined later (row -1)."""
    if towers.items is None or row < 0:
        return np.zeros(towers.width)
    share = towers.items.smoothing * towers.items.shares_IN[row].sum()
    with torch.no_grad():
        part_D = torch.cat([(1 - share) * _id(towers.items, row), _factors(towers.items, row)])
    vector_D: Doubles = part_D.double().numpy()
    return vector_D


@torch.no_grad()
def in_user_vector(tower: UserTower, sums: Doubles, totals_K: NDArray[np.float32]) -> Doubles:
    """What parts `(..., K, D)` of a user's running sums are in the user vector `(..., D)`, exactly.

    Args:
        totals_K: the weights of all that the sums hold.
    """
    scaled = sums / np.maximum(totals_K, LEAST_WEIGHT).astype(np.float64)[:, None] ** tower.power
    parts: Doubles = np.tensordot(scaled, tower.mix_KDE.double().numpy(), 2)
    return parts


@torch.no_grad()
def nearest_tokens(fusion: Fusion, modality: str, tokens_TW: Tensor, others_SW: Tensor) -> tuple[int, int, float]:
    """The two most alike tokens of two items, and their cosine, as seen from the mean token of the modality."""
    centre_W: Tensor = fusion.projections[modality].centre_W  # type: ignore[assignment]
    own_TW, theirs_SW = (F.normalize(x - centre_W, dim=-1) for x in (tokens_TW, others_SW))
    cosines_TS = own_TW @ theirs_SW.T
    token, other = divmod(int(cosines_TS.argmax()), cosines_TS.shape[1])
    return token, other, float(cosines_TS[token, other])


@dataclass(frozen=True)
class _Subsets:
    """S sets of an item's modalities, the last of them all it has."""

    modalities: list[str]
    there_SM: Tensor

    def of(self, table: TokenTable) -> TokenTable:
        """The item of a table as if it had no other modalities than those of each set."""
        copies = table.select(torch.zeros(len(self.there_SM), dtype=torch.long))
        masks = {m: copies.masks[m] & self._column(m) for m in copies.masks}
        return TokenTable(copies.tokens, masks, copies.times)

    def shares(self, items: ItemTower, shares_1N: Tensor) -> Tensor:
        """The shares `(S, N)` of its neighbours, of which each modality finds its own."""
        if items.neighbours is None:
            return shares_1N.expand(len(self.there_SM), -1)
        places = items.neighbours.num_places
        found_SN = torch.cat([self._column(m).expand(-1, places) for m in items.neighbours.modalities], dim=1)
        kept_SN = shares_1N * found_SN
        return kept_SN / kept_SN.sum(1, keepdim=True).clamp(min=1e-9)

    def _column(self, modality: str) -> Tensor:
        if modality not in self.modalities:
            return torch.zeros(len(self.there_SM), 1, dtype=torch.bool)
        return self.there_SM[:, [self.modalities.index(modality)]]


def _neighbours(items: ItemTower, table: TokenTable, row: int) -> tuple[Tensor, Tensor]:
    if row >= 0 or items.neighbours is None:
        return items.neighbours_IN[[row]], items.shares_IN[[row]]
    return items.neighbours.rows_of(table)


def _id(items: ItemTower, row: int) -> Tensor:
    if not items.use_ids or row < 0 or not items.trained_I[row]:
        return torch.zeros(items.fusion.dim)
    return items.ids.weight[row]


def _factors(items: ItemTower, row: int) -> Tensor:
    return items.factors_IL.new_zeros(items.factors_IL.shape[1]) if row < 0 else items.factors_IL[row]


def _shapley(values_SD: Doubles, subsets_SM: NDArray[np.bool_]) -> list[Doubles]:
    """The Shapley values `(D,)` of M players, from the values of all their sets."""
    count = subsets_SM.shape[1]
    places = {tuple(subset_M): place for place, subset_M in enumerate(subsets_SM.tolist())}
    found = []
    for player in range(count):
        part_D = np.zeros(values_SD.shape[1])
        for subset_M in subsets_SM[~subsets_SM[:, player]]:
            size = int(subset_M.sum())
            joined_M = subset_M.copy()
            joined_M[player] = True
            gain_D = values_SD[places[tuple(joined_M.tolist())]] - values_SD[places[tuple(subset_M.tolist())]]
            part_D += factorial(size) * factorial(count - size - 1) / factorial(count) * gain_D
        found.append(part_D)
    return found


def _token_losses(fusion: Fusion, table: TokenTable, modalities: list[str], scale: float | None) -> dict[str, Doubles]:
    """What the content of an item loses `(T, D)` without each token; `scale` None: unit vectors, not scaled ones."""

    def contents(items: TokenTable) -> Tensor:
        vectors_BD = content_vectors(fusion, items)
        return F.normalize(vectors_BD, dim=-1) if scale is None else scale * vectors_BD

    whole_1D = contents(table)
    num_values = sum(x.numel() for x in table.tokens.values())
    losses: dict[str, Doubles] = {}
    for modality in modalities:
        tokens = table.masks[modality][0].nonzero().flatten()
        blocks = torch.split(tokens, max(1, VALUES_AT_ONCE // num_values))
        lost = [whole_1D - contents(_without_each(table, modality, block)) for block in blocks]
        losses[modality] = torch.cat(lost).double().numpy()
    return losses


def _without_each(table: TokenTable, modality: str, tokens_B: Tensor) -> TokenTable:
    """Copies of an item, each without one of these tokens of a modality."""
    copies = table.select(torch.zeros(len(tokens_B), dtype=torch.long))
    mask_BT = copies.masks[modality].clone()
    mask_BT[torch.arange(len(tokens_B)), tokens_B] = False
    return TokenTable(copies.tokens, {**copies.masks, modality: mask_BT}, copies.times)
