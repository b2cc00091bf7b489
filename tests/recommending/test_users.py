"""User vectors: from history, from words, from both, from nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from planted import CONFIG, QUIET, SMALL, planted, to_interactions, watched, write_store

from encoders.base import EncoderError
from fusion.tower import user_vectors
from mmrec.embedding.job import embed
from mmrec.errors import ModelError
from mmrec.evaluation.interactions import Interactions, make_interactions
from mmrec.recommending.fitting import RecommenderConfig
from mmrec.recommending.recommender import Recommender
from mmrec.recommending.users import recency_weights
from mmrec.store.feature_store import FeatureStore
from mmrec.store.importing import import_features

pytestmark = pytest.mark.usefixtures("one_thread")
DAY = 86_400.0
WORDS = {
    "piano": ("slow piano music", "calm piano sonata", "piano and rain", "quiet piano evening", "piano nocturne"),
    "football": ("football match report", "football goals", "football training", "football final", "football fans"),
    "baking": ("baking sourdough bread", "baking a cake", "baking rolls", "baking with rye", "baking at home"),
    "围棋": ("围棋比赛直播", "围棋入门教程", "围棋定式讲解", "围棋大师对局", "围棋官子练习"),
}
TOPICS = list(WORDS)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Twenty items of words alone, embedded without any download."""
    folder = tmp_path_factory.mktemp("texts")
    rows = [f"{topic}-{k},{title}" for topic, titles in WORDS.items() for k, title in enumerate(titles)]
    (folder / "catalog.csv").write_text("\n".join(["item_id,title", *rows]) + "\n", encoding="utf-8")
    (folder / "words.yaml").write_text("text: {kind: hashed-ngrams}\n")
    embed(folder / "catalog.csv", folder / "store", preset=str(folder / "words.yaml"), workers=1)
    return FeatureStore(folder / "store")


@pytest.fixture(scope="module")
def talker(texts: FeatureStore) -> Recommender:
    """A model of words, fitted to users who like one topic each."""
    pairs = [(f"u{user}", f"{TOPICS[user % 4]}-{(user + k) % 5}") for user in range(40) for k in range(3)]
    config = RecommenderConfig(fusion=replace(SMALL, max_epochs=8))
    return Recommender.fit(texts, to_interactions(pairs), config=config, hardware=QUIET)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    items = planted([f"{kind}-0{k}" for k in range(6) for kind in ("jazz", "rain")])
    return write_store(tmp_path_factory.mktemp("planted"), items)


def fit_timed(store: FeatureStore, interactions: Interactions, half_life_days: float) -> Recommender:
    config = RecommenderConfig(fusion=replace(SMALL, max_epochs=2), half_life_days=half_life_days)
    return Recommender.fit(store, interactions, config=config, hardware=QUIET)


# --- the formula ------------------------------------------------------------------------------------------------------


def test_vectors_follow_the_formula() -> None:
    rng = np.random.default_rng(0)
    vectors_ID = rng.normal(size=(7, 3)).astype(np.float32)
    null_D = rng.normal(size=3).astype(np.float32)
    history = sp.csr_array(rng.random((4, 7)) * (rng.random((4, 7)) < 0.5), dtype=np.float32)
    history = sp.csr_array(sp.vstack([history, sp.csr_array((1, 7))]))
    for power in (0.0, 0.5, 1.0):
        found = user_vectors(history, vectors_ID, power, null_D)
        for row, weights_I in enumerate(history.toarray()):
            total = max(weights_I.sum(), 1e-6)
            expected = sum(w * v for w, v in zip(weights_I, vectors_ID, strict=True)) / total**power + null_D
            assert np.allclose(found[row], expected, atol=1e-5)
        assert np.allclose(found[-1], null_D) and found.dtype == np.float32


def test_recency_halves_by_half_lives() -> None:
    timed = make_interactions(
        ["u", "v", "u", "u"],
        ["a", "a", "b", "c"],
        timestamps=np.array([10.0, 3.0, 8.0, 9.0]) * DAY,  # out of order
        weights=np.array([1.0, 2.0, 1.0, 4.0]),
    )
    assert np.allclose(recency_weights(timed, 1.0), [1, 2, 0.25, 2])
    assert np.array_equal(recency_weights(timed, 0.0), timed.weights)
    assert np.array_equal(recency_weights(replace(timed, timestamps=None), 1.0), timed.weights)
    ancient = make_interactions(["u", "u"], ["a", "b"], timestamps=np.array([0.0, 1e9]))
    faded = recency_weights(ancient, 0.5)
    assert 0 < faded[0] < 1e-30 and faded[1] == 1


# --- history ----------------------------------------------------------------------------------------------------------


