"""Questions about the mood of a title, for models on this machine of random weights."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from mmrec.understanding import Question

REFUSES_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{{ m.content }}{% endfor %}assistant: "
)


class Mood(BaseModel):
    mood: Literal["calm", "joy", "fear"]
    words: list[str] = Field(max_length=2)
    title: str = Field(max_length=12)


class Short(BaseModel):
    mood: Literal["calm", "joy", "fear"]


def questions(count: int, form: type[BaseModel] = Short) -> list[Question]:
    return [
        Question(instructions="Name the mood.", data={"title": f"title {n}" * (1 + n)}, form=form) for n in range(count)
    ]
