"""Parts of vectors: they sum to the vectors, and agree with what they are defined by."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from fusion_data import SMALL, random_histories, random_table
from torch import Tensor

from fusion.attention import FUSIONS
from fusion.attributions import id_part, in_user_vector, item_parts, nearest_tokens
from fusion.config import FusionConfig
from fusion.histories import Histories
from fusion.token_table import TokenTable
from fusion.tower import Towers
from fusion.training import fit_alignment, fit_ranking
from fusion.user_tower import UserTower

QUICK = replace(SMALL, max_epochs=2)
SETTINGS = {
    **{kind: replace(QUICK, fusion=kind) for kind in FUSIONS},
    "without neighbours": replace(QUICK, smoothing=0.0),
    "without ids": replace(QUICK, use_ids=False),
}
FITTED: dict[str, Towers] = {}


def fitted(name: str) -> Towers:
    """Towers of random items; two have no interactions, item 4 has no sound, item 5 nothing at all."""
    if name not in FITTED:
        torch.set_num_threads(1)
        table, config = random_table(), SETTINGS[name]
        rng = np.random.default_rng(0)
        items_N = rng.integers(2, 30, size=400)
        histories = Histories.of(rng.integers(40, size=400), items_N, 40, ordered=False)
        FITTED[name] = fit_ranking(table, histories, config=config)[0]
    return FITTED[name]


def one(table: TokenTable, row: int) -> TokenTable:
    return table.select(torch.tensor([row]))


@pytest.mark.parametrize("name", SETTINGS)
def test_the_parts_of_an_item_sum_to_its_vector(name: str) -> None:
    towers, table = fitted(name), random_table()
    vectors_ID = towers.embed_catalog(table).vectors_ID.numpy()
    for row in (0, 1, 3, 4, 5, 12):
        parts = item_parts(towers, one(table, row), row)
        assert list(parts.modalities) == [m for m in table.masks if table.masks[m][row].any()]
        assert np.allclose(parts.vector_D, vectors_ID[row], atol=1e-5)
        assert np.allclose(parts.id_D, id_part(towers, row), atol=1e-6)
    assert not id_part(towers, 0).any() and id_part(towers, 3).any() == (name != "without ids")


def test_the_parts_of_items_that_join_later_sum_to_their_vectors() -> None:
    towers, later = fitted("attention"), random_table(seed=5)
    vectors_BD = towers.embed(later).vectors_ID.numpy()
    for place in (0, 4, 5):
        parts = item_parts(towers, one(later, place), -1)
        assert np.allclose(parts.vector_D, vectors_BD[place], atol=1e-5) and not parts.id_D.any()


def test_factors_are_parts_of_an_item_as_its_id_is() -> None:
    towers, table = deepcopy(fitted("attention")), random_table()
    towers.add_factors(torch.randn(30, 7))
    vectors_ID = towers.embed_catalog(table).vectors_ID.numpy()
    for row in (0, 3, 5):
        parts = item_parts(towers, one(table, row), row)
        assert np.allclose(parts.vector_D, vectors_ID[row], atol=1e-5)
        assert np.allclose(parts.id_D, id_part(towers, row), atol=1e-6) and parts.id_D[-7:].all()
        assert {len(losses_TD.T) for losses_TD in parts.tokens.values()} <= {towers.width}
    assert np.allclose(
        item_parts(towers, one(table, 3), -1).vector_D, towers.embed(one(table, 3)).vectors_ID[0], atol=1e-5
    )


def test_the_parts_of_content_alone_sum_to_its_unit_vector() -> None:
    table = random_table()
    towers, _ = fit_alignment(table, config=QUICK)
    for row in (0, 4, 5):
        parts = item_parts(towers, one(table, row), row)
        assert np.allclose(parts.vector_D, towers.embed_catalog(table).vectors_ID[row], atol=1e-6)
        if row == 0:
            assert all(losses_TD.any(1).all() for losses_TD in parts.tokens.values())


def as_if_it_lacked(towers: Towers, table: TokenTable, row: int, kept: tuple[str, ...]) -> Tensor:
    """The vector without its id of an item of the catalog that had never had other modalities, made the long way."""
    items = towers.items
    assert items is not None and items.neighbours is not None
    masks = {m: mask_BT & (m in kept) for m, mask_BT in one(table, row).masks.items()}
    lacking = TokenTable(one(table, row).tokens, masks, one(table, row).times)
    rows_1N, shares_1N = items.neighbours.rows_of(lacking, rows_B=torch.tensor([row]))
    return items.smoothed(items.content(lacking), rows_1N, shares_1N)[0]


@torch.no_grad()
def test_modalities_get_their_shapley_values() -> None:
    towers, table, row = fitted("attention"), random_table(), 7
    parts = item_parts(towers, one(table, row), row)
    expected = {m: torch.zeros(towers.fusion.dim) for m in table.masks}
    orders = [*permutations(table.masks)]
    for order in orders:
        for place, modality in enumerate(order):
            with_it, before = (as_if_it_lacked(towers, table, row, order[:end]) for end in (place + 1, place))
            expected[modality] += (with_it - before) / len(orders)
    for modality, part_D in parts.modalities.items():
        assert np.allclose(part_D, expected[modality], atol=1e-5)
        others = tuple(m for m in table.masks if m != modality)
        without_D = as_if_it_lacked(towers, table, row, others).numpy() + parts.id_D
        assert np.allclose(parts.without[modality], without_D, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("at_once", [1, 2**22])
def test_tokens_are_left_out_one_by_one(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusion.attributions.VALUES_AT_ONCE", at_once)
    towers, table, row = fitted("attention"), random_table(), 7
    assert towers.items is not None
    parts = item_parts(towers, one(table, row), row)
    whole = one(table, row)
    content_D = towers.items.content(whole)[0]
    for modality, losses_TD in parts.tokens.items():
        assert len(losses_TD) == int(whole.masks[modality].sum())
        for token, loss_D in enumerate(losses_TD):
            kept = [k for k in range(whole.masks[modality].shape[1]) if k != token]
            fewer = TokenTable(
                *({**part, modality: part[modality][:, kept]} for part in (whole.tokens, whole.masks, whole.times))
            )
            lost_D = (1 - towers.items.smoothing) * (content_D - towers.items.content(fewer)[0])
            assert np.allclose(loss_D, lost_D, atol=1e-5)


@pytest.mark.parametrize("ordered", [True, False])
def test_the_parts_of_a_user_sum_to_the_vector(ordered: bool) -> None:
    histories = random_histories([7], ordered=ordered, weighted=True)
    tower = UserTower(6, (2.0, 9.0) if ordered else ())
    with torch.no_grad():
        tower.null_D.normal_()
        tower.mix_KDE.normal_()
    vectors_ID = np.random.default_rng(0).normal(size=(7, 6)).astype(np.float32)
    weights_NK, (_, totals_UK) = tower.weights(histories), tower.sums(histories, vectors_ID)
    sums_NKD = weights_NK[:, :, None] * vectors_ID[histories.items_N][:, None].astype(np.float64)
    parts_ND = in_user_vector(tower, sums_NKD, totals_UK[0])
    expected_D = tower.vectors(histories, vectors_ID)[0] - tower.null_D.detach().numpy()
    assert parts_ND.shape == (7, 6) and np.allclose(parts_ND.sum(0), expected_D, atol=1e-5)
    assert not parts_ND[histories.weights_N == 0].any()


def test_the_most_alike_tokens_are_found_as_seen_from_the_mean() -> None:
    config = FusionConfig(dim=8, num_heads=2)
    fusion = FUSIONS["mean"]({"visual": 6}, dim=config.dim, num_heads=config.num_heads)
    tokens_1TW = torch.randn(1, 50, 6, generator=torch.Generator().manual_seed(0)) + 100
    fusion.calibrate({"visual": tokens_1TW}, {"visual": torch.ones(1, 50, dtype=torch.bool)})
    own, theirs = tokens_1TW[0, :5], tokens_1TW[0, [20, 21, 3, 22]]
    token, other, cosine = nearest_tokens(fusion, "visual", own, theirs)
    assert (token, other) == (3, 2) and cosine == pytest.approx(1, abs=1e-5)
    _, _, far = nearest_tokens(fusion, "visual", own[:1], theirs[:1])
    assert far < 0.95  # as they are, all are alike: 100 is far from 0
