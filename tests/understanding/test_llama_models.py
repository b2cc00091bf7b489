"""GGUF files run by llama.cpp write the schema and nothing else; the order of questions changes no answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from mood_questions import REFUSES_SYSTEM, Mood, Short, questions
from tiny_checkpoints import write_gguf_model

from mmrec.errors import ChatError, Reason
from mmrec.understanding import LlamaChat, Question, about_question
from mmrec.understanding.llama_sequences import LlamaSequences

pytest.importorskip("llama_cpp", reason="the extra llama is not installed")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf_model(tmp_path_factory.mktemp("chat") / "tiny.gguf")


def test_random_weights_write_valid_answers(file: Path) -> None:
    answers = list(LlamaChat(str(file), max_tokens=60).ask(questions(5)))
    assert all(isinstance(answer.value, Short) for answer in answers)
    assert all(answer.usage.read > 100 and 0 < answer.usage.written <= 60 for answer in answers)


def test_an_answer_does_not_depend_on_what_was_asked_before(file: Path) -> None:
    asked = [*questions(3), *questions(3, Mood), about_question({"title": "Rain 雨 \N{UMBRELLA}"})]
    alone = [next(LlamaChat(str(file), max_tokens=400).ask([question])) for question in asked]
    model = LlamaChat(str(file), max_tokens=400)
    assert list(model.ask(asked)) == alone
    assert list(model.ask(asked[::-1])) == alone[::-1]


def test_an_answer_does_not_depend_on_its_batch(file: Path) -> None:
    asked = [*questions(3), *questions(3, Mood), *questions(6)]
    alone = list(LlamaChat(str(file), max_tokens=60).ask(asked))
    assert list(LlamaChat(str(file), max_tokens=60, batch_size=4).ask(asked)) == alone
    narrow = LlamaChat(str(file), max_tokens=60, batch_size=4, context=1200)  # has room for two at once
    assert list(narrow.ask(asked)) == alone


def test_an_answer_that_is_cut_off_is_a_reason(file: Path) -> None:
    (answer,) = LlamaChat(str(file), max_tokens=5).ask(questions(1, Mood))
    assert answer.problem is not None and answer.problem.reason == Reason.INVALID_ANSWER


def test_a_question_that_is_too_long_is_a_reason_and_the_others_are_answered(tmp_path: Path) -> None:
    model = LlamaChat(str(write_gguf_model(tmp_path / "short.gguf", context=1000)), max_tokens=60)
    fits, too_long = Question(instructions="x", data={"a": 1}, form=Short), questions(80)[-1]
    answers = list(model.ask([too_long, fits, too_long]))
    assert isinstance(answers[1].value, Short)
    assert [a.problem and a.problem.reason for a in answers] == [Reason.TOO_LONG, None, Reason.TOO_LONG]


def test_a_template_without_a_system_message_gets_one_message(tmp_path: Path) -> None:
    model = LlamaChat(str(write_gguf_model(tmp_path / "tiny.gguf", template=REFUSES_SYSTEM)), max_tokens=60)
    (answer,) = model.ask(questions(1))
    assert isinstance(answer.value, Short)


def test_other_weights_have_another_fingerprint(tmp_path: Path, file: Path) -> None:
    other = write_gguf_model(tmp_path / "tiny.gguf", seed=1)
    models = [LlamaChat(str(path)) for path in (file, file, other)]
    assert models[0].fingerprint == models[1].fingerprint != models[2].fingerprint


def test_what_cannot_follow_a_chat_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ChatError, match="chat template"):
        LlamaChat(str(write_gguf_model(tmp_path / "tiny.gguf", template="")))
    (tmp_path / "broken.gguf").write_bytes(b"GGUF and nothing else")
    with pytest.raises(ChatError, match="cannot be loaded"):
        LlamaChat(str(tmp_path / "broken.gguf"))
    with pytest.raises(ChatError, match="cannot be loaded"):
        LlamaChat(str(tmp_path / "none.gguf"))


def test_what_is_read_in_parts_is_what_is_read_at_once(file: Path) -> None:
    import llama_cpp
    import numpy as np

    plain = llama_cpp.Llama(str(file), n_ctx=512, verbose=False)
    head, *rests = (plain.tokenize(text, add_bos=False) for text in (b"The same for all. " * 9, b"rain", b"a dog"))
    sequences = LlamaSequences(plain.model, context=512, num_texts=2, threads=1)
    sequences.begin(head, 2)
    found = sequences.read(dict(enumerate(rests)))
    for row, rest in enumerate(rests):
        plain.reset()
        plain.eval(head + rest)
        logits = llama_cpp.llama_get_logits_ith(plain.ctx, -1)
        np.testing.assert_allclose(found[row], np.ctypeslib.as_array(logits, shape=found[row].shape), atol=1e-5)
