"""What users write: comments, searches and words about themselves; and what comments are worth as interactions."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, Field

from mmrec.errors import InteractionError
from mmrec.evaluation import Interactions, make_interactions
from mmrec.tables import Table, local_path, to_text
from mmrec.understanding.asking import Asker
from mmrec.understanding.chat import Question

MOST_CHARACTERS = 2000
OPINIONS = {"loves": 1.0, "likes": 0.5, "neutral": 0.0, "dislikes": -0.5, "hates": -1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comment:
    """What a user wrote: of an item, where `item_id` names one. `kind`: as comment, search, or words."""

    user_id: str
    text: str
    item_id: str = ""
    kind: str = "comment"


class Aspect(BaseModel):
    """Something about an item, and whether the writer likes it."""

    words: Annotated[str, Field(max_length=40)]
    liked: bool


class Opinion(BaseModel):
    """What a comment says of its item."""

    opinion: Literal["loves", "likes", "neutral", "dislikes", "hates"]
    aspects: list[Aspect] = Field(max_length=4, description="what it praises or blames, in words of the comment")


@dataclass(frozen=True, slots=True)
class Weighed:
    """A comment, what it is worth as an interaction, from -1 to 1, and the aspects that it names, each so as well."""

    comment: Comment
    weight: float
    aspects: dict[str, float]


INSTRUCTIONS = (
    "You read a comment of somebody on a video, a song, a podcast or a clip. Tell how they like it, and which things "
    "about it they praise or blame, each in words of the comment. A comment that says nothing of it is neutral."
)


def read_comments(path: str | os.PathLike[str]) -> list[Comment]:
    """Read `user_id`, `text` and, where known, `item_id` and `kind` of a table; rows without text are left out.

    Raises `InteractionError` for a file that cannot be read, and for rows without a user.
    """
    known = ["user_id", "text", "item_id", "kind"]
    local = local_path(path, InteractionError)
    table = Table(local, known=known, required=["user_id", "text"], others=False, error=InteractionError)
    if not local.exists():
        raise InteractionError(f"there is no file {path}")
    comments = []
    for row, values in table.rows():
        texts = {name: to_text(values.get(name)).strip() for name in known}
        if not texts["user_id"]:
            raise InteractionError(f"{table.where(row)}: user_id is missing: expected who wrote it")
        if texts["text"]:
            comments.append(Comment(**{**texts, "kind": texts["kind"] or "comment"}))
    return comments


def weigh_comments(comments: Iterable[Comment], asker: Asker) -> Iterator[Weighed]:
    """What comments on items are worth, of those that the language model answered about.

    The weight is that of the opinion (loves 1, likes .5, neutral 0, dislikes -.5, hates -1); where aspects are named,
    the mean of it and of their balance. Aspects that are no words of the comment are left out.
    """
    on_items = [comment for comment in comments if comment.item_id]
    for comment, answer in zip(on_items, asker.ask(map(comment_question, on_items)), strict=True):
        if answer is not None and isinstance(answer.value, Opinion):
            said, text = answer.value, comment.text.casefold()
            aspects = {one.words: 1.0 if one.liked else -1.0 for one in said.aspects if one.words.casefold() in text}
            weight = OPINIONS[said.opinion]
            balance = float(np.mean(list(aspects.values()))) if aspects else weight
            yield Weighed(comment, (weight + balance) / 2, aspects)


def comment_question(comment: Comment) -> Question:
    return Question(
        instructions=INSTRUCTIONS,
        data={"comment": comment.text[:MOST_CHARACTERS]},
        form=Opinion,
        subject="one comment on an item of a catalog",
        user_id=comment.user_id,
    )


def interactions_of(weighed: Sequence[Weighed]) -> Interactions:
    """Comments as interactions; of several by one user on one item the weights are summed."""
    users, items = [one.comment.user_id for one in weighed], [one.comment.item_id for one in weighed]
    weights_N = np.array([one.weight for one in weighed])
    return make_interactions(users, items, weights=weights_N, source="comments")
