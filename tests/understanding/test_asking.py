"""A question is paid for once: answers stay in the store, a budget ends the asking, what was stopped goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chat_server import asked_about, chat_server
from pydantic import BaseModel

import mmrec
from mmrec.errors import ChatError, Reason
from mmrec.understanding import Asker, Budget, Question, ServerChat


class Topic(BaseModel):
    topic: str


def questions(count: int) -> list[Question]:
    return [Question(instructions="Name the topic.", data={"title": f"title {n}"}, form=Topic) for n in range(count)]


def topic_of(body: dict[str, Any], number: int) -> Any:
    return json.dumps({"topic": asked_about(body)["title"]})


def values(answers: Any) -> list[str | None]:
    return [answer.value.topic if answer is not None and answer.value is not None else None for answer in answers]


@pytest.fixture
def store(tmp_path: Path) -> mmrec.FeatureStore:
    return mmrec.FeatureStore(tmp_path / "store", create=True)


def test_answers_are_kept_and_come_in_order(store: mmrec.FeatureStore) -> None:
    with chat_server(topic_of) as server:
        model = ServerChat("fake", url=server.url)
        list(Asker(model, store).ask(questions(10)))
        again = Asker(model, store)
        assert values(again.ask(reversed(questions(20)))) == [f"title {n}" for n in reversed(range(20))]
        assert (again.report.known, again.report.answered, len(server.requests)) == (10, 10, 20)
        assert values(Asker(model).ask(questions(2) + questions(2))) == ["title 0", "title 1"] * 2
        assert len(server.requests) == 22


def test_a_run_that_breaks_goes_on_without_asking_again(store: mmrec.FeatureStore) -> None:
    def breaks(body: dict[str, Any], number: int) -> Any:
        return topic_of(body, number) if number <= 5 else (401, {"error": {"message": "x"}})

    with chat_server(breaks) as server, pytest.raises(ChatError):
        list(Asker(ServerChat("fake", url=server.url, concurrency=1), store).ask(questions(10)))
    with chat_server(topic_of) as server:
        asker = Asker(ServerChat("fake", url=server.url), store)
        assert values(asker.ask(questions(10))) == [f"title {n}" for n in range(10)]
        assert (asker.report.known, len(server.requests)) == (5, 5)


def test_a_failure_is_a_reason_that_is_kept_until_it_is_asked_for_again(store: mmrec.FeatureStore) -> None:
    with chat_server(lambda body, number: "no") as server:
        model = ServerChat("fake", url=server.url)
        asker = Asker(model, store)
        (answer,) = asker.ask(questions(1))
        assert answer is not None and answer.problem is not None
        assert (answer.problem.reason, asker.report.share_failed()) == (Reason.INVALID_ANSWER, 1.0)
        count = len(server.requests)
        list(Asker(model, store).ask(questions(1)))
        assert len(server.requests) == count
        list(Asker(model, store, retry_failed=True).ask(questions(1)))
        assert len(server.requests) == 2 * count


def test_a_budget_leaves_the_rest(store: mmrec.FeatureStore) -> None:
    with chat_server(topic_of) as server:
        model = ServerChat("fake", url=server.url, concurrency=1)
        asker = Asker(model, store, budget=Budget(tokens=360))
        answers = list(asker.ask(questions(12)))
        assert asker.report.left == answers.count(None) == 12 - len(server.requests) > 0
        assert Asker(model, store).estimate(questions(12)).questions == asker.report.left
