"""Items that join later, and the index that takes them up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planted import COLD, NUM_ITEMS, files_of, item_ids, kind_of, planted, quick, taken_by, to_interactions, write_store

from mmrec.errors import ModelError, RankingError, StoreError
from mmrec.evaluation.interactions import Interactions
from mmrec.recommending.recommender import Recommender
from mmrec.store.feature_store import FeatureStore

pytestmark = pytest.mark.usefixtures("one_thread")
Pairs = tuple[Interactions, Interactions]


@pytest.fixture
def fresh(store: FeatureStore, pairs: Pairs, model: Recommender, tmp_path: Path):  # type: ignore[no-untyped-def]
    """A copy of the model that may be changed."""
    model.save(tmp_path / "fresh")
    return Recommender.load(tmp_path / "fresh")


def test_new_items_are_ranked_searched_and_saved(fresh: Recommender, pairs: Pairs, tmp_path: Path) -> None:
    before = fresh.recommend(fresh.user_ids, k=3)
    arrivals = write_store(tmp_path / "later", planted(["jazz-50", "rain-50", "sport-50"], seed=9))
    fresh.embed_items(arrivals, ["rain-50", "jazz-50"])
    assert fresh.item_ids == [*sorted(item_ids()), "jazz-50", "rain-50"]
    assert {kind_of(item) for item in fresh.similar_items("jazz-50", k=5)[0]} == {"jazz"}
    assert "rain-50" in fresh.similar_items("rain-03", k=12)[0]
    user = next(user for user in fresh.user_ids if kind_of(taken_by(pairs[0], user)[0]) == "jazz")
    assert "jazz-50" in fresh.recommend(user, k=10)[0]
    assert {"jazz-50", "jazz-09"} <= set(fresh.recommend(user, k=4, where={"kind": "jazz"}, explore_share=0.5)[0])
    assert fresh.item("jazz-50")["title"] == "jazz clip jazz-50"
    assert fresh.recommend(fresh.user_ids, k=3, candidates=item_ids())[0].tolist() == before[0].tolist()
    fresh.embed_items(arrivals, ["sport-50"])

    fresh.save(tmp_path / "again")
    loaded = Recommender.load(tmp_path / "again")
    assert loaded.item_ids == fresh.item_ids and loaded.user_ids == fresh.user_ids
    for one, other in zip(loaded.recommend(loaded.user_ids, k=43), fresh.recommend(fresh.user_ids, k=43), strict=True):
        assert np.array_equal(one, other)
    assert not set(taken_by(pairs[0], user)) & set(loaded.recommend(user, k=43)[0])
    metrics = loaded.evaluate(to_interactions([(user, "jazz-50")]), ks=[20])
    assert metrics["cold_items"]["recall@20_among_all"] == metrics["recall@20"] == 1.0
    more = write_store(tmp_path / "more", planted(["chess-50"], seed=10))
    loaded.embed_items(more, ["chess-50"])
    assert {kind_of(item) for item in loaded.similar_items("chess-50", k=5)[0]} == {"chess"}


def test_a_new_twin_gets_the_vector_of_a_cold_item(fresh: Recommender, tmp_path: Path) -> None:
    twin = next(f for f in planted(item_ids()) if f.item.item_id == COLD[0])
    twin.item = replace(twin.item, item_id="twin-00")
    fresh.embed_items(write_store(tmp_path / "twin", [twin]), ["twin-00"])
    assert fresh.similar_items("twin-00", k=1)[0][0] == COLD[0]
    assert np.isclose(*fresh.score("user00", ["twin-00", COLD[0]]), rtol=0.1)


def test_new_items_may_lack_modalities_or_bring_others(fresh: Recommender, tmp_path: Path) -> None:
    items = [
        *planted(["rain-60"], without=("audio",)),
        *planted(["jazz-60"], without=("audio", "visual")),
        *planted(["chess-60"], seed=3),
    ]
    items[2].tokens["text"] = items[2].tokens["audio"]
    later = write_store(tmp_path / "later", items)
    fresh.embed_items(later, [])
    assert len(fresh.item_ids) == NUM_ITEMS
    fresh.embed_items(later, ["rain-60"])
    fresh.embed_items(later, ["jazz-60"])
    fresh.embed_items(later, ["chess-60", "chess-60"])
    assert len(fresh.item_ids) == NUM_ITEMS + 3
    for name in ("rain-60", "chess-60"):
        assert {kind_of(item) for item in fresh.similar_items(name, k=3)[0]} == {kind_of(name)}
    assert np.isfinite(fresh.score("user00", ["jazz-60"])).all()


def test_new_items_join_a_model_of_content(content: Recommender, tmp_path: Path) -> None:
    content.save(tmp_path / "model")
    copy = Recommender.load(tmp_path / "model")
    copy.embed_items(write_store(tmp_path / "later", planted(["sport-50"], seed=9)), ["sport-50"])
    assert {kind_of(item) for item in copy.similar_items("sport-50", k=5)[0]} == {"sport"}
    copy.save(tmp_path / "model")
    assert Recommender.load(tmp_path / "model").item_ids[-1] == "sport-50"


def test_new_items_that_do_not_belong(fresh: Recommender, store: FeatureStore, tmp_path: Path) -> None:
    later = write_store(tmp_path / "later", planted(["jazz-50"]))
    other = write_store(tmp_path / "other", planted(["jazz-50"]), encoder="another")
    with pytest.raises(ModelError, match="another encoder"):
        fresh.embed_items(other, ["jazz-50"])
    with pytest.raises(StoreError, match="no item 'jazz-51'"):
        fresh.embed_items(later, ["jazz-50", "jazz-51"])
    with pytest.raises(ModelError, match="has the item 'jazz-00' already"):
        fresh.embed_items(store, ["jazz-00"])
    assert fresh.item_ids == sorted(item_ids())  # none of these changed anything


def test_an_index_is_kept_with_the_model_and_takes_up_items_that_join(
    store: FeatureStore, pairs: Pairs, tmp_path: Path
) -> None:
    pytest.importorskip("faiss")
    fitted = quick(store, pairs[0])
    exact, _ = fitted.recommend(fitted.user_ids, k=5)
    assert fitted.build_index(k=5, recall=1.0) == 1.0
    fitted.save(tmp_path / "model")
    assert (files_of(tmp_path / "model") / "items.index").exists()
    again = Recommender.load(tmp_path / "model")
    assert np.array_equal(again.recommend(fitted.user_ids, k=5)[0], exact)
    again.embed_items(write_store(tmp_path / "new", planted(["jazz-77", "rain-77"])), ["jazz-77", "rain-77"])
    assert "jazz-77" in again.recommend("user00", k=100)[0]
    assert again.recommend("user00", k=5, candidates=["rain-77"])[0][0] == "rain-77"
    again.save(tmp_path / "model")
    assert (files_of(tmp_path / "model") / "items.index").exists()
    loaded = Recommender.load(tmp_path / "model")
    for ours, theirs in zip(
        loaded.recommend(loaded.user_ids, k=42), again.recommend(again.user_ids, k=42), strict=True
    ):
        assert np.array_equal(ours, theirs)
    quick(store, pairs[0]).save(tmp_path / "model")
    assert not list(files_of(tmp_path / "model").glob("items.index*"))


def test_live_states_know_items_that_join(fresh: Recommender, tmp_path: Path) -> None:
    state = fresh.user_state("user00")
    fresh.embed_items(write_store(tmp_path / "new", planted(["jazz-77"])), ["jazz-77"])
    before = state.vector
    assert not np.allclose(state.add("jazz-77").vector, before)
    assert "jazz-77" not in fresh.recommend("user00", k=100)[0]


def test_an_index_needs_users(content: Recommender) -> None:
    with pytest.raises(RankingError, match="needs items and users"):
        content.build_index()
