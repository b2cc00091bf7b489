"""The shapes of requests and answers; OpenAPI and the TypeScript types are made from them."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from mmrec.store import Modality

MOST_RESULTS, MOST_AT_ONCE = 1000, 10_000
LONGEST_TEXT, LONGEST_ID = 10_000, 4096
NO_ZERO = r"^[^\x00]*$"
Medium = Literal["clip", "picture", "sound", "text"]
By = Literal["fused", "visual", "audio", "text"]
Id = Annotated[str, Field(min_length=1, max_length=LONGEST_ID, pattern=NO_ZERO)]
Ids = Annotated[list[Id], Field(max_length=MOST_AT_ONCE)]
Words = Annotated[str, Field(max_length=LONGEST_TEXT, pattern=NO_ZERO)]
Count = Annotated[int, Field(ge=1, le=MOST_RESULTS)]
Offset = Annotated[int, Field(ge=0, le=1_000_000)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Number = Annotated[float, Field(allow_inf_nan=False)]
T = TypeVar("T")


class Request(BaseModel):
    """A body; what it does not know, it refuses."""

    model_config = ConfigDict(extra="forbid")


# --- items ------------------------------------------------------------------------------------------------------------


class Item(BaseModel):
    """What lists show of an item."""

    item_id: str
    title: str
    status: str
    medium: Medium
    duration_seconds: float
    has_media: bool
    tags: list[str]
    metadata: dict[str, Any]


class Problem(BaseModel):
    reason: str
    detail: str


class Passage(BaseModel):
    """Words from `start` to `end`, in seconds; a picture's are at 0."""

    start: float
    end: float
    text: str


class ItemDetails(Item):
    """`heard`, `seen` and `about` are what `mmrec understand` found out."""

    description: str
    language: str
    facts: dict[str, Any]
    problems: dict[Modality, Problem]
    stale_since: dict[Modality, str]
    moments: dict[Modality, list[tuple[float, float]]]
    classes: list[tuple[str, float]]
    tag_columns: dict[str, list[str]]
    heard: list[Passage]
    seen: list[Passage]
    about: dict[str, Any]


class Page(BaseModel, Generic[T]):
    """Some of the things, from `offset` on; `total` is how many there are."""

    items: list[T]
    offset: int
    limit: int
    total: int


class FailedItem(BaseModel):
    item: Item
    problems: dict[Modality, Problem]
    media: str


class Waveform(BaseModel):
    """Peaks from 0 to 1, evenly spread over `seconds`."""

    peaks: list[float]
    seconds: float


class MapAnswer(BaseModel):
    """Items as points of a plane: `x` and `y` from 0 to 1, and the values of a column."""

    item_ids: list[str]
    x: list[float]
    y: list[float]
    color: list[Any] | None
    by: str


class Duplicate(BaseModel):
    item: Item
    medium: str
    score: float
    same_file: bool
    offset_seconds: float
    speed: float
    differs: dict[str, tuple[Any, Any]]


class DuplicateGroup(BaseModel):
    item: Item
    duplicates: list[Duplicate]


class DuplicatesAnswer(BaseModel):
    groups: list[DuplicateGroup]


class Run(BaseModel):
    run_id: str
    command: str
    mmrec: str
    start: str
    end: str | None
    exit: int | None
    message: str
    counts: dict[str, Any]


class RunsAnswer(BaseModel):
    runs: list[Run]


# --- searching --------------------------------------------------------------------------------------------------------


class SearchRequest(Request):
    """The parts of a question, as `mmrec search` takes them; `user_id`: what was found is ranked by taste as well."""

    words: list[Words] = Field(default=[], max_length=20)
    without: list[Words] = Field(default=[], max_length=20)
    items: list[Id] = Field(default=[], max_length=20)
    where: Words = ""
    modalities: list[Modality] | None = None
    weights: dict[str, Number] = {}
    k: Count = 20
    offset: Offset = 0
    moments: bool = False
    diversity: Share = 0.0
    user_id: Id | None = None
    model: str | None = None


class Moment(BaseModel):
    modality: Modality
    start: float
    end: float
    when: str
    score: float


class SearchResult(BaseModel):
    item: Item
    score: float
    moment: Moment | None


class SearchAnswer(BaseModel):
    results: list[SearchResult]
    offset: int
    limit: int


class ScoredItem(BaseModel):
    item: Item
    score: float


class SimilarAnswer(BaseModel):
    results: list[ScoredItem]


# --- users ------------------------------------------------------------------------------------------------------------


class RecommendRequest(Request):
    """Lists for users, as `Recommender.recommend` makes them; `watched` is added to their histories for this once."""

    users: Annotated[list[Id], Field(min_length=1, max_length=MOST_RESULTS)]
    k: Count = 20
    where: dict[str, str | Number | bool | list[str | Number | bool]] = {}
    exclude: Ids = []
    candidates: Ids | None = None
    diversity: Share | None = None
    explore_share: Share = 0.0
    exclude_seen: bool = True
    watched: list[Id] = Field(default=[], max_length=MOST_RESULTS)
    model: str | None = None


class RecommendedList(BaseModel):
    user_id: str
    results: list[ScoredItem]


class RecommendAnswer(BaseModel):
    lists: list[RecommendedList]


class ScoreRequest(Request):
    """Items of one user, or pairs of a user and an item."""

    user_id: Id | None = None
    items: Ids | None = None
    pairs: Annotated[list[tuple[Id, Id]], Field(max_length=MOST_AT_ONCE)] | None = None
    model: str | None = None


class ScoreAnswer(BaseModel):
    scores: list[float]


class Interaction(Request):
    """`timestamp` in seconds since 1970; `weight` above 0: it counts, 0: seen and not liked, below 0: against it."""

    user_id: Id
    item_id: Id
    timestamp: Number | None = Field(default=None, ge=-1e11, le=1e11)
    weight: Number = 1.0


class InteractionsRequest(Request):
    interactions: Annotated[list[Interaction], Field(min_length=1, max_length=MOST_AT_ONCE)]


class AddedAnswer(BaseModel):
    """How many are on disk now, whatever happens."""

    added: int


class HistoryEntry(BaseModel):
    item: Item
    timestamp: float | None
    weight: float


class UserAnswer(BaseModel):
    """The history, newest first; `known`: by the model, or by live interactions."""

    user_id: str
    known: bool
    history: list[HistoryEntry]


class UserCount(BaseModel):
    user_id: str
    num_interactions: int


class ForgottenAnswer(BaseModel):
    forgotten: bool


# --- the service ------------------------------------------------------------------------------------------------------


class SessionRequest(Request):
    token: Annotated[str, Field(max_length=LONGEST_ID)]


class ProblemDetails(BaseModel):
    """What every refusal is, as `application/problem+json`: `detail` has the words of the command line."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str


class Health(BaseModel):
    status: str


class ModalityAbout(BaseModel):
    modality: Modality
    name: str
    dim: int
    has_words: bool


class StoreAbout(BaseModel):
    items: int
    statuses: dict[str, int]
    modalities: list[ModalityAbout]
    languages: dict[str, int]


class ColumnAbout(BaseModel):
    name: str
    kind: Literal["text", "number", "list"]


class ModelAbout(BaseModel):
    name: str
    version: int
    items: int
    users: int
    metrics: dict[str, float]


class Features(BaseModel):
    map: bool
    tags: bool


class About(BaseModel):
    version: str
    store: StoreAbout
    columns: list[ColumnAbout]
    models: list[ModelAbout]
    features: Features
