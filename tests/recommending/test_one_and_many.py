"""One user or item gets what it would get among many, however it is named."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted import item_ids, quick

from mmrec.errors import ModelError, RankingError
from mmrec.evaluation.interactions import make_interactions
from mmrec.recommending.recommender import Recommender
from mmrec.store.feature_store import FeatureStore

pytestmark = pytest.mark.usefixtures("one_thread")


def test_one_and_many_recommend_alike(model: Recommender) -> None:
    users = [*model.user_ids[:9], "stranger"]
    ids, scores = model.recommend(users, k=7)
    assert ids.shape == scores.shape == (10, 7)
    for place, user in enumerate(users):
        own_ids, own_scores = model.recommend(user, k=7)
        assert own_ids.tolist() == ids[place].tolist()
        assert np.allclose(own_scores, scores[place], rtol=1e-5)


@pytest.mark.parametrize("kind", [tuple, np.array, lambda names: np.array(names, object)])
def test_users_may_be_any_sequence(model: Recommender, kind: Any) -> None:
    users = model.user_ids[:3]
    assert model.recommend(kind(users), k=2)[0].tolist() == model.recommend(users, k=2)[0].tolist()


def test_vectors_rank_as_their_users(model: Recommender) -> None:
    users = model.user_ids[:4]
    vectors_UD = model.user_vectors(users)
    expected = model.recommend(users, k=5, exclude_seen=False)
    many = model.recommend(vectors_UD, k=5)
    assert many[0].tolist() == expected[0].tolist() and np.allclose(many[1], expected[1])
    one = model.recommend(vectors_UD[2], k=5)
    assert one[0].tolist() == expected[0][2].tolist() and one[0].shape == (5,)


def test_scores_are_those_of_the_lists(model: Recommender) -> None:
    ids, scores = model.recommend("user03", k=6)
    assert np.allclose(model.score("user03", list(ids)), scores, rtol=1e-5)
    users = ["user03", "user04", "user03"]
    items = ["jazz-00", "rain-00", "jazz-00"]
    paired = model.score(users, items)
    assert paired[0] == paired[2]
    assert np.allclose(paired, [float(model.score(u, [i])[0]) for u, i in zip(users, items, strict=True)], rtol=1e-5)
    assert model.score("user03", []).shape == (0,)


def test_score_is_one_dot_product_and_a_bias(model: Recommender) -> None:
    vectors_UD = model.user_vectors(["user00", "user01"])
    difference = model.score(["user00", "user01"], ["rain-00", "rain-00"])
    _, vectors_ID = model.item_vectors
    row = model.item_ids.index("rain-00")
    assert np.isclose(difference[0] - difference[1], (vectors_UD[0] - vectors_UD[1]) @ vectors_ID[row], rtol=1e-4)


def test_score_refuses_what_are_no_pairs(model: Recommender) -> None:
    with pytest.raises(ModelError, match="2 users and 3 items"):
        model.score(["user00", "user01"], ["rain-00", "rain-01", "rain-02"])
    with pytest.raises(ModelError, match="no item 'nix'"):
        model.score("user00", ["nix"])


def test_one_and_many_similar_items_agree(model: Recommender) -> None:
    names = ["jazz-00", "rain-03", "jazz-00"]
    ids, cosines = model.similar_items(names, k=4)
    assert ids[0].tolist() == ids[2].tolist()
    for place, name in enumerate(names):
        own_ids, own_cosines = model.similar_items(name, k=4)
        assert own_ids.tolist() == ids[place].tolist() and np.allclose(own_cosines, cosines[place])
        assert name not in own_ids and (np.diff(own_cosines) <= 0).all()
    with pytest.raises(ModelError, match="embed_items"):
        model.similar_items("nix")


def test_similar_items_are_the_nearest_by_cosine(model: Recommender) -> None:
    names, vectors_ID = model.item_vectors
    unit = vectors_ID / np.maximum(np.linalg.norm(vectors_ID, axis=1, keepdims=True), 1e-12)
    cosines = unit @ unit[names.index("sport-02")]
    order = [names[row] for row in np.argsort(-cosines, kind="stable") if names[row] != "sport-02"]
    assert model.similar_items("sport-02", k=6)[0].tolist() == order[:6]


# --- how users may be named -------------------------------------------------------------------------------------------

SEVERAL = ["user03", "user04", "user03", "user11"]
WAYS: dict[str, Callable[[Recommender], Any]] = {
    "ids": lambda model: SEVERAL,
    "ids of numpy": lambda model: np.array(SEVERAL),
    "states": lambda model: [model.user_state(user) for user in SEVERAL],
    "ids and states": lambda model: ["user03", model.user_state("user04"), "user03", "user11"],
}
VECTORS: dict[str, Callable[[Any], Any]] = {
    "matrix": lambda vectors_UD: vectors_UD,
    "float64": lambda vectors_UD: vectors_UD.astype(np.float64),
    "tensor": lambda vectors_UD: torch.from_numpy(vectors_UD).requires_grad_(),
    "list of arrays": list,
    "list of lists": lambda vectors_UD: vectors_UD.tolist(),
    "list of tensors": lambda vectors_UD: [torch.from_numpy(vector_D) for vector_D in vectors_UD],
    "tuple": tuple,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["model", "timed"])
def test_names_and_states_are_the_same_users(kind: str, way: str, request: pytest.FixtureRequest) -> None:
    model = copy.deepcopy(request.getfixturevalue(kind))
    expected_ids, expected = model.recommend(SEVERAL, k=7)
    users = WAYS[way](model)
    ids, scores = model.recommend(users, k=7)
    assert ids.tolist() == expected_ids.tolist() and np.allclose(scores, expected, rtol=1e-4)
    assert np.allclose(model.user_vectors(users), model.user_vectors(SEVERAL), atol=1e-4)
    items = ["jazz-00", "rain-00", "sport-01", "jazz-00"]
    assert np.allclose(model.score(users, items), model.score(SEVERAL, items), rtol=1e-4)
    for place, user in enumerate(users):
        own_ids, own = model.recommend(user, k=7)
        assert own_ids.tolist() == expected_ids[place].tolist() and np.allclose(own, expected[place], rtol=1e-4)


@pytest.mark.parametrize("way", VECTORS)
def test_vectors_may_be_anything_of_numbers(model: Recommender, way: str) -> None:
    vectors_UD = model.user_vectors(SEVERAL)
    expected_ids, expected = model.recommend(SEVERAL, k=7, exclude_seen=False)
    users = VECTORS[way](vectors_UD)
    ids, scores = model.recommend(users, k=7)
    assert ids.tolist() == expected_ids.tolist() and np.allclose(scores, expected, rtol=1e-5)
    own_ids, own = model.recommend(users[0], k=7)
    assert own_ids.tolist() == expected_ids[0].tolist() and own.shape == (7,)
    items = ["jazz-00", "rain-00"]
    assert np.allclose(model.score(users[0], items), model.score("user03", items), rtol=1e-5)


def test_whole_numbers_are_ids(store: FeatureStore) -> None:
    train = make_interactions([str(k // 3) for k in range(12)], item_ids(12))
    model = quick(store, train)
    expected, _ = model.recommend(["1", "3"], k=5)
    for users in ([1, 3], (1, 3), np.array([1, 3]), np.array(["1", "3"]), torch.tensor([1, 3]), ["1", 3]):
        assert model.recommend(users, k=5)[0].tolist() == expected.tolist()
    for user in (1, np.int64(1), np.int32(1), "1", np.str_("1")):
        assert model.recommend(user, k=5)[0].tolist() == expected[0].tolist()
    assert np.array_equal(model.user_vector(3), model.user_vector("3"))
    assert repr(model.user_state(3)) == "UserState(3 interactions)"
    assert model.user_state(3) is model.user_state("3")
    assert model.recommend(list(range(16)), k=2)[0].shape == (16, 2)  # as many as a vector is wide


@pytest.mark.parametrize(
    "users",
    [np.ones(3), np.ones((2, 3)), [0.5] * 17, [[1.0, 2.0]], np.ones((1, 1, 16)), torch.ones(2), np.ones((0, 3))],
)
def test_vectors_of_another_width_are_refused(model: Recommender, users: Any) -> None:
    for ask in (
        lambda: model.recommend(users),
        lambda: model.score(users, ["jazz-00"]),
        lambda: model.user_vectors(users),
    ):
        with pytest.raises(ModelError, match=r"user vectors of shape .*: expected \(16,\) for one user or \(U, 16\)"):
            ask()


@pytest.mark.parametrize("users", [[0.5, "user00"], [[1.0], [1.0, 2.0]], [None], [object()], {"a": 1.0}.items()])
def test_what_is_no_user_is_refused(model: Recommender, users: Any) -> None:
    with pytest.raises(ModelError, match="user"):
        model.recommend(users)


def test_vectors_that_are_not_finite_are_refused(model: Recommender) -> None:
    with pytest.raises(RankingError, match="finite"):
        model.recommend(np.full(16, np.nan, np.float32))


@pytest.mark.parametrize("users", [[], (), np.array([]), np.array([], str), np.zeros((0, 16), np.float32)])
def test_nobody_is_nobody(model: Recommender, users: Any) -> None:
    assert model.recommend(users, k=3)[0].shape == (0, 3) and model.user_vectors(users).shape == (0, 16)


# --- copies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["pickle", "deepcopy", "joblib"])
@pytest.mark.parametrize("kind", ["model", "timed"])
def test_copies_answer_alike_and_go_on_alone(
    kind: str, way: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model: Recommender = request.getfixturevalue(kind)
    users = [*model.user_ids, "stranger"]
    expected = model.recommend(users, k=5)
    if way == "joblib":
        joblib = pytest.importorskip("joblib")
        joblib.dump(model, tmp_path / "model")
        again = joblib.load(tmp_path / "model")
    else:
        again = copy.deepcopy(model) if way == "deepcopy" else pickle.loads(pickle.dumps(model))  # noqa: S301
    for ours, theirs in zip(again.recommend(users, k=5), expected, strict=True):
        assert np.array_equal(ours, theirs)
    assert repr(again) == repr(model) and again.report == model.report and again.item_ids == model.item_ids
    again.user_state(users[0]).add("chess-00")
    assert np.array_equal(model.recommend(users, k=5)[1], expected[1])
    assert not np.array_equal(again.recommend(users, k=5)[1], expected[1])


def test_copies_of_a_model_of_content_go_on_alone(content: Recommender) -> None:
    again = pickle.loads(pickle.dumps(content))  # noqa: S301
    again.user_state("new").add("chess-00")
    assert str(again.recommend("new", k=5)[0][0]).startswith("chess")
    with pytest.raises(ModelError, match="without interactions"):
        content.recommend("new", k=5)


def test_a_number_that_can_be_no_user_of_the_model_is_refused(model: Recommender) -> None:
    for users in (7, [7], np.array([7])):
        with pytest.raises(ModelError, match=r"user 7 is a number, and no user .* but as '"):
            model.recommend(users, k=3)


def test_a_model_shows_its_sizes(model: Recommender, content: Recommender) -> None:
    assert repr(model) == "Recommender(40 items, 80 users, width 16, from visual 12, audio 8)"
    assert repr(content) == "Recommender(40 items, 0 users, width 16, from visual 12, audio 8)"
