"""Fitting a recommender: what it learns of planted kinds, and what it refuses."""

from __future__ import annotations

import logging
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
    item_ids,
    kind_of,
    planted,
    quick,
    taken_by,
    to_interactions,
    watched,
    with_times,
    write_csv,
    write_sample_store,
    write_store,
)

from fusion.config import FitReport
from mmrec.errors import FitInterrupted, InteractionError, LeakError, MMRecError, ModelError, StoreError
from mmrec.evaluation.interactions import Interactions, make_interactions, read_interactions
from mmrec.recommending.fitting import RecommenderConfig
from mmrec.recommending.recommender import Recommender
from mmrec.store.feature_store import FeatureStore
from mmrec.store.features import Modality

pytestmark = pytest.mark.usefixtures("one_thread")
Pairs = tuple[Interactions, Interactions]


def test_users_are_offered_their_kind(model: Recommender, pairs: Pairs) -> None:
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
        assert EMPTY in fitted.item_ids and EMPTY in fitted.recommend(fitted.user_state(), k=NUM_ITEMS)[0]
    assert np.allclose(content.similar_items(EMPTY, k=3)[1], 0)


def test_a_fit_in_python_says_nothing_of_lightning(
    store: FeatureStore, pairs: Pairs, recwarn: pytest.WarningsRecorder
) -> None:
    logger, said = logging.getLogger("lightning.pytorch"), list[logging.LogRecord]()
    handler, level = logging.Handler(), logger.level
    handler.emit = said.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        quick(store, pairs[0])
        assert said == [] and not [w for w in recwarn if "lightning" in f"{w.filename}{w.message}"]
        assert logger.level == logging.INFO
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def test_what_is_missing_is_told_before_tokens_are_read(
    store: FeatureStore, pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmrec.recommending.fitting.read_tokens", pytest.fail)
    for sources in ((tmp_path / "none.csv", None), (pairs[0], tmp_path / "none.csv")):
        with pytest.raises(InteractionError, match="there is no file"):
            Recommender.fit(store, sources[0], validation=sources[1])
    with pytest.raises(ModelError, match="without interactions"):
        Recommender.fit(store, validation=pairs[1])


def test_item_without_sound_lies_with_its_kind(content: Recommender) -> None:
    assert {kind_of(item) for item in content.similar_items(MUTE, k=3)[0]} == {"rain"}


def test_cold_items_stand_among_their_kind(model: Recommender, pairs: Pairs) -> None:
    user = model.user_ids[0]
    trained = list(model.recommend(user, k=8)[0])
    assert f"{kind_of(taken_by(pairs[0], user)[0])}-09" in trained


def test_without_validation_it_fits(store: FeatureStore, pairs: Pairs) -> None:
    fitted = quick(store, pairs[0])
    assert fitted.report.epochs == 1 and fitted.report.metrics == {}


def test_same_seed_same_model(store: FeatureStore, pairs: Pairs) -> None:
    first, second = quick(store, pairs[0]), quick(store, pairs[0])
    assert np.array_equal(first.item_vectors[1], second.item_vectors[1])


def test_repeated_interactions_count_once(store: FeatureStore, pairs: Pairs, tmp_path: Path) -> None:
    once = write_csv(tmp_path / "once.csv", pairs[0])
    twice = tmp_path / "twice.csv"
    lines = once.read_text().splitlines()
    twice.write_text("\n".join([*lines, *lines[1:]]) + "\n")
    first, second = quick(store, once), quick(store, twice)
    assert second.report.examples == first.report.examples == len(pairs[0])
    assert np.array_equal(first.item_vectors[1], second.item_vectors[1])


def test_weights_count_by_their_sign(store: FeatureStore, pairs: Pairs) -> None:
    rng = np.random.default_rng(0)
    heavy = replace(pairs[0], weights=rng.uniform(0.1, 9, len(pairs[0])).astype(np.float32))
    plain, weighted = quick(store, pairs[0]), quick(store, heavy)
    assert np.array_equal(plain.item_vectors[1], weighted.item_vectors[1])
    assert np.array_equal(plain.user_vectors(["user00"]), weighted.user_vectors(["user00"]))


@pytest.mark.parametrize("weight", [0.0, -1.0, -0.5])
def test_what_was_not_liked_is_seen_and_teaches_nothing(store: FeatureStore, pairs: Pairs, weight: float) -> None:
    """Everybody saw one more item, of the next kind, and did not like it."""
    train = pairs[0]
    users, items = ([*ids] for ids in (train.user_ids, train.item_ids))
    names = [(users[u], items[i]) for u, i in zip(train.user_rows, train.item_rows, strict=True)]
    others = [
        (user, f"{KINDS[(KINDS.index(kind_of(taken_by(train, user)[0])) + 1) % 4]}-00") for user in train.user_ids
    ]
    weights = np.array([1.0] * len(names) + [weight] * len(others))
    mixed = make_interactions(*zip(*names, *others, strict=True), weights=weights)
    model = Recommender.fit(store, mixed, validation=pairs[1], config=CONFIG, hardware=QUIET)
    assert model.report.examples == len(names)
    for user, other in others[:8]:
        assert other not in model.recommend(user, k=NUM_ITEMS)[0]
        assert [kind_of(item) for item in model.recommend(user, k=3)[0]] == [kind_of(taken_by(train, user)[0])] * 3


def test_order_counts_where_it_is_known(store: FeatureStore, pairs: Pairs) -> None:
    log = with_times(pairs[0])
    for interactions, order, rule in (
        (pairs[0], "auto", "none"),
        (log, "auto", "by time"),
        (log, "none", "none"),
        (pairs[0], "rows", "by time"),
    ):
        config = replace(CONFIG, fusion=replace(SMALL, max_epochs=1, order=order))
        assert quick(store, interactions, config=config).report.rules["order"] == rule


def test_the_order_of_rows_does_not_matter_where_there_are_times(store: FeatureStore, pairs: Pairs) -> None:
    log = with_times(pairs[0])
    shuffled = log.select(np.random.default_rng(0).permutation(len(log)))
    first, second = quick(store, log), quick(store, shuffled)
    assert np.allclose(first.user_vectors(["user07"]), second.user_vectors(["user07"]), atol=1e-4)


def test_a_fit_that_is_stopped_says_so_and_goes_on(store: FeatureStore, pairs: Pairs, tmp_path: Path) -> None:
    steps: list[int] = []
    hardware = replace(QUIET, checkpoints=tmp_path, should_stop=lambda: len(steps) > 7,
                       on_progress=lambda progress: steps.append(progress.step))  # fmt: skip
    with pytest.raises(FitInterrupted, match="stopped in epoch 2"):
        Recommender.fit(store, pairs[0], config=CONFIG, hardware=hardware)
    assert list(tmp_path.rglob("*.ckpt"))
    steps.clear()
    Recommender.fit(store, pairs[0], config=CONFIG, hardware=replace(hardware, should_stop=None))
    assert steps[0] == 6 and not list(tmp_path.rglob("*.ckpt"))


def test_one_user_is_enough(store: FeatureStore) -> None:
    fitted = quick(store, to_interactions([("only", f"jazz-0{k}") for k in range(3)]))
    ids, _ = fitted.recommend("only", k=40)
    assert not {"jazz-00", "jazz-01", "jazz-02"} & set(ids)


def test_interactions_may_name_users_and_items_that_do_not_occur(store: FeatureStore, pairs: Pairs) -> None:
    train = replace(pairs[0], item_ids=(*pairs[0].item_ids, "unused"))
    assert len(quick(store, train).item_ids) == NUM_ITEMS


@pytest.mark.parametrize(
    ("interactions", "words"),
    [
        (to_interactions([("a", "jazz-00"), ("a", "nix"), ("b", "nix")]), "2 of 3 interactions name items .* 'nix'"),
        (to_interactions([("a", "jazz-00"), ("b", "jazz-00")]), "nothing to learn"),
        (make_interactions(["a", "a"], ["jazz-00", "jazz-01"], weights=np.array([0.0, -1])), "nothing to learn"),
        (watched()[0].select(np.zeros(0, np.int64)), "nothing to learn"),
    ],
)
def test_interactions_that_teach_nothing(store: FeatureStore, interactions: Interactions, words: str) -> None:
    with pytest.raises(MMRecError, match=words):
        quick(store, interactions)


@pytest.mark.parametrize("weight", ["nan", "inf", "much"])
def test_bad_weights(store: FeatureStore, tmp_path: Path, weight: str) -> None:
    path = tmp_path / "train.csv"
    path.write_text(f"user_id,item_id,weight\na,jazz-00,{weight}\na,jazz-01,1\n")
    with pytest.raises(InteractionError, match="weight"):
        quick(store, path)


def test_bad_validation(store: FeatureStore, pairs: Pairs) -> None:
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


def test_stores_that_cannot_be_fitted(tmp_path: Path, pairs: Pairs) -> None:
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
    config = RecommenderConfig.from_mapping({"dim": 32, "order": "rows", "half_lives": [1, 5]})
    assert config.fusion.dim == 32 and RecommenderConfig.from_mapping(config.to_mapping()) == config
    for wrong, words in [
        ({"dims": 3}, "unknown settings"),
        ({"half_life_days": 7}, "unknown settings"),
        ({"dim": "64"}, "dim must be int"),
        ({"dim": 0}, "at least 1"),
        ({"fusion": "magic"}, "not one of"),
        ({"order": "backwards"}, "not one of"),
        ({"half_lives": [0]}, "positive numbers"),
        ({"half_lives": "week"}, "list of numbers"),
    ]:
        with pytest.raises(ModelError, match=words):
            RecommenderConfig.from_mapping(wrong)


def test_heads_that_do_not_divide_the_width(store: FeatureStore, pairs: Pairs) -> None:
    with pytest.raises(ModelError, match="head"):
        quick(store, pairs[0], config=RecommenderConfig(fusion=replace(SMALL, dim=15, num_heads=2)))


def test_hardware_that_is_not_there(store: FeatureStore, pairs: Pairs) -> None:
    with pytest.raises(ModelError, match="not available"):
        Recommender.fit(store, pairs[0], config=CONFIG, hardware=replace(QUIET, device="mps"))


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
    assert recall > popular + 0.2
    if "text" not in without:
        trained = model.recommend(model.user_vector(text="I like slow piano music"), k=3)[0]
        kinds = [model.item(item)["kind"] for item in trained]
        assert kinds[0] == "slow_piano" and kinds.count("slow_piano") >= 2
