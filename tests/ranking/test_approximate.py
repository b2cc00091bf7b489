"""The approximate ranker against the exact one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from mmrec.errors import RankingError
from mmrec.ranking.approximate import ApproximateRanker, neighbour_search
from mmrec.ranking.ranker import Ranker

faiss = pytest.importorskip("faiss")

NUM_ITEMS, DIM, NUM_USERS = 4000, 16, 50


@pytest.fixture(scope="module")
def catalog() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Items in clusters, biases, and users who like one or two of them."""
    rng = np.random.default_rng(0)
    vectors_ID = rng.normal(size=(80, DIM))[rng.integers(0, 80, NUM_ITEMS)] + 0.3 * rng.normal(size=(NUM_ITEMS, DIM))
    users_UD = vectors_ID[rng.integers(0, NUM_ITEMS, (NUM_USERS, 2))].sum(1)
    return (
        vectors_ID.astype(np.float32),
        rng.exponential(0.3, NUM_ITEMS).astype(np.float32),
        users_UD.astype(np.float32),
    )


@pytest.fixture(scope="module")
def ranker(catalog) -> ApproximateRanker:  # type: ignore[no-untyped-def]
    vectors_ID, bias_I, users_UD = catalog
    ranker = ApproximateRanker(vectors_ID, bias_I)
    ranker.build(users_UD, recall=0.9)
    return ranker


def share(rows_UK: np.ndarray, exact_UK: np.ndarray) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(rows_UK, exact_UK, strict=True)]))


def test_recall_is_what_it_says_and_scores_are_exact(catalog, ranker) -> None:  # type: ignore[no-untyped-def]
    vectors_ID, bias_I, users_UD = catalog
    exact = Ranker(vectors_ID, bias_I)
    exact_UK, _ = exact.top_k(users_UD, 20)
    rows_UK, scores_UK = ranker.top_k(users_UD, 20)
    assert 0.9 <= ranker.recall < 1
    assert ranker.recall == pytest.approx(share(rows_UK, exact_UK))
    assert np.allclose(scores_UK.ravel(), exact.score(np.repeat(users_UD, 20, axis=0), rows_UK.ravel()))
    assert (np.diff(scores_UK, axis=1) <= 0).all()
    one, _ = ranker.top_k(users_UD[[3]], 20)
    assert (one[0] == rows_UK[3]).all()


def test_exclusions_and_filters_hold_and_lists_stay_full(catalog, ranker) -> None:  # type: ignore[no-untyped-def]
    vectors_ID, bias_I, users_UD = catalog
    best_UK, _ = ranker.top_k(users_UD, 40)
    seen_UI = sp.lil_array((NUM_USERS, NUM_ITEMS))
    seen_UI[np.arange(NUM_USERS)[:, None], best_UK] = 1
    seen_UI = sp.csr_array(seen_UI)
    rows_UK, _ = ranker.top_k(users_UD, 20, exclude_UI=seen_UI)
    assert not any(set(rows_UK[user]) & set(best_UK[user]) for user in range(NUM_USERS))
    assert (rows_UK >= 0).all()
    allowed_I = np.zeros(NUM_ITEMS, np.bool_)
    allowed_I[::7] = True
    rows_UK, _ = ranker.top_k(users_UD, 20, exclude_UI=seen_UI, allowed_I=allowed_I)
    exact_UK, _ = Ranker(vectors_ID, bias_I).top_k(users_UD, 20, exclude_UI=seen_UI, allowed_I=allowed_I)
    assert (rows_UK >= 0).all() and allowed_I[rows_UK].all()
    assert share(rows_UK, exact_UK) > 0.8


def test_few_allowed_items_are_ranked_exactly(catalog, ranker) -> None:  # type: ignore[no-untyped-def]
    vectors_ID, bias_I, users_UD = catalog
    allowed_I = np.zeros(NUM_ITEMS, np.bool_)
    allowed_I[[5, 77, 900]] = True
    rows_UK, scores_UK = ranker.top_k(users_UD, 20, allowed_I=allowed_I)
    exact_UK, exact_scores_UK = Ranker(vectors_ID, bias_I).top_k(users_UD, 20, allowed_I=allowed_I)
    assert (rows_UK == exact_UK).all() and (scores_UK == exact_scores_UK).all()


def test_all_cells_find_everything(catalog) -> None:  # type: ignore[no-untyped-def]
    vectors_ID, bias_I, users_UD = catalog
    ranker = ApproximateRanker(vectors_ID, bias_I)
    assert (ranker.top_k(users_UD, 20)[0] == Ranker(vectors_ID, bias_I).top_k(users_UD, 20)[0]).all()  # no index yet
    ranker.build(users_UD, recall=1.0)
    assert ranker.recall == 1.0


