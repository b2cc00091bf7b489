"""Users: histories, live states that go on, and vectors of items named one by one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planted import (
    CONFIG,
    DAY,
    KINDS,
    NUM_ITEMS,
    QUIET,
    kind_of,
    planted,
    quick,
    taken_by,
    watched,
    write_store,
)

from mmrec.errors import ModelError
from mmrec.evaluation.interactions import Interactions, make_interactions
from mmrec.recommending.recommender import Recommender
from mmrec.recommending.users import to_histories
from mmrec.store.feature_store import FeatureStore

pytestmark = pytest.mark.usefixtures("one_thread")
Pairs = tuple[Interactions, Interactions]


def log_of(weights: list[float], gaps: list[float]) -> Interactions:
    """One user's first items of the catalog, with weights, and days between them; others stand around."""
    items = [f"{KINDS[k % 4]}-0{k // 4}" for k in range(len(weights))]
    others = [("v", "jazz-05"), ("v", "jazz-06"), ("w", "rain-05"), ("w", "rain-06")]
    users, names = zip(*[("u", item) for item in items], *others, strict=True)
    days = np.concatenate([1000 + np.cumsum([0.0, *gaps]), np.arange(4.0)])
    return make_interactions(users, names, timestamps=days * DAY, weights=np.array([*weights, 1, 1, 1, 1]))


WEIGHTS, GAPS = [1.0, 2.5, 0.0, 1.0, -1.0, 0.1], [0.0, 0.25, 30.0, 1e-3, 400.0]


# --- histories --------------------------------------------------------------------------------------------------------


def test_histories_take_signs_and_days() -> None:
    log = log_of(WEIGHTS, GAPS).select(np.array([5, 4, 3, 2, 1, 0, 6, 7, 8, 9]))
    histories = to_histories(log, "auto")
    assert histories.weights_N[:6].tolist() == [1, 1, 0, 1, -1, 1]
    assert histories.ordered and histories.days_N is not None
    assert np.allclose(np.diff(histories.days_N[:6]), GAPS)
    assert not to_histories(log, "none").ordered and to_histories(log, "none").days_N is None
    plain = replace(log, timestamps=None)
    assert not to_histories(plain, "auto").ordered and to_histories(plain, "rows").ordered
    assert to_histories(plain, "rows").items_N[:2].tolist() == log.item_rows[:2].tolist()


def test_a_known_user_is_their_history(store: FeatureStore, pairs: Pairs, model: Recommender) -> None:
    for user in model.user_ids[:5]:
        by_history = model.user_vector(history=taken_by(pairs[0], user))
        assert np.allclose(by_history, model.user_vectors([user])[0], atol=1e-5)
        assert np.allclose(by_history, model.user_vector(user), atol=1e-5)
        backwards = model.user_vector(history=taken_by(pairs[0], user)[::-1])
        assert np.allclose(by_history, backwards, atol=1e-5)  # without times there is no order
    first, *rest = taken_by(pairs[0], "user00")
    assert np.allclose(
        model.user_vector("user01", history=[first, *rest]),
        model.user_vector(history=[*taken_by(pairs[0], "user01"), first, *rest]),
        atol=1e-5,
    )


def test_the_last_item_counts_most_where_there_is_order(timed: Recommender) -> None:
    rain, jazz = (timed.user_vector(history=[item]) for item in ("rain-00", "jazz-00"))
    for order, nearer, farther in ((["rain-00", "jazz-00"], jazz, rain), (["jazz-00", "rain-00"], rain, jazz)):
        mixed = timed.user_vector(history=order)
        assert np.linalg.norm(mixed - nearer) < np.linalg.norm(mixed - farther)


def test_weights_of_a_history_count_by_their_sign(model: Recommender, timed: Recommender) -> None:
    for fitted in (model, timed):
        plain = fitted.user_vector(history=["jazz-00", "rain-00"])
        assert np.allclose(fitted.user_vector(history=["jazz-00", "rain-00"], weights=[7, 0.1]), plain)
        numbers = np.array([3.0, 1.0])
        assert np.allclose(fitted.user_vector(history=["jazz-00", "rain-00"], weights=numbers), plain)  # type: ignore[arg-type]
        against = fitted.user_vector(history=["jazz-00", "rain-00"], weights=[1, -1])
        assert against @ fitted.user_vector(history=["rain-00"]) < plain @ fitted.user_vector(history=["rain-00"])
    neutral = model.user_vector(history=["jazz-00", "rain-00"], weights=[1, 0])
    assert np.allclose(neutral, model.user_vector(history=["jazz-00"]), atol=1e-6)