def test_a_known_user_is_their_history(store: FeatureStore) -> None:
    taken = ["jazz-00", "jazz-01", "rain-02"]
    weights = [0.5, 2.0, 1.0]
    train = make_interactions(["u"] * 3 + ["v"] * 2, [*taken, "rain-00", "rain-01"], weights=np.array([*weights, 1, 1]))
    model = fit_timed(store, train, 0.0)
    by_history = model.user_vector(history=taken, weights=weights)
    assert np.allclose(by_history, model.user_vectors(["u"])[0], atol=1e-5)
    assert np.allclose(by_history, model.user_vector("u"), atol=1e-5)
    assert np.allclose(by_history, model.user_vector(history=taken, weights=np.array(weights)), atol=1e-5)  # type: ignore[arg-type]
    again = model.user_vector(history=[*taken, "jazz-00"], weights=[0.25, 2.0, 1.0, 0.25])
    assert np.allclose(by_history, again, atol=1e-5)  # the weights of an item that is named twice add up
    grown = model.user_vector("v", history=["rain-03"])
    assert np.allclose(grown, model.user_vector(history=["rain-00", "rain-01", "rain-03"]), atol=1e-5)


def test_the_order_and_scale_of_a_history(store: FeatureStore) -> None:
    model = fit_timed(store, to_interactions([("u", "jazz-00"), ("u", "jazz-01")]), 0.0)
    forward = model.user_vector(history=["jazz-00", "rain-00"], weights=[1, 3])
    assert np.allclose(forward, model.user_vector(history=["rain-00", "jazz-00"], weights=[3, 1]), atol=1e-6)
    jazz, rain = model.user_vector(history=["jazz-00"]), model.user_vector(history=["rain-00"])
    assert np.linalg.norm(forward - rain) < np.linalg.norm(forward - jazz)


def test_nothing_is_the_null_vector(store: FeatureStore, talker: Recommender) -> None:
    for model in (talker, fit_timed(store, to_interactions([("u", "jazz-00"), ("u", "jazz-01")]), 0.0)):
        nothing = model.user_vector()
        assert np.array_equal(nothing, model.user_vectors(["stranger"])[0])
        assert np.array_equal(nothing, model.user_vector("stranger"))
        assert np.array_equal(nothing, model.user_vector(text=" <p> </p>\n"))
    content = Recommender.fit(store, config=replace(CONFIG, fusion=replace(SMALL, max_epochs=1)), hardware=QUIET)
    assert not content.user_vector().any()


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda model: model.user_vector(history=["nix"]), "no item 'nix'"),
        (lambda model: model.user_vector(history=["jazz-00"], weights=[1, 2]), "2 weights for a history of 1"),
        (lambda model: model.user_vector(weights=[1.0]), "1 weights for a history of 0"),
        (lambda model: model.user_vector(history=["jazz-00"], weights=[0]), "expected a positive number"),
        (lambda model: model.user_vector(history=["jazz-00"], weights=[float("nan")]), "is nan"),
        (lambda model: model.user_vector(text="piano"), "fitted without text"),
    ],
)
def test_histories_that_cannot_be(store: FeatureStore, ask: Callable[[Recommender], object], words: str) -> None:
    model = fit_timed(store, to_interactions([("u", "jazz-00"), ("u", "jazz-01")]), 0.0)
    with pytest.raises(ModelError, match=words):
        ask(model)


def test_recent_history_counts_more(store: FeatureStore) -> None:
    taken = ["jazz-00", "jazz-01", "rain-00", "rain-01"]
    fan = [("v", "jazz-02"), ("v", "jazz-03"), ("w", "rain-02"), ("w", "rain-03")]
    users, items = zip(*[("u", item) for item in taken], *fan, strict=True)
    times = np.array([1.0, 2.0, 100.0, 101.0, *[50.0] * 4]) * DAY
    train = make_interactions(users, items, timestamps=times)
    shuffled = train.select(np.random.default_rng(0).permutation(len(train)))

    even, recent = (fit_timed(store, train, days) for days in (0.0, 10.0))
    assert np.allclose(even.user_vector("u"), even.user_vector(history=taken), atol=1e-5)
    weights = 0.5 ** ((101 - np.array([1, 2, 100, 101])) / 10)
    assert np.allclose(recent.user_vector("u"), recent.user_vector(history=taken, weights=list(weights)), atol=1e-4)
    to_rain = np.linalg.norm(recent.user_vector("u") - recent.user_vector(history=["rain-00", "rain-01"]))
    assert to_rain < 0.1 * np.linalg.norm(recent.user_vector(history=["jazz-00", "jazz-01"]))

    again = fit_timed(store, shuffled, 10.0)  # the order of the rows says nothing
    assert np.allclose(again.user_vector("u"), recent.user_vector("u"), rtol=1e-3, atol=1e-4)


def test_half_life_without_timestamps_changes_nothing(store: FeatureStore) -> None:
    train = to_interactions([("u", "jazz-00"), ("u", "jazz-01"), ("v", "rain-00"), ("v", "rain-01")])
    assert np.array_equal(fit_timed(store, train, 5.0).item_vectors[1], fit_timed(store, train, 0.0).item_vectors[1])


