"""The client returns what `Recommender` and `Searcher` return."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mmrec
from mmrec import FeatureStore, Query, Recommender, Searcher
from mmrec.errors import ServiceError


def test_it_answers_as_the_recommender(listening: str, served: Path, model: Recommender) -> None:
    with mmrec.Client(listening) as client:
        options = {"k": 4, "where": {"tags": {"jazz", "sport"}}, "diversity": 0.1, "exclude": ["jazz-1"]}
        for users in ("user00", ["user00", "user01"]):
            ids, scores = client.recommend(users, **options)
            expected_ids, expected_scores = model.recommend(users, **options)
            assert ids.tolist() == expected_ids.tolist()
            assert np.allclose(scores, expected_scores)
        assert np.allclose(client.score("user00", ["clip", "tone"]), model.score("user00", ["clip", "tone"]))
        pairs = (["user00", "user01"], ["clip", "tone"])
        assert np.allclose(client.score(*pairs), model.score(*pairs))
        for items in ("clip", ["clip", "tone"]):
            ids, cosines = client.similar_items(items, k=3)
            assert ids.tolist() == model.similar_items(items, k=3)[0].tolist()
            assert np.allclose(cosines, model.similar_items(items, k=3)[1])
        assert sorted(client.item_ids) == sorted(model.item_ids)
        assert client.user_ids == sorted(model.user_ids)
        assert client.item("clip")["title"] == model.item("clip")["title"]
        explained = client.explain("user00", "clip")
        expected = model.explain("user00", "clip", store=FeatureStore(served / "store"))
        assert explained.sentences() == expected.sentences()
        assert explained.score == pytest.approx(expected.score)


def test_lists_that_are_too_short_are_filled_up(listening: str) -> None:
    with mmrec.Client(listening) as client:
        ids, scores = client.recommend(["user00", "nobody"], k=100)
        assert ids.shape == scores.shape == (2, 23)
        assert ids[0, -1] == "" and scores[0, -1] == -np.inf


def test_live_users_are_kept_by_the_service(listening: str, model: Recommender) -> None:
    with mmrec.Client(listening) as client:
        state = client.user_state("somebody").add("jazz-0", timestamp=1e9).add("goal-0", weight=-1)
        expected = model.user_state().add("jazz-0", timestamp=1e9).add("goal-0", weight=-1)
        assert client.recommend(state, k=3)[0].tolist() == model.recommend(expected, k=3)[0].tolist()
        client.forget_user("somebody")
        with pytest.raises(ServiceError, match="no user 'somebody'"):
            client.explain("somebody", "clip")


def test_it_answers_as_the_searcher(listening: str, served: Path) -> None:
    searcher = Searcher(FeatureStore(served / "store"))
    clip = served / "media" / "clip.mp4"
    with mmrec.Client(listening) as client:
        for query in (Query(words=["slow jazz"], where="year < 1997"), Query(media=[clip]), Query(items=["clip"])):
            ids, scores = client.search(query, k=3, offset=1)
            expected_ids, expected_scores = searcher.search(query, k=3, offset=1)
            assert ids == expected_ids
            assert np.allclose(scores, expected_scores)
        taste = Recommender.load(served / "model").taste("user00")
        expected_ids, _ = searcher.search(Query(words=["night week"], taste=taste, diversity=0.3), k=4)
        assert client.search(Query(words=["night week"], diversity=0.3), k=4, user="user00")[0] == expected_ids
        assert client.moments(Query(items=["outside"]), k=2) == searcher.moments(Query(items=["outside"]), k=2)


def test_what_is_refused_has_the_words_of_python(listening: str) -> None:
    with mmrec.Client(listening) as client:
        with pytest.raises(ServiceError, match="the model has no item 'nothing'"):
            client.similar_items("nothing")
        with pytest.raises(ServiceError, match="did you mean 'year'"):
            client.search(Query(words=["jazz"], where="jear = 1"))
        with pytest.raises(ServiceError, match="no pairs"):
            client.score(["user00"], ["clip", "tone"])
        with pytest.raises(ServiceError, match="no functions"):
            client.recommend("user00", where={"year": bool})
        with pytest.raises(ServiceError, match="cannot be read"):
            client.search(Query(media=[Path("nothing.png")]))
    with pytest.raises(ServiceError, match="does not answer"):
        mmrec.Client("http://127.0.0.1:9").item("clip")
