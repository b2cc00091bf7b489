"""The ranker against a float64 sort of all scores."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from mmrec.errors import RankingError
from mmrec.ranking import pruning
from mmrec.ranking import ranker as module
from mmrec.ranking.ranker import Ranker, diversify


def reference(users_UD, vectors_ID, bias_I, k, exclude_UI=None, allowed_I=None):  # type: ignore[no-untyped-def]
    """Sorts everything in float64; equal scores by row."""
    scores_UI = users_UD.astype(np.float64) @ vectors_ID.astype(np.float64).T + bias_I.astype(np.float64)
    if exclude_UI is not None:
        scores_UI[exclude_UI] = -np.inf
    if allowed_I is not None:
        scores_UI[:, ~allowed_I] = -np.inf
    rows_UK = np.argsort(-scores_UI, axis=1, kind="stable")[:, :k]
    scores_UK = np.take_along_axis(scores_UI, rows_UK, 1)
    return np.where(np.isneginf(scores_UK), -1, rows_UK), scores_UK


@pytest.fixture(params=["bfloat16", "float32", "direct"])
def fast_type(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on machines that multiply bfloat16 natively, as on those that do not, and as where there is little to do."""
    monkeypatch.setattr(module, "PRODUCTS_DONE_DIRECTLY", 2**40 if request.param == "direct" else 0)
    types = {"bfloat16": (torch.bfloat16, torch.float32)}.get(request.param, (torch.float32,))
    monkeypatch.setattr(pruning, "fast_types", lambda device: types)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "SCORES_AT_ONCE", {"cpu": 700})
    monkeypatch.setattr(pruning, "SCORES_OF_A_THREAD", 700)
    monkeypatch.setattr(pruning, "SIFTED_AT_ONCE", {"cpu": 3000})
    monkeypatch.setattr(pruning, "BLOCK", 100)
    monkeypatch.setattr(module, "USERS_AT_ONCE", {"cpu": 15})  # one batch of many, one of few


