"""Asking a language model within a budget; what it answered before is read from the store."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from pydantic import BaseModel

from mmrec.errors import Problem
from mmrec.store import FeatureStore, StoredAnswer, StoredAnswers, digest, user_mark
from mmrec.understanding.budget import Budget, Estimate, estimate_of
from mmrec.understanding.chat import Answer, ChatModel, Question, Usage

QUESTIONS_AT_ONCE = 256
PUT_SECONDS = 1.0
"""Answers are stored so often: a kill costs those of so long, and the ones under way."""


@dataclass(slots=True)
class AskReport:
    """How many questions were answered now, were known before, failed (and why), or were left by the budget."""

    answered: int = 0
    known: int = 0
    failed: int = 0
    left: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    tokens_read: int = 0
    tokens_written: int = 0
    cost: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {"reasons": dict(self.reasons)}

    def share_failed(self) -> float:
        tried = self.answered + self.failed
        return self.failed / tried if tried else 0.0


class Asker:
    """A language model that is asked nothing twice: answers stay in a store, by the question and the model.

    Args:
        model: the language model.
        store: where answers are kept; None keeps none.
        budget: once it is spent, no more is asked.
        retry_failed: ask again what failed before.
    """

    def __init__(
        self,
        model: ChatModel,
        store: FeatureStore | None = None,
        *,
        budget: Budget | None = None,
        retry_failed: bool = False,
    ) -> None:
        self.model = model
        self.report = AskReport()
        self._answers = None if store is None else StoredAnswers(store)
        self._budget, self._retry_failed = budget or Budget(), retry_failed
        self._usage = Usage()

    def ask(self, questions: Iterable[Question]) -> Iterator[Answer | None]:
        """The answers in the order of the questions; None for those that the budget left.

        Raises `ChatError` where the model or its server is broken; what was answered before stays in the store.
        """
        remaining = iter(questions)
        while block := list(islice(remaining, QUESTIONS_AT_ONCE)):
            keys = [self._key(question) for question in block]
            known = self._known(dict(zip(keys, block, strict=True)))
            new = self._asked({key: question for key, question in zip(keys, block, strict=True) if key not in known})
            self.report.known += sum(key in known for key in keys)
            yield from ((known | new).get(key) for key in keys)

    def estimate(self, questions: Iterable[Question]) -> Estimate:
        """What asking them now would take, without those whose answers are known."""
        new: dict[str, Question] = {}
        remaining = iter(questions)
        while block := list(islice(remaining, QUESTIONS_AT_ONCE)):
            of_block = {self._key(question): question for question in block}
            known = self._known(of_block)
            new |= {key: question for key, question in of_block.items() if key not in known}
        return estimate_of(new.values(), self._budget)

    def _key(self, question: Question) -> str:
        return digest(question.digest, self.model.fingerprint)

    def _known(self, questions: Mapping[str, Question]) -> dict[str, Answer]:
        stored = {} if self._answers is None else self._answers.of(list(questions))
        return {
            key: _restored(answer, questions[key].form)
            for key, answer in stored.items()
            if answer.problem is None or not self._retry_failed
        }

    def _asked(self, questions: Mapping[str, Question]) -> dict[str, Answer]:
        answers, asked = dict[str, Answer](), list[str]()
        ready, since = dict[str, StoredAnswer](), time.monotonic()

        def within_budget() -> Iterator[Question]:
            for key, question in questions.items():
                if self._budget.is_spent(self._usage):
                    self.report.left += 1
                    continue
                asked.append(key)
                yield question

        try:
            for place, answer in enumerate(self.model.ask(within_budget())):
                key = asked[place]
                answers[key] = answer
                self._count(answer)
                if answer.problem is None or not answer.problem.reason.may_pass:
                    ready[key] = self._kept(answer, questions[key].user_id)
                if self._answers is not None and time.monotonic() - since > PUT_SECONDS:
                    self._answers.put(ready)
                    ready, since = {}, time.monotonic()
        finally:
            if self._answers is not None and asked:
                self._answers.put(ready)
                self._answers.compact()
        return answers

    def _kept(self, answer: Answer, user_id: str) -> StoredAnswer:
        value = {} if answer.value is None else answer.value.model_dump(mode="json")
        return StoredAnswer(value=value, problem=answer.problem, made_by=self.model.name, user=user_mark(user_id))

    def _count(self, answer: Answer) -> None:
        self._usage += answer.usage
        report = self.report
        report.tokens_read, report.tokens_written = self._usage.read, self._usage.written
        report.cost = self._budget.cost(self._usage)
        if answer.problem is None:
            report.answered += 1
        else:
            report.failed += 1
            report.reasons[answer.problem.reason] += 1


def _restored(answer: StoredAnswer, form: type[BaseModel]) -> Answer:
    problem: Problem | None = answer.problem
    return Answer(value=None if problem is not None else form.model_validate(answer.value), problem=problem)
