"""A model on this machine can write nothing but the schema, whatever its weights are."""

from __future__ import annotations

from pathlib import Path

import pytest
from mood_questions import REFUSES_SYSTEM, Mood, Short, questions
from tiny_checkpoints import write_chat_model

from mmrec.errors import ChatError, Reason
from mmrec.understanding import LocalChat, Question


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chat_model(tmp_path_factory.mktemp("chat"))


def test_random_weights_write_valid_answers(folder: Path) -> None:
    answers = list(LocalChat(str(folder), device="cpu", max_tokens=60).ask(questions(5)))
    assert all(isinstance(answer.value, Short) for answer in answers)
    assert all(answer.usage.read > 100 and 0 < answer.usage.written <= 60 for answer in answers)


def test_an_answer_does_not_depend_on_its_batch(folder: Path) -> None:
    alone = list(LocalChat(str(folder), device="cpu", max_tokens=60).ask(questions(4)))
    together = list(LocalChat(str(folder), device="cpu", max_tokens=60, batch_size=4).ask(questions(4)))
    assert [answer.value for answer in alone] == [answer.value for answer in together]


def test_an_answer_that_is_cut_off_is_a_reason(folder: Path) -> None:
    (answer,) = LocalChat(str(folder), device="cpu", max_tokens=5).ask(questions(1, Mood))
    assert answer.problem is not None and answer.problem.reason == Reason.INVALID_ANSWER


def test_a_question_that_is_too_long_is_a_reason_and_the_others_are_answered(tmp_path: Path) -> None:
    model = LocalChat(str(write_chat_model(tmp_path, context=1000)), device="cpu", max_tokens=60, batch_size=2)
    fits, too_long = Question(instructions="x", data={"a": 1}, form=Short), questions(80)[-1]
    answers = list(model.ask([fits, too_long]))
    assert isinstance(answers[0].value, Short)
    assert answers[1].problem is not None and answers[1].problem.reason == Reason.TOO_LONG


def test_a_template_without_a_system_message_gets_one_message(tmp_path: Path) -> None:
    model = LocalChat(str(write_chat_model(tmp_path, template=REFUSES_SYSTEM)), device="cpu", max_tokens=60)
    (answer,) = model.ask(questions(1))
    assert isinstance(answer.value, Short)


def test_other_weights_have_another_fingerprint(tmp_path: Path, folder: Path) -> None:
    other = write_chat_model(tmp_path, seed=1)
    models = [LocalChat(str(path), device="cpu") for path in (folder, folder, other)]
    assert models[0].fingerprint == models[1].fingerprint != models[2].fingerprint


def test_a_model_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ChatError, match="chat template"):
        LocalChat(str(write_chat_model(tmp_path, template="")), device="cpu")
