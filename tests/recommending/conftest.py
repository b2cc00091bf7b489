"""A store with planted kinds, interactions, and models fitted to them: each module of tests has its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from planted import (
    COLD,
    CONFIG,
    EMPTY,
    MUTE,
    QUIET,
    SMALL,
    item_ids,
    planted,
    watched,
    with_times,
    write_store,
)

from mmrec.evaluation.interactions import Interactions
from mmrec.recommending.recommender import Recommender
from mmrec.store.feature_store import FeatureStore

Pairs = tuple[Interactions, Interactions]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Forty items of four kinds; one has no sound, one has nothing at all."""
    items = planted(item_ids())
    for features in items:
        if features.item.item_id in (MUTE, EMPTY):
            del features.tokens["audio"]
        if features.item.item_id == EMPTY:
            del features.tokens["visual"]
    return write_store(tmp_path_factory.mktemp("planted"), items)


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    """What users took, and what they took next; the last item of each kind is cold."""
    return watched(COLD)


@pytest.fixture(scope="module")
def no_factors(module_patch: pytest.MonkeyPatch) -> None:
    """In so little data chance decides whether a linear autoencoder's factors help, and so how wide vectors are."""
    module_patch.setattr("fusion.tasks.FACTOR_SHARES", ())


@pytest.fixture(scope="module")
def model(one_thread: None, no_factors: None, store: FeatureStore, pairs: Pairs) -> Recommender:
    """Users in no order."""
    return Recommender.fit(store, pairs[0], validation=pairs[1], config=CONFIG, hardware=QUIET)


@pytest.fixture(scope="module")
def timed(one_thread: None, no_factors: None, store: FeatureStore, pairs: Pairs) -> Recommender:
    """Users in the order of time."""
    train, held_out = with_times(pairs[0]), with_times(pairs[1], start_day=1000)
    return Recommender.fit(store, train, validation=held_out, config=CONFIG, hardware=QUIET)


@pytest.fixture(scope="module")
def content(one_thread: None, store: FeatureStore) -> Recommender:
    """Fitted to content alone."""
    config = replace(CONFIG, fusion=replace(SMALL, max_epochs=5))
    return Recommender.fit(store, config=config, hardware=QUIET)


@pytest.fixture
def fresh(model: Recommender, tmp_path: Path) -> Recommender:
    """A copy of the model that may be changed."""
    model.save(tmp_path / "fresh")
    return Recommender.load(tmp_path / "fresh")
