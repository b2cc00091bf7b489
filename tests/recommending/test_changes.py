"""Items that change or leave between two fits, users who leave, and the index that follows."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planted import COLD, NUM_ITEMS, item_ids, kind_of, planted, quick, taken_by, write_store

from mmrec.errors import ModelError, StoreError
from mmrec.evaluation.interactions import Interactions
from mmrec.recommending.recommender import Recommender
from mmrec.store.feature_store import FeatureStore

pytestmark = pytest.mark.usefixtures("one_thread")
Pairs = tuple[Interactions, Interactions]


def again(model: Recommender, folder: Path) -> Recommender:
    model.save(folder / "again")
    return Recommender.load(folder / "again")


def assert_same_lists(first: Recommender, second: Recommender) -> None:
    for ours, theirs in zip(first.recommend(first.user_ids), second.recommend(first.user_ids), strict=True):
        assert np.array_equal(ours, theirs)


# --- items that change ------------------------------------------------------------------------------------------------


def test_what_has_not_changed_keeps_its_vector(fresh: Recommender, store: FeatureStore, tmp_path: Path) -> None:
    before = fresh.item_vectors[1].copy()
    fresh.update_items(store, item_ids())
    assert np.allclose(fresh.item_vectors[1], before, atol=1e-5)
    assert_same_lists(fresh, again(fresh, tmp_path))


@pytest.mark.parametrize("name", ["jazz-03", COLD[0]])
def test_an_item_of_another_kind_moves_there(fresh: Recommender, tmp_path: Path, name: str) -> None:
    other = next(f for f in planted(["rain-03"], seed=5))
    other.item = replace(other.item, item_id=name)
    before = dict(zip(*fresh.item_vectors, strict=True))
    fresh.update_items(write_store(tmp_path / "changed", [other]), [name])
    for one in (fresh, again(fresh, tmp_path)):
        assert one.item_ids == sorted(item_ids()) and one.item(name)["title"] == "rain clip rain-03"
        assert one.recommend("user00", where={"kind": "rain"}, candidates=[name])[0][0] == name
        after = dict(zip(*one.item_vectors, strict=True))
        assert [item for item in after if not np.array_equal(before[item], after[item])] == [name]
    if name in COLD:  # the audience of the other one still says jazz
        assert {kind_of(item) for item in fresh.similar_items(name, k=4)[0]} == {"rain"}


def test_items_that_joined_later_change_too(fresh: Recommender, tmp_path: Path) -> None:
    fresh.embed_items(write_store(tmp_path / "new", planted(["jazz-50"])), ["jazz-50"])
    other = next(f for f in planted(["rain-50"], seed=5))
    other.item = replace(other.item, item_id="jazz-50")
    fresh.update_items(write_store(tmp_path / "changed", [other]), ["jazz-50"])
    assert {kind_of(item) for item in fresh.similar_items("jazz-50", k=4)[0]} == {"rain"}
    assert_same_lists(fresh, again(fresh, tmp_path))


def test_content_alone_changes_too(content: Recommender, tmp_path: Path) -> None:
    fitted = again(content, tmp_path)
    other = next(f for f in planted(["rain-03"], seed=5))
    other.item = replace(other.item, item_id="jazz-03")
    fitted.update_items(write_store(tmp_path / "changed", [other]), ["jazz-03"])
    assert {kind_of(item) for item in fitted.similar_items("jazz-03", k=4)[0]} == {"rain"}


def test_changes_that_are_refused(fresh: Recommender, store: FeatureStore, tmp_path: Path) -> None:
    other = write_store(tmp_path / "other", planted(["jazz-00"]), encoder="another")
    with pytest.raises(ModelError, match="another encoder"):
        fresh.update_items(other, ["jazz-00"])
    with pytest.raises(ModelError, match="no item 'nix'"):
        fresh.update_items(store, ["jazz-00", "nix"])
    with pytest.raises(StoreError, match="no item 'jazz-01'"):
        fresh.update_items(write_store(tmp_path / "part", planted(["jazz-00"])), ["jazz-00", "jazz-01"])
    with pytest.raises(ModelError, match="no item 'nix'"):
        fresh.remove_items(["jazz-00", "nix"])
    with pytest.raises(ModelError, match="all items"):
        fresh.remove_items(item_ids())
    with pytest.raises(ModelError, match="no user 'nobody'"):
        fresh.forget_user("nobody")
    assert fresh.item_ids == sorted(item_ids()) and len(fresh.user_ids) == 80


# --- items that leave -------------------------------------------------------------------------------------------------


def test_items_that_leave_are_in_no_list(fresh: Recommender, pairs: Pairs, tmp_path: Path) -> None:
    gone = ["chess-00", "jazz-03", "sport-09"]
    user = next(user for user in fresh.user_ids if "jazz-03" in taken_by(pairs[0], user))
    before = {item: fresh.score(fresh.user_vector(user), [item])[0] for item in ("jazz-04", "rain-09")}
    vector = fresh.user_vector(user)
    fresh.remove_items(gone)
    for one in (fresh, again(fresh, tmp_path)):
        assert one.item_ids == [item for item in sorted(item_ids()) if item not in gone]
        listed = one.recommend(one.user_ids, k=NUM_ITEMS, exclude_seen=False)[0]
        assert not set(gone) & set(listed.ravel()) and listed.shape[1] == NUM_ITEMS - 3
        assert "jazz-03" not in one.similar_items("jazz-04", k=NUM_ITEMS)[0]
        assert not set(taken_by(pairs[0], user)) & set(one.recommend(user, k=NUM_ITEMS)[0])
        assert {item: one.score(vector, [item])[0] for item in before} == pytest.approx(before)
        assert one.item("jazz-04")["title"] == "jazz clip jazz-04"
        assert kind_of(one.recommend(user, k=1, where={"kind": "rain"})[0][0]) == "rain"
        with pytest.raises(ModelError, match="no item 'jazz-03'"):
            one.score(user, ["jazz-03"])
        assert one.evaluate(pairs[1].select(~np.isin(pairs[1].item_rows, [pairs[1].item_index[i] for i in gone if i in
                            pairs[1].item_index])))["users"] > 60  # fmt: skip


def test_what_left_may_come_back(fresh: Recommender, store: FeatureStore, tmp_path: Path) -> None:
    fresh.remove_items(["jazz-03"])
    one = again(fresh, tmp_path)
    one.embed_items(store, ["jazz-03"])
    assert {kind_of(item) for item in one.similar_items("jazz-03", k=4)[0]} == {"jazz"}
    one.update_items(store, ["jazz-03", "jazz-04"])
    assert_same_lists(one, again(one, tmp_path))


def test_live_states_follow(fresh: Recommender) -> None:
    named, nobody = fresh.user_state("user00").add("sport-02"), fresh.user_state().add("sport-02").add("jazz-03")
    vectors = [named.vector.copy(), nobody.vector.copy()]
    fresh.remove_items(["chess-00", "jazz-03"])
    assert np.array_equal(named.vector, vectors[0]) and np.array_equal(nobody.vector, vectors[1])
    left = [fresh.recommend(who, k=NUM_ITEMS)[0] for who in ("user00", nobody)]
    assert "sport-02" not in left[0] and set(fresh.item_ids) - set(left[1]) == {"sport-02"}
    nobody.add("sport-03")
    assert "sport-03" not in fresh.recommend(nobody, k=NUM_ITEMS)[0]


def test_a_state_of_a_history_leaves_it_out(model: Recommender) -> None:
    state = model.user_state().add("jazz-01").add("jazz-02")
    assert np.allclose(state.vector, model.user_vector(history=["jazz-01", "jazz-02"]))
    assert not {"jazz-01", "jazz-02"} & set(model.recommend(state, k=NUM_ITEMS)[0])


# --- users who leave --------------------------------------------------------------------------------------------------


def test_a_user_is_forgotten(fresh: Recommender, tmp_path: Path) -> None:
    lists = fresh.recommend(fresh.user_ids, k=5)[0]
    stranger = fresh.recommend("stranger", k=5)[0]
    fresh.user_state("user07").add("jazz-01")
    fresh.forget_user("user07")
    fresh.save(tmp_path / "model", keep=1)
    for one in (fresh, Recommender.load(tmp_path / "model")):
        assert "user07" not in one.user_ids and len(one.user_ids) == 79
        assert np.array_equal(one.recommend(one.user_ids, k=5)[0], np.delete(lists, 7, axis=0))
        assert np.array_equal(one.recommend("user07", k=5)[0], stranger)
    assert all(b"user07" not in path.read_bytes() for path in (tmp_path / "model").rglob("*") if path.is_file())


def test_live_users_and_the_last_ones_are_forgotten_too(store: FeatureStore, pairs: Pairs, tmp_path: Path) -> None:
    fitted = quick(store, pairs[0])
    fitted.user_state("new").add("jazz-01")
    fitted.forget_user("new")
    with pytest.raises(ModelError, match="no user 'new'"):
        fitted.forget_user("new")
    for user in fitted.user_ids:
        fitted.forget_user(user)
    assert again(fitted, tmp_path).user_ids == [] and len(again(fitted, tmp_path).recommend("user00", k=3)[0]) == 3


def test_a_model_of_content_says_that_it_knows_no_users(content: Recommender) -> None:
    for ask in (content.recommend, content.user_vector, content.user_vectors, lambda user: content.score(user, [])):
        with pytest.raises(ModelError, match="fitted without interactions and knows no user 'user00'"):
            ask("user00")
    ids, _ = content.recommend(content.user_state().add("jazz-01"), k=3)
    assert {kind_of(item) for item in ids} == {"jazz"}
    live = copy.deepcopy(content)
    live.user_state("user00").add("jazz-01")
    assert live.recommend("user00", k=3)[0].tolist() == ids.tolist()


# --- the index --------------------------------------------------------------------------------------------------------


def test_an_index_follows(store: FeatureStore, pairs: Pairs, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    fitted = quick(store, pairs[0])
    exact = pickle.loads(pickle.dumps(fitted))  # noqa: S301
    fitted.build_index(k=5, recall=1.0)
    other = next(f for f in planted(["rain-03"], seed=5))
    other.item = replace(other.item, item_id="jazz-03")
    changed = write_store(tmp_path / "changed", [other])
    for one in (fitted, exact):
        one.remove_items(["chess-00", "sport-01"])
        one.update_items(changed, ["jazz-03"])
    for one in (fitted, again(fitted, tmp_path)):
        assert "ApproximateRanker" in repr(one._ranker)
        assert_same_lists(exact, one)
