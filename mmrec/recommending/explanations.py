"""What an explanation says: the parts of a score, in numbers, in words, and as JSON takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mmrec.store import Modality

WITH_STORE = {
    "history": "exact: the score is linear in the items of the history",
    "id, popularity": "exact: the score is linear in both",
    "modalities": "Shapley values over the subsets of the item's modalities, which sum to what its content makes",
    "tokens": "leaving out one token, while the neighbours by content stay",
    "places": "ranked again without an item, as if it had never been in the history, or with the item without a part",
}
WITHOUT_STORE = {
    **{name: WITH_STORE[name] for name in ("history", "id, popularity", "places")},
    "content": "exact, as a whole: what modalities and tokens did is known from the store alone, which was not given",
}
NOUNS = {"visual": "pictures", "audio": "sound", "text": "words"}

Seconds = tuple[float, float]


@dataclass(frozen=True)
class Part:
    """What a part of the item, as a modality or the id, adds to the score, and where the item would be without it."""

    name: str
    contribution: float
    place_without: int


@dataclass(frozen=True)
class Likeness:
    """The two most alike tokens of the item and of one in the history, counted from 1: their cosine, and their times.

    Where times are not known, as of text, they are None.
    """

    modality: Modality
    cosine: float
    token: int
    seconds: Seconds | None
    their_token: int
    their_seconds: Seconds | None


@dataclass(frozen=True)
class Cause:
    """What an item of the history adds to the score; negative where it takes away.

    `times`: how often it is in the history. `through`: the contribution, by the part of the explained item that it goes
    through. The causes that matter most also have `place_without`, where the item would be without them, and `likeness`
    in the modality that they work through most, where two tokens are alike.
    """

    item_id: str
    title: str
    times: int
    contribution: float
    through: dict[str, float]
    place_without: int | None = None
    likeness: Likeness | None = None


@dataclass(frozen=True)
class Moment:
    """What a token, a frame, window or passage, adds to the score: `number`, from 1, of the `count` of its modality."""

    modality: Modality
    number: int
    count: int
    seconds: Seconds | None
    contribution: float

    @property
    def when(self) -> str:
        """Its time as in players; empty where it has none."""
        return "" if self.seconds is None else " to ".join(dict.fromkeys(map(clock, self.seconds)))


@dataclass(frozen=True)
class Explanation:
    """The score of a user and an item, cut in two ways, the greatest parts first.

    `score` is `popularity` and all `parts`; and it is `popularity`, `anyone`, `rest` and all of `history`. `anyone` is
    what the item gets from everybody, whatever their history; `rest` what a live state holds of words, and of items
    that changed or left since. `more_popular_than` is a share of the catalog. `place` counts from 1 among `num_ranked`
    items: all but the others of the history. `methods` says how each kind of number was found.
    """

    user_id: str
    item_id: str
    title: str
    score: float
    place: int
    num_ranked: int
    is_seen: bool
    popularity: float
    more_popular_than: float
    parts: list[Part]
    anyone: float
    rest: float
    history: list[Cause]
    moments: list[Moment]
    methods: dict[str, str]

    def sentences(self) -> list[str]:
        """What matters most, in words."""
        causes = self.main_causes()
        if not causes:
            why = "nothing in the history speaks for it" if self.history else "there is no history"
            return [f"Not because of the history: {why}. It is more popular than {self.more_popular_than:.0%} of all."]
        said = [f"Because of {' and '.join(_name(cause) for cause in causes)}."]
        said += [_in_words(cause, cause.likeness) for cause in causes if cause.likeness is not None]
        said += [_counterfactual(cause, self.place) for cause in causes if cause.place_without is not None]
        return said

    def main_causes(self) -> list[Cause]:
        """The item of the history that adds most, and the next where it adds at least half as much."""
        causes = [cause for cause in self.history if cause.contribution > 0]
        return [cause for cause in causes[:2] if cause.contribution >= causes[0].contribution / 2]

    def to_dict(self) -> dict[str, Any]:
        """All of it, and the sentences, as JSON takes it."""
        return {**asdict(self), "sentences": self.sentences()}

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> Explanation:
        """What `to_dict` made, after JSON as well."""
        parts = [Part(**part) for part in said["parts"]]
        causes = [Cause(**{**cause, "likeness": _likeness(cause["likeness"])}) for cause in said["history"]]
        moments = [Moment(**{**moment, "seconds": _seconds(moment["seconds"])}) for moment in said["moments"]]
        own = {name: value for name, value in said.items() if name != "sentences"}
        return cls(**{**own, "parts": parts, "history": causes, "moments": moments})


def _likeness(said: Mapping[str, Any] | None) -> Likeness | None:
    if said is None:
        return None
    spans = {name: _seconds(said[name]) for name in ("seconds", "their_seconds")}
    return Likeness(**{**said, **spans})


def _seconds(said: Sequence[float] | None) -> Seconds | None:
    return None if said is None else (said[0], said[1])


def clock(seconds: float) -> str:
    """A time as in players.

    >>> clock(12.4), clock(3725)
    ('0:12', '1:02:05')
    """
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _name(cause: Cause) -> str:
    return f'"{cause.title or cause.item_id}"'


def _counterfactual(cause: Cause, place: int) -> str:
    if cause.place_without == place:
        return f"Without {_name(cause)} it would still be at place {place}."
    return f"Without {_name(cause)} it would be at place {cause.place_without}, not {place}."


def _in_words(cause: Cause, like: Likeness) -> str:
    here, there = (f" at {clock(span[0])}" if span else "" for span in (like.seconds, like.their_seconds))
    likeness = "is like that" if like.modality == "audio" else "are like those"
    return f"Its {NOUNS[like.modality]}{here} {likeness} of {_name(cause)}{there}."
