"""Users and items by words: where they lie, how they mix with history, and which encoder they need."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from planted import QUIET, SMALL, files_of, planted, quick, seal, to_interactions, write_store

from encoders.base import EncoderError
from mmrec.embedding.job import embed
from mmrec.errors import ModelError
from mmrec.recommending.fitting import RecommenderConfig
from mmrec.recommending.recommender import Recommender
from mmrec.store.feature_store import FeatureStore
from mmrec.store.importing import import_features

pytestmark = pytest.mark.usefixtures("one_thread")
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
    config = RecommenderConfig(fusion=replace(SMALL, learning_rate=0.005, max_epochs=12))
    return Recommender.fit(texts, to_interactions(pairs), config=config, hardware=QUIET)


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
    files = files_of(folder)
    about = json.loads((files / "model.json").read_text())
    about["encoders"]["text"].update(changes)
    (files / "model.json").write_text(json.dumps(about))
    seal(files)
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
    model = quick(FeatureStore(tmp_path / "store"), to_interactions([("u", "i0"), ("u", "i1")]))
    with pytest.raises(ModelError, match="imported text vectors: their encoder is not known"):
        model.user_vector(text="piano")


@pytest.mark.parametrize("way", ["pickle", "deepcopy"])
def test_copies_are_made_after_words_were_asked(talker: Recommender, way: str) -> None:
    by_words = talker.user_vector(text="piano")
    again = copy.deepcopy(talker) if way == "deepcopy" else pickle.loads(pickle.dumps(talker))  # noqa: S301
    assert np.allclose(again.user_vector(text="piano"), by_words, atol=1e-6)


def test_words_weigh_as_much_as_the_history(talker: Recommender) -> None:
    state = talker.user_state()
    for item in ("piano-0", "piano-1", "piano-2"):
        state.add(item)
    totals_K = state.totals_K.copy()
    state.add_vector(np.ones(16, np.float32))
    assert np.allclose(state.totals_K, 2 * totals_K)
    state.add_vector(np.ones(16, np.float32), weight=0.5)
    assert np.allclose(state.totals_K, 2 * totals_K + 0.5)


def test_words_weigh_a_share_of_the_history(talker: Recommender) -> None:
    state = talker.user_state().add("piano-0").add("piano-1")
    totals_K = state.totals_K.copy()
    assert np.allclose(state.add_vector(np.ones(16, np.float32), share=0.5).totals_K, totals_K * 1.5)


def mean_place(model: Recommender, vector_D: NDArray[np.float32], topic: str) -> float:
    order = model.recommend(vector_D, k=len(model.item_ids))[0]
    return float(np.mean([place for place, item in enumerate(order) if item.startswith(topic)]))


@pytest.mark.parametrize(("topic", "words"), [("football", "football"), ("piano", "piano music"), ("围棋", "围棋")])
def test_what_is_not_wanted_falls(talker: Recommender, topic: str, words: str) -> None:
    for who in ({"user": "u0"}, {"user": "u1"}, {"text": "baking"}):
        plain, without = talker.user_vector(**who), talker.user_vector(**who, not_text=words)
        assert mean_place(talker, without, topic) > mean_place(talker, plain, topic) or (
            mean_place(talker, plain, topic) == len(talker.item_ids) - 3  # they were the last ones
        )


def test_what_is_liked_stays_first_where_something_else_is_not_wanted(talker: Recommender) -> None:
    assert talker.recommend(talker.user_vector("u0", not_text="football"), k=1)[0][0].startswith("piano")
    assert np.allclose(talker.user_vector("u0", not_text=" "), talker.user_vector("u0"))
    with pytest.raises(ModelError, match="no words"):
        talker.words_vector(" ")


def test_a_state_that_turned_away_is_copied_and_explained(talker: Recommender) -> None:
    turned = talker.user_state().add("piano-0").turn_away(talker.words_vector("football"))
    assert np.allclose(copy.copy(turned).vector, turned.vector)
    why = talker.explain(turned, "piano-1")
    parts = why.popularity + why.anyone + why.rest + sum(cause.contribution for cause in why.history)
    assert np.isclose(parts, why.score, atol=1e-4)
    assert np.isclose(why.score, talker.score(turned, ["piano-1"])[0], atol=1e-4)
    alone = talker.user_state().turn_away(talker.words_vector("football"))
    both, _ = talker.recommend([alone, "stranger"], k=5)
    assert both[1].tolist() == talker.recommend("stranger", k=5)[0].tolist()


def test_somebody_of_words_alone_is_no_user_without_history(talker: Recommender) -> None:
    """Words are no interactions: nothing is left out. Others who are new are ranked by themselves."""
    by_words = talker.user_vector(text="football")
    state = talker.user_state().add_vector(by_words - talker.user_vector())
    alone = talker.recommend(state, k=5)
    assert {item.split("-")[0] for item in alone[0]} == {"football"}
    for place, users in enumerate(([state, "stranger"], ["stranger", state])):
        ids, scores = talker.recommend(users, k=5)
        assert ids[place].tolist() == alone[0].tolist() and np.allclose(scores[place], alone[1], rtol=1e-5)
        assert ids[1 - place].tolist() == talker.recommend("stranger", k=5)[0].tolist()


def test_a_model_without_text_takes_no_words(tmp_path: Path) -> None:
    model = quick(write_store(tmp_path, planted(["jazz-00", "jazz-01"])), None)
    with pytest.raises(ModelError, match="fitted without text"):
        model.user_vector(text="piano")