def test_nothing_is_the_null_vector(model: Recommender, timed: Recommender, content: Recommender) -> None:
    for fitted in (model, timed):
        nothing = fitted.user_vector()
        assert np.array_equal(nothing, fitted.user_vectors(["stranger"])[0])
        assert np.array_equal(nothing, fitted.user_vector("stranger"))
        assert np.array_equal(nothing, fitted.user_vector(text=" <p> </p>\n"))
    assert not content.user_vector().any()


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda model: model.user_vector(history=["nix"]), "no item 'nix'"),
        (lambda model: model.user_vector(history=["jazz-00"], weights=[1, 2]), "2 weights for a history of 1"),
        (lambda model: model.user_vector(weights=[1.0]), "1 weights for a history of 0"),
        (lambda model: model.user_vector(history=["jazz-00"], weights=[float("nan")]), "weight nan .* finite"),
        (lambda model: model.user_state().add("jazz-00", timestamp=float("inf")), "timestamp inf .* finite"),
        (lambda model: model.user_state().add("nix"), "no item 'nix'"),
        (lambda model: model.user_vector(text="piano"), "fitted without text"),
    ],
)
def test_histories_that_cannot_be(model: Recommender, ask: Callable[[Recommender], object], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        ask(model)
    assert np.array_equal(model.user_vector(), model.user_vectors(["stranger"])[0])


def test_a_history_of_decades_can_be_fitted(store: FeatureStore) -> None:
    train = make_interactions(["u"] * 3, ["jazz-00", "jazz-01", "rain-00"], timestamps=np.array([0.0, 1e9, 1.7e9]))
    model = quick(store, train)
    assert np.isfinite(model.user_vector("u")).all()
    assert not {"jazz-00", "jazz-01", "rain-00"} & set(model.recommend("u", k=NUM_ITEMS)[0])


def test_watched_users_are_told_apart_by_their_kind(tmp_path: Path) -> None:
    train, _ = watched(num_users=8)
    model = Recommender.fit(
        write_store(tmp_path, planted(sorted(set(train.item_ids)))), train, config=CONFIG, hardware=QUIET
    )
    unit_UD = model.user_vectors(model.user_ids) - model.user_vector()
    unit_UD /= np.linalg.norm(unit_UD, axis=1, keepdims=True)
    same_UU = np.equal.outer(np.arange(8) % 4, np.arange(8) % 4)
    cosines_UU = unit_UD @ unit_UD.T
    assert cosines_UU[same_UU].min() > cosines_UU[~same_UU].max()


# --- live states ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_times", [True, False])
def test_step_by_step_is_the_whole_history(store: FeatureStore, has_times: bool) -> None:
    log = log_of(WEIGHTS, GAPS)
    train = log if has_times else replace(log, timestamps=None)
    model = quick(store, train)
    assert log.timestamps is not None
    by_step, batch = model.user_state(), model.user_vectors(["u"])[0]
    for row in range(6):
        moment = float(log.timestamps[row]) if has_times else None
        by_step.add(log.item_ids[log.item_rows[row]], timestamp=moment, weight=float(log.weights[row]))
    assert np.allclose(by_step.vector, batch, atol=1e-5) and len(by_step.seen_rows) == 6
    assert by_step.vector.dtype == np.float32
    assert np.allclose(model.user_state("u").vector, batch, atol=1e-5)


def test_a_fitted_user_goes_on_from_their_last_moment(store: FeatureStore) -> None:
    """The gap to a new interaction is that since the last one of the fit."""
    log = log_of([1.0] * 6, GAPS)
    shorter = log.select(np.array([0, 1, 2, 3, 4, 6, 7, 8, 9]))
    model = quick(store, shorter)
    whole = copy.deepcopy(model)
    assert log.timestamps is not None
    state = model.user_state("u").add(log.item_ids[log.item_rows[5]], timestamp=float(log.timestamps[5]))
    by_step = whole.user_state()
    for row in range(6):
        by_step.add(log.item_ids[log.item_rows[row]], timestamp=float(log.timestamps[row]))
    assert np.allclose(state.vector, by_step.vector, atol=1e-5)
    later = whole.user_state("u").add(log.item_ids[log.item_rows[5]])  # without a time, none has passed
    assert not np.allclose(later.vector, state.vector, atol=1e-5)


def test_time_does_not_run_backwards(timed: Recommender) -> None:
    forward, backward = (
        timed.user_state().add("jazz-00", timestamp=100 * DAY).add("rain-00", timestamp=day * DAY) for day in (100, 3)
    )
    assert np.allclose(forward.vector, backward.vector)


@pytest.mark.parametrize("kind", ["model", "timed"])
@pytest.mark.parametrize("user", ["user00", "newcomer"])
def test_what_a_named_user_does_counts_at_once(kind: str, user: str, request: pytest.FixtureRequest) -> None:
    model = copy.deepcopy(request.getfixturevalue(kind))
    before = model.recommend(user, k=NUM_ITEMS)[0]
    best = before[0]
    others = model.recommend(["user01", "stranger"], k=5)
    state = model.user_state(user)
    assert model.user_state(user) is state
    assert np.allclose(model.user_vectors([user])[0], model.user_vector(user), atol=1e-5)
    state.add(best).add("rain-07")
    after = model.recommend(user, k=NUM_ITEMS)[0]
    assert not {best, "rain-07"} & set(after) and set(after) | {best, "rain-07"} == set(before) | {""}
    assert np.allclose(model.user_vectors([user])[0], state.vector, atol=1e-6)
    assert np.allclose(model.user_vector(user), state.vector, atol=1e-6)
    assert {best, "rain-07"} <= set(model.recommend(user, k=NUM_ITEMS, exclude_seen=False)[0])
    assert model.recommend([user, "user01"], k=5)[0][1].tolist() == others[0][0].tolist()
    for ours, theirs in zip(model.recommend(["user01", "stranger"], k=5), others, strict=True):
        assert np.array_equal(ours, theirs)
    for _ in range(3):
        state.add("sport-00").add("sport-01")
    assert {kind_of(item) for item in model.recommend(user, k=3)[0]} == {"sport"}


def test_nobody_in_particular_is_forgotten(model: Recommender) -> None:
    first, second = model.user_state(), model.user_state()
    first.add("jazz-00")
    assert first is not second and len(second.seen_rows) == 0
    assert repr(first) == "UserState(1 interactions)"
    assert np.allclose(first.vector, model.user_vector(history=["jazz-00"]), atol=1e-6)
    assert "jazz-00" not in model.recommend(first, k=NUM_ITEMS)[0]
    assert "jazz-00" in model.recommend("stranger", k=NUM_ITEMS)[0]


def test_to_ask_for_a_vector_changes_no_state(model: Recommender) -> None:
    model = copy.deepcopy(model)
    state = model.user_state("user00").add("rain-03")
    before, seen = state.vector.copy(), list(state.seen_rows)
    grown = model.user_vector("user00", history=["chess-00", "chess-01"])
    assert not np.allclose(grown, before)
    assert np.array_equal(state.vector, before) and list(state.seen_rows) == seen
    assert "chess-00" in model.recommend("user00", k=NUM_ITEMS)[0]
    other = copy.copy(state).add("chess-00")
    assert np.array_equal(state.vector, before) and list(state.seen_rows) == seen != list(other.seen_rows)


def test_states_are_not_saved(model: Recommender, tmp_path: Path) -> None:
    live = copy.deepcopy(model)
    live.user_state("user00").add("rain-03")
    live.user_state("newcomer").add("rain-03")
    live.save(tmp_path / "model")
    loaded = Recommender.load(tmp_path / "model")
    assert np.allclose(loaded.user_vectors(["user00"]), model.user_vectors(["user00"]), atol=1e-6)
    assert np.array_equal(loaded.user_vectors(["newcomer"])[0], loaded.user_vector())


def test_live_states_do_not_count_in_evaluation(model: Recommender, pairs: Pairs) -> None:
    live = copy.deepcopy(model)
    for user in live.user_ids[:20]:
        live.user_state(user).add("rain-03").add("chess-03")
    assert live.evaluate(pairs[1], ks=[5]) == model.evaluate(pairs[1], ks=[5])


def test_states_of_a_model_of_content(content: Recommender) -> None:
    state = content.user_state().add("rain-00").add("rain-01", weight=-1).add("rain-02", weight=0)
    vectors = dict(zip(*content.item_vectors, strict=True))
    assert np.allclose(state.vector, (vectors["rain-00"] - vectors["rain-01"]) / 2, atol=1e-6)
    assert not {"rain-00", "rain-01", "rain-02"} & set(content.recommend(state, k=NUM_ITEMS)[0])
