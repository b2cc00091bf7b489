"""What models on this machine share: the prompt of a question, the grammar of its answer, the answer of a text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jinja2 import TemplateError
from numpy.typing import NDArray
from pydantic import ValidationError

from mmrec.errors import Problem, Reason
from mmrec.understanding.chat import Answer, Question, Usage, invalid, parse

Render = Callable[[Sequence[Mapping[str, Any]]], str]
"""Makes a text of the messages of a chat, by the template of a model."""


def prompt_of(question: Question, render: Render) -> str:
    """The question as a model reads it; one message of two where its template refuses a message of the system."""
    messages = question.messages(show_form=True)
    try:
        return render(messages)
    except (TemplateError, ValueError):
        return render([{"role": "user", "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}])


def grammar_of(question: Question) -> str:
    """The grammar of the form, without blanks between values, which a weak model may else write for ever."""
    from llguidance import LLMatcher

    schema = json.dumps(question.schema())
    return str(LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_flexible": False}))


def allowed_tokens(matchers: Sequence[Any], vocabulary_size: int) -> NDArray[np.bool_]:
    """Which tokens the grammar of each matcher allows next, `(B, V)`."""
    from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

    bits_BV = allocate_token_bitmask(len(matchers), vocabulary_size)
    for row, matcher in enumerate(matchers):
        fill_next_token_bitmask(matcher, bits_BV, row)
    return np.unpackbits(bits_BV.view(np.uint8), axis=1, bitorder="little")[:, :vocabulary_size].astype(bool)


def answer_of(text: str, question: Question, usage: Usage) -> Answer:
    try:
        return Answer(value=parse(text, question.form), usage=usage)
    except ValidationError as error:
        return Answer(problem=invalid(text, error), usage=usage)


def too_long(context: int) -> Answer:
    return Answer(problem=Problem(Reason.TOO_LONG, f"the question is longer than the {context} tokens of the model"))
