"""Towers: cold items, new items, graphs and user vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from fusion.attention import FUSIONS
from fusion.neighbours import ContentNeighbours
from fusion.projections import FusionError
from fusion.token_table import TokenTable
from fusion.tower import ContentTower, HybridTower, load_tower

NUM_ITEMS = 30


def make_table(num_items: int = NUM_ITEMS, seed: int = 0) -> TokenTable:
    generator = torch.Generator().manual_seed(seed)
    tokens = {
        "visual": torch.randn(num_items, 3, 8, generator=generator),
        "audio": torch.randn(num_items, 2, 5, generator=generator),
    }
    masks = {m: torch.ones(x.shape[:2], dtype=torch.bool) for m, x in tokens.items()}
    masks["visual"][:, 2] = False
    masks["audio"][4:5] = False  # item 4 is silent
    masks["visual"][5:6], masks["audio"][5:6] = False, False  # item 5 has nothing
    return TokenTable(tokens, masks)


def make_tower(
    table: TokenTable, cold: tuple[int, ...] = (7, 8), kind: str = "attention", **options: float
) -> HybridTower:
    torch.manual_seed(0)
    fusion = FUSIONS[kind]({"visual": 8, "audio": 5}, dim=16, input_dropout=0.0)
    fusion.calibrate(table.tokens, table.masks)
    counts = np.arange(len(table)) + 1
    trained = ~np.isin(np.arange(len(table)), cold)
    settings = {"smoothing": 0.5, "history_power": 0.5, "id_dropout": 0.0, **options}
    return HybridTower(fusion, counts * trained, trained, ContentNeighbours.of(table, 3), **settings)


def dense_graph(table: TokenTable) -> torch.Tensor:
    return torch.tensor(ContentNeighbours.of(table, 3).graph().toarray(), dtype=torch.float32)


def test_graph_is_the_nearest_neighbours_of_each_modality() -> None:
    table = make_table()
    expected = np.zeros((NUM_ITEMS, NUM_ITEMS))
    present = {m: mask_IT.any(1).numpy() for m, mask_IT in table.masks.items()}
    for modality, mean_IW in table.means().items():
        there = np.flatnonzero(present[modality])
        similarity = cosine_similarity(mean_IW[there].numpy())
        np.fill_diagonal(similarity, -np.inf)
        for row, item in enumerate(there):
            for neighbour in there[np.argsort(-similarity[row])[:3]]:
                expected[item, neighbour] += 1 / (3 * sum(p[item] for p in present.values()))
    graph = ContentNeighbours.of(table, 3).graph().toarray()
    assert np.allclose(graph, expected, atol=1e-6)
    assert graph[5].sum() == 0 and graph[:, 5].sum() == 0


def test_graph_of_one_item() -> None:
    one = make_table(1)
    neighbours = ContentNeighbours.of(one, 5)
    assert neighbours.graph().nnz == 0
    assert neighbours.graph_of(make_table(2)).shape == (2, 1)


def test_vectors_follow_the_formula() -> None:
    table = make_table()
    tower = make_tower(table).eval()
    items = tower(table)
    assert tower.ids_ID is not None
    content_ID = tower.content(table)[0]
    base_ID = content_ID + tower.ids_ID * tower.trained_I.unsqueeze(1)
    smoothed_ID = 0.5 * base_ID + 0.5 * dense_graph(table) @ base_ID
    smoothed_ID[5] = base_ID[5]  # without content there are no neighbours
    assert torch.allclose(items.base_ID, base_ID)
    assert torch.allclose(items.vectors_ID, smoothed_ID, atol=1e-6)
    assert torch.equal(content_ID[5], torch.zeros(16))


def test_gradient_through_smoothing_matches_a_dense_one() -> None:
    table = make_table()
    tower = make_tower(table)
    assert tower.ids_ID is not None
    weight_ID = torch.randn(NUM_ITEMS, 16)
    (tower(table).vectors_ID * weight_ID).sum().backward()
    assert tower.ids_ID.grad is not None
    expected = 0.5 * weight_ID + 0.5 * dense_graph(table).T @ weight_ID
    expected[5] += 0.5 * weight_ID[5]
    expected[[7, 8]] = 0  # items trained to nobody have no id to learn
    assert torch.allclose(tower.ids_ID.grad, expected, atol=1e-5)


def test_cold_items_have_content_and_a_bias_among_the_others() -> None:
    table = make_table()
    tower = make_tower(table).eval()
    items = tower(table)
    assert torch.equal(items.base_ID[7], tower.content(table)[0][7])
    tower.cold_quantile.fill_(0.5)
    bias_I = tower(table).bias_I
    assert bias_I[7] == bias_I[8] == bias_I[tower.trained_I].quantile(0.5)


def test_new_items_are_treated_as_cold_ones() -> None:
    table = make_table()
    tower = make_tower(table).eval()
    items = tower(table)
    late = make_table(4, seed=1)
    embedded = tower.embed(late, items.base_ID)
    content_BD = tower.content(late)[0]
    graph_BI = torch.tensor(tower.neighbours.graph_of(late).toarray(), dtype=torch.float32)
    assert torch.allclose(embedded.vectors_ID, 0.5 * content_BD + 0.5 * graph_BI @ items.base_ID, atol=1e-6)
    assert (embedded.bias_I == items.bias_I[7]).all()
    twin = tower.neighbours.graph_of(table.select(torch.tensor([3]))).toarray()[0]
    assert twin[3] == pytest.approx(1 / 3)  # a copy of item 3 has item 3 as a neighbour in both modalities


def test_user_vectors_ignore_padding_and_weigh() -> None:
    table = make_table()
    tower = make_tower(table).eval()
    vectors_ID = tower(table).vectors_ID
    users = tower.users(
        vectors_ID, torch.tensor([[1, 2, 0], [3, 0, 0]]), torch.tensor([[1.0, 3.0, 0.0], [0.0, 0.0, 0.0]])
    )
    assert torch.allclose(users[0], (vectors_ID[1] + 3 * vectors_ID[2]) / 2 + tower.null_D, atol=1e-6)
    assert torch.equal(users[1], tower.null_D)


@pytest.mark.parametrize("kind", FUSIONS)
def test_saved_and_loaded_is_the_same(kind: str, tmp_path: Path) -> None:
    table = make_table()
    tower = make_tower(table, kind=kind).eval()
    tower.cold_quantile.fill_(0.7)
    tower.save(tmp_path)
    loaded = load_tower(tmp_path)
    for name in ("vectors_ID", "bias_I", "base_ID"):
        assert torch.equal(getattr(loaded(table), name), getattr(tower(table), name))
    late = make_table(4, seed=1)
    base_ID = tower(table).base_ID
    assert torch.equal(loaded.embed(late, base_ID).vectors_ID, tower.embed(late, base_ID).vectors_ID)


def test_content_alone() -> None:
    table = make_table()
    tower = ContentTower(make_tower(table).fusion).eval()
    items = tower(table)
    norm_I = items.vectors_ID.norm(dim=1)
    assert norm_I[5] == 0 and torch.allclose(norm_I[table.there_I], torch.ones(NUM_ITEMS - 1))
    assert not items.bias_I.any() and not tower.null_D.any()
    late = table.select(torch.tensor([3, 5]))
    assert torch.allclose(tower.embed(late, items.base_ID).vectors_ID, items.vectors_ID[[3, 5]], atol=1e-6)


def test_saved_content_is_the_same(tmp_path: Path) -> None:
    table = make_table()
    tower = ContentTower(make_tower(table).fusion).eval()
    tower.save(tmp_path)
    loaded = load_tower(tmp_path)
    assert isinstance(loaded, ContentTower) and torch.equal(loaded(table).vectors_ID, tower(table).vectors_ID)


def test_damaged_towers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FusionError, match="no tower"):
        load_tower(tmp_path / "absent")
    make_tower(make_table()).save(tmp_path)
    (tmp_path / "tower.safetensors").write_bytes(b"0")
    with pytest.raises(FusionError, match="no tower"):
        load_tower(tmp_path)


def test_what_cannot_be() -> None:
    table = make_table()
    with pytest.raises(FusionError, match="taken by anyone"):
        make_tower(table, cold=tuple(range(NUM_ITEMS)))
    with pytest.raises(FusionError, match="same items"):
        TokenTable(table.tokens, {m: x[:5] for m, x in table.masks.items()})
    assert ContentNeighbours.of(table, 100).graph().shape == (NUM_ITEMS, NUM_ITEMS)
