"""What language models answered: kept by a hash of the question and the model, so that nothing is asked twice."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mmrec.errors import Problem, Reason
from mmrec.store.keys import digest
from mmrec.store.tables import LONGEST_READ, Tables, drop_old_versions, text_literal

if TYPE_CHECKING:
    from mmrec.store.feature_store import FeatureStore

ANSWERS_TABLE = "answers"
_TEXTS = ("key", "made_by", "value", "reason", "detail", "user")
_SCHEMA = pa.schema([*(pa.field(name, pa.string()) for name in _TEXTS), pa.field("made", pa.timestamp("us", "UTC"))])


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAnswer:
    """The values of an answer's form, or the problem in their place; `made_by` names the model.

    `user` is the `user_mark` of the user whom it tells of, empty where it tells of none.
    """

    value: Mapping[str, Any] = field(default_factory=dict)
    problem: Problem | None = None
    made_by: str = ""
    user: str = ""


def user_mark(user_id: str) -> str:
    """By what the answers about a user are found again: a hash of the id, empty for nobody."""
    return digest("user", user_id) if user_id else ""


class StoredAnswers:
    """The answers that a store keeps, by key.

    >>> import mmrec
    >>> from mmrec.store import StoredAnswer, StoredAnswers
    >>> answers = StoredAnswers(mmrec.FeatureStore("store"))
    >>> answers.put({"1": StoredAnswer(value={"topic": "rain"})})
    >>> answers.of(["1", "2"])
    {'1': StoredAnswer(value={'topic': 'rain'}, problem=None, made_by='', user='')}
    """

    def __init__(self, store: FeatureStore) -> None:
        self._tables = Tables(store.folder)

    def of(self, keys: Collection[str]) -> dict[str, StoredAnswer]:
        """Of those keys that have an answer."""
        if not keys or not self._tables.has(ANSWERS_TABLE):
            return {}
        among = f"key IN ({', '.join(map(text_literal, keys))})"
        with self._tables.errors():
            rows = self._opened().search().where(among).select(list(_TEXTS)).to_arrow()
        return {row["key"]: _to_answer(row) for row in rows.to_pylist()}

    def put(self, answers: Mapping[str, StoredAnswer]) -> None:
        """Store answers in the place of those that there are; all of them, or none."""
        if not answers:
            return
        now = datetime.now(UTC)
        rows = [_to_row(key, answer, now) for key, answer in answers.items()]
        with self._tables.errors():
            table = self._opened(create=True)
            upsert = table.merge_insert("key").when_matched_update_all().when_not_matched_insert_all()
            upsert.execute(pa.Table.from_pylist(rows, schema=_SCHEMA))

    def forget(self, user_id: str) -> int:
        """Delete the answers that tell of a user, from earlier versions of the table as well; how many there were."""
        if not self._tables.has(ANSWERS_TABLE):
            return 0
        with self._tables.errors():
            table = self._opened()
            about = f"user = {text_literal(user_mark(user_id))}"
            if count := int(table.count_rows(about)):
                self._tables.rewrite(ANSWERS_TABLE, f"user IS NULL OR NOT ({about})")
            return count

    def _opened(self, *, create: bool = False) -> Any:
        return self._tables.open(ANSWERS_TABLE, _SCHEMA, create=create, added=("user",))

    def compact(self) -> None:
        if self._tables.has(ANSWERS_TABLE):
            with self._tables.errors():
                drop_old_versions(self._tables.existing(ANSWERS_TABLE), LONGEST_READ)


def _to_row(key: str, answer: StoredAnswer, made: datetime) -> dict[str, Any]:
    problem = answer.problem
    return {
        "key": key,
        "made_by": answer.made_by,
        "value": json.dumps(dict(answer.value), ensure_ascii=False),
        "reason": None if problem is None else problem.reason,
        "detail": None if problem is None else problem.detail,
        "user": answer.user,
        "made": made,
    }


def _to_answer(row: Mapping[str, Any]) -> StoredAnswer:
    problem = None if row["reason"] is None else Problem(Reason(row["reason"]), row["detail"] or "")
    value, made_by, user = json.loads(row["value"]), row["made_by"] or "", row["user"] or ""
    return StoredAnswer(value=value, problem=problem, made_by=made_by, user=user)
