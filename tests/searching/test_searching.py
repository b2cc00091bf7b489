"""Search by words, items, vectors and filters, and what it says where it cannot."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planted_search import TITLES, WIDTH, axis, item

from encoders.text import HashedNgrams
from mmrec import Query, Searcher, search
from mmrec.errors import SearchError, StoreError
from mmrec.searching import searcher as searcher_module
from mmrec.store import FeatureStore, Tokens
from mmrec.store.tables import Tables


def test_words_find_titles_in_several_scripts(store: FeatureStore) -> None:
    assert set(search(store, "rain", k=2)[0]) == {"rain", "calm"}
    assert search(store, "雨の音", k=1)[0] == ["yoru"]
    assert search(store, "钢琴", k=1)[0] == ["piano"]


def test_rankings_are_joined_by_reciprocal_ranks(store: FeatureStore) -> None:
    found = Searcher(store)
    by_item, _ = found.search(Query(items=["rain"], modalities=["visual"]))
    by_vector, _ = found.search(Query(vectors=[axis(1)]))
    both, scores = found.search(Query(items=["rain"], vectors=[axis(1)], modalities=["visual"], weights={"visual": 2}))
    for item_id, score in zip(both, scores, strict=True):
        places = [1 + ids.index(item_id) for ids in (by_item, [i for i in by_vector if i != "rain"])]
        assert score == pytest.approx(sum(2 / (60 + place) for place in places))
    assert "rain" not in both


def test_pages_continue_each_other(store: FeatureStore) -> None:
    found = Searcher(store)
    query = Query(words=["rain"], vectors=[axis(3)])
    whole, _ = found.search(query, k=5)
    assert found.search(query, k=2)[0] + found.search(query, k=3, offset=2)[0] == whole


def test_what_is_not_wanted_goes_down(store: FeatureStore) -> None:
    assert "calm" not in Searcher(store).search(Query(words=["rain"], without=["piano"]), k=1)[0]
    full_text = Query(words=["rain"], without=["piano"], weights={"text": 0})
    assert Searcher(store).search(full_text)[0] == ["rain"]


def test_filters_hold_before_the_search(store: FeatureStore) -> None:
    ids, _ = search(store, "rain", where="year >= 2001 and language = 'zh'", k=1)
    assert ids[0] in {"yoru", "piano"}
    assert search(store, where="tags = 'sleep'", vectors=[axis(3)])[0] == ["calm", "rain"]
    with pytest.raises(SearchError, match="no item has year > 3000"):
        search(store, "rain", where="year > 3000")


def test_the_engine_agrees_with_brute_force(store: FeatureStore) -> None:
    wanted = np.random.default_rng(0).normal(size=8).astype(np.float32)
    best = {
        row.item.item_id: max(
            (row.tokens["visual"].vectors_TD @ wanted) / np.linalg.norm(row.tokens["visual"].vectors_TD, axis=1)
        )
        for row in store.features()
    }
    assert search(store, vectors=[wanted])[0] == sorted(best, key=lambda item_id: (-best[item_id], item_id))


def test_moments_are_the_best_stretch(store: FeatureStore) -> None:
    (moment,) = Searcher(store).moments(Query(vectors=[axis(7)]), k=1)
    assert (moment.item_id, moment.when, moment.modality) == ("calm", "00:04-00:06", "visual")
    assert moment.cosine == pytest.approx(2**-0.5)
    (merged,) = Searcher(store).moments(Query(vectors=[axis(0)]), k=1)
    assert (merged.item_id, merged.when) == ("rain", "00:00-00:08")
    assert Searcher(store).moments(Query(items=["rain"], where="year = 2003"), k=9)[0].item_id == "goals"


def test_words_that_meet_no_pictures_are_told_once(store: FeatureStore, caplog: pytest.LogCaptureFixture) -> None:
    found = Searcher(store)
    with caplog.at_level(logging.WARNING):
        found.search(Query(words=["rain"]))
        found.search(Query(words=["piano"]))
    assert [r.message for r in caplog.records] == [
        "words are not compared with visual tokens of planted: no words lead there"
    ]
    for query, ask in (
        (Query(words=["rain"], modalities=["visual"]), found.search),
        (Query(words=["a"]), found.moments),
    ):
        with pytest.raises(SearchError, match="cannot be compared with visual"):
            ask(query)


def test_words_find_what_pictures_show(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    goals = replace(item(3, "goals"), classes=[("soccer ball", 0.9), ("grand piano", 0.1)])
    store.write([goals, replace(item(2, "piano"), classes=[("grand piano", 0.8)])])
    found = Searcher(store)
    for words, item_id in (("soccer ball", "goals"), ("a grand piano", "piano")):
        assert found.search(Query(words=[words], modalities=["visual"]))[0] == [item_id], "or what is hardly shown"
        assert found.search(Query(words=[words]), k=1)[0] == [item_id]
    with pytest.raises(SearchError, match="show nothing that is named by 'zebra'"):
        found.search(Query(words=["zebra"], modalities=["visual"]))
    encoded: list[list[str]] = []
    encode = HashedNgrams.encode_text
    monkeypatch.setattr(
        HashedNgrams, "encode_text", lambda self, texts: (encoded.append(texts), encode(self, texts))[1]
    )
    assert Searcher(store).search(Query(words=["soccer ball"], modalities=["visual"]))[0] == ["goals"]
    assert encoded == [["soccer ball"]], "the classes were encoded again"


def test_classes_are_found_in_a_store_that_cannot_be_written(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write([replace(item(2, "piano"), classes=[("grand piano", 0.8)])])
    search(store, "rain")
    monkeypatch.setattr(Tables, "derived", refuse)
    assert Searcher(store).search(Query(words=["grand piano"], modalities=["visual"]))[0] == ["piano"]


def refuse(*_: object) -> None:
    raise StoreError("it may not be written")


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        ({}, "the search is empty"),
        ({"words": [" "]}, "there are no words"),
        ({"without": ["rain"]}, "the search is empty"),
        ({"words": ["a"], "modalities": ["smell"]}, "modality 'smell'"),
        ({"words": ["a"], "weights": {"visual": -1}}, "weight visual=-1"),
        ({"vectors": [np.zeros(8)]}, "or is zero"),
        ({"vectors": [np.array([1, np.nan])]}, "not finite"),
        ({"vectors": [np.ones((1, 1, 8))]}, "shape"),
        ({"vectors": [np.array("text")]}, "shape"),
        ({"vectors": [np.ones(9)]}, "9 numbers, but the store has visual 8, text"),
        ({"items": ["nobody"]}, "item 'nobody' is not there"),
        ({"items": ["it's"]}, "is not there"),
        ({"words": ["a"], "modalities": ["audio"]}, "has no audio tokens"),
        ({"media": [Path("nowhere.mp4")]}, "there is no file nowhere.mp4"),
        ({"media": ["nowhere.mp4"]}, "there is no file nowhere.mp4"),
    ],
)
def test_bad_questions_are_named(store: FeatureStore, parts: dict, complaint: str) -> None:
    with pytest.raises(SearchError, match=complaint):
        Searcher(store).search(Query(**parts))


def test_a_large_store_asks_for_its_index(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = Searcher(store)
    monkeypatch.setattr(searcher_module, "REFRESHED_ROWS", 0)
    with pytest.raises(SearchError, match="run `mmrec index --store"):
        found.search(Query(items=["rain"]))
    assert found.tables.refresh() > 0
    found.search(Query(items=["rain"]))
    store.prune(["rain", "calm"])
    assert len(found.search(Query(items=["rain"]))[0]) == len(TITLES) - 1
    assert "was written since" in caplog.text


def test_a_store_that_is_being_written_is_searched_as_it_was(
    store: FeatureStore, caplog: pytest.LogCaptureFixture
) -> None:
    found = Searcher(store)
    with store.lock(), pytest.raises(StoreError, match="is being written"):
        found.search(Query(items=["rain"]))
    found.search(Query(items=["rain"]))
    store.prune(["rain", "calm"])
    with store.lock():
        assert len(found.search(Query(items=["rain"]))[0]) == len(TITLES) - 1
    assert "was written since" in caplog.text
    assert found.search(Query(items=["rain"]))[0] == ["calm"]


@pytest.fixture
def copies(store: FeatureStore) -> FeatureStore:
    """Beside the others, four items that are nearly `rain`, of which one has no pictures."""
    for number in range(4):
        row = item(0, "rain")
        noise_TD = 0.02 * np.random.default_rng(number).normal(size=(4, WIDTH)).astype(np.float32)
        frames = row.tokens["visual"]
        tokens = {**row.tokens, "visual": Tokens(frames.vectors_TD + noise_TD, frames.spans_T2)}
        if number == 3:
            del tokens["visual"]
        named = replace(row.item, item_id=f"copy{number}", metadata={"year": "2010"})
        store.write([replace(row, item=named, tokens=tokens, catalog_key=f"{number + 9:016x}")])
    return store


def test_near_copies_are_spread(copies: FeatureStore) -> None:
    found = Searcher(copies)
    wanted = axis(0) + 0.3 * axis(1) + 0.2 * axis(2)
    plain, _ = found.search(Query(vectors=[wanted]))
    assert set(plain[:4]) == {"rain", "copy0", "copy1", "copy2"}
    spread, scores = found.search(Query(vectors=[wanted], diversity=0.7), k=3)
    assert (spread[0], set(spread[1:])) == (plain[0], {"yoru", "piano"})
    by_id = dict(zip(*found.search(Query(vectors=[wanted])), strict=True))
    assert scores.tolist() == [by_id[item_id] for item_id in spread]
    moments = found.moments(Query(vectors=[wanted], diversity=0.7), k=3)
    assert [moment.item_id for moment in moments] == spread
    one_page, _ = found.search(Query(vectors=[wanted], diversity=0.7), k=1, offset=1)
    assert one_page == spread[1:2]


def test_diversity_of_none_or_little_is_the_order_of_the_scores(copies: FeatureStore) -> None:
    found = Searcher(copies)
    for parts in ({"words": ["rain"]}, {"vectors": [axis(0)]}, {"words": ["rain"], "items": ["calm"]}):
        plain, plain_scores = found.search(Query(**parts))
        spread, scores = found.search(Query(**parts, diversity=1e-9))
        assert (spread, scores.tolist()) == (plain, plain_scores.tolist())
    assert found.search(Query(words=["nowhere else"], modalities=["text"], diversity=0.5, where="year = 2003"))
    with pytest.raises(SearchError, match=r"diversity is 1\.5: expected 0 to 1"):
        Query(words=["rain"], diversity=1.5)
