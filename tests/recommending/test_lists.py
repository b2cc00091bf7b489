"""What may stand in a list: what was seen, filters, spread, and places for cold items."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import COLD, KINDS, NUM_ITEMS, item_ids, kind_of, planted, quick, taken_by, write_store

from mmrec.errors import ModelError, RankingError
from mmrec.evaluation.interactions import Interactions
from mmrec.recommending.recommender import Recommender

pytestmark = pytest.mark.usefixtures("one_thread")
Pairs = tuple[Interactions, Interactions]


def test_seen_items_are_left_out_or_not(model: Recommender, pairs: Pairs) -> None:
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
    with pytest.raises(ModelError, match=r"no column 'colour'; it has age_limit, description, .*, kind, .*, title"):
        kinds(colour="red")
    with pytest.raises(ZeroDivisionError):
        kinds(kind=lambda kind: 1 / 0)


def test_filters_see_columns_that_some_items_lack(tmp_path: Path) -> None:
    items = planted(item_ids(8))
    for features in items[:3]:
        features.item = replace(features.item, metadata={**features.item.metadata, "rare": "yes"}, tags=())
    fitted = quick(write_store(tmp_path, items), None)
    stranger = fitted.user_state()
    chosen = fitted.recommend(stranger, k=8, where={"rare": "yes"})[0]
    assert {item for item in chosen if item} == {features.item.item_id for features in items[:3]}
    without = fitted.recommend(stranger, k=8, where={"rare": lambda value: value is None})[0]
    assert {item for item in without if item} == {features.item.item_id for features in items[3:]}
    assert {kind_of(item) for item in fitted.recommend(stranger, k=8, where={"tags": "clip"})[0] if item} == {*KINDS}
    assert (fitted.recommend(stranger, k=8, where={"tags": "clip"})[0] != "").sum() == 5


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
        user, stranger = fitted.user_state().add("jazz-01"), fitted.user_state()
        together, _ = fitted.recommend([user, stranger], k=4)
        alone, _ = fitted.recommend(stranger, k=4)
        assert (
            together[1].tolist() == alone.tolist() and together[0].tolist() == fitted.recommend(user, k=4)[0].tolist()
        )
        spread, best = (fitted.recommend(stranger, k=8, diversity=share)[0] for share in (None, 0.0))
        kinds = [len({kind_of(item) for item in chosen}) for chosen in (spread, best)]
        assert kinds[0] >= max(3, kinds[1])
        allowed, _ = fitted.recommend(stranger, k=3, candidates=["jazz-01", "rain-02"], explore_share=0.5)
        assert set(allowed) == {"jazz-01", "rain-02", ""}


def test_equal_items_rank_by_id(tmp_path: Path) -> None:
    items = planted(item_ids(8))
    for features in items:
        features.tokens = items[0].tokens
    fitted = quick(write_store(tmp_path, items), None)
    assert fitted.recommend(fitted.user_state(), k=8)[0].tolist() == sorted(item_ids(8))
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
