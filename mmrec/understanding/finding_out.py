"""Understanding a store: for each item what is heard, what is seen, what it is about; nothing is asked twice."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Literal

from mmrec.catalog import Item
from mmrec.embedding import DecodeLimits, decode_items
from mmrec.errors import ChatError, Problem
from mmrec.media import DecodedMedia
from mmrec.remote import to_place
from mmrec.store import FINDING_TASKS, FeatureStore, Finding, Findings, FindingTask, Modality, digest
from mmrec.understanding.about import about_question, shortened
from mmrec.understanding.asking import PUT_SECONDS as ANSWERS_PUT_SECONDS
from mmrec.understanding.budget import Budget, Estimate, estimate_of
from mmrec.understanding.chat import ChatModel, Question, Usage
from mmrec.understanding.screen_text import FRAMES, ScreenReader
from mmrec.understanding.speech import SOUND, Transcriber

MODALITY_OF: Mapping[Literal["heard", "seen"], Modality] = {"heard": "audio", "seen": "visual"}
PUT_SECONDS = 10.0
"""What is heard and seen is stored so often."""
ROWS_AT_ONCE = 256
_READ = ("item_id", "title", "description", "tags", "language", "media", "media_hash", "duration_seconds")
_READ_ABOUT = (*_READ, "visual_classes", "visual_class_scores", "text_language")
LEAST_CLASS_SCORE = 0.3
"""Of the classes that a picture network sees: what it is less sure of a language model takes for what is there."""


@dataclass(slots=True)
class UnderstandReport:
    """What a run did: by task, how many items it found something out about, found nothing, could not, or left."""

    items: int = 0
    found: Counter[str] = field(default_factory=Counter)
    empty: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    known: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    tokens_read: int = 0
    tokens_written: int = 0
    cost: float = 0.0
    seconds: float = 0.0
    media_seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in values.items()}

    def share_failed(self) -> float:
        """Of the items that were tried, over all tasks; 0 where none was."""
        tried = self.found.total() + self.empty.total() + self.failed.total()
        return self.failed.total() / tried if tried else 0.0

    def __repr__(self) -> str:
        parts = [f"{task}: {self.found[task]} found, {self.failed[task]} failed" for task in FINDING_TASKS]
        return f"UnderstandReport({self.items} items; {'; '.join(parts)}; {self.seconds:.1f} s)"


Progress = Callable[[UnderstandReport], None]


def understand(
    store: FeatureStore,
    *,
    speech: Transcriber | None = None,
    screen: ScreenReader | None = None,
    model: ChatModel | None = None,
    language: str = "",
    retry_failed: bool = False,
    budget: Budget | None = None,
    limits: DecodeLimits | None = None,
    progress: Progress | None = None,
) -> UnderstandReport:
    """Find out what is heard (`speech`), seen (`screen`) and meant (`model`) in the items of a store.

    What was found out about the same content by the same model is not done again, nor what failed, unless
    `retry_failed` says so; a run that was stopped goes on where it was. What the model says follows the form `About`.
    The next embedding of the catalog takes what is heard and seen up as text with times. `language` is the one that the
    model writes in; by default that of the item. Once the `budget` is spent, the items that are left are counted.

    Raises `ChatError` where no task is given, and where a model or its server is broken; what was found out before
    stays in the store.
    """
    if speech is None and screen is None and model is None:
        raise ChatError("there is nothing to find out by: name a speech model, a reader of screens or a language model")
    start = time.perf_counter()
    findings, report = Findings(store), UnderstandReport(items=len(store))
    say = progress or (lambda _: None)
    with findings.lock():
        try:
            if speech is not None or screen is not None:
                for found in _of_media(store, findings, speech, screen, retry_failed, limits or DecodeLimits(), report):
                    findings.put(found)
                    report.seconds = time.perf_counter() - start
                    say(report)
            if model is not None:
                asking = _Asking(store, findings, model, language, retry_failed, budget or Budget(), report)
                for found in asking.answers():
                    findings.put(found)
                    report.seconds = time.perf_counter() - start
                    say(report)
        finally:
            findings.compact()
            report.seconds = time.perf_counter() - start
    return report


def estimate(store: FeatureStore, model: ChatModel, *, language: str = "", budget: Budget | None = None) -> Estimate:
    """What `understand` would ask a model now, without asking it."""
    prices, report = budget or Budget(), UnderstandReport(items=len(store))
    asking = _Asking(store, Findings(store), model, language, False, Budget(), report)
    return estimate_of((question for _, _, question in asking.questions()), prices)


# --- what is heard and seen -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _MediaTask:
    """An item whose media is decoded for the tasks of `keys`."""

    item: Item
    keys: Mapping[Literal["heard", "seen"], str]

    @property
    def todo(self) -> frozenset[Modality]:
        return frozenset(MODALITY_OF[task] for task in self.keys)


def _of_media(
    store: FeatureStore,
    findings: Findings,
    speech: Transcriber | None,
    screen: ScreenReader | None,
    retry_failed: bool,
    limits: DecodeLimits,
    report: UnderstandReport,
) -> Iterator[list[Finding]]:
    finders: dict[Literal["heard", "seen"], Transcriber | ScreenReader] = {}
    if speech is not None:
        finders["heard"] = speech
    if screen is not None:
        finders["seen"] = screen
    done = {task: _done(findings, task, retry_failed) for task in finders}
    known: dict[str, dict[str, str]] = {task: findings.keys(task) for task in finders}  # no absence takes its place
    frames, sound = (FRAMES if screen is not None else None), (SOUND if speech is not None else None)

    def tasks() -> Iterator[_MediaTask]:
        for row in _rows(store, _READ):
            if row["media"] is None:
                continue
            keys = {task: digest(row["media_hash"], finder.fingerprint) for task, finder in finders.items()}
            new = {task: key for task, key in keys.items() if done[task].get(row["item_id"]) != key}
            report.known.update(keys.keys() - new.keys())
            if new:
                yield _MediaTask(Item(item_id=row["item_id"], media=to_place(row["media"], ChatError)), new)

    ready: list[Finding] = []
    since = time.monotonic()
    with closing(decode_items(tasks(), frames, sound, limits)) as decoded:
        for task, media in decoded:
            report.media_seconds += media.duration_seconds
            made = [_found(task, name, finders[name], media, report) for name in task.keys]
            ready += [new for new in made if new.problem is None or new.item_id not in known[new.task]]
            if time.monotonic() - since > PUT_SECONDS:
                yield ready
                ready, since = [], time.monotonic()
    yield ready


def _found(
    task: _MediaTask,
    name: Literal["heard", "seen"],
    finder: Transcriber | ScreenReader,
    media: DecodedMedia,
    report: UnderstandReport,
) -> Finding:
    problem = media.audio_problem if name == "heard" else media.visual_problem
    value: Mapping[str, Any] = {"passages": []}
    if isinstance(finder, Transcriber) and media.windows:
        value, problem = finder.transcribe(media.windows, media.window_spans), None
    elif isinstance(finder, ScreenReader) and media.frames_TFHWC is not None:
        value, problem = finder.read(media.frames_TFHWC, media.frame_spans), None
    lasting = problem if problem is not None and problem.reason.is_fault else None
    _count(report, name, bool(value["passages"]), lasting)
    return Finding(
        item_id=task.item.item_id,
        task=name,
        key=task.keys[name],
        made_by=finder.name,
        value=value,
        problem=lasting,
    )


# --- what it is about -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Asking:
    store: FeatureStore
    findings: Findings
    model: ChatModel
    language: str
    retry_failed: bool
    budget: Budget
    report: UnderstandReport

    def questions(self) -> Iterator[tuple[str, str, Question]]:
        """Of the items that the model was not asked about as they are now: the id, the key, the question."""
        done = _done(self.findings, "about", self.retry_failed)
        for rows in _blocks(_rows(self.store, _READ_ABOUT)):
            found = self.findings.of([row["item_id"] for row in rows])
            for row in rows:
                question = about_question(_known_of(row, found.get(row["item_id"], {})), language=self.language)
                key = digest(question.digest, self.model.fingerprint)
                if not question.data:
                    self.report.empty["about"] += 1
                elif done.get(row["item_id"]) == key:
                    self.report.known["about"] += 1
                else:
                    yield row["item_id"], key, question

    def answers(self) -> Iterator[list[Finding]]:
        asked: list[tuple[str, str]] = []
        usage, ready, since = Usage(), [], time.monotonic()

        def within_budget() -> Iterator[Question]:
            for item_id, key, question in self.questions():
                if self.budget.is_spent(usage):
                    self.report.left["about"] += 1
                    continue
                asked.append((item_id, key))
                yield question

        try:
            for place, answer in enumerate(self.model.ask(within_budget())):
                item_id, key = asked[place]
                usage += answer.usage
                problem = answer.problem
                _count(self.report, "about", answer.value is not None, problem)
                self.report.tokens_read, self.report.tokens_written = usage.read, usage.written
                self.report.cost = self.budget.cost(usage)
                if problem is None or not problem.reason.may_pass:
                    value = {} if answer.value is None else answer.value.model_dump()
                    ready.append(
                        Finding(
                            item_id=item_id,
                            task="about",
                            key=key,
                            made_by=self.model.name,
                            value=value,
                            problem=problem,
                        )
                    )
                if time.monotonic() - since > ANSWERS_PUT_SECONDS:
                    yield ready
                    ready, since = [], time.monotonic()
        except ChatError:
            yield ready
            raise
        yield ready


def _known_of(row: Mapping[str, Any], found: Mapping[FindingTask, Finding]) -> dict[str, Any]:
    return {
        "title": row["title"],
        "description": row["description"],
        "tags": row["tags"],
        "language": row["language"] or row["text_language"],
        "seconds": round(row["duration_seconds"] or 0),
        "heard": found["heard"].text if "heard" in found else "",
        "seen": found["seen"].text if "seen" in found else "",
        "pictures may show": sure_classes(row),
    }


def sure_classes(row: Mapping[str, Any]) -> list[str]:
    """What a picture network is sure to see in an item.

    >>> from mmrec.understanding.finding_out import sure_classes
    >>> sure_classes({"visual_classes": ["barbell", "tricycle"], "visual_class_scores": [0.84, 0.01]})
    ['barbell']
    """
    scored = zip(row["visual_classes"] or [], row["visual_class_scores"] or [], strict=True)
    return [name for name, score in scored if score >= LEAST_CLASS_SCORE]


def known_facts(store: FeatureStore, item_ids: Collection[str] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is known of items, all by default: by the catalog, labels, and what was found out; without what is empty."""
    findings, labels = Findings(store), store.labels.of_items()
    for rows in _blocks(_rows(store, _READ_ABOUT, item_ids)):
        found = findings.of([row["item_id"] for row in rows])
        for row in rows:
            of_item = found.get(row["item_id"], {})
            about = of_item["about"].value if "about" in of_item else {}
            facts = {**_known_of(row, of_item), **labels.get(row["item_id"], {}), "summary": about.get("summary", "")}
            yield row["item_id"], {name: shortened(value) for name, value in facts.items() if value}


def _done(findings: Findings, task: FindingTask, retry_failed: bool) -> dict[str, str]:
    failed = findings.problems(task) if retry_failed else {}
    return {item_id: key for item_id, key in findings.keys(task).items() if item_id not in failed}


def _rows(
    store: FeatureStore, columns: Sequence[str], item_ids: Collection[str] | None = None
) -> Iterator[dict[str, Any]]:
    for batch in store.scan(list(columns), item_ids):
        yield from batch.to_pylist()


def _blocks(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    block: list[dict[str, Any]] = []
    for row in rows:
        block.append(row)
        if len(block) == ROWS_AT_ONCE:
            yield block
            block = []
    if block:
        yield block


def _count(report: UnderstandReport, task: str, has_value: bool, problem: Problem | None) -> None:
    if problem is not None:
        report.failed[task] += 1
        report.reasons[problem.reason] += 1
    elif has_value:
        report.found[task] += 1
    else:
        report.empty[task] += 1