def test_a_history_of_decades_can_be_fitted(store: FeatureStore) -> None:
    train = make_interactions(["u"] * 3, ["jazz-00", "jazz-01", "rain-00"], timestamps=np.array([0.0, 1e9, 1.7e9]))
    model = fit_timed(store, train, 1.0)
    assert np.isfinite(model.user_vector("u")).all()
    assert not {"jazz-00", "jazz-01", "rain-00"} & set(model.recommend("u", k=12)[0])


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic", "words"),
    [("piano", "<b>Piano</b> music"), ("football", "FOOTBALL!"), ("baking", "baking bread"), ("围棋", "围棋大师比赛")],
)
def test_words_place_somebody_new_among_the_items(talker: Recommender, topic: str, words: str) -> None:
    vector_D = talker.user_vector(text=words)
    ids, _ = talker.recommend(vector_D, k=3)
    assert [item.split("-")[0] for item in ids] == [topic] * 3
    assert not np.allclose(vector_D, talker.user_vector())


def test_words_and_history_together(talker: Recommender) -> None:
    vector_D = talker.user_vector(history=["piano-0", "piano-1"], text="football")
    ids, _ = talker.recommend(vector_D, k=8)
    assert {item.split("-")[0] for item in ids[:8]} >= {"piano", "football"}
    known = talker.recommend(talker.user_vector("u0", text="football"), k=8)[0]  # u0 likes the piano
    assert {item.split("-")[0] for item in known} >= {"piano", "football"}


def test_the_words_of_an_item_lie_by_the_item(talker: Recommender, tmp_path: Path) -> None:
    """A new item and somebody who says its title meet in the same place."""
    (tmp_path / "catalog.csv").write_text("item_id,title\nnew,piano for two hands\n")
    (tmp_path / "words.yaml").write_text("text: {kind: hashed-ngrams}\n")
    embed(tmp_path / "catalog.csv", tmp_path / "store", preset=str(tmp_path / "words.yaml"), workers=1)
    talker.save(tmp_path / "model")
    model = Recommender.load(tmp_path / "model")
    by_words = model.user_vector(text="piano for two hands")
    model.embed_items(FeatureStore(tmp_path / "store"), ["new"])
    assert np.allclose(by_words, model.user_vector(history=["new"]), atol=1e-4)
    assert {item.split("-")[0] for item in model.similar_items("new", k=3)[0]} == {"piano"}


def test_words_survive_saving(talker: Recommender, tmp_path: Path) -> None:
    talker.save(tmp_path / "model")
    loaded = Recommender.load(tmp_path / "model")
    assert np.allclose(loaded.user_vector(text="football"), talker.user_vector(text="football"), atol=1e-6)


def change_encoder(folder: Path, **changes: object) -> Recommender:
    """The model in a folder, with another record of its text encoder."""
    about = json.loads((folder / "model.json").read_text())
    about["encoders"]["text"].update(changes)
    (folder / "model.json").write_text(json.dumps(about))
    return Recommender.load(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"spec": {"kind": "magic"}}, "unknown encoder kind 'magic'"),
        ({"spec": {"kind": "sentence-transformer", "checkpoint": "/none"}}, "/none"),
        ({"encoder_fingerprint": "another"}, "has changed since the items were embedded"),
        ({"dim": 7}, "has changed since the items were embedded"),
    ],
)
def test_words_need_the_encoder_of_the_items(
    talker: Recommender, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    talker.save(tmp_path)
    model = change_encoder(tmp_path, **changes)
    with pytest.raises(ModelError, match=words):
        model.user_vector(text="piano")
    assert model.recommend("u0", k=3)[0].all()  # the rest does without


def test_an_encoder_that_was_not_fingerprinted_is_trusted(talker: Recommender, tmp_path: Path) -> None:
    talker.save(tmp_path)
    model = change_encoder(tmp_path, encoder_fingerprint="")
    assert np.allclose(model.user_vector(text="piano"), talker.user_vector(text="piano"), atol=1e-6)


def test_an_encoder_that_fails_is_told(talker: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise EncoderError("no passages today")

    talker.save(tmp_path)
    monkeypatch.setattr("encoders.text.HashedNgrams.encode", fail)
    with pytest.raises(ModelError, match="no passages today"):
        Recommender.load(tmp_path).user_vector(text="piano")


def test_long_and_strange_words(talker: Recommender) -> None:
    for text in ("piano " * 2000, "🎹", "\x00piano", "a"):
        assert np.isfinite(talker.user_vector(text=text)).all()


def test_imported_vectors_of_text_have_no_encoder(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id\n" + "".join(f"i{k}\n" for k in range(6)))
    np.save(tmp_path / "t.npy", np.random.default_rng(0).normal(size=(6, 5)))
    import_features(tmp_path / "items.csv", tmp_path / "store", {"text": tmp_path / "t.npy"})
    model = fit_timed(FeatureStore(tmp_path / "store"), to_interactions([("u", "i0"), ("u", "i1")]), 0.0)
    with pytest.raises(ModelError, match="imported text vectors: their encoder is not known"):
        model.user_vector(text="piano")


def test_thousands_at_once_are_fast(talker: Recommender) -> None:
    users = [user for user in talker.user_ids for _ in range(100)]
    talker.user_vectors(users[:10])
    start = time.perf_counter()
    vectors_UD = talker.user_vectors(users)
    assert vectors_UD.shape == (4000, 16)
    assert (time.perf_counter() - start) / len(users) < 1e-3


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