def test_more_items_join_the_index(catalog, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    vectors_ID, bias_I, users_UD = catalog
    first = ApproximateRanker(vectors_ID[:3000], bias_I[:3000])
    first.build(users_UD, recall=0.9)
    recall, before_UK = first.recall, first.top_k(users_UD, 20)[0]
    ranker = first.extended(vectors_ID[3000:], bias_I[3000:])
    exact = Ranker(vectors_ID, bias_I)
    exact_UK, _ = exact.top_k(users_UD, 20)
    rows_UK, scores_UK = ranker.top_k(users_UD, 20)
    assert ranker.num_items == NUM_ITEMS and ranker.recall == recall and "index of recall" in repr(ranker)
    assert (rows_UK >= 3000).any() and share(rows_UK, exact_UK) > 0.85
    assert np.allclose(scores_UK.ravel(), exact.score(np.repeat(users_UD, 20, axis=0), rows_UK.ravel()))
    assert "without an index" in repr(first) and share(before_UK, first.top_k(users_UD, 20)[0]) >= recall - 1e-6
    late_I = np.arange(NUM_ITEMS) >= 3000
    rows_UK, _ = ranker.top_k(users_UD, 20, allowed_I=late_I)
    assert (rows_UK >= 3000).all()
    ranker.save(tmp_path / "items.index")
    again = ApproximateRanker(vectors_ID, bias_I)
    again.load(tmp_path / "items.index")
    assert (again.top_k(users_UD, 20)[0] == ranker.top_k(users_UD, 20)[0]).all()


def test_items_longer_than_any_before_join_too(catalog) -> None:  # type: ignore[no-untyped-def]
    vectors_ID, bias_I, users_UD = catalog
    first = ApproximateRanker(vectors_ID, bias_I)
    first.build(users_UD, recall=0.9)
    ranker = first.extended(users_UD[:5] * 10, np.zeros(5, np.float32))
    rows_UK, _ = ranker.top_k(users_UD[:5], 20)
    assert all(NUM_ITEMS + user in rows_UK[user] for user in range(5))


def test_without_an_index_more_items_are_ranked_exactly(catalog) -> None:  # type: ignore[no-untyped-def]
    vectors_ID, bias_I, users_UD = catalog
    for kind in (Ranker, ApproximateRanker):
        ranker = kind(vectors_ID[:100], bias_I[:100]).extended(vectors_ID[100:], bias_I[100:])
        assert type(ranker) is kind
        for ours, theirs in zip(
            ranker.top_k(users_UD, 20), Ranker(vectors_ID, bias_I).top_k(users_UD, 20), strict=True
        ):
            assert (ours == theirs).all()


def test_neighbours_are_found_among_many(catalog) -> None:  # type: ignore[no-untyped-def]
    vectors_ID, _, users_UD = catalog
    places_UN = neighbour_search(vectors_ID)(users_UD, 10)
    exact_UN, _ = Ranker(vectors_ID).top_k(users_UD, 10)
    assert places_UN.shape == (NUM_USERS, 10) and share(places_UN, exact_UN) > 0.7


def test_saved_and_loaded(catalog, ranker, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    vectors_ID, bias_I, users_UD = catalog
    ranker.save(tmp_path / "items.index")
    again = ApproximateRanker(vectors_ID, bias_I)
    again.load(tmp_path / "items.index")
    assert again.recall == ranker.recall
    for ours, theirs in zip(again.top_k(users_UD, 20), ranker.top_k(users_UD, 20), strict=True):
        assert (ours == theirs).all()
    with pytest.raises(RankingError, match="other items"):
        ApproximateRanker(vectors_ID[::-1], bias_I).load(tmp_path / "items.index")
    with pytest.raises(RankingError, match="no index"):
        again.load(tmp_path / "nothing.index")
    (tmp_path / "items.index").write_bytes(b"not an index")
    with pytest.raises(RankingError, match="no index"):
        again.load(tmp_path / "items.index")


def test_bad_input_is_refused(catalog) -> None:  # type: ignore[no-untyped-def]
    vectors_ID, bias_I, users_UD = catalog
    ranker = ApproximateRanker(vectors_ID, bias_I)
    with pytest.raises(RankingError, match="recall"):
        ranker.build(users_UD, recall=1.5)
    with pytest.raises(RankingError, match="needs items and users"):
        ranker.build(users_UD[:0])
    with pytest.raises(RankingError, match="build one first"):
        ranker.save("nowhere")
