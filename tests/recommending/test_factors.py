"""A model whose vectors hold a linear autoencoder's factors does all that another one does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planted import CONFIG, QUIET, SMALL, item_ids, planted, with_times, write_store

from mmrec.evaluation.interactions import Interactions
from mmrec.recommending import Recommender
from mmrec.store import FeatureStore

pytestmark = pytest.mark.usefixtures("one_thread")
Pairs = tuple[Interactions, Interactions]


@pytest.fixture(params=["no order", "time"], scope="module")
def wide(store: FeatureStore, pairs: Pairs, request: pytest.FixtureRequest) -> Recommender:
    """Hardly learns, so that factors are what validation gains by."""
    train, held_out = pairs
    if request.param == "time":
        train, held_out = with_times(train), with_times(held_out, start_day=1000)
    config = replace(CONFIG, fusion=replace(SMALL, learning_rate=1e-6, max_epochs=1))
    model = Recommender.fit(store, train, validation=held_out, config=config, hardware=QUIET)
    assert model.item_vectors[1].shape[1] > SMALL.dim
    assert "linear autoencoder" in model.report.rules["factors"]
    return model


@pytest.fixture
def fresh(wide: Recommender, tmp_path: Path) -> Recommender:
    """A copy of the model that may be changed."""
    wide.save(tmp_path / "fresh")
    return Recommender.load(tmp_path / "fresh")


def test_it_is_read_as_it_was_saved(wide: Recommender, fresh: Recommender) -> None:
    for ours, theirs in zip(wide.recommend(wide.user_ids), fresh.recommend(wide.user_ids), strict=True):
        assert np.array_equal(ours, theirs)


def test_a_live_user_is_as_a_fitted_one(wide: Recommender) -> None:
    ids, scores = wide.recommend("user03", k=6)
    assert np.allclose(wide.score("user03", list(ids)), scores, rtol=1e-5)
    state = wide.user_state("user03")
    assert np.allclose(state.vector, wide.user_vectors(["user03"])[0], atol=1e-5)
    state.add("rain-01")
    assert len(state.vector) == wide.item_vectors[1].shape[1]


def test_parts_sum_to_the_score(wide: Recommender, store: FeatureStore) -> None:
    for item in ("jazz-01", "sport-09"):
        why = wide.explain("user03", item, store=store)
        score = float(wide.score("user03", [item])[0])
        assert np.isclose(why.popularity + sum(part.contribution for part in why.parts), score, atol=1e-4)
        causes = sum(cause.contribution for cause in why.history)
        assert np.isclose(why.popularity + why.anyone + why.rest + causes, score, atol=1e-4)


def test_items_join_and_change(fresh: Recommender, store: FeatureStore, tmp_path: Path) -> None:
    before = fresh.item_vectors[1].copy()
    fresh.update_items(store, item_ids())
    assert np.allclose(fresh.item_vectors[1], before, atol=1e-5)
    fresh.embed_items(write_store(tmp_path / "new", planted(["jazz-50"])), ["jazz-50"])
    assert len(fresh.recommend("user03", k=50)[0]) and "jazz-50" in fresh.item_ids
    assert not fresh.item_vectors[1][fresh.item_ids.index("jazz-50"), SMALL.dim :].any()
    fresh.save(tmp_path / "again")
    again = Recommender.load(tmp_path / "again")
    assert np.array_equal(again.item_vectors[1], fresh.item_vectors[1])
