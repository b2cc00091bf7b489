"""The two towers of a recommender, and their files: vectors of items, and of the users whose histories they make up.

The score of a user and an item is one dot product plus a bias of the item, so any nearest-neighbour index can serve it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fusion.attention import FUSIONS
from fusion.base import Fusion
from fusion.item_tower import Items, ItemTower, content_vectors
from fusion.neighbours import ContentNeighbours
from fusion.projections import FusionError
from fusion.token_table import Tokens, TokenTable, row_blocks
from fusion.user_tower import UserTower

CONTENT_ONLY = "content"
HYBRID = "hybrid"


class Towers(nn.Module):
    """What makes item and user vectors.

    Args:
        items: the item tower; None where there were no interactions: then `fusion` makes unit vectors, zero for items
            without any token, all biases are zero, and users are the mean of their histories.
    """

    def __init__(self, fusion: Fusion, items: ItemTower | None, users: UserTower) -> None:
        super().__init__()
        self.fusion, self.items, self.users = fusion, items, users

    @property
    def kind(self) -> str:
        return CONTENT_ONLY if self.items is None else HYBRID

    @property
    def width(self) -> int:
        """Of item and user vectors."""
        return self.fusion.dim if self.items is None else self.items.width

    def add_factors(self, factors_IL: Tensor) -> None:
        """Vectors hold these too from now on, behind what they held before."""
        assert self.items is not None and not self.items.factors_IL.shape[1]
        self.items.factors_IL = factors_IL
        self.users = self.users.widened(factors_IL.shape[1])

    @torch.no_grad()
    def embed_catalog(self, tokens: Tokens) -> Items:
        """Vectors and biases of all items of the catalog that the towers were fitted to, on the CPU."""
        if self.items is None:
            return self.embed_new(tokens)
        return self._embed_rows(tokens, torch.arange(len(tokens)))

    @torch.no_grad()
    def embed_again(self, tokens: Tokens, rows_B: Tensor) -> Items:
        """The same of the items in these rows alone, whose tokens have changed.

        Others keep what was found of these when they were connected as neighbours.
        """
        if self.items is None:
            return self.embed_new(tokens)
        self.items.connect(tokens, None, rows_B)
        return self._embed_rows(tokens, rows_B)

    def _embed_rows(self, tokens: Tokens, rows_B: Tensor) -> Items:
        assert self.items is not None
        device = self.users.null_D.device
        blocks = [(block, rows_B[block].to(device)) for block in row_blocks(tokens, len(tokens))]
        contents = [self.items.content(tokens.select(block).to(device)) for block, _ in blocks]
        for (_, rows), content_BD in zip(blocks, contents, strict=True):
            self.items.remember(content_BD, rows)
        parts = [self.items.with_audience(x, rows) for (_, rows), x in zip(blocks, contents, strict=True)]
        return Items(torch.cat([x.vectors_ID.cpu() for x in parts]), torch.cat([x.bias_I.cpu() for x in parts]))

    @torch.no_grad()
    def embed(self, table: TokenTable) -> Items:
        """Vectors and biases of items that training did not see; modalities that none of them has may be left out."""
        if self.items is not None:
            return self.items.embed_new(table)
        vectors_BD = torch.nn.functional.normalize(content_vectors(self.fusion, table), dim=-1)
        return Items(vectors_BD, vectors_BD.new_zeros(len(table)))

    @torch.no_grad()
    def embed_new(self, tokens: Tokens) -> Items:
        """The same of any number of items, in blocks."""
        device = self.users.null_D.device
        parts = [self.embed(tokens.select(rows).to(device)) for rows in row_blocks(tokens, len(tokens))]
        return Items(torch.cat([x.vectors_ID.cpu() for x in parts]), torch.cat([x.bias_I.cpu() for x in parts]))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes `tower.safetensors` and `tower.json` into a folder, which is made where it is missing."""
        fusion, users = self.fusion, self.users
        settings = {
            "kind": self.kind,
            "fusion": {"kind": fusion.kind, "widths": fusion.widths, "dim": fusion.dim, "num_heads": fusion.num_heads},
            "users": {"averages": len(users.log_rates_K), "ordered": users.ordered, "power": users.power},
            "num_items": 0 if self.items is None else len(self.items.trained_I),
            "num_factors": self.width - fusion.dim,
            "use_ids": self.items is not None and self.items.use_ids,
            "smoothing": 0.0 if self.items is None else self.items.smoothing,
            "neighbours": _shape_of(self.items),
        }
        Path(folder).mkdir(parents=True, exist_ok=True)
        weights = {name: x.detach().contiguous() for name, x in _own_weights(self)}
        save_file(weights, Path(folder) / "tower.safetensors")
        (Path(folder) / "tower.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")


def _shape_of(items: ItemTower | None) -> dict[str, int] | None:
    if items is None or items.neighbours is None:
        return None
    return {"num_keys": len(items.neighbours.key_rows_K), "count": items.neighbours.count}


def _own_weights(towers: Towers) -> Iterator[tuple[str, Tensor]]:
    """All weights; the fusion's, which the item tower shares, once."""
    yield from ((name, x) for name, x in towers.state_dict().items() if not name.startswith("items.fusion."))


def load_towers(folder: str | os.PathLike[str]) -> Towers:
    """The towers that `save` wrote, in evaluation mode.

    Raises:
        FusionError: where the files are missing, damaged or do not belong together.
    """
    try:
        about = json.loads((Path(folder) / "tower.json").read_text(encoding="utf-8"))
        towers = _empty(about)
        weights = load_file(Path(folder) / "tower.safetensors")
        if towers.items is not None:  # models made by earlier versions have no factors
            weights.setdefault("items.factors_IL", towers.items.factors_IL)
        shared = {f"items.{name}": x for name, x in weights.items() if name.startswith("fusion.")}
        towers.load_state_dict(weights | (shared if towers.items is not None else {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise FusionError(f"{folder} holds no towers that can be read: {' '.join(str(error).split())}") from error
    return towers.eval()


def _empty(about: Mapping[str, Any]) -> Towers:
    """Towers of these settings, for weights to be loaded into."""
    settings = dict(about["fusion"])
    fusion = FUSIONS[settings.pop("kind")](**settings)
    user = about["users"]
    num_factors = about.get("num_factors", 0)
    half_lives = [1.0] * user["averages"] if user["ordered"] else []
    users = UserTower(fusion.dim + num_factors, half_lives, power=user["power"])
    if about["kind"] == CONTENT_ONLY:
        return Towers(fusion, None, users)
    if about["kind"] != HYBRID:
        raise ValueError(f"unknown kind {about['kind']!r}")
    shape = about["neighbours"]
    items = ItemTower(
        fusion,
        torch.ones(about["num_items"]),
        id_dropout=0.0,
        use_ids=about["use_ids"],
        neighbours=None if shape is None else ContentNeighbours(fusion.widths, **shape),
        smoothing=about["smoothing"],
    )
    items.factors_IL = torch.zeros(about["num_items"], num_factors)
    return Towers(fusion, items, users)
