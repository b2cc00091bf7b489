"""Neighbours by content, against cosines computed one by one, and what items borrow of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fusion_data import ragged, random_table
from numpy.typing import NDArray
from sklearn.metrics.pairwise import cosine_similarity

from fusion.attention import FUSIONS
from fusion.item_tower import ItemTower
from fusion.neighbours import ContentNeighbours, Find
from fusion.token_table import TokenTable

NUM_ITEMS, COLD = 30, (7, 8)
KEYS = torch.tensor([item for item in range(NUM_ITEMS) if item not in COLD])


def dense(rows_IN: torch.Tensor, weights_IN: torch.Tensor, num_items: int = NUM_ITEMS) -> torch.Tensor:
    """Who borrows how much of whom `(I, num_items)`."""
    return torch.zeros(len(rows_IN), num_items).scatter_add(1, rows_IN, weights_IN)


def means(table: TokenTable, modality: str) -> NDArray[np.float32]:
    mask_IT1 = table.masks[modality].unsqueeze(-1)
    return ((table.tokens[modality] * mask_IT1).sum(1) / mask_IT1.sum(1).clamp(min=1)).numpy()  # type: ignore[no-any-return]


def expected_graph(table: TokenTable, count: int) -> torch.Tensor:
    """By cosines of mean tokens, as they are: their variance has not collapsed."""
    graph = np.zeros((NUM_ITEMS, NUM_ITEMS), np.float32)
    present = {m: mask_IT.any(1).numpy() for m, mask_IT in table.masks.items()}
    for modality in table.masks:
        mean_IW = means(table, modality)
        keys = [item for item in KEYS.tolist() if present[modality][item]]
        for item in np.flatnonzero(present[modality]):
            others = np.array([key for key in keys if key != item])
            cosines = cosine_similarity(mean_IW[[item]], mean_IW[others])[0]
            for neighbour in others[np.argsort(-cosines)[:count]]:
                graph[item, neighbour] += 1 / (count * sum(there[item] for there in present.values()))
    return torch.from_numpy(graph)


def make_neighbours(table: TokenTable, count: int = 3) -> ContentNeighbours:
    return ContentNeighbours.of(table, KEYS, table, count)


def test_they_are_the_nearest_of_each_modality() -> None:
    table = random_table()
    expected = expected_graph(table, 3)
    for tokens in (table, ragged(table)):
        neighbours = ContentNeighbours.of(tokens, KEYS, table, 3)
        graph = dense(*neighbours.rows_of(tokens, rows_B=torch.arange(NUM_ITEMS)))
        assert torch.allclose(graph, expected, atol=1e-6)
    assert not graph[5].any() and not graph[:, 5].any()  # it has no content
    assert not graph[:, list(COLD)].any() and not graph.diag().any()
    assert torch.allclose(graph[graph.any(1)].sum(1), torch.ones(NUM_ITEMS - 1))


def test_a_new_item_has_its_twin_as_a_neighbour() -> None:
    table = random_table()
    graph = dense(*make_neighbours(table).rows_of(table.select(torch.tensor([3, 7]))))
    assert graph[0, 3] == pytest.approx(1 / 3)  # in both modalities
    assert torch.allclose(graph[1], expected_graph(table, 3)[7], atol=1e-6)  # item 7 has no id: nobody is its twin


def test_a_modality_that_is_missing_has_none() -> None:
    table = random_table()
    alone = TokenTable({"audio": table.tokens["audio"]}, {"audio": table.masks["audio"]}, {})
    _, weights_IN = make_neighbours(table).rows_of(alone)
    assert torch.allclose(weights_IN.sum(1), table.masks["audio"].any(1).float())
    assert not weights_IN[:, :4].any()  # those of visual come first


@pytest.mark.parametrize("num_keys", [1, 2, 3])
def test_fewer_items_than_neighbours(num_keys: int) -> None:
    table = random_table(4)
    neighbours = ContentNeighbours.of(table, torch.arange(num_keys), table, 10)
    graph = dense(*neighbours.rows_of(table, rows_B=torch.arange(4)), num_items=4)
    assert torch.allclose(graph.sum(1), torch.tensor([float(num_keys > 1), *[1.0] * 3]))
    tower = ItemTower(
        FUSIONS["mean"](table.widths, dim=8), (torch.arange(4) < num_keys).float(), id_dropout=0.0,
        neighbours=neighbours, smoothing=0.5,
    )  # fmt: skip
    tower.connect(table, None)
    assert tower(table, torch.arange(4)).vectors_ID.isfinite().all()


def test_a_search_of_ones_own_is_used_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    table = random_table()
    asked: list[tuple[int, ...]] = []

    def search(keys_KP: NDArray[np.float32]) -> Find:
        def find(queries_QP: NDArray[np.float32], count: int) -> NDArray[np.int64]:
            asked.append(queries_QP.shape)
            places = np.argsort(-queries_QP @ keys_KP.T, axis=1)[:, :count]
            places[:, -1] = -1  # nothing more was found
            return places

        return find

    exact = dense(*make_neighbours(table).rows_of(table, search))
    assert not asked
    monkeypatch.setattr("fusion.neighbours.EXACT_ITEMS", 10)
    found = dense(*make_neighbours(table).rows_of(table, search))
    assert len(asked) == 2 and torch.allclose(found, exact, atol=1e-6)


def test_neighbours_of_collapsed_features_are_told_apart() -> None:
    """All items point the same way but for small differences, which are what counts."""
    table = random_table()
    shifted = TokenTable(
        {m: x + 1000 * table.masks[m].unsqueeze(-1) for m, x in table.tokens.items()}, table.masks, table.times
    )
    neighbours = make_neighbours(shifted)
    graph = dense(*neighbours.rows_of(shifted, rows_B=torch.arange(NUM_ITEMS)))
    shares = (graph * expected_graph(table, 3) > 0).sum() / (expected_graph(table, 3) > 0).sum()
    assert shares > 0.3  # by chance one in nine
    assert graph.isfinite().all()


# --- smoothing --------------------------------------------------------------------------------------------------------


def test_items_are_smoothed_over_their_neighbours() -> None:
    table = random_table()
    torch.manual_seed(0)
    fusion = FUSIONS["mean"](table.widths, dim=8)
    fusion.calibrate(table.tokens, table.masks)
    counts_I = torch.ones(NUM_ITEMS)
    counts_I[list(COLD)] = 0
    tower = ItemTower(fusion, counts_I, id_dropout=0.0, neighbours=make_neighbours(table), smoothing=0.4).eval()
    tower.connect(table, None)
    graph, ids_ID = expected_graph(table, 3), tower.ids.weight
    own_ID = tower.content(table) + ids_ID * tower.trained_I.unsqueeze(1)
    share_I1 = 0.4 * graph.sum(1, keepdim=True)  # an item without any token has no neighbours, and stays as it is
    assert (share_I1 == 0).any()
    expected = (1 - share_I1) * own_ID + 0.4 * graph @ own_ID
    assert torch.allclose(tower(table, torch.arange(NUM_ITEMS)).vectors_ID, expected, atol=1e-5)
    late = tower.embed_new(table.select(torch.tensor(COLD)))
    assert torch.allclose(late.vectors_ID, expected[list(COLD)], atol=1e-5)

    weight_ID = torch.randn(NUM_ITEMS, 8)
    tower.zero_grad()
    (tower(table, torch.arange(NUM_ITEMS)).vectors_ID * weight_ID).sum().backward()
    assert ids_ID.grad is not None
    by_ids = (1 - share_I1) * weight_ID * tower.trained_I.unsqueeze(1) + 0.4 * graph.T @ weight_ID
    assert torch.allclose(ids_ID.grad, by_ids, atol=1e-5)


def test_the_content_of_neighbours_is_that_of_when_they_were_last_seen() -> None:
    table = random_table()
    fusion = FUSIONS["mean"](table.widths, dim=8)
    tower = ItemTower(fusion, torch.ones(NUM_ITEMS), id_dropout=0.0, neighbours=make_neighbours(table), smoothing=0.4)
    tower.eval().connect(table, None)
    graph, rows = expected_graph(table, 3), torch.tensor([0, 1])
    content_ID, ids_ID = tower.content(table), tower.ids.weight
    seen_ID = torch.zeros_like(content_ID)
    for seen in ([0, 1], list(range(10))):
        tower(table.select(torch.tensor(seen)), torch.tensor(seen))
        seen_ID[seen] = content_ID[seen]
        own_BD = content_ID[rows] + ids_ID[rows]
        expected = 0.6 * own_BD + 0.4 * graph[rows] @ (seen_ID + ids_ID)
        assert torch.allclose(tower(table.select(rows), rows).vectors_ID, expected, atol=1e-5)
