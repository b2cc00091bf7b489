"""What an item is about, by a language model: the form of its answer, and the question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from mmrec.understanding.chat import Question

MOST_CHARACTERS = 4000
"""Of each text of an item: a longer one loses its middle."""
Words = Annotated[str, Field(max_length=60)]
Emotion = Literal[
    "joy", "calm", "sadness", "anger", "fear", "surprise", "disgust", "tenderness", "excitement", "neutral"
]
Concern = Literal["violence", "nudity", "drugs", "hate", "self-harm", "gambling", "strong language", "dangerous acts"]


class About(BaseModel):
    """What an item is about. People are described in general terms, never named or guessed at."""

    topic: Words = Field(description="what it is about, in one to four words")
    emotion: Emotion = Field(description="the prevailing feeling")
    scene: Words = Field(description="where it takes place, or an empty string where nothing tells")
    objects: list[Words] = Field(max_length=8, description="people and things that are in it, in general terms")
    summary: str = Field(max_length=400, description="one or two sentences")
    audience: Literal["children", "everyone", "adults"]
    concerns: list[Concern] = Field(max_length=8, description="what some would not want to see; mostly empty")


INSTRUCTIONS = (
    "You describe items of a catalog of videos, songs, podcasts and clips. Tell what the item is about, by what is "
    "known of it and nothing else: its title and description, the words that are heard and seen in it, and what a "
    "picture network saw. Leave a text empty rather than guess."
)


def about_question(item: Mapping[str, Any], *, language: str = "", pictures: Sequence[bytes] = ()) -> Question:
    """The question about an item: `title`, `description`, `tags`, `language`, `seconds`, `heard`, `seen`, `classes`.

    `language` is the one to answer in (ISO 639); by default the item's own.

    >>> from mmrec.understanding import about_question
    >>> question = about_question({"title": "Rain on a tin roof", "seen": ""}, language="de")
    >>> question.data
    {'title': 'Rain on a tin roof'}
    """
    wished = f"in the language {language!r} (ISO 639)" if language else "in the language of the title"
    return Question(
        instructions=f"{INSTRUCTIONS} Write the texts {wished}.",
        data={name: shortened(value) for name, value in item.items() if value},
        form=About,
        pictures=tuple(pictures),
    )


def shortened(value: Any) -> Any:
    if isinstance(value, str) and len(value) > MOST_CHARACTERS:
        half = MOST_CHARACTERS // 2
        return f"{value[:half]} [...] {value[-half:]}"
    return value
