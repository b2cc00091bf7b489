"""A search by somebody: what was found, ranked by what they like as well."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from planted import kind_of, planted, write_store

from mmrec import FeatureStore, Query, Recommender, Searcher, search
from mmrec.cli import main
from mmrec.errors import ModelError

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_joined_order_is_that_of_both_ranks(store: FeatureStore, model: Recommender) -> None:
    plain, _ = search(store, "chess clip", k=40)
    user = model.recommend("user05", k=40, exclude_seen=False)[0].tolist()
    ids, scores = search(store, "chess clip", k=40, taste=model.taste("user05"), weights={"user": 2})
    expected = {i: 1 / (61 + plain.index(i)) + 2 / (61 + user.index(i)) for i in plain}
    assert ids == sorted(expected, key=lambda i: (-expected[i], i))
    assert np.allclose(scores, [expected[i] for i in ids])


def test_what_a_user_likes_goes_up_and_weight_none_changes_nothing(store: FeatureStore, model: Recommender) -> None:
    found = Searcher(store)
    plain, _ = found.search(Query(words=["clip"]), k=8)
    for user in ("user00", "user01", "user02"):
        liked, _ = found.search(Query(words=["clip"], taste=model.taste(user), weights={"user": 5}), k=8)
        kind = kind_of(model.recommend(user, k=1)[0][0])
        assert sum(kind_of(i) == kind for i in liked) > max(4, sum(kind_of(i) == kind for i in plain))
        assert found.search(Query(words=["clip"], taste=model.taste(user), weights={"user": 0}), k=8)[0] == plain
    assert found.search(Query(words=["rain"], taste=model.taste("user00"), where="kind = 'rain'"), k=3)


def test_a_live_state_counts_at_once(store: FeatureStore, model: Recommender) -> None:
    state = model.user_state().add("sport-01").add("sport-02")
    ids, _ = search(store, "clip", k=6, taste=model.taste(state), weights={"user": 5})
    assert {kind_of(i) for i in ids} == {"sport"}


def test_items_that_the_model_does_not_have_are_found_by_the_words(
    tmp_path: Path, model: Recommender, caplog: pytest.LogCaptureFixture
) -> None:
    both = write_store(tmp_path / "both", planted(["jazz-00", "jazz-77"]))
    ids, scores = search(both, "jazz", taste=model.taste("user00"))
    assert ids == ["jazz-00", "jazz-77"]
    assert scores[1] == pytest.approx(1 / 62)
    other = write_store(tmp_path / "other", planted(["jazz-78", "jazz-77"]))
    with caplog.at_level(logging.WARNING):
        assert search(other, "jazz", taste=model.taste("user00"))[0] == search(other, "jazz")[0]
    assert "the model has none of the 2 items that were found, such as 'jazz-77'" in caplog.text


def test_the_command(
    store: FeatureStore, model: Recommender, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.save(tmp_path / "model")
    command = ["search", "clip", "--store", str(store.folder), "--json"]
    who = ["--model", str(tmp_path / "model"), "--user", "user01"]
    assert main([*command, *who, "--user-weight", "3"]) == 0
    found = [row["item_id"] for row in json.loads(capsys.readouterr().out)]
    assert found == search(store, "clip", taste=model.taste("user01"), weights={"user": 3})[0]
    for options, complaint in (
        ([*who[:3], "nobody"], "the model has no user 'nobody'"),
        (who[:2], "--user and --model belong together"),
        (who[2:], "--user and --model belong together"),
        (["--user-weight", "2"], "--user-weight says how much a user counts"),
    ):
        assert main([*command, *options]) == 1
        assert complaint in capsys.readouterr().err
    with pytest.raises(ModelError, match="'nobody'"):
        model.taste("nobody")
