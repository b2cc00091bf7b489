"""The item tower and both towers together: cold items, new items, blocks, files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fusion_data import histories_of, ragged, random_table
from safetensors.torch import load_file, save_file

from fusion.attention import FUSIONS
from fusion.item_tower import ItemTower
from fusion.neighbours import ContentNeighbours
from fusion.projections import FusionError
from fusion.token_table import TokenTable
from fusion.tower import Towers, load_towers
from fusion.user_tower import UserTower

NUM_ITEMS, COLD = 30, (7, 8)
ALL = torch.arange(NUM_ITEMS)
HISTORY = histories_of([[1, 4, 9], [2]], ordered=True)


def make_towers(
    table: TokenTable, *, kind: str = "attention", ordered: bool = True, smoothing: float = 0.0, **options: Any
) -> Towers:
    """Towers of which nothing is at its start, with two cold items."""
    torch.manual_seed(0)
    fusion = FUSIONS[kind](table.widths, dim=16, num_heads=2, input_dropout=0.0)
    fusion.calibrate(table.tokens, table.masks)
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    counts_I = ALL + 1.0
    counts_I[list(COLD)] = 0.0
    neighbours = ContentNeighbours.of(table, counts_I.nonzero().flatten(), table, 3) if smoothing else None
    items = ItemTower(fusion, counts_I, neighbours=neighbours, smoothing=smoothing, **{"id_dropout": 0.0, **options})
    items.connect(table, None)
    users = UserTower(16, (1.0, 7.0) if ordered else (), power=0.5)
    for parameter in users.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    torch.nn.init.normal_(items.bias.weight)
    return Towers(fusion, items, users).eval()


def content_only(table: TokenTable) -> Towers:
    fusion = make_towers(table).fusion
    return Towers(fusion, None, UserTower(16, (), power=1.0, learned=False)).eval()


def tower_of(towers: Towers) -> ItemTower:
    assert towers.items is not None
    return towers.items


# --- items ------------------------------------------------------------------------------------------------------------


def test_an_item_is_its_content_and_its_id() -> None:
    table = random_table()
    towers = make_towers(table)
    tower = tower_of(towers)
    items, content_ID = towers.embed_catalog(table), tower.content(table)
    warm = tower.trained_I
    assert torch.allclose(items.vectors_ID[warm], (content_ID + tower.ids.weight)[warm], atol=1e-6)
    assert torch.equal(items.bias_I[warm], tower.bias.weight[warm, 0])
    assert torch.equal(content_ID[5], torch.zeros(16))  # item 5 has no tokens: its id is all there is


def test_cold_items_have_content_alone_and_share_a_bias() -> None:
    table = random_table()
    towers = make_towers(table)
    tower = tower_of(towers)
    assert float(tower.cold_bias) == pytest.approx(float((ALL + 1.0)[tower.trained_I].log1p().median()))
    tower.cold_bias.fill_(0.25)
    items = towers.embed_catalog(table)
    assert torch.allclose(items.vectors_ID[list(COLD)], tower.content(table)[list(COLD)], atol=1e-6)
    assert items.bias_I[list(COLD)].tolist() == [0.25, 0.25]


def test_cold_items_learn_no_id_and_no_bias() -> None:
    table = random_table()
    towers = make_towers(table).train()
    tower = tower_of(towers)
    items = tower(table, ALL)
    (items.vectors_ID.sum() + items.bias_I.sum()).backward()
    assert tower.ids.weight.grad is not None and tower.bias.weight.grad is not None
    for gradient in (tower.ids.weight.grad, tower.bias.weight.grad):
        assert (gradient.abs().sum(1) > 0).tolist() == tower.trained_I.tolist()


def test_new_items_are_treated_as_cold_ones() -> None:
    table = random_table()
    towers = make_towers(table)
    items = towers.embed_catalog(table)
    again = towers.embed(table.select(torch.tensor(COLD)))
    assert torch.allclose(again.vectors_ID, items.vectors_ID[list(COLD)], atol=1e-6)
    assert torch.equal(again.bias_I, items.bias_I[list(COLD)])
    alone = TokenTable({"audio": table.tokens["audio"][:3]}, {"audio": table.masks["audio"][:3]})
    silent = TokenTable(alone.tokens, {"audio": torch.zeros_like(alone.masks["audio"])})
    assert towers.embed(alone).vectors_ID.any() and not towers.embed(silent).vectors_ID.any()


def test_ids_are_hidden_in_training_alone() -> None:
    table = random_table()
    towers = make_towers(table, id_dropout=0.5)
    tower = tower_of(towers)
    content_ID = tower.content(table)
    assert torch.equal(tower(table, ALL).vectors_ID, tower(table, ALL).vectors_ID)
    tower.train()
    torch.manual_seed(0)
    hidden = sum((tower(table, ALL).vectors_ID - content_ID).abs().sum(1) < 1e-5 for _ in range(200)) / 200
    assert (hidden[list(COLD)] == 1).all()
    assert ((hidden[tower.trained_I] - 0.5).abs() < 0.2).all()


def test_without_ids_content_is_all() -> None:
    table = random_table()
    tower = tower_of(make_towers(table, use_ids=False))
    assert not tower.use_ids and torch.equal(tower(table, ALL).vectors_ID, tower.content(table))


def test_factors_stand_behind_the_vectors_of_items_that_have_them(tmp_path: Path) -> None:
    table = random_table()
    towers = make_towers(table, smoothing=0.5)
    before, before_D = towers.embed_catalog(table), towers.users.vectors(HISTORY, np.ones((NUM_ITEMS, 16), np.float32))
    factors_IL = torch.randn(NUM_ITEMS, 5)
    towers.add_factors(factors_IL)
    items = towers.embed_catalog(table)
    assert towers.width == 21 and torch.equal(items.bias_I, before.bias_I)
    assert torch.equal(items.vectors_ID, torch.cat([before.vectors_ID, factors_IL], dim=1))
    assert torch.equal(
        towers.embed_again(table.select(torch.tensor([3])), torch.tensor([3])).vectors_ID[0, 16:], factors_IL[3]
    )
    assert not towers.embed(table).vectors_ID[:, 16:].any()
    after_D = towers.users.vectors(HISTORY, np.ones((NUM_ITEMS, 21), np.float32))
    assert np.allclose(after_D[:, :16], before_D) and np.allclose(after_D[:, 16:], after_D[:, 16:17])
    towers.save(tmp_path)
    again = load_towers(tmp_path)
    assert again.width == 21 and torch.equal(again.embed_catalog(table).vectors_ID, items.vectors_ID)
    assert np.array_equal(again.users.vectors(HISTORY, items.vectors_ID.numpy()),
                          towers.users.vectors(HISTORY, items.vectors_ID.numpy()))  # fmt: skip


def test_towers_of_before_there_were_factors_are_read(tmp_path: Path) -> None:
    table = random_table()
    towers = make_towers(table)
    towers.save(tmp_path)
    weights = load_file(tmp_path / "tower.safetensors")
    del weights["items.factors_IL"]
    save_file(weights, tmp_path / "tower.safetensors")
    about = json.loads((tmp_path / "tower.json").read_text())
    del about["num_factors"]
    (tmp_path / "tower.json").write_text(json.dumps(about))
    again = load_towers(tmp_path).embed_catalog(table)
    assert torch.equal(again.vectors_ID, towers.embed_catalog(table).vectors_ID)


@pytest.mark.parametrize("smoothing", [0.0, 0.5])
def test_sparse_gradients_are_those_of_a_dense_tower(smoothing: float) -> None:
    table, rows = random_table(), torch.tensor([2, 3, 7, 11])
    gradients = []
    for sparse in (False, True):
        tower = tower_of(make_towers(table, sparse=sparse, smoothing=smoothing))
        items = tower(table.select(rows), rows)
        (items.vectors_ID.square().sum() + items.bias_I.square().sum()).backward()
        assert tower.ids.weight.grad is not None and tower.bias.weight.grad is not None
        assert tower.ids.weight.grad.is_sparse == sparse
        gradients.append([tower.ids.weight.grad.to_dense(), tower.bias.weight.grad.to_dense()])
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


# --- the catalog ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [make_towers, content_only], ids=["hybrid", "content"])
@pytest.mark.parametrize("values_at_once", [1, 100, 500])
def test_blocks_do_not_matter(
    make: Callable[[TokenTable], Towers], values_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = random_table()
    towers = make(table)
    expected, late = towers.embed_catalog(table), towers.embed_new(random_table(9, seed=1))
    monkeypatch.setattr("fusion.token_table.VALUES_AT_ONCE", values_at_once)
    for tokens in (table, ragged(table), ragged(table, backwards=True)):
        items = towers.embed_catalog(tokens)
        assert torch.allclose(items.vectors_ID, expected.vectors_ID, atol=1e-5)
        assert torch.equal(items.bias_I, expected.bias_I)
    again = towers.embed_new(ragged(random_table(9, seed=1)))
    assert torch.allclose(again.vectors_ID, late.vectors_ID, atol=1e-5) and torch.equal(again.bias_I, late.bias_I)


def test_content_alone() -> None:
    table = random_table()
    towers = content_only(table)
    items = towers.embed_catalog(table)
    norm_I = items.vectors_ID.norm(dim=1)
    assert norm_I[5] == 0 and torch.allclose(norm_I[table.there_I], torch.ones(NUM_ITEMS - 1))
    assert not items.bias_I.any() and not towers.users.null_D.any() and towers.kind == "content"
    late = towers.embed(table.select(torch.tensor([3, 5])))
    assert torch.allclose(late.vectors_ID, items.vectors_ID[[3, 5]], atol=1e-6)
    history = histories_of([[3, 9]], ordered=False)
    mean_D = items.vectors_ID[[3, 9]].mean(0).numpy()
    assert np.allclose(towers.users.vectors(history, items.vectors_ID.numpy())[0], mean_D, atol=1e-6)


# --- files ------------------------------------------------------------------------------------------------------------


def assert_same_answers(ours: Towers, theirs: Towers) -> None:
    """Of the catalog, of new items, and of users."""
    table, late = random_table(), random_table(4, seed=1)
    for one, other in (
        (ours.embed_catalog(table), theirs.embed_catalog(table)),
        (ours.embed(late), theirs.embed(late)),
    ):
        assert torch.equal(one.vectors_ID, other.vectors_ID) and torch.equal(one.bias_I, other.bias_I)
    vectors_ID = ours.embed_catalog(table).vectors_ID.numpy()
    histories = histories_of([[3, 9, 1], [], [0]], ordered=ours.users.ordered, gaps=True)
    assert np.array_equal(ours.users.vectors(histories, vectors_ID), theirs.users.vectors(histories, vectors_ID))


@pytest.mark.parametrize("kind", FUSIONS)
@pytest.mark.parametrize(
    "options", [{}, {"ordered": False}, {"use_ids": False}, {"smoothing": 0.5}], ids=["plain", "none", "no ids", "near"]
)
def test_saved_and_loaded_is_the_same(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    towers = make_towers(random_table(), kind=kind, **options)
    tower_of(towers).cold_bias.fill_(0.7)
    towers.save(tmp_path / "new" / "folder")
    loaded = load_towers(tmp_path / "new" / "folder")
    assert loaded.kind == "hybrid" and not loaded.training
    assert_same_answers(towers, loaded)


def test_saved_content_is_the_same(tmp_path: Path) -> None:
    towers = content_only(random_table())
    towers.save(tmp_path)
    loaded = load_towers(tmp_path)
    assert loaded.items is None and loaded.users.power == 1.0
    assert_same_answers(towers, loaded)


def _edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    def damage(folder: Path) -> None:
        about = json.loads((folder / "tower.json").read_text())
        change(about)
        (folder / "tower.json").write_text(json.dumps(about))

    return damage


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "no folder": lambda folder: [file.unlink() for file in folder.iterdir()],
    "no weights": lambda folder: (folder / "tower.safetensors").unlink(),
    "cut weights": lambda folder: (folder / "tower.safetensors").write_bytes(b"0"),
    "no JSON": lambda folder: (folder / "tower.json").write_text("{"),
    "a list": lambda folder: (folder / "tower.json").write_text("[]"),
    "bytes": lambda folder: (folder / "tower.json").write_bytes(b"\xff\xfe\x00"),
    "another width": _edit(lambda about: about["fusion"].update(dim=32)),
    "odd heads": _edit(lambda about: about["fusion"].update(num_heads=3)),
    "another fusion": _edit(lambda about: about["fusion"].update(kind="magic")),
    "another kind": _edit(lambda about: about.update(kind="magic")),
    "content": _edit(lambda about: about.update(kind="content")),
    "another count": _edit(lambda about: about.update(num_items=3)),
    "a negative count": _edit(lambda about: about.update(num_items=-3)),
    "no users": _edit(lambda about: about.pop("users")),
    "other averages": _edit(lambda about: about["users"].update(averages=3)),
    "no settings": _edit(lambda about: about.update(fusion=None)),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_told_in_one_line(kind: str, tmp_path: Path) -> None:
    make_towers(random_table()).save(tmp_path)
    DAMAGE[kind](tmp_path)
    with pytest.raises(FusionError, match="holds no towers") as caught:
        load_towers(tmp_path)
    assert "\n" not in str(caught.value)
