"""Wishes in plain words, in any language: a language model makes a search of them, and the store checks it."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from mmrec.errors import SearchError
from mmrec.searching import Moment, Query, Searcher, Taste
from mmrec.store import FeatureStore, SearchColumn
from mmrec.understanding.asking import Asker
from mmrec.understanding.chat import Question

SAMPLED_ROWS, SHOWN_VALUES = 5000, 12
"""Of a store so many items are looked at for examples of what a column holds, and so many are shown."""
MOST_FOUND = 100
MOST_CHARACTERS, MOST_VALUE_CHARACTERS = 1000, 40
_READ = ("item_id", "language", "tags", "duration_seconds", "visual_classes", "metadata")
_KEYWORDS = ("and", "or", "not", "in", "true", "false")
_NOT_ASKED_BY = ("item_id", "title", "description", "status", "text_language")

Term = Annotated[str, Field(max_length=80)]
Operator = Literal["=", "!=", "<", "<=", ">", ">="]


class Filter(BaseModel):
    """A condition on a column of the catalog."""

    column: Term
    operator: Operator
    value: Term


class Wish(BaseModel):
    """What somebody looks for, as a search takes it."""

    wanted: Annotated[str, Field(max_length=200)] = Field(description="what to look for, in the language of the wish")
    unwanted: list[Term] = Field(max_length=5, description="what it must not be or have, without 'no' or 'not'")
    filters: list[Filter] = Field(max_length=5, description="only where the wish clearly asks for a value of a column")
    moments: bool = Field(description="true where moments or scenes inside items are asked for, not whole items")
    count: int = Field(
        ge=0, le=MOST_FOUND, description="a number of results, where the wish says one in digits; else 0"
    )


INSTRUCTIONS = (
    "You turn a wish of somebody who looks for videos, songs, podcasts or clips into a search. The data hold the wish "
    "and the columns of the catalog by which it can be filtered, with examples of their values. Take the words to look "
    "for out of the wish; put what is not wanted under 'unwanted' alone. Filter by given columns and values only, and "
    "only where the wish clearly names such a value: most wishes need no filter. Of the wish 'something calm for the "
    "evening, no piano', wanted is 'calm evening', unwanted is ['piano'], filters are none, and count is 0."
)
_NO = r"(?:\b(?:no|not|without|never|kein\w*|ohne|pas de|sans|sin|senza|sem|без|не)\s+|不要|没有|不想)"
"""Small models write what is not wanted with the word that says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Understood:
    """What was understood of a wish. `left_out` says what was not followed, and why."""

    wanted: str
    unwanted: tuple[str, ...] = ()
    where: str = ""
    moments: bool = False
    count: int = 0
    left_out: tuple[str, ...] = ()

    def sentence(self) -> str:
        """In words."""
        what = f"{'moments of ' if self.moments else ''}{self.wanted!r}"
        without = f", without {', '.join(map(repr, self.unwanted))}" if self.unwanted else ""
        where = f", where {self.where}" if self.where else ""
        number = f", the best {self.count}" if self.count else ""
        left_out = f" (left out: {'; '.join(self.left_out)})" if self.left_out else ""
        return f"looking for {what}{without}{where}{number}{left_out}"

    def query(self, *, taste: Taste | None = None) -> Query:
        return Query(words=[self.wanted], without=self.unwanted, where=self.where, taste=taste)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was understood, and what was found by it: ids and scores, or moments."""

    understood: Understood
    item_ids: list[str] = field(default_factory=list)
    scores: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    moments: list[Moment] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        scores = zip(self.item_ids, map(float, self.scores), strict=True)
        return {
            "understood": asdict(self.understood),
            "items": [{"item_id": item_id, "score": score} for item_id, score in scores],
            "moments": [asdict(moment) for moment in self.moments],
        }


def ask(
    searcher: Searcher | FeatureStore, words: str, model: Asker, *, taste: Taste | None = None, k: int | None = None
) -> Found:
    """Search by a wish in plain words, such as "something calm for the evening, no piano", in any language.

    The model takes the wish apart; what it says is checked against the columns and values of the store, and what does
    not hold is left out and named. Where it has no answer, the words are searched as they are. `k` is how many to find
    where the wish names no number (10). Raises `SearchError` where the store cannot answer.
    """
    searcher = Searcher(searcher) if isinstance(searcher, FeatureStore) else searcher
    understood = understand_wish(searcher, words, model)
    number = understood.count or k or 10
    query = understood.query(taste=taste)
    if understood.moments:
        return Found(understood=understood, moments=searcher.moments(query, k=number))
    item_ids, scores = searcher.search(query, k=number)
    return Found(understood=understood, item_ids=item_ids, scores=scores)


def understand_wish(searcher: Searcher, words: str, model: Asker) -> Understood:
    """What a wish asks of a store, by its columns and values."""
    columns = searcher.columns()
    values = example_values(searcher.tables.store, columns)
    (answer,) = model.ask([wish_question(words, columns, values)])
    if answer is None or not isinstance(answer.value, Wish):
        why = "the budget is spent" if answer is None or answer.problem is None else answer.problem.reason
        return Understood(wanted=words, left_out=(f"all but the words, as the language model did not answer: {why}",))
    return checked(answer.value, words, searcher, columns, values)


def wish_question_of(searcher: Searcher, words: str) -> Question:
    """What a language model is asked about a wish."""
    columns = searcher.columns()
    return wish_question(words, columns, example_values(searcher.tables.store, columns))


def wish_question(words: str, columns: Mapping[str, SearchColumn], values: Mapping[str, Counter[str]]) -> Question:
    """The question about a wish; of each column its kind and the commonest of its values, or the range."""
    if not any(map(str.isalnum, words)):
        raise SearchError(f"there are no words in {words!r}: say what to look for")
    about = {name: _described(column, values.get(name, Counter())) for name, column in columns.items()}
    return Question(
        instructions=INSTRUCTIONS,
        data={"wish": words[:MOST_CHARACTERS], "columns": {name: said for name, said in about.items() if said}},
        form=Wish,
        subject="a wish and the columns of a catalog",
    )


def checked(
    wish: Wish,
    words: str,
    searcher: Searcher,
    columns: Mapping[str, SearchColumn],
    values: Mapping[str, Counter[str]],
) -> Understood:
    """A wish as the store can follow it: what is not wanted and is a tag or label is filtered out by it."""
    parts, left_out = list[str](), list[str]()
    plain = (re.sub(f"^{_NO}", "", text.strip(), flags=re.IGNORECASE) for text in wish.unwanted)
    unwanted = list({text.casefold(): text for text in plain if any(map(str.isalnum, text))}.values())
    wanted = _without(wish.wanted, unwanted)
    named = [(text, found) for text in unwanted if (found := _label_filter(text, columns, values)) is not None]
    for filter in [*wish.filters, *(found for _, found in named)]:
        said = f"{filter.column} {filter.operator} {filter.value}"
        part, why = _condition(filter, columns, values)
        if part is None:
            left_out.append(f"{said}: {why}")
        elif part not in parts and not searcher.matching(" and ".join([*parts, part])):
            left_out.append(f"{said}: no item is left by it")
        elif part not in parts:
            parts.append(part)
    return Understood(
        wanted=wanted if any(map(str.isalnum, wanted)) else words,
        unwanted=tuple(unwanted),
        where=" and ".join(parts),
        moments=wish.moments and _has_moments(searcher),
        count=wish.count if str(wish.count) in words else 0,
        left_out=tuple(left_out),
    )


def example_values(store: FeatureStore, columns: Mapping[str, SearchColumn]) -> dict[str, Counter[str]]:
    """How often each value occurs in the first items of a store, by column."""
    found: dict[str, Counter[str]] = {name: Counter() for name in columns if name not in _NOT_ASKED_BY}
    labels = store.labels.of_items()
    for row in islice(_rows(store), SAMPLED_ROWS):
        held = {**labels.get(row["item_id"], {}), **json.loads(row["metadata"] or "{}"), **row}
        for name, counts in found.items():
            value = held.get(name)
            counts.update(map(str, value if isinstance(value, list) else [] if value in (None, "") else [value]))
    return found


def _rows(store: FeatureStore) -> Iterator[dict[str, Any]]:
    for batch in store.scan(_READ):
        yield from batch.to_pylist()


def _described(column: SearchColumn, counts: Counter[str]) -> str:
    if not counts:
        return ""
    if column.kind == "number":
        numbers = [float(value) for value in counts]
        return f"a number from {min(numbers):g} to {max(numbers):g}"
    common = counts.most_common(SHOWN_VALUES)
    repeats = common[0][1] > 1
    shown = [value[:MOST_VALUE_CHARACTERS] for value, _ in common[: None if repeats else 3]]
    return f"{'a list of labels' if column.kind == 'list' else 'a text'}, such as {', '.join(shown)}"


def _condition(
    filter: Filter, columns: Mapping[str, SearchColumn], values: Mapping[str, Counter[str]]
) -> tuple[str | None, str]:
    """The filter as `Query.where` says it, or None and why it cannot be followed."""
    column = columns.get(filter.column)
    if column is None or '"' in filter.column:
        return None, "the catalog has no such column"
    name = filter.column if filter.column.isidentifier() and filter.column not in _KEYWORDS else f'"{filter.column}"'
    if column.kind == "number":
        try:
            number = float(filter.value)
        except ValueError:
            number = math.nan
        return (f"{name} {filter.operator} {number:g}", "") if math.isfinite(number) else (None, "it holds numbers")
    if filter.operator not in ("=", "!="):
        return None, "it holds no numbers"
    held = _as_held(filter.value, values.get(filter.column, Counter()))
    text = held.replace("'", "''")
    return f"{name} {filter.operator} '{text}'", ""


def _as_held(value: str, counts: Counter[str]) -> str:
    """A value as the catalog writes it."""
    return next((held for held in counts if held.casefold() == value.casefold()), value)


def _label_filter(text: str, columns: Mapping[str, SearchColumn], values: Mapping[str, Counter[str]]) -> Filter | None:
    for name, counts in values.items():
        if columns[name].kind == "list" and name != "visual_classes":
            held = _as_held(text, counts)
            if held in counts:
                return Filter(column=name, operator="!=", value=held)
    return None


def _without(wanted: str, unwanted: Sequence[str]) -> str:
    """The words that are wanted where a model has left in them what is not.

    >>> from mmrec.understanding.wishes import _without
    >>> _without("a film about robots, no horror", ["horror"])
    'a film about robots'
    """
    for text in unwanted:
        edge = r"\b" if text.isascii() else ""
        wanted = re.sub(f"{_NO}?{edge}{re.escape(text)}{edge}", " ", wanted, flags=re.IGNORECASE)
    return " ".join(wanted.split()).strip(" ,;.")


def _has_moments(searcher: Searcher) -> bool:
    with_words = searcher.modalities_with_words()
    return any(modality in with_words for modality in searcher.tables.timed)
