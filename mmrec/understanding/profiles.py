"""Users in words: what a language model makes of a history and of what they wrote, with evidence that is checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from pydantic import BaseModel, Field

from mmrec.recommending import Recommender
from mmrec.store import FeatureStore
from mmrec.understanding.asking import Asker
from mmrec.understanding.chat import Question
from mmrec.understanding.comments import Comment
from mmrec.understanding.known_items import LatestItems, findings_of, in_brief

MOST_ITEMS, MOST_COMMENTS = 30, 30
ITEM_CHARACTERS, COMMENT_CHARACTERS = 120, 500
USERS_AT_ONCE = 256
LEAST_QUOTE = 4
"""A quote of fewer letters is found anywhere."""
KINDS = ("likes", "dislikes", "context", "languages")


class Statement(BaseModel):
    """One thing that is known of somebody, and by what."""

    words: Annotated[str, Field(max_length=80)]
    items: list[int] = Field(max_length=5, description="the numbers of the items of the history that show it")
    quotes: list[Annotated[str, Field(max_length=120)]] = Field(
        max_length=3, description="what they wrote that shows it, letter by letter"
    )


class Statements(BaseModel):
    """What is known of somebody."""

    likes: list[Statement] = Field(max_length=5)
    dislikes: list[Statement] = Field(max_length=4)
    context: list[Statement] = Field(max_length=3, description="when, where and with whom they watch or listen")
    languages: list[Statement] = Field(max_length=3)


INSTRUCTIONS = (
    "You say in short phrases what somebody likes and dislikes in videos, songs, podcasts and clips, in which context "
    "they watch or listen, and which languages they understand. The data hold the items of their history, the latest "
    "first (a higher weight is more, 0 or less is against the item), and what they wrote. Give for each statement the "
    "numbers of the items, or what they wrote, that show it. Say what several items have in common rather than their "
    "titles. Say nothing that the data do not show; most lists may stay empty."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trait:
    """A statement about somebody with its evidence: items of their history, and quotes of what they wrote."""

    words: str
    item_ids: tuple[str, ...] = ()
    quotes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What is known of somebody. `dropped` counts the statements that had no evidence which is there.

    >>> from mmrec.understanding import Profile, Trait
    >>> profile = Profile(user_id="u1", likes=(Trait(words="slow piano", item_ids=("i1",)),))
    >>> profile.text, profile.wanted, profile.unwanted
    ('Likes slow piano.', 'slow piano', '')
    """

    user_id: str
    likes: tuple[Trait, ...] = ()
    dislikes: tuple[Trait, ...] = ()
    context: tuple[Trait, ...] = ()
    languages: tuple[Trait, ...] = ()
    dropped: int = 0

    @property
    def text(self) -> str:
        names = {"likes": "Likes", "dislikes": "Dislikes", "context": "Context:", "languages": "Languages:"}
        return " ".join(f"{names[kind]} {self._words(kind)}." for kind in KINDS if getattr(self, kind))

    @property
    def wanted(self) -> str:
        """The words that speak for items."""
        return self._words("likes")

    @property
    def unwanted(self) -> str:
        """The words that speak against items."""
        return self._words("dislikes")

    def _words(self, kind: str) -> str:
        return ", ".join(trait.words for trait in getattr(self, kind))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"text": self.text}

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> Profile:
        """What `to_dict` made, after JSON as well."""
        traits = {kind: tuple(map(_trait, said[kind])) for kind in KINDS}
        return cls(user_id=said["user_id"], dropped=said["dropped"], **traits)


def make_profiles(
    model: Recommender,
    asker: Asker,
    users: Iterable[str],
    *,
    store: FeatureStore | None = None,
    comments: Sequence[Comment] = (),
) -> Iterator[Profile]:
    """The profiles of users, of those that the language model answered about and of whom something is known.

    Statements are kept where an item of the history, or a comment, that they name is there; the others are counted.
    The `store` tells summaries of items. Users whom the recommender does not know have what they wrote.
    """
    for told in _told(model, users, store, comments):
        questions = [one.question for one in told]
        for one, answer in zip(told, asker.ask(questions), strict=True):
            if answer is not None and isinstance(answer.value, Statements):
                yield one.profile(answer.value)


def profile_questions(
    model: Recommender, users: Iterable[str], *, store: FeatureStore | None = None, comments: Sequence[Comment] = ()
) -> Iterator[Question]:
    """What `make_profiles` asks."""
    return (one.question for told in _told(model, users, store, comments) for one in told)


@dataclass(frozen=True, slots=True)
class _Told:
    """What a question tells of a user."""

    user_id: str
    item_ids: Sequence[str]
    history: Sequence[Mapping[str, Any]]
    comments: Sequence[Comment]

    @property
    def question(self) -> Question:
        history = [{"number": number, **known} for number, known in enumerate(self.history, start=1)]
        wrote = [{"kind": one.kind, "text": one.text[:COMMENT_CHARACTERS]} for one in self.comments]
        data = {"history": history, "wrote": wrote}
        return Question(
            instructions=INSTRUCTIONS,
            data={name: value for name, value in data.items() if value},
            form=Statements,
            subject="one user of a catalog",
            user_id=self.user_id,
        )

    def profile(self, said: Statements) -> Profile:
        kept = {kind: [self._trait(statement) for statement in getattr(said, kind)] for kind in KINDS}
        traits = {kind: tuple(trait for trait in found if trait is not None) for kind, found in kept.items()}
        dropped = sum(found.count(None) for found in kept.values())
        return Profile(user_id=self.user_id, dropped=dropped, **traits)

    def _trait(self, statement: Statement) -> Trait | None:
        """The statement with the evidence that is there; None where none is, or it says nothing."""
        numbers = dict.fromkeys(number for number in statement.items if 1 <= number <= len(self.item_ids))
        quotes = dict.fromkeys(quote for quote in statement.quotes if self._was_written(quote))
        words = " ".join(statement.words.split()).strip(" .,;")
        if not (numbers or quotes) or not any(map(str.isalnum, words)):
            return None
        return Trait(words=words, item_ids=tuple(self.item_ids[n - 1] for n in numbers), quotes=tuple(quotes))

    def _was_written(self, quote: str) -> bool:
        plain = _plain(quote)
        return sum(map(str.isalnum, plain)) >= LEAST_QUOTE and any(plain in _plain(one.text) for one in self.comments)


def _told(
    model: Recommender, users: Iterable[str], store: FeatureStore | None, comments: Sequence[Comment]
) -> Iterator[list[_Told]]:
    """Blocks of users of whom something is known."""
    histories, wrote = LatestItems(model, MOST_ITEMS), dict[str, list[Comment]]()
    for comment in comments:
        wrote.setdefault(comment.user_id, []).append(comment)
    names = list(dict.fromkeys(users))
    for start in range(0, len(names), USERS_AT_ONCE):
        block = {user: histories.of(user) for user in names[start : start + USERS_AT_ONCE]}
        found = findings_of(store, list({item_id for history in block.values() for item_id, _ in history}))
        told = []
        for user, history in block.items():
            known = [
                in_brief(model.item(item_id), found.get(item_id, {}), characters=ITEM_CHARACTERS)
                | ({"weight": round(weight, 2)} if histories.are_graded else {})
                for item_id, weight in history
            ]
            told.append(_Told(user, [item_id for item_id, _ in history], known, wrote.get(user, [])[-MOST_COMMENTS:]))
        yield [one for one in told if one.history or one.comments]


def _trait(said: Mapping[str, Any]) -> Trait:
    return Trait(words=said["words"], item_ids=tuple(said["item_ids"]), quotes=tuple(said["quotes"]))


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
