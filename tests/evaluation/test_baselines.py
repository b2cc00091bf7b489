"""One suite for every collaborative model, on data with a known answer, and each against a plain reference."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.metrics.pairwise import cosine_similarity

from mmrec.errors import BaselineError
from mmrec.evaluation.baselines import ALS, BASELINES, EASE, ItemNeighbours, Popularity

NUM_ITEMS = 24


def two_tastes() -> sp.csr_array:
    """Users take items of one half of the catalog only; item 0 is everyone's, item 23 nobody's."""
    rng = np.random.default_rng(0)
    taken = np.zeros((80, NUM_ITEMS), np.float32)
    for user in range(80):
        half = np.arange(1, 12) if user % 2 else np.arange(12, 23)
        taken[user, rng.choice(half, size=5, replace=False)] = 1
        taken[user, 0] = 1
    return sp.csr_array(taken)


def history(*items: int) -> sp.csr_array:
    row = np.zeros((1, NUM_ITEMS), np.float32)
    row[0, list(items)] = 1
    return sp.csr_array(row)


needs_implicit = pytest.mark.skipif(find_spec("implicit") is None, reason="without the extra baselines")
KINDS = [pytest.param(kind, marks=[needs_implicit] if kind == "als" else []) for kind in BASELINES]
every_model = pytest.mark.parametrize("kind", KINDS)
personal = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.values != ("popularity",)])


@personal
def test_recommends_from_the_right_half(kind: str) -> None:
    model = BASELINES[kind]().fit(two_tastes())
    assert not set(model.recommend(history(1, 2, 3), 6)[0][0]) & {1, 2, 3, *range(12, 23)}
    assert not set(model.recommend(history(14, 15, 16), 6)[0][0]) & {14, 15, 16, *range(1, 12)}
    assert not set(model.similar_items(np.array([20]), 4)[0][0]) & {20, *range(1, 12)}


@every_model
def test_one_and_many_agree_and_seen_items_stay_out(kind: str) -> None:
    train_UI = two_tastes()
    model = BASELINES[kind]().fit(train_UI)
    rows_UK, scores_UK = model.recommend(train_UI, 10)
    assert rows_UK.shape == scores_UK.shape == (80, 10)
    assert (np.diff(scores_UK, axis=1) <= 0).all()
    for user in (0, 7, 42):
        alone_rows, alone_scores = model.recommend(sp.csr_array(train_UI[[user]]), 10)
        assert (alone_rows[0] == rows_UK[user]).all() and np.allclose(alone_scores[0], scores_UK[user], atol=1e-6)
        assert not set(rows_UK[user]) & set(train_UI[[user]].indices)
    assert 0 in model.recommend(train_UI, NUM_ITEMS, exclude_seen=False)[0][0]


@every_model
def test_saved_and_loaded_is_the_same(kind: str, tmp_path: Path) -> None:
    model = BASELINES[kind]().fit(two_tastes())
    model.save(tmp_path / "model.npz")
    loaded = BASELINES[kind]().load(tmp_path / "model.npz")
    for ours, theirs in zip(model.recommend(history(1, 2), 5), loaded.recommend(history(1, 2), 5), strict=True):
        assert (ours == theirs).all()


@every_model
def test_edges(kind: str, tmp_path: Path) -> None:
    model = BASELINES[kind]()
    with pytest.raises(BaselineError, match="not been fitted"):
        model.recommend(history(1), 3)
    with pytest.raises(BaselineError, match="no interactions"):
        model.fit(sp.csr_array((3, 4)))
    with pytest.raises(BaselineError, match="positive"):
        model.fit(two_tastes() * -1)
    model.fit(two_tastes())
    with pytest.raises(BaselineError, match="histories over 5 items"):
        model.recommend(sp.csr_array((1, 5)), 3)
    with pytest.raises(BaselineError, match="k must be"):
        model.recommend(history(1), 0)
    assert model.recommend(sp.csr_array((1, NUM_ITEMS)), 500)[0].shape == (1, NUM_ITEMS)
    everything = model.recommend(sp.csr_array(np.ones((1, NUM_ITEMS), np.float32)), 3)
    assert (everything[0] == -1).all()
    (tmp_path / "other.npz").write_bytes(b"no archive")
    with pytest.raises(BaselineError, match="is no saved"):
        model.load(tmp_path / "other.npz")


def test_popularity_counts() -> None:
    assert Popularity().fit(two_tastes()).recommend(history(), 1)[0].tolist() == [[0]]


def test_item_neighbours_match_scikit_learn() -> None:
    train_UI = two_tastes()
    expected = cosine_similarity(train_UI.toarray().T)
    np.fill_diagonal(expected, 0)
    scores = ItemNeighbours(neighbours=NUM_ITEMS, shrinkage=0.0).fit(train_UI[:, :23]).score(history(3)[:, :23])
    assert np.allclose(scores[0], expected[3, :23], atol=1e-6)
    few = ItemNeighbours(neighbours=3, shrinkage=0.0).fit(train_UI[:, :23]).score(history(3)[:, :23])
    assert (few > 0).sum() == 3 and few.max() == pytest.approx(expected[3].max())


def test_ease_solves_its_least_squares_problem() -> None:
    train = two_tastes().toarray().astype(np.float64)
    weights_II = EASE(regularisation=5.0, user_power=0.0).fit(two_tastes()).arrays["weights_II"]
    for item in range(NUM_ITEMS):  # every column is a ridge regression on all the others
        others = [k for k in range(NUM_ITEMS) if k != item]
        gram = train[:, others].T @ train[:, others] + 5.0 * np.eye(NUM_ITEMS - 1)
        expected = np.linalg.solve(gram, train[:, others].T @ train[:, item])
        assert np.allclose(weights_II[others, item], expected, atol=1e-5)
        assert weights_II[item, item] == 0


@needs_implicit
def test_als_users_solve_their_least_squares_problem() -> None:
    model = ALS(factors=8, iterations=3, regularisation=0.05, confidence=10.0).fit(two_tastes())
    vectors_IF = model.arrays["vectors_IF"].astype(np.float64)
    weight_I = np.where(history(1, 2).toarray()[0] > 0, 10.0, 1.0)
    wanted_I = history(1, 2).toarray()[0]
    system = vectors_IF.T @ (vectors_IF * weight_I[:, None]) + 0.05 * np.eye(8)
    user_F = np.linalg.solve(system, vectors_IF.T @ (weight_I * wanted_I))
    assert np.allclose(model.score(history(1, 2))[0], vectors_IF @ user_F, atol=1e-4)


def test_als_names_the_package_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "implicit.als", None)
    with pytest.raises(BaselineError, match=r"mmrec\[baselines\]"):
        ALS().fit(two_tastes())
