"""What users do counts at once, for all workers, and after a restart; forgetting deletes it everywhere."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served import MakeClient
from starlette.testclient import TestClient

from mmrec import Recommender
from mmrec.cli import main
from mmrec.evaluation import read_interactions
from mmrec.recommending import list_versions
from mmrec.service.interaction_log import InteractionLog
from mmrec.store import FeatureStore, StoredAnswer, StoredAnswers, user_mark


def add(
    api: TestClient, *interactions: tuple[str, str] | tuple[str, str, float] | tuple[str, str, float, float]
) -> None:
    names = ("user_id", "item_id", "weight", "timestamp")
    body = {"interactions": [dict(zip(names, row, strict=False)) for row in interactions]}
    answer = api.post("/api/v1/interactions", json=body)
    assert (answer.status_code, answer.json()) == (200, {"added": len(interactions)}), answer.text


def listed(api: TestClient, user: str, **options: Any) -> list[str]:
    answer = api.post("/api/v1/recommend", json={"users": [user], "k": 5, **options})
    assert answer.status_code == 200, answer.text
    return [result["item"]["item_id"] for result in answer.json()["lists"][0]["results"]]


def history(api: TestClient, user: str) -> list[str]:
    answer = api.get("/api/v1/user", params={"user_id": user})
    return [entry["item"]["item_id"] for entry in answer.json()["history"]]


def test_what_is_added_counts_at_once_as_it_does_in_python(start: MakeClient, model: Recommender) -> None:
    api = start()
    before = listed(api, "user00")
    add(api, ("user00", before[0]), ("user00", "goal-1", -1.0))
    state = model.user_state("user00", kept=False).add(before[0]).add("goal-1", weight=-1.0)
    assert listed(api, "user00") == model.recommend(state, k=5)[0].tolist()
    assert before[0] not in listed(api, "user00")
    scores = api.post("/api/v1/score", json={"user_id": "user00", "items": ["clip", "tone"]}).json()["scores"]
    assert np.allclose(scores, model.score(state, ["clip", "tone"]))
    assert history(api, "user00")[:2] == ["goal-1", before[0]]


def test_somebody_new_is_known_by_the_first_interaction(start: MakeClient, model: Recommender) -> None:
    api = start()
    add(api, ("somebody", "jazz-0", 1.0, 1e9))
    assert listed(api, "somebody") == model.recommend(model.user_state().add("jazz-0", 1e9), k=5)[0].tolist()
    answer = api.get("/api/v1/user", params={"user_id": "somebody"}).json()
    assert answer["known"]
    assert answer["history"][0]["timestamp"] == 1e9
    users = api.get("/api/v1/users", params={"prefix": "some"}).json()
    assert users["items"] == [{"user_id": "somebody", "num_interactions": 1}]
    explained = api.get("/api/v1/explain", params={"user_id": "somebody", "item_id": "jazz-1"}).json()
    assert [cause["item_id"] for cause in explained["history"]] == ["jazz-0"]


def test_interactions_are_taken_all_or_none(start: MakeClient) -> None:
    api = start()
    body = {"interactions": [{"user_id": "u", "item_id": "jazz-0"}, {"user_id": "u", "item_id": "nothing"}]}
    assert api.post("/api/v1/interactions", json=body).status_code == 404
    assert history(api, "u") == []


def test_another_process_sees_what_was_added_and_a_restart_keeps_it(start: MakeClient) -> None:
    one, other = start(), start()
    add(one, ("user00", "goal-0"))
    assert history(other, "user00")[0] == "goal-0"
    add(other, ("user00", "goal-1"))
    assert history(one, "user00")[:2] == ["goal-1", "goal-0"]
    assert listed(one, "user00") == listed(other, "user00") == listed(start(), "user00")


def test_live_interactions_become_a_part_of_the_next_history(
    start: MakeClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api = start()
    add(api, ("somebody", "jazz-0", 1.0, 1e9), ("somebody", "jazz-1", -1.0), ("user00", "goal-0"))
    state, folder = str(api.app.state.config.state_path), tmp_path / "history"  # type: ignore[attr-defined]
    folder.mkdir()
    assert main(["export-interactions", "--state", state, "--out", str(folder / "live.parquet")]) == 0
    assert "3 interactions of 2 users" in capsys.readouterr().out
    found = read_interactions(folder)
    rows = zip(found.user_rows, found.item_rows, found.weights, strict=True)
    assert [(found.user_ids[user], found.item_ids[item], float(weight)) for user, item, weight in rows] == [
        ("somebody", "jazz-0", 1.0), ("somebody", "jazz-1", -1.0), ("user00", "goal-0", 1.0),
    ]  # fmt: skip
    assert found.timestamps is not None
    assert found.timestamps[0] == 1e9 and abs(found.timestamps[1] - time.time()) < 600


def test_what_cannot_be_exported_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing, out = tmp_path / "live.sqlite", str(tmp_path / "live.csv")
    assert main(["export-interactions", "--state", str(missing), "--out", out]) == 1
    assert f"there is no file {missing}" in capsys.readouterr().err
    assert not missing.exists()
    InteractionLog(missing)
    assert main(["export-interactions", "--state", str(missing), "--out", out]) == 1
    assert "has no interactions" in capsys.readouterr().err
    missing.with_name("text").write_text("no SQLite file, but of some length")
    assert main(["export-interactions", "--state", str(tmp_path / "text"), "--out", out]) == 1
    assert "file is not a database" in capsys.readouterr().err


def test_of_copies_lists_and_searches_show_one(start: MakeClient, tmp_path: Path) -> None:
    best, second, *_ = listed(start(), "user00")
    (tmp_path / "same.json").write_text(json.dumps({"pairs": [[best, second]]}))
    folding = start(fold=tmp_path / "same.json")
    assert best in listed(folding, "user00") and second not in listed(folding, "user00")
    wanted = {"items": ["jazz-0"], "modalities": ["text"], "k": 100}
    found = [result["item"]["item_id"] for result in folding.post("/api/v1/search", json=wanted).json()["results"]]
    unfolded = [result["item"]["item_id"] for result in start().post("/api/v1/search", json=wanted).json()["results"]]
    assert len(found) == len(unfolded) - 1 and set(unfolded) - set(found) <= {best, second}


def test_what_if_changes_nothing(start: MakeClient, model: Recommender) -> None:
    api = start()
    before = listed(api, "user00")
    state = model.user_state("user00", kept=False).add("goal-0").add("goal-1")
    assert listed(api, "user00", watched=["goal-0", "goal-1"]) == model.recommend(state, k=5)[0].tolist()
    assert listed(api, "user00") == before


def test_what_a_later_fit_has_learned_counts_once(start: MakeClient, model: Recommender) -> None:
    api = start()
    known = api.get("/api/v1/user", params={"user_id": "user00"}).json()["history"][0]
    before = listed(api, "user00")
    add(api, ("user00", known["item"]["item_id"], 1.0, known["timestamp"]))
    assert len(history(api, "user00")) == 4
    assert listed(api, "user00") == before


def test_many_at_once_lose_nothing(start: MakeClient) -> None:
    api = start()

    def work(number: int) -> None:
        for step in range(5):
            add(api, ("crowd", f"jazz-{(number + step) % 8}"))
            listed(api, "crowd")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(history(api, "crowd")) == 30
    assert listed(api, "crowd") == listed(start(), "crowd")


def test_a_user_is_forgotten_by_the_log_the_model_and_all_workers(
    start: MakeClient, copied: Path, tmp_path: Path
) -> None:
    answers = StoredAnswers(FeatureStore(copied / "store"))
    told = {user: StoredAnswer(value={"likes": "goals"}, user=user_mark(user)) for user in ("user00", "user01")}
    answers.put(told)
    state = tmp_path / "forgetting.sqlite"
    one, other = (start(copied, state) for _ in range(2))
    add(one, ("user00", "goal-0"), ("user01", "jazz-0"))
    nobody = listed(one, "nobody")
    assert listed(one, "user00") != nobody
    assert history(other, "user00")
    answer = one.delete("/api/v1/user", params={"user_id": "user00"})
    assert (answer.status_code, answer.json()) == (200, {"forgotten": True})
    for api in (one, other, start(copied, state)):
        assert api.get("/api/v1/user", params={"user_id": "user00"}).json() == {
            "user_id": "user00", "known": False, "history": [],
        }  # fmt: skip
        assert listed(api, "user00") == nobody
        assert history(api, "user01")[0] == "jazz-0"
    assert [version.number for version in list_versions(copied / "model")] == [2]
    assert "user00" not in Recommender.load(copied / "model").user_ids
    assert answers.of(list(told)).keys() == {"user01"}
    for file in (state, state.with_name(state.name + "-wal")):
        assert b"user00" not in (file.read_bytes() if file.exists() else b"")
    add(other, ("user00", "jazz-3"))
    assert history(one, "user00") == ["jazz-3"]
    assert one.delete("/api/v1/user", params={"user_id": "nobody"}).status_code == 404


def test_a_model_that_cannot_be_written_forgets_all_the_same_and_says_so(
    start: MakeClient, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = start(copied, tmp_path / "forgetting.sqlite")
    monkeypatch.setattr("mmrec.recommending.model_versions._seal", _no_space)
    answer = api.delete("/api/v1/user", params={"user_id": "user00"})
    assert answer.status_code == 503
    assert "cannot be written" in answer.json()["detail"]
    assert "forget-user" in answer.json()["detail"]
    assert history(api, "user00") == []


def _no_space(*_: Any) -> None:
    raise OSError(28, "No space left on device")


def test_several_models_answer_by_name(start: MakeClient, copied: Path, tmp_path: Path) -> None:
    other = Recommender.load(copied / "model")
    other.remove_items(["jazz-0"])
    other.save(copied / "smaller")
    api = start(copied, tmp_path / "several.sqlite", models=[copied / "model", copied / "smaller"])
    assert [m["name"] for m in api.get("/api/v1/about").json()["models"]] == ["model", "smaller"]
    everything = {"k": 100, "exclude_seen": False}
    assert "jazz-0" in listed(api, "user00", **everything)
    assert "jazz-0" not in listed(api, "user00", **everything, model="smaller")
    add(api, ("user01", "jazz-0"))
    assert "jazz-0" not in listed(api, "user01", **{**everything, "exclude_seen": True})
    assert listed(api, "user01", **everything, model="smaller")


def test_a_store_alone_is_searched_and_keeps_interactions(start: MakeClient, tmp_path: Path) -> None:
    api = start(state=tmp_path / "alone.sqlite", models=[])
    assert api.get("/api/v1/items").json()["total"]
    assert "start the service with --model" in api.post("/api/v1/recommend", json={"users": ["u"]}).json()["detail"]
    assert api.get("/api/v1/map").json()["by"] == "text"
    add(api, ("user00", "clip"))
    assert len(InteractionLog(tmp_path / "alone.sqlite").of_user("user00")) == 1


def test_a_log_that_cannot_be_written_acknowledges_nothing(start: MakeClient, tmp_path: Path) -> None:
    state = tmp_path / "locked.sqlite"
    api = start(state=state)
    with sqlite3.connect(state) as connection:
        connection.execute("DROP TABLE interactions")
    answer = api.post("/api/v1/interactions", json={"interactions": [{"user_id": "u", "item_id": "clip"}]})
    assert answer.status_code == 503
    assert "live interactions cannot be kept" in answer.json()["detail"]
