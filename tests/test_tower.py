"""Towers: cold items, new items, graphs and user vectors."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
import torch.nn.functional as F

from fusion.attention import CrossModalFusion, FusionError
from fusion.tower import HybridTower, TokenTable, content_graph, neighbour_graph

NUM_ITEMS = 30


def make_table(num_items: int = NUM_ITEMS, seed: int = 0) -> TokenTable:
    generator = torch.Generator().manual_seed(seed)
    tokens = {
        "visual": torch.randn(num_items, 3, 8, generator=generator),
        "audio": torch.randn(num_items, 2, 5, generator=generator),
    }
    masks = {m: torch.ones(x.shape[:2], dtype=torch.bool) for m, x in tokens.items()}
    masks["visual"][:, 2] = False
    masks["audio"][4] = False  # item 4 is silent
    masks["visual"][5], masks["audio"][5] = False, False  # item 5 has nothing
    return TokenTable(tokens, masks)


def make_tower(table: TokenTable, cold: tuple[int, ...] = (7, 8), **options: float) -> HybridTower:
    torch.manual_seed(0)
    fusion = CrossModalFusion({"visual": 8, "audio": 5}, dim=16, input_dropout=0.0)
    fusion.calibrate(table.tokens, table.masks)
    counts = np.arange(len(table)) + 1
    offered = ~np.isin(np.arange(len(table)), cold)
    settings = {"smoothing": 0.5, "history_power": 0.5, "id_dropout": 0.0, **options}
    return HybridTower(fusion, counts * offered, offered, content_graph(table, fusion, 3), **settings)


def test_graph_is_the_nearest_neighbours_of_each_modality() -> None:
    table = make_table()
    fusion = CrossModalFusion({"visual": 8, "audio": 5}, dim=16)
    features = table.features(fusion)
    graph = content_graph(table, fusion, 3).toarray()
    expected = np.zeros((NUM_ITEMS, NUM_ITEMS))
    for item in range(NUM_ITEMS):
        modalities = [m for m, x in features.items() if x[item].any()]
        for modality in modalities:
            similarity = (features[modality] @ features[modality][item]).numpy()
            similarity[item] = -np.inf
            similarity[~features[modality].any(1).numpy()] = -np.inf
            for neighbour in np.argsort(-similarity)[:3]:
                expected[item, neighbour] += 1 / (3 * len(modalities))
    assert np.allclose(graph, expected, atol=1e-6)
    assert graph[5].sum() == 0 and graph[:, 5].sum() == 0


def test_graph_of_few_items() -> None:
    one = {"visual": F.normalize(torch.randn(1, 4), dim=1)}
    assert neighbour_graph(one, one, 5, same=True).nnz == 0
    assert neighbour_graph(one, one, 5).toarray().tolist() == [[1.0]]


def test_vectors_follow_the_formula() -> None:
    table = make_table()
    tower = make_tower(table).eval()
    items = tower(table)
    assert tower.ids_ID is not None
    content_ID = tower.content(table)[0]
    base_ID = content_ID + tower.ids_ID * tower.offered_I.unsqueeze(1)
    graph_II = torch.tensor(content_graph(table, tower.fusion, 3).toarray(), dtype=torch.float32)
    assert torch.allclose(items.base_ID, base_ID)
    assert torch.allclose(items.vectors_ID, 0.5 * base_ID + 0.5 * graph_II @ base_ID, atol=1e-6)
    assert torch.equal(content_ID[5], torch.zeros(16))


def test_gradient_through_smoothing_matches_a_dense_one() -> None:
    table = make_table()
    tower = make_tower(table)
    assert tower.ids_ID is not None
    weight_ID = torch.randn(NUM_ITEMS, 16)
    (tower(table).vectors_ID * weight_ID).sum().backward()
    assert tower.ids_ID.grad is not None
    graph_II = torch.tensor(content_graph(table, tower.fusion, 3).toarray(), dtype=torch.float32)
    expected = 0.5 * weight_ID + 0.5 * graph_II.T @ weight_ID
    expected[[7, 8]] = 0  # items offered to nobody have no id to learn
    assert torch.allclose(tower.ids_ID.grad, expected, atol=1e-5)


def test_cold_items_have_content_and_a_bias_among_the_others() -> None:
    table = make_table()
    tower = make_tower(table).eval()
    items = tower(table)
    assert torch.equal(items.base_ID[7], tower.content(table)[0][7])
    tower.cold_quantile.fill_(0.5)
    bias_I = tower(table).bias_I
    assert bias_I[7] == bias_I[8] == bias_I[tower.offered_I].quantile(0.5)


def test_new_items_get_the_vectors_that_cold_ones_have() -> None:
    table = make_table()
    tower = make_tower(table).eval()
    items = tower(table)
    late = table.select(torch.tensor([7, 8]))
    rest = torch.tensor([k for k in range(NUM_ITEMS) if k not in (7, 8)])
    embedded = tower.embed(late, table.select(rest), items.base_ID[rest], neighbours=3)
    assert torch.allclose(embedded.base_ID, items.base_ID[[7, 8]], atol=1e-6)
    assert torch.equal(embedded.bias_I, items.bias_I[[7, 8]])
    apart = [k for k in (7, 8) if not content_graph(table, tower.fusion, 3).toarray()[k, [7, 8]].any()]
    for k in apart:  # where the other cold item is no neighbour, nothing at all differs
        assert torch.allclose(embedded.vectors_ID[k - 7], items.vectors_ID[k], atol=1e-6)
    assert apart


def test_user_vectors_ignore_padding_and_weigh() -> None:
    table = make_table()
    tower = make_tower(table).eval()
    vectors_ID = tower(table).vectors_ID
    users = tower.users(
        vectors_ID, torch.tensor([[1, 2, 0], [3, 0, 0]]), torch.tensor([[1.0, 3.0, 0.0], [0.0, 0.0, 0.0]])
    )
    assert torch.allclose(users[0], (vectors_ID[1] + 3 * vectors_ID[2]) / 2 + tower.null_D, atol=1e-6)
    assert torch.equal(users[1], tower.null_D)


def test_what_cannot_be() -> None:
    table = make_table()
    with pytest.raises(FusionError, match="taken by anyone"):
        make_tower(table, cold=tuple(range(NUM_ITEMS)))
    with pytest.raises(FusionError, match="same items"):
        TokenTable(table.tokens, {m: x[:5] for m, x in table.masks.items()})
    assert sp.issparse(content_graph(table, make_tower(table).fusion, 100))
