"""What a language model writes: titles, blurbs and tags of items, and in words why one is recommended."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, Field

from mmrec.errors import Problem, StoreError
from mmrec.recommending import Explanation
from mmrec.store import FeatureStore
from mmrec.understanding.asking import Asker
from mmrec.understanding.chat import Question
from mmrec.understanding.finding_out import known_facts

Tag = Annotated[str, Field(max_length=40)]


class Description(BaseModel):
    """Words for an item."""

    titles: list[Annotated[str, Field(max_length=80)]] = Field(min_length=1, max_length=3)
    blurb: Annotated[str, Field(max_length=300)] = Field(description="one or two sentences that invite to it")
    tags: list[Tag] = Field(max_length=10)


DESCRIBE = (
    "You write for a catalog of videos, songs, podcasts and clips: up to three titles, a blurb and tags for an item, "
    "by what is known of it and nothing else. Do not praise, and do not name what the data do not."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """Words for an item, or the problem in their place; neither where the budget was spent before."""

    item_id: str
    description: Description | None = None
    problem: Problem | None = None


def describe(
    store: FeatureStore, asker: Asker, item_ids: Collection[str] | None = None, *, language: str = ""
) -> Iterator[Described]:
    """Titles, a blurb and tags for items of a store, all by default, by what is known of them.

    Known are the texts of the catalog, labels, what pictures may show, and what `understand` found out: words heard
    and seen, a summary. `language` (ISO 639) is the one to write in; by default the item's own. Items of which nothing
    is known are left out. Raises `StoreError` for an item that the store does not have.
    """
    asked = list[str]()

    def questions() -> Iterator[Question]:
        for item_id, question in describe_questions(store, item_ids, language=language):
            asked.append(item_id)
            yield question

    for place, answer in enumerate(asker.ask(questions())):
        value = None if answer is None else answer.value
        problem = None if answer is None else answer.problem
        description = value if isinstance(value, Description) else None
        yield Described(item_id=asked[place], description=description, problem=problem)


def describe_questions(
    store: FeatureStore, item_ids: Collection[str] | None = None, *, language: str = ""
) -> Iterator[tuple[str, Question]]:
    """The ids of items, and what is asked about them."""
    wished = f"in the language {language!r} (ISO 639)" if language else "in the language of the title"
    there = set[str]()
    for item_id, facts in known_facts(store, item_ids):
        there.add(item_id)
        if facts:
            yield item_id, Question(instructions=f"{DESCRIBE} Write {wished}.", data=facts, form=Description)
    if missing := sorted(set(item_ids or ()) - there):
        raise StoreError(f"store {store.folder} has no item {missing[0]!r}")


# --- why --------------------------------------------------------------------------------------------------------------


class Why(BaseModel):
    """Why an item is recommended, to the one to whom it is."""

    text: Annotated[str, Field(max_length=500)] = Field(description="two or three sentences, addressed as 'you'")


EXPLAIN = (
    "You tell somebody in two or three plain sentences why an item is recommended to them, by what was computed and "
    "nothing else: the items of their history that speak for it, how it is like them, and what is said of its place. "
    "Put titles in double quotes, as they are written. Name no item, person or number that is not in the data."
)
MOST_CAUSES = 5
_QUOTED = re.compile(r'"([^"]+)"|“([^”]+)”|„([^“]+)“|«([^»]+)»')
_WORD = re.compile(r"\w+")
_SENTENCE_END = re.compile(r"(?:^|[.!?:;]\s+)[\"“„«]?$")
LEAST_TITLE = 4
"""A title of one word is looked for outside quotes only where it has so many letters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhyInWords:
    """Why an item is recommended. `problem` is why the words are not the language model's but those of a template."""

    text: str
    problem: str = ""


def why_in_words(why: Explanation, asker: Asker, *, titles: Collection[str] = (), language: str = "") -> WhyInWords:
    """An explanation as a language model tells it, where it names only what is in it; else as `sentences` has it.

    Quoted words must be titles of the explanation, names and numbers must occur in it, and none of the other `titles`,
    those of the catalog, may.
    """
    templated = " ".join(why.sentences())
    question = why_question(why, language=language)
    (answer,) = asker.ask([question])
    if answer is None or not isinstance(answer.value, Why):
        reason = "the budget is spent" if answer is None or answer.problem is None else str(answer.problem.reason)
        return WhyInWords(text=templated, problem=f"the language model did not answer: {reason}")
    text = " ".join(answer.value.text.split())
    own = [why.title or why.item_id, *(cause.title or cause.item_id for cause in why.history)]
    if strange := ungrounded(text, own, [*own, *map(str, question.data.values())], titles):
        return WhyInWords(text=templated, problem=f"the language model named {strange!r}, which is not in the reasons")
    return WhyInWords(text=text)


def why_question(why: Explanation, *, language: str = "") -> Question:
    """What a language model is asked to tell."""
    causes = [cause for cause in why.history if cause.contribution > 0][:MOST_CAUSES]
    through = sorted({name for cause in causes for name, part in cause.through.items() if part > 0})
    wished = f" Write in the language {language!r} (ISO 639)." if language else ""
    return Question(
        instructions=EXPLAIN + wished,
        data={
            "item": why.title or why.item_id,
            "speaks for it": [cause.title or cause.item_id for cause in causes],
            "alike in": through,
            "computed": why.sentences(),
            "popularity": f"more popular than {why.more_popular_than:.0%} of all",
        },
        form=Why,
        subject="a recommendation, and how it was computed",
        user_id=why.user_id,
    )


def ungrounded(text: str, own: Collection[str], said: Collection[str], titles: Collection[str]) -> str:
    """The first thing that a text names and that is not there; empty where there is none.

    `own` may be quoted; `said` is what names and numbers may come from; `titles` may not occur but in `own`.

    >>> from mmrec.understanding.writing import ungrounded
    >>> ungrounded('Like "Rain", you watched it in Rome.', ["Rain"], ["Rain"], ["Rain", "Storm"])
    'Rome'
    >>> ungrounded('Because you liked "Rain".', ["Rain"], ["Rain"], ["Rain", "Storm"])
    ''
    """
    allowed = {title.casefold() for title in own}
    for groups in _QUOTED.findall(text):
        quoted = "".join(groups).strip(" .,;!?")
        if quoted.casefold() not in allowed:
            return quoted
    words = {word.casefold() for one in said for word in _WORD.findall(one)}
    for found in _WORD.finditer(text):
        word = found.group()
        is_name = word[0].isupper() and word != "I" and not _SENTENCE_END.search(text[: found.start()])
        if (is_name or any(map(str.isdigit, word))) and word.casefold() not in words:
            return word
    without = text
    for title in sorted(own, key=len, reverse=True):
        without = without.replace(title, " ")
    for title in titles:
        is_long = len(title) >= LEAST_TITLE or not title.isascii()
        if is_long and title in without and re.search(rf"(?<!\w){re.escape(title)}(?!\w)", without):
            return title
    return ""
