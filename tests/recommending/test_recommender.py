"""The recommender, on stores whose kinds are planted: what it answers, what it refuses, that one and many agree."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from planted import (
    CONFIG,
    KINDS,
    NUM_ITEMS,
    QUIET,
    SMALL,
    item_ids,
    kind_of,
    planted,
    to_interactions,
    watched,
    write_csv,
    write_sample_store,
    write_store,
)

from fusion.config import FitReport
from mmrec.errors import EvaluationError, InteractionError, LeakError, MMRecError, ModelError, RankingError, StoreError
from mmrec.evaluation.interactions import Interactions, read_interactions
from mmrec.recommending.fitting import RecommenderConfig
from mmrec.recommending.recommender import Recommender
from mmrec.store.feature_store import FeatureStore
from mmrec.store.features import Modality

pytestmark = pytest.mark.usefixtures("one_thread")
COLD = [f"{kind}-09" for kind in KINDS]
MUTE, EMPTY = "rain-05", "chess-05"


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
def pairs() -> tuple[Interactions, Interactions]:
    return watched(COLD)


@pytest.fixture(scope="module")
def model(store: FeatureStore, pairs: tuple[Interactions, Interactions]) -> Recommender:
    return Recommender.fit(store, pairs[0], validation=pairs[1], config=CONFIG, hardware=QUIET)


@pytest.fixture(scope="module")
def content(store: FeatureStore) -> Recommender:
    config = replace(CONFIG, fusion=replace(SMALL, max_epochs=5))
    return Recommender.fit(store, config=config, hardware=QUIET)


def quick(store: FeatureStore, interactions: Interactions | None, **options: Any) -> Recommender:
    config = options.pop("config", replace(CONFIG, fusion=replace(SMALL, max_epochs=1)))
    return Recommender.fit(store, interactions, config=config, hardware=QUIET, **options)


def taken_by(interactions: Interactions, user: str) -> list[str]:
    rows = interactions.item_rows[interactions.user_rows == interactions.user_index[user]]
    return [interactions.item_ids[row] for row in rows]


# --- fitting ----------------------------------------------------------------------------------------------------------


def test_users_are_offered_their_kind(model: Recommender, pairs: tuple[Interactions, Interactions]) -> None:
    ids, scores = model.recommend(model.user_ids, k=3)
    for place, user in enumerate(model.user_ids):
        own = kind_of(taken_by(pairs[0], user)[0])
        assert [kind_of(item) for item in ids[place]] == [own] * 3
    assert (np.diff(scores, axis=1) <= 0).all()
    assert isinstance(model.report, FitReport) and 0 < model.report.metrics["val_recall@20"] <= 1


def test_content_alone_finds_the_kinds(content: Recommender) -> None:
    queries = [name for name in item_ids() if name != EMPTY]
    ids, cosines = content.similar_items(queries, k=5)
    right = [kind_of(found) == kind_of(name) for name, row in zip(queries, ids, strict=True) for found in row]
    assert np.mean(right) > 0.95
    assert cosines.max() <= 1.0001 and content.user_ids == []
    vector = content.user_vector(history=["rain-00", "rain-01"])
    assert [kind_of(item) for item in content.recommend(vector, k=4)[0]] == ["rain"] * 4


def test_item_without_tokens_is_known_and_harmless(model: Recommender, content: Recommender) -> None:
    for fitted in (model, content):
        assert np.isfinite(fitted.item_vectors[1]).all()
        assert EMPTY in fitted.item_ids and EMPTY in fitted.recommend("user00", k=NUM_ITEMS, exclude_seen=False)[0]
    assert np.allclose(content.similar_items(EMPTY, k=3)[1], 0)


def test_item_without_sound_lies_with_its_kind(content: Recommender) -> None:
    assert {kind_of(item) for item in content.similar_items(MUTE, k=3)[0]} == {"rain"}


def test_cold_items_stand_among_their_kind(model: Recommender, pairs: tuple[Interactions, Interactions]) -> None:
    user = model.user_ids[0]
    trained = list(model.recommend(user, k=8)[0])
    assert f"{kind_of(taken_by(pairs[0], user)[0])}-09" in trained


def test_without_validation_it_fits(store: FeatureStore, pairs: tuple[Interactions, Interactions]) -> None:
    fitted = quick(store, pairs[0])
    assert fitted.report.epochs == 1 and fitted.report.metrics == {}


def test_same_seed_same_model(store: FeatureStore, pairs: tuple[Interactions, Interactions]) -> None:
    first, second = quick(store, pairs[0]), quick(store, pairs[0])
    assert np.array_equal(first.item_vectors[1], second.item_vectors[1])


def test_repeated_interactions_count_once(
    store: FeatureStore, pairs: tuple[Interactions, Interactions], tmp_path: Path
) -> None:
    once = write_csv(tmp_path / "once.csv", pairs[0])
    twice = tmp_path / "twice.csv"
    lines = once.read_text().splitlines()
    twice.write_text("\n".join([*lines, *lines[1:]]) + "\n")
    first, second = quick(store, once), quick(store, twice)  # type: ignore[arg-type]
    assert second.report.examples == first.report.examples == len(pairs[0]) - len(pairs[0].user_ids)
    taken = taken_by(pairs[0], "user00")
    summed = second.user_vector(history=taken, weights=[2.0] * len(taken))
    assert np.allclose(second.user_vector("user00"), summed, atol=1e-5)


def test_one_user_is_enough(store: FeatureStore) -> None:
    fitted = quick(store, to_interactions([("only", f"jazz-0{k}") for k in range(3)]))
    ids, _ = fitted.recommend("only", k=40)
    assert not {"jazz-00", "jazz-01", "jazz-02"} & set(ids)


def test_interactions_may_name_users_and_items_that_do_not_occur(
    store: FeatureStore, pairs: tuple[Interactions, Interactions]
) -> None:
    train = replace(pairs[0], item_ids=(*pairs[0].item_ids, "unused"))
    assert len(quick(store, train).item_ids) == NUM_ITEMS


@pytest.mark.parametrize(
    ("interactions", "words"),
    [
        (to_interactions([("a", "jazz-00"), ("a", "nix"), ("b", "nix")]), "2 of 3 interactions name items .* 'nix'"),
        (to_interactions([("a", "jazz-00"), ("b", "jazz-00")]), "nothing to learn"),
        (watched()[0].select(np.zeros(0, np.int64)), "nothing to learn"),
    ],
)
def test_interactions_that_teach_nothing(store: FeatureStore, interactions: Interactions, words: str) -> None:
    with pytest.raises(MMRecError, match=words):
        quick(store, interactions)


@pytest.mark.parametrize("weight", ["-1", "0", "nan", "inf", "much"])
def test_bad_weights(store: FeatureStore, tmp_path: Path, weight: str) -> None:
    path = tmp_path / "train.csv"
    path.write_text(f"user_id,item_id,weight\na,jazz-00,{weight}\na,jazz-01,1\n")
    with pytest.raises(InteractionError, match="weight"):
        quick(store, path)  # type: ignore[arg-type]
    train = watched()[0]
    train.weights[3] = -1
    with pytest.raises(ModelError, match="positive"):
        quick(store, train)


def test_bad_validation(store: FeatureStore, pairs: tuple[Interactions, Interactions]) -> None:
    train, held_out = pairs
    with pytest.raises(LeakError, match="320 of 320 held-out interactions are present in training"):
        quick(store, train, validation=train)
    with pytest.raises(ModelError, match="validation is empty"):
        quick(store, train, validation=held_out.select(np.zeros(0, np.int64)))
    with pytest.raises(ModelError, match="validation is empty"):  # of nobody that training knows
        quick(store, train, validation=to_interactions([("stranger", "jazz-00")]))
    with pytest.raises(ModelError, match="without interactions"):
        quick(store, None, validation=held_out)
    with pytest.raises(InteractionError, match="'nix'"):
        quick(store, train, validation=to_interactions([("user00", "nix")]))


def test_stores_that_cannot_be_fitted(tmp_path: Path, pairs: tuple[Interactions, Interactions]) -> None:
    with pytest.raises(StoreError, match="no tokens"):
        quick(write_store(tmp_path / "none", planted(item_ids(), without=("visual", "audio"))), pairs[0])
    with pytest.raises(StoreError, match="no tokens"):
        quick(FeatureStore(tmp_path / "new", create=True), None)
    with pytest.raises(MMRecError):
        quick(write_store(tmp_path / "one", planted(["jazz-00"])), to_interactions([("a", "jazz-00")]))
    write_store(tmp_path / "mixed", planted(item_ids()))
    mixed = write_store(tmp_path / "mixed", planted(["jazz-77"]), encoder="another")
    with pytest.raises(StoreError, match="2 encoders"):
        quick(mixed, pairs[0])


def test_configuration_is_checked() -> None:
    config = RecommenderConfig.from_mapping({"dim": 32, "half_life_days": 7})
    assert config.fusion.dim == 32 and RecommenderConfig.from_mapping(config.to_mapping()) == config
    for wrong, words in [
        ({"dims": 3}, "unknown settings"),
        ({"dim": "64"}, "dim must be int"),
        ({"dim": 0}, "at least 1"),
        ({"fusion": "magic"}, "not one of"),
        ({"half_life_days": -1}, "half_life_days is -1"),
        ({"half_life_days": "week"}, "half_life_days is 'week'"),
        ({"half_life_days": float("nan")}, "half_life_days is nan"),
        ({"half_life_days": True}, "half_life_days is True"),
    ]:
        with pytest.raises(ModelError, match=words):
            RecommenderConfig.from_mapping(wrong)
    with pytest.raises(ModelError, match="half_life_days"):
        RecommenderConfig(half_life_days=-2.0)


def test_heads_that_do_not_divide_the_width(store: FeatureStore, pairs: tuple[Interactions, Interactions]) -> None:
    with pytest.raises(ModelError, match="head"):
        quick(store, pairs[0], config=RecommenderConfig(fusion=replace(SMALL, dim=15, num_heads=2)))


def test_hardware_that_is_not_there(store: FeatureStore, pairs: tuple[Interactions, Interactions]) -> None:
    with pytest.raises(ModelError, match="not available"):
        Recommender.fit(store, pairs[0], config=CONFIG, hardware=replace(QUIET, device="mps"))


# --- one and many -----------------------------------------------------------------------------------------------------


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


# --- what may stand in a list -----------------------------------------------------------------------------------------


def test_seen_items_are_left_out_or_not(model: Recommender, pairs: tuple[Interactions, Interactions]) -> None:
    seen = set(taken_by(pairs[0], "user05"))
    assert len(seen) == 4
    assert not seen & set(model.recommend("user05", k=NUM_ITEMS)[0])
    assert seen <= set(model.recommend("user05", k=NUM_ITEMS, exclude_seen=False)[0])


def test_k_beyond_the_catalog(model: Recommender) -> None:
    ids, scores = model.recommend(["user00", "stranger"], k=1000)
    assert ids.shape == (2, NUM_ITEMS)
    assert (ids[0] == "").sum() == 4 and np.isneginf(scores[0][ids[0] == ""]).all()
    assert sorted(ids[1]) == sorted(model.item_ids)
    assert model.similar_items("jazz-00", k=1000)[0].tolist().count("") == 1
    with pytest.raises(RankingError, match="at least 1"):
        model.recommend("user00", k=0)
    with pytest.raises(RankingError, match="at least 1, got 0"):
        model.recommend("user00", k=0, explore_share=0.5)


def test_filters(model: Recommender) -> None:
    def kinds(**where: Any) -> set[str]:
        return {kind_of(item) for item in model.recommend("user00", k=NUM_ITEMS, where=where)[0] if item}

    assert kinds(kind="rain") == {"rain"}
    for several in (["rain", "jazz"], {"rain", "jazz"}, ("rain", "jazz"), np.array(["rain", "jazz"])):
        assert kinds(kind=several) == {"rain", "jazz"}
    assert kinds(kind=lambda kind: kind > "k") == {"rain", "sport"}
    assert kinds(tags="chess") == kinds(tags={"chess", "unheard"}) == {"chess"}
    assert kinds(tags=lambda tags: "jazz" in tags) == {"jazz"}
    assert kinds(age_limit=12) == kinds(age_limit="12") == set(KINDS)
    assert kinds(age_limit=lambda limit: int(limit) < 12) == kinds(kind="polka") == kinds(kind=[]) == set()
    both = model.recommend("user00", k=NUM_ITEMS, where={"kind": "rain", "language": "en"})[0]
    assert {item for item in both if item} == {f"rain-0{k}" for k in (1, 3, 5, 7, 9)}
    with pytest.raises(ModelError, match="no column 'colour'"):
        kinds(colour="red")


def test_candidates_and_exclusions(model: Recommender) -> None:
    ids, scores = model.recommend("stranger", k=5, candidates=["rain-00", "jazz-00", "rain-00"])
    assert set(ids[:2]) == {"rain-00", "jazz-00"} and ids[2:].tolist() == [""] * 3
    assert np.isfinite(scores[:2]).all() and np.isneginf(scores[2:]).all()
    ids, _ = model.recommend("stranger", k=5, candidates=["rain-00", "jazz-00"], exclude=["rain-00"])
    assert ids.tolist() == ["jazz-00", "", "", "", ""]
    ids, _ = model.recommend("stranger", k=NUM_ITEMS, exclude=[name for name in item_ids() if kind_of(name) != "rain"])
    assert {kind_of(item) for item in ids if item} == {"rain"}
    for options in ({"candidates": ["nix"]}, {"exclude": ["nix"]}):
        with pytest.raises(ModelError, match="'nix'"):
            model.recommend("user00", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("extra", [{}, {"diversity": 0.5}, {"explore_share": 0.5}])
def test_all_filtered_out_leaves_empty_places(model: Recommender, extra: dict[str, float]) -> None:
    ids, scores = model.recommend(["user00", "stranger"], k=3, candidates=[], **extra)  # type: ignore[arg-type]
    assert ids.tolist() == [[""] * 3] * 2 and np.isneginf(scores).all()


def test_nobody_asks(model: Recommender) -> None:
    ids, scores = model.recommend([], k=3, diversity=0.3, explore_share=0.5)
    assert ids.shape == scores.shape == (0, 3)
    assert model.user_vectors([]).shape == (0, 16)
    assert model.similar_items([], k=2)[0].shape == (0, 2)


def test_unknown_users_rank_as_users_without_history(model: Recommender, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        ids, scores = model.recommend(["stranger", "other"], k=5)
    assert ids[0].tolist() == ids[1].tolist() and "2 unknown users, such as 'stranger'" in caplog.text
    assert np.allclose(model.user_vectors(["stranger"])[0], model.user_vector())
    best, best_scores = model.recommend(["stranger", "other"], k=5, diversity=0.0)
    assert np.allclose(best_scores[0], model.recommend(model.user_vector(), k=5)[1], rtol=1e-5)
    assert ids[0][0] == best[0][0] and scores[0].sum() <= best_scores[0].sum()


def test_users_without_history_get_something_of_everything(model: Recommender, content: Recommender) -> None:
    for fitted in (model, content):
        together, _ = fitted.recommend(["user00", "stranger"], k=4)
        alone, _ = fitted.recommend("stranger", k=4)
        assert (
            together[1].tolist() == alone.tolist()
            and together[0].tolist() == fitted.recommend("user00", k=4)[0].tolist()
        )
        spread, best = (fitted.recommend("stranger", k=8, diversity=share)[0] for share in (None, 0.0))
        kinds = [len({kind_of(item) for item in chosen}) for chosen in (spread, best)]
        assert kinds[0] >= max(3, kinds[1])
        allowed, _ = fitted.recommend("stranger", k=3, candidates=["jazz-01", "rain-02"], explore_share=0.5)
        assert set(allowed) == {"jazz-01", "rain-02", ""}


def test_vectors_of_another_width_are_refused(model: Recommender) -> None:
    with pytest.raises(RankingError, match=r"user vectors \(1, 3\)"):
        model.recommend(np.ones(3, np.float32))
    with pytest.raises(RankingError, match="finite"):
        model.recommend(np.full(16, np.nan, np.float32))


def test_equal_items_rank_by_id(tmp_path: Path) -> None:
    items = planted(item_ids(8))
    for features in items:
        features.tokens = items[0].tokens
    fitted = quick(write_store(tmp_path, items), None)
    assert fitted.recommend("stranger", k=8)[0].tolist() == sorted(item_ids(8))
    assert fitted.similar_items("chess-01", k=7)[0].tolist() == [i for i in sorted(item_ids(8)) if i != "chess-01"]


def test_diversity_spreads_the_list(model: Recommender) -> None:
    alike = model.recommend("user00", k=6)
    varied = model.recommend("user00", k=6, diversity=0.9)
    assert len({kind_of(item) for item in varied[0]}) > len({kind_of(item) for item in alike[0]})
    assert alike[0][0] == varied[0][0] and len(set(varied[0])) == 6
    with pytest.raises(RankingError, match="diversity"):
        model.recommend("user00", diversity=1.5)


def test_explore_share_keeps_places_for_cold_items(model: Recommender) -> None:
    usual, usual_scores = model.recommend(model.user_ids, k=10)
    ids, scores = model.recommend(model.user_ids, k=10, explore_share=0.3)
    for before, after, points, user in zip(usual, ids, scores, model.user_ids, strict=True):
        cold = [item for item in after if item in COLD]
        kept = [item for item in before if item in after]
        assert len(cold) == 3 and len(set(after)) == 10
        assert list(after[: len(kept)]) == kept  # what stays keeps its order, what is new comes last
        assert np.allclose(points, model.score(user, list(after)), rtol=1e-5)
    assert np.array_equal(model.recommend(model.user_ids, k=10, explore_share=0.1)[1], usual_scores)
    ids, _ = model.recommend("user00", k=1000, explore_share=0.5)
    named = [item for item in ids if item]
    assert ids.shape == (NUM_ITEMS,) and len(named) == len(set(named)) == NUM_ITEMS - 4
    assert set(model.recommend("user00", k=4, explore_share=1.0)[0]) == set(COLD)
    few = model.recommend("user00", k=4, where={"kind": "jazz"}, explore_share=1.0)[0]
    assert "" not in few and "jazz-09" in few
    warm = [item for item in item_ids() if item not in COLD]
    assert "" not in model.recommend("stranger", k=10, candidates=warm, explore_share=0.5)[0]
    varied = model.recommend(["user00", "user01"], k=6, diversity=0.5, explore_share=0.5)[0]
    assert [len(set(row) & set(COLD)) for row in varied] == [3, 3]
    with pytest.raises(ModelError, match="explore share"):
        model.recommend("user00", explore_share=-0.1)


# --- items that join later --------------------------------------------------------------------------------------------


@pytest.fixture
def fresh(store: FeatureStore, pairs: tuple[Interactions, Interactions], model: Recommender, tmp_path: Path):  # type: ignore[no-untyped-def]
    """A copy of the model that may be changed."""
    model.save(tmp_path / "fresh")
    return Recommender.load(tmp_path / "fresh")


def test_new_items_are_ranked_searched_and_saved(
    fresh: Recommender, pairs: tuple[Interactions, Interactions], tmp_path: Path
) -> None:
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


# --- evaluation -------------------------------------------------------------------------------------------------------


def test_evaluation_is_that_of_a_plain_loop(model: Recommender, pairs: tuple[Interactions, Interactions]) -> None:
    metrics = model.evaluate(pairs[1], ks=[3, 20])
    recall: dict[int, list[float]] = {3: [], 20: []}
    ndcg = []
    for user in pairs[1].user_ids:
        truth = set(taken_by(pairs[1], user))
        ranked = list(model.recommend(user, k=20)[0])
        for k, values in recall.items():
            values.append(len(truth & set(ranked[:k])) / len(truth))
        gains = sum(1 / np.log2(place + 2) for place, item in enumerate(ranked) if item in truth)
        ndcg.append(gains / sum(1 / np.log2(place + 2) for place in range(len(truth))))
    assert metrics["users"] == len(pairs[1].user_ids) == metrics["by_history"]["2-4"]["users"]
    assert np.isclose(metrics["recall@3"], np.mean(recall[3]))
    assert np.isclose(metrics["recall@20"], np.mean(recall[20]))
    assert np.isclose(metrics["ndcg@20"], np.mean(ndcg))
    assert metrics["intervals"]["recall@3"][0] <= metrics["recall@3"] <= metrics["intervals"]["recall@3"][1]
    assert metrics["cold_items"] == {"held_out": 0}
    assert np.isclose(metrics["recall@20"], model.report.metrics["val_recall@20"])


def test_evaluation_compares_with_baselines(model: Recommender, pairs: tuple[Interactions, Interactions]) -> None:
    metrics = model.evaluate(pairs[1], ks=[3, 1000], baselines=["popularity", "ease"])
    for name, baseline in metrics["baselines"].items():
        better_by = baseline["better_by"]["recall@3"]
        assert np.isclose(better_by["mean"], metrics["recall@3"] - baseline["recall@3"]), name
        assert better_by["interval"][0] <= better_by["mean"] <= better_by["interval"][1]
        assert baseline["recall@1000"] == 1.0
    assert metrics["baselines"]["popularity"]["better_by"]["recall@3"]["p_value"] < 0.01
    assert sum(group["interactions"] for group in metrics["by_popularity"].values()) == len(pairs[1])
    with pytest.raises(EvaluationError, match=r"unknown baselines \['best'\]"):
        model.evaluate(pairs[1], baselines=["best"])


def test_evaluation_counts_cold_items(model: Recommender, pairs: tuple[Interactions, Interactions]) -> None:
    own = [(user, f"{kind_of(taken_by(pairs[0], user)[0])}-09") for user in model.user_ids[:10]]
    metrics = model.evaluate(to_interactions(own), ks=[10])
    assert metrics["cold_items"]["held_out"] == 10
    assert metrics["cold_items"]["recall@10_among_cold"] == 1.0
    assert metrics["cold_items"]["recall@10_among_all"] == metrics["recall@10"] > 0.8


def test_evaluation_takes_users_that_training_does_not_know(model: Recommender) -> None:
    metrics = model.evaluate(to_interactions([("stranger", "jazz-00"), ("user00", "rain-09")]), ks=[NUM_ITEMS])
    assert metrics["users"] == 2 and metrics[f"recall@{NUM_ITEMS}"] == 1.0
    assert metrics["by_history"]["0"]["users"] == 1


def test_evaluation_beyond_the_catalog_keeps_its_names(
    model: Recommender, pairs: tuple[Interactions, Interactions]
) -> None:
    metrics = model.evaluate(pairs[1], ks=[1000])
    assert metrics["recall@1000"] == 1.0
    assert np.isclose(metrics["precision@1000"], 1 / 1000)


def test_evaluation_of_single_items_is_finite(model: Recommender, pairs: tuple[Interactions, Interactions]) -> None:
    catalog = model.evaluate(pairs[1], ks=[1])["catalog"]
    assert np.isfinite(list(catalog.values())).all() and "diversity" not in catalog


def test_evaluation_that_cannot_be(model: Recommender, pairs: tuple[Interactions, Interactions]) -> None:
    with pytest.raises(LeakError, match="320 of 320"):
        model.evaluate(pairs[0])
    with pytest.raises(InteractionError, match=r"1 of 2 interactions name items .* 'nix'"):
        model.evaluate(to_interactions([("user00", "nix"), ("user00", COLD[0])]))
    with pytest.raises(EvaluationError, match="nothing was held out"):
        model.evaluate(pairs[1].select(np.zeros(0, np.int64)))
    for ks in ([], [0, 20]):
        with pytest.raises(EvaluationError, match="at least 1"):
            model.evaluate(pairs[1], ks=ks)


def test_evaluation_of_content_alone(content: Recommender, pairs: tuple[Interactions, Interactions]) -> None:
    metrics = content.evaluate(pairs[1], ks=[NUM_ITEMS])
    assert metrics[f"recall@{NUM_ITEMS}"] == 1.0 and metrics["by_history"]["0"]["users"] == len(pairs[1].user_ids)


# --- the sample catalog -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("without", [(), ("visual",), ("audio",), ("text",)])
def test_sample_catalog_beats_popularity(without: tuple[Modality, ...], tmp_path: Path) -> None:
    store, catalog = write_sample_store(tmp_path, without=without)
    model = Recommender.fit(store, catalog / "interactions.csv", hardware=QUIET)
    recall = model.evaluate(catalog / "interactions_validation.csv", ks=[5])["recall@5"]
    train = read_interactions(catalog / "interactions.csv", item_ids=model.item_ids)
    held_out = read_interactions(
        catalog / "interactions_validation.csv", item_ids=model.item_ids, user_ids=train.user_ids
    )
    unseen_UI = 1.0 - (train.matrix().toarray() > 0)
    best_UK = np.argsort(-train.item_degrees() * unseen_UI, axis=1, kind="stable")[:, :5]
    popular = np.mean((best_UK[held_out.user_rows] == held_out.item_rows[:, None]).any(1))
    assert recall > popular + 0.25
    if "text" not in without:
        trained = model.recommend(model.user_vector(text="I like slow piano music"), k=3)[0]
        kinds = [model.item(item)["kind"] for item in trained]
        assert kinds[0] == "slow_piano" and kinds.count("slow_piano") >= 2


# --- speed ------------------------------------------------------------------------------------------------------------


def test_batches_are_fast(model: Recommender) -> None:
    users = model.user_ids * 50
    model.user_vectors(users[:10])
    start = time.perf_counter()
    vectors_UD = model.user_vectors(users)
    assert (time.perf_counter() - start) / len(users) < 1e-3
    assert sp.issparse(model._history_UI) and vectors_UD.shape == (len(users), 16)


def test_an_index_is_kept_with_the_model_and_dropped_when_items_join(
    store: FeatureStore, pairs: tuple[Interactions, Interactions], tmp_path: Path
) -> None:
    pytest.importorskip("faiss")
    fitted = quick(store, pairs[0])
    exact, _ = fitted.recommend(fitted.user_ids, k=5)
    assert fitted.build_index(k=5, recall=1.0) == 1.0
    fitted.save(tmp_path / "model")
    assert (tmp_path / "model" / "items.index").exists()
    again = Recommender.load(tmp_path / "model")
    assert np.array_equal(again.recommend(fitted.user_ids, k=5)[0], exact)
    quick(store, pairs[0]).save(tmp_path / "model")
    assert not list((tmp_path / "model").glob("items.index*"))
    newcomers = write_store(tmp_path / "new", planted(["jazz-77"]))
    again.embed_items(newcomers, ["jazz-77"])
    again.save(tmp_path / "model")
    assert "jazz-77" in Recommender.load(tmp_path / "model").recommend("user00", k=100)[0]
    assert not list((tmp_path / "model").glob("items.index*"))


def test_an_index_needs_users(content: Recommender) -> None:
    with pytest.raises(RankingError, match="needs items and users"):
        content.build_index()