def no_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a pruning_pass should settle every user."""
    monkeypatch.setattr(Ranker, "_rank_in_float64", lambda *arguments: pytest.fail("not settled"))


@pytest.mark.usefixtures("small_blocks", "fast_type")
@pytest.mark.parametrize("k", [1, 20, 200])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("limits", ["none", "exclude", "allowed", "both"])
def test_identical_to_a_float64_sort(k: int, ties: bool, limits: str) -> None:
    rng = np.random.default_rng(k)
    users_UD, vectors_ID = (rng.normal(size=(n, 16)).astype(np.float32) for n in (23, 530))
    bias_I = rng.normal(size=530).astype(np.float32)
    if ties:  # small whole numbers and copies: exact ties, far more than fit any shortlist
        users_UD, vectors_ID, bias_I = users_UD.round(), (vectors_ID / 2).round(), np.zeros(530, np.float32)
        vectors_ID[100:400] = vectors_ID[7]
    exclude_UI = rng.random((23, 530)) < 0.3 if limits in {"exclude", "both"} else None
    allowed_I = rng.random(530) < 0.2 if limits in {"allowed", "both"} else None
    rows_UK, scores_UK = Ranker(vectors_ID, bias_I).top_k(
        users_UD, k, exclude_UI=None if exclude_UI is None else sp.csr_array(exclude_UI), allowed_I=allowed_I
    )
    expected_rows, expected_scores = reference(users_UD, vectors_ID, bias_I, k, exclude_UI, allowed_I)
    assert (rows_UK == expected_rows).all()
    assert np.allclose(scores_UK, expected_scores, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("fast_type")
def test_rounding_does_not_hide_an_item() -> None:
    rng = np.random.default_rng(0)
    users_UD = rng.normal(size=(5, 64)).astype(np.float32) * 100
    near_ID = np.repeat(rng.normal(size=(1, 64)), 3000, axis=0) * 100
    vectors_ID = (near_ID + rng.normal(size=near_ID.shape) * 1e-5).astype(np.float32)  # differences below float32 sums
    rows_UK, _ = Ranker(vectors_ID).top_k(users_UD, 20)
    scores_UI = np.einsum("ud,id->ui", users_UD.astype(np.float64), vectors_ID.astype(np.float64))
    assert (rows_UK == np.argsort(-scores_UI, axis=1, kind="stable")[:, :20]).all()


@pytest.mark.usefixtures("fast_type")
@pytest.mark.parametrize("num_users", [1, 12, 13, 64])
@pytest.mark.parametrize(
    "shape",
    ["plain", "long", "common part", "great bias", "tiny", "huge", "small", "negative"],
)
def test_exact_whatever_the_scale(num_users: int, shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(num_users)
    users_UD, vectors_ID = (rng.normal(size=(n, 33)).astype(np.float32) for n in (num_users, 5003))
    bias_I = rng.normal(size=5003).astype(np.float32)
    if shape == "long":
        vectors_ID *= rng.exponential(5, size=(5003, 1)).astype(np.float32)
    elif shape == "common part":  # most of a vector is the same for all: narrow types keep few digits of the rest
        vectors_ID = vectors_ID + 30
    elif shape == "great bias":
        bias_I *= 1000
    elif shape in {"tiny", "small", "huge"}:
        scale = np.float32({"tiny": 1e-30, "small": 1e-15, "huge": 3e18}[shape])
        users_UD, vectors_ID, bias_I = users_UD * scale, vectors_ID * scale, bias_I * 0
    elif shape == "negative":
        bias_I -= 100
    if shape not in {"tiny", "small", "huge"}:  # where float32 drops or overflows
        no_float64(monkeypatch)
    rows_UK, _ = Ranker(vectors_ID, bias_I).top_k(users_UD, 20)
    assert (rows_UK == reference(users_UD, vectors_ID, bias_I, 20)[0]).all()


@pytest.mark.parametrize("num_users", [3, 40])
def test_a_narrow_scan_settles_what_fitted_models_are_like(num_users: int) -> None:
    rng = np.random.default_rng(0)
    vectors_IE = rng.normal(size=(8192, 65)) + 3 + rng.normal(size=(80, 65))[rng.integers(0, 80, 8192)]
    vectors_IE[:, -1] = rng.exponential(16, 8192)  # the bias: popularity has a long tail
    users_UE = vectors_IE[rng.integers(0, 8192, (num_users, 4))].sum(1) / 2
    users_UE[:, -1] = 1
    items, users = (torch.from_numpy(vectors.astype(np.float32)) for vectors in (vectors_IE, users_UE))
    best = pruning.PruningPass(items, torch.bfloat16).top_k(users, 20, np.zeros(8192, np.bool_), None)
    assert best.settled_U.all()
    expected_UK = (users.double() @ items.double().T).topk(20, dim=1).indices
    assert (best.rows_UK == expected_UK).all()


@pytest.mark.usefixtures("fast_type")
def test_copies_of_an_item_stand_by_row() -> None:
    rng = np.random.default_rng(0)
    users_UD, vectors_ID = (rng.normal(size=(n, 20)).astype(np.float32) for n in (30, 4000))
    copies = rng.permutation(4000)[:1500].reshape(30, 50)
    for user in range(30):
        vectors_ID[copies[user]] = 4 * users_UD[user]
    rows_UK, _ = Ranker(vectors_ID).top_k(users_UD, 60)
    assert (rows_UK[:, :50] == np.sort(copies, axis=1)).all()


def test_no_score_of_a_scan_is_further_off_than_it_says() -> None:
    rng = np.random.default_rng(0)
    users, items = (torch.from_numpy(rng.standard_cauchy(size=(n, 48)).astype(np.float32)) for n in (40, 4096))
    items += 5
    for dtype, few in ((torch.bfloat16, 12), (torch.bfloat16, 40), (torch.float32, 40)):
        narrow, some = pruning.PruningPass(items, dtype), users[:few]
        maxima_UI = narrow._group_maxima(some, 1, np.zeros(4096, np.bool_), None).double()
        true_UI = some.double() @ (items.double() - narrow.centre_E.double()).T
        allowed_UI = narrow._error(some)[:, None] + pruning._rounding(dtype) * maxima_UI.abs()
        assert ((maxima_UI - true_UI).abs() <= allowed_UI).all()
        assert (maxima_UI - true_UI).abs().max() > allowed_UI.max() / 1000  # and it says no more than that


def test_devices_score_groups_alike() -> None:
    rng = np.random.default_rng(0)
    vectors, users = (torch.from_numpy(rng.normal(size=(n, 9)).astype(np.float32)) for n in (64, 5))
    groups = torch.from_numpy(rng.integers(-1, 8, (5, 6)))
    expected_USG = (users.double() @ vectors.double().T).view(5, 8, 8)[torch.arange(5)[:, None], groups.clamp(min=0)]
    expected_USG[groups < 0] = -torch.inf
    for score in (pruning.dot_products.score_groups, pruning._score_copies):
        assert torch.allclose(score(vectors, users, groups, 8), expected_USG)


def test_many_and_one_agree_and_score_agrees() -> None:
    rng = np.random.default_rng(1)
    users_UD, vectors_ID = (rng.normal(size=(n, 8)).astype(np.float32) for n in (9, 50))
    ranker = Ranker(vectors_ID, rng.normal(size=50).astype(np.float32))
    rows_UK, scores_UK = ranker.top_k(users_UD, 5)
    for user in range(9):
        rows_1K, scores_1K = ranker.top_k(users_UD[[user]], 5)
        assert (rows_1K[0] == rows_UK[user]).all() and (scores_1K[0] == scores_UK[user]).all()
    pairs = ranker.score(np.repeat(users_UD, 5, axis=0), rows_UK.ravel())
    assert np.allclose(pairs, scores_UK.ravel(), rtol=1e-6)


def test_candidates_are_ranked_among_themselves() -> None:
    ranker = Ranker(np.arange(10, dtype=np.float32)[:, None])
    rows_UK, scores_UK = ranker.rank_candidates(np.ones((2, 1), np.float32), np.array([[3, 7, 5], [2, -1, -1]]), k=2)
    assert rows_UK.tolist() == [[7, 5], [2, -1]]
    assert scores_UK.tolist() == [[7, 5], [2, -np.inf]]


def test_what_is_left_when_little_is() -> None:
    ranker = Ranker(np.arange(3, dtype=np.float32)[:, None])
    users_UD = np.ones((1, 1), np.float32)
    assert ranker.top_k(users_UD, 50)[0].tolist() == [[2, 1, 0]]
    rows_UK, scores_UK = ranker.top_k(users_UD, 2, allowed_I=np.zeros(3, bool))
    assert rows_UK.tolist() == [[-1, -1]] and np.isneginf(scores_UK).all()
    rows_UK, _ = ranker.top_k(users_UD, 3, exclude_UI=sp.csr_array(np.array([[0, 1, 0]])))
    assert rows_UK.tolist() == [[2, 0, -1]]
    assert ranker.top_k(np.empty((0, 1), np.float32), 2)[0].shape == (0, 2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda r, u: r.top_k(u, 0), "k must be"),
        (lambda r, u: r.top_k(u[:, :2], 3), "user vectors"),
        (lambda r, u: r.top_k(u * np.nan, 3), "finite"),
        (lambda r, u: r.top_k(u, 3, exclude_UI=sp.csr_array((2, 9))), "exclusions"),
        (lambda r, u: r.top_k(u, 3, allowed_I=np.ones(4, bool)), "allowed"),
        (lambda r, u: r.rank_candidates(u, np.array([[0], [11]]), 1), "outside"),
        (lambda r, u: r.score(u, np.array([0, -1])), "outside"),
        (lambda r, u: r.score(u, np.array([0])), "no pairs"),
        (lambda r, u: Ranker(np.full((2, 2), np.nan, np.float32)), "finite"),
        (lambda r, u: Ranker(np.ones((2, 2), np.float32), np.ones(3, np.float32)), "do not fit"),
    ],
)
def test_bad_input_is_refused(call, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RankingError, match=words):
        call(Ranker(np.ones((10, 3), np.float32)), np.ones((2, 3), np.float32))


def test_marginal_relevance_matches_a_loop() -> None:
    rng = np.random.default_rng(0)
    vectors_ID = rng.normal(size=(60, 5)).astype(np.float32)
    rows_UC = np.stack([rng.permutation(60)[:15] for _ in range(6)])
    scores_UC = -np.sort(-rng.random((6, 15)).astype(np.float32), axis=1)
    rows_UC[3, 10:], scores_UC[3, 10:] = -1, -np.inf
    rows_UK, scores_UK = diversify(rows_UC, scores_UC, vectors_ID, 12, diversity=0.4)
    unit_ID = vectors_ID / np.linalg.norm(vectors_ID, axis=1, keepdims=True)
    for user in range(6):
        left = [c for c in range(15) if rows_UC[user, c] >= 0]
        scores = scores_UC[user, left]
        relevance = dict(zip(left, (scores - scores.min()) / (scores.max() - scores.min()), strict=True))
        chosen: list[int] = []
        while left and len(chosen) < 12:
            near = {
                c: max((unit_ID[rows_UC[user, c]] @ unit_ID[rows_UC[user, d]] for d in chosen), default=-1)
                for c in left
            }
            best = max(left, key=lambda c: 0.6 * relevance[c] - 0.4 * near[c])
            chosen.append(best)
            left.remove(best)
        assert rows_UK[user, : len(chosen)].tolist() == rows_UC[user, chosen].tolist()
        assert (rows_UK[user, len(chosen) :] == -1).all()
        assert np.allclose(scores_UK[user, : len(chosen)], scores_UC[user, chosen])


def test_no_diversity_keeps_the_order_and_much_spreads() -> None:
    vectors_ID = np.array([[1, 0], [1, 0.01], [1, 0.02], [0, 1]], dtype=np.float32)
    rows_UC, scores_UC = np.array([[0, 1, 2, 3]]), np.array([[4.0, 3.9, 3.8, 1.0]], dtype=np.float32)
    assert diversify(rows_UC, scores_UC, vectors_ID, 3, diversity=0)[0].tolist() == [[0, 1, 2]]
    assert diversify(rows_UC, scores_UC, vectors_ID, 2, diversity=0.9)[0].tolist() == [[0, 3]]
    with pytest.raises(RankingError, match="diversity"):
        diversify(rows_UC, scores_UC, vectors_ID, 2, diversity=2)
