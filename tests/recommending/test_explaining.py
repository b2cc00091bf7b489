"""Explanations: parts sum to scores, planted causes come first, and places are those of the lists."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planted import (
    CONFIG,
    EMPTY,
    KINDS,
    MUTE,
    NUM_ITEMS,
    QUIET,
    SMALL,
    kind_of,
    planted,
    taken_by,
    to_interactions,
    with_times,
    write_store,
)

from mmrec.catalog import Item
from mmrec.errors import ModelError
from mmrec.evaluation.interactions import Interactions
from mmrec.recommending import Explanation, Recommender, RecommenderConfig
from mmrec.store import Features, FeatureStore, Modality, Tokens

pytestmark = pytest.mark.usefixtures("one_thread")
Pairs = tuple[Interactions, Interactions]
MODELS = ("model", "timed", "content")


def sums_to(why: Explanation, score: float) -> bool:
    """Whether the score, and both of its cuts, are this score, to 1e-4."""
    by_item = why.popularity + sum(part.contribution for part in why.parts)
    by_history = why.popularity + why.anyone + why.rest + sum(cause.contribution for cause in why.history)
    through = [sum(cause.through.values()) - cause.contribution for cause in why.history]
    return bool(np.allclose([why.score, by_item, by_history, *through], [score] * 3 + [0.0] * len(through), atol=1e-4))


# --- sums -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("with_store", [True, False])
def test_the_parts_sum_to_the_score(
    name: str, with_store: bool, store: FeatureStore, pairs: Pairs, request: pytest.FixtureRequest
) -> None:
    model: Recommender = request.getfixturevalue(name)
    ids = model.item_ids
    user = "user03" if model.user_ids else model.user_state().add("jazz-01").add("rain-02", weight=-1)
    for item in ("jazz-01", "sport-09", MUTE, EMPTY):
        why = model.explain(user, item, store=store if with_store else None)
        assert sums_to(why, float(model.score(user, [item])[0])), item
        modalities = {MUTE: {"visual"}, EMPTY: set()}.get(item, {"visual", "audio"}) if with_store else {"content"}
        assert {part.name for part in why.parts} == modalities | ({"id"} if name != "content" else set())
        assert abs(why.rest) < 1e-4 and why.item_id in ids
        assert ("modalities" in why.methods) == with_store


def test_live_states_are_explained_with_all_that_they_took_up(timed: Recommender, store: FeatureStore) -> None:
    state = timed.user_state().add("jazz-00", timestamp=0.0).add("rain-00", timestamp=9e5, weight=-1)
    state.add("sport-01").add("jazz-00", timestamp=2e6)
    before = timed.explain(state, "jazz-03", store=store)
    assert sums_to(before, float(timed.score(state, ["jazz-03"])[0]))
    assert {cause.item_id: cause.times for cause in before.history} == {"jazz-00": 2, "rain-00": 1, "sport-01": 1}
    state.add_vector(timed.item_vectors[1][timed.item_ids.index("jazz-05")])
    after = timed.explain(state.add("chess-01"), "jazz-03", store=store)
    assert sums_to(after, float(timed.score(state, ["jazz-03"])[0])) and after.rest > 0.01
    assert before.user_id == after.user_id == ""


def test_a_named_live_state_is_what_the_user_is(fresh: Recommender, store: FeatureStore) -> None:
    fresh.user_state("somebody new").add("rain-01")
    why = fresh.explain("somebody new", "rain-02", store=store)
    assert [cause.item_id for cause in why.history] == ["rain-01"] and why.user_id == "somebody new"
    assert sums_to(why, float(fresh.score("somebody new", ["rain-02"])[0]))


def test_items_that_joined_later_are_explained(fresh: Recommender, store: FeatureStore, tmp_path: Path) -> None:
    late = write_store(tmp_path / "late", planted(["jazz-20", "rain-20"], seed=9))
    fresh.embed_items(late, ["jazz-20", "rain-20"])
    for item in ("jazz-20", "rain-20"):
        why = fresh.explain("user00", item, store=late)
        assert sums_to(why, float(fresh.score("user00", [item])[0]))
        assert next(part.contribution for part in why.parts if part.name == "id") == 0


def test_items_that_left_or_changed_are_the_rest_of_a_live_state(
    timed: Recommender, store: FeatureStore, tmp_path: Path
) -> None:
    timed.save(tmp_path / "timed")
    fresh = Recommender.load(tmp_path / "timed")
    state = fresh.user_state().add("jazz-00").add("rain-00").add("sport-00")
    whole = {cause.item_id: cause for cause in fresh.explain(state, "jazz-03", store=store).history}
    fresh.remove_items(["rain-00", "chess-01"])
    left = fresh.explain(state, "jazz-03", store=store)
    assert sums_to(left, float(fresh.score(state, ["jazz-03"])[0]))
    assert left.rest == pytest.approx(whole["rain-00"].contribution, abs=1e-4)
    for cause in left.history:
        assert cause.contribution == pytest.approx(whole[cause.item_id].contribution, abs=1e-4)
    changed = write_store(tmp_path / "changed", planted(["jazz-03", "jazz-00"], seed=5))
    with pytest.raises(ModelError, match="other tokens"):
        fresh.explain(state, "jazz-03", store=changed)
    fresh.update_items(changed, ["jazz-03", "jazz-00"])
    assert sums_to(fresh.explain(state, "jazz-03", store=changed), float(fresh.score(state, ["jazz-03"])[0]))


def test_somebody_without_history_gets_what_anybody_gets(model: Recommender, store: FeatureStore) -> None:
    why = model.explain(model.user_state(), "jazz-00", store=store)
    assert why.history == [] and sums_to(why, float(model.score(model.user_state(), ["jazz-00"])[0]))
    assert "there is no history" in why.sentences()[0]


# --- planted causes ---------------------------------------------------------------------------------------------------

PLANTED_WIDTHS: dict[Modality, int] = {"visual": 12, "audio": 8, "text": 10}
NUM_KINDS, NUM_PLANTED, TOKENS = 4, 60, 4


class World:
    """Items with a kind of their own in each modality, of which one decides what users take.

    Of the deciding modality a single token shows the kind, at a place by chance.
    """

    def __init__(self, folder: Path, cause: Modality, *, seed: int, ordered: bool) -> None:
        rng = np.random.default_rng(seed)
        self.names = [f"item-{place:02}" for place in range(NUM_PLANTED)]
        kinds = {modality: rng.integers(NUM_KINDS, size=NUM_PLANTED) for modality in PLANTED_WIDTHS}
        self.kinds, self.shown = kinds[cause], rng.integers(TOKENS, size=NUM_PLANTED)
        centres = {m: 4 * rng.normal(size=(NUM_KINDS, width)) for m, width in PLANTED_WIDTHS.items()}
        spans_T2 = np.stack([np.arange(TOKENS), np.arange(TOKENS) + 1.0], axis=1)
        made = []
        for place, name in enumerate(self.names):
            features = Features(Item(item_id=name, title=f"The {name}"))
            for modality, width in PLANTED_WIDTHS.items():
                shows_T = np.arange(TOKENS) == self.shown[place] if modality == cause else np.ones(TOKENS)
                vectors_TW = shows_T[:, None] * centres[modality][kinds[modality][place]]
                noise_TW = rng.normal(size=(TOKENS, width)) / 2
                features.tokens[modality] = Tokens((vectors_TW + noise_TW).astype(np.float32), spans_T2)
            made.append(features)
        self.store = write_store(folder, made)
        pairs = []
        for user in range(200):
            own, others = (np.flatnonzero((self.kinds == user % NUM_KINDS) == is_own) for is_own in (True, False))
            history = [*rng.permutation(own)[:4], *rng.permutation(others)[:1]]
            pairs += [(f"user{user:03}", self.names[place]) for place in rng.permutation(history)]
        interactions = with_times(to_interactions(pairs)) if ordered else to_interactions(pairs)
        config = RecommenderConfig(fusion=replace(SMALL, max_epochs=10))
        self.model = Recommender.fit(self.store, interactions, config=config, hardware=QUIET)

    def kind(self, name: str) -> int:
        return int(self.kinds[self.names.index(name)])


@pytest.mark.parametrize(("cause", "seed", "ordered"), [("audio", 0, False), ("visual", 1, True), ("text", 2, False)])
def test_planted_causes_come_first(cause: Modality, seed: int, ordered: bool, tmp_path: Path) -> None:
    """The modality that decides, the token that shows it, and what users took of the same kind: each in 95 %."""
    world = World(tmp_path, cause, seed=seed, ordered=ordered)
    modalities, tokens, causes = [], [], []
    for user in world.model.user_ids[:17]:
        kind = int(user[4:]) % NUM_KINDS
        listed = [name for name in world.model.recommend(user, k=5)[0] if world.kind(name) == kind]
        assert listed
        for item in listed[:3]:
            why = world.model.explain(user, item, store=world.store, top=1)
            assert sums_to(why, float(world.model.score(user, [item])[0]))
            modalities.append(next(part.name for part in why.parts if part.name != "id") == cause)
            first = why.moments[0]
            shown = int(world.shown[world.names.index(item)])
            tokens.append((first.modality, first.number, first.seconds) == (cause, shown + 1, (shown, shown + 1.0)))
            causes.append(world.kind(why.history[0].item_id) == kind)
    assert len(modalities) >= 50
    assert np.mean(modalities) >= 0.95
    assert np.mean(causes) >= 0.95
    assert np.mean(tokens) >= 0.95


# --- places and likeness ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS[:2])
def test_places_are_those_of_the_lists(name: str, store: FeatureStore, request: pytest.FixtureRequest) -> None:
    model: Recommender = request.getfixturevalue(name)
    listed = list(model.recommend("user05", k=NUM_ITEMS)[0])
    listed = [item for item in listed if item]
    for place in (0, 7, len(listed) - 1):
        why = model.explain("user05", listed[place], store=store)
        assert (why.place, why.num_ranked, why.is_seen) == (place + 1, len(listed), False)


@pytest.mark.parametrize("name", MODELS[:2])
def test_without_an_item_is_as_if_it_had_never_been_there(
    name: str, pairs: Pairs, request: pytest.FixtureRequest
) -> None:
    model: Recommender = request.getfixturevalue(name)
    interactions = pairs[0] if name == "model" else with_times(pairs[0])
    history = taken_by(pairs[0], "user05")
    user = interactions.user_index["user05"]
    days = np.zeros(4) if interactions.timestamps is None else interactions.timestamps[interactions.user_rows == user]
    why = model.explain("user05", "sport-09", top=4)
    found = {cause.item_id: cause.place_without for cause in why.history}
    for left_out in history:
        state = model.user_state()
        for item, time in zip(history, days.tolist(), strict=True):
            if item != left_out:
                state.add(item, timestamp=time if name == "timed" else None)
        listed = list(model.recommend(state, k=NUM_ITEMS, exclude=[left_out])[0])
        assert found[left_out] == listed.index("sport-09") + 1


def test_only_the_items_that_matter_most_are_left_out(model: Recommender, store: FeatureStore) -> None:
    for top in (0, 2):
        why = model.explain("user05", "sport-09", store=store, top=top)
        closely = [cause for cause in why.history if cause.place_without is not None]
        assert len(closely) == top
        assert [cause.likeness is not None for cause in why.history if cause not in closely] == [False] * (4 - top)
        least = min((abs(cause.contribution) for cause in closely), default=np.inf)
        assert all(abs(cause.contribution) <= least for cause in why.history if cause not in closely)


def test_an_item_of_the_history_has_a_place_among_the_others(
    model: Recommender, store: FeatureStore, pairs: Pairs
) -> None:
    own = taken_by(pairs[0], "user05")[0]
    why = model.explain("user05", own, store=store)
    listed = list(model.recommend("user05", k=NUM_ITEMS, exclude_seen=False)[0])
    history = taken_by(pairs[0], "user05")
    assert why.is_seen and why.num_ranked == NUM_ITEMS - 3
    assert why.place == [item for item in listed if item == own or item not in history].index(own) + 1
    assert next(cause.likeness for cause in why.history if cause.item_id == own) is None


def test_moments_that_are_alike_have_their_times(tmp_path: Path) -> None:
    """One picture of an item is that of another; the words tell where."""
    items = planted([f"{kind}-{k:02}" for k in range(6) for kind in KINDS])
    spans_T2 = np.array([[12.0, 13.0], [72.0, 73.0]])
    for features in items:
        for tokens in features.tokens.values():
            tokens.spans_T2 = spans_T2
    by_name = {features.item.item_id: features.tokens["visual"] for features in items}
    by_name["jazz-05"].vectors_TD[1] = by_name["jazz-00"].vectors_TD[0]
    for features in items:
        del features.tokens["audio"]
    store = write_store(tmp_path, items)
    pairs = [(f"user{u:02}", f"{KINDS[u % 4]}-{k:02}") for u in range(40) for k in range(5)]
    model = Recommender.fit(store, to_interactions(pairs), config=CONFIG, hardware=QUIET)
    why = model.explain(model.user_state().add("jazz-00"), "jazz-05", store=store)
    like = why.history[0].likeness
    assert like is not None and like.cosine == pytest.approx(1, abs=1e-4)
    assert (like.token, like.seconds, like.their_token, like.their_seconds) == (2, (72.0, 73.0), 1, (12.0, 13.0))
    said = why.sentences()
    assert said[0] == 'Because of "jazz clip jazz-00".'
    assert said[1] == 'Its pictures at 1:12 are like those of "jazz clip jazz-00" at 0:12.'
    assert said[2].startswith('Without "jazz clip jazz-00" it would ')


def test_it_is_json(timed: Recommender, store: FeatureStore) -> None:
    why = timed.explain("user01", "sport-09", store=store)
    told = json.loads(json.dumps(why.to_dict(), allow_nan=False))
    assert told["sentences"] == why.sentences() and told["score"] == why.score
    assert [cause["item_id"] for cause in told["history"]] == [cause.item_id for cause in why.history]
    assert kind_of(told["history"][0]["item_id"]) == "sport"


# --- what cannot be explained -----------------------------------------------------------------------------------------


def refused(
    model: Recommender, words: Sequence[str], user: str, item: str, store: FeatureStore | None, top: int
) -> None:
    with pytest.raises(ModelError) as raised:
        model.explain(user, item, store=store, top=top)
    assert all(word in str(raised.value) for word in words) and "\n" not in str(raised.value)


def test_what_is_not_known_is_refused(model: Recommender, store: FeatureStore, tmp_path: Path) -> None:
    refused(model, ["no user 'nobody'"], "nobody", "jazz-00", store, 5)
    refused(model, ["no item 'nothing'"], "user00", "nothing", store, 5)
    refused(model, ["top is -1"], "user00", "jazz-00", store, -1)
    others = write_store(tmp_path / "others", planted(["jazz-00"]), encoder="another")
    refused(model, ["another encoder"], "user00", "jazz-00", others, 5)
    changed = write_store(tmp_path / "changed", planted(["jazz-00"], seed=3))
    refused(model, ["'jazz-00' has other tokens"], "user00", "jazz-00", changed, 5)
    refused(model, ["no item 'jazz-01'", "explain without the store"], "user00", "jazz-01", changed, 5)


def test_items_of_the_history_that_the_store_lost_are_not_compared(
    model: Recommender, store: FeatureStore, pairs: Pairs, tmp_path: Path
) -> None:
    few = write_store(tmp_path / "few", list(store.features(["sport-09"])), encoder="planted")
    why = model.explain("user05", "sport-09", store=few)
    assert sums_to(why, float(model.score("user05", ["sport-09"])[0]))
    assert all(cause.likeness is None for cause in why.history)
