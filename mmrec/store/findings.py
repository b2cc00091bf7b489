"""What was found out about items beside their tokens: words that are heard and seen in them, what they are about."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, get_args

import pyarrow as pa

from mmrec.errors import Problem, Reason
from mmrec.store.folders import WriteLock
from mmrec.store.tables import LONGEST_READ, Tables, drop_old_versions, text_literal

if TYPE_CHECKING:
    from mmrec.store.feature_store import FeatureStore

FINDINGS_TABLE = "findings"
FindingTask = Literal["heard", "seen", "about"]
FINDING_TASKS: tuple[FindingTask, ...] = get_args(FindingTask)
_WITH_PASSAGES: tuple[FindingTask, ...] = ("heard", "seen")
PASSAGE_SECONDS, PASSAGE_CHARACTERS = 30.0, 400
_SCHEMA = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("key", pa.string()),
        pa.field("made_by", pa.string()),
        pa.field("made", pa.timestamp("us", "UTC")),
        pa.field("value", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class TimedText:
    """Words that are heard or seen from `start` to `end`, in seconds; a picture's are at 0."""

    start: float
    end: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one task found out about one item, or why it could not.

    `key` is a hash of everything that it was made from: the item's content, the model, the prompt. `value` has
    `passages` (`[start, end, text]` each) and `language` where the task is "heard" or "seen".

    >>> from mmrec.store import Finding
    >>> found = Finding(item_id="a", task="heard", key="1", value={"passages": [[0.5, 2.0, "Hello."]]})
    >>> found.passages
    [TimedText(start=0.5, end=2.0, text='Hello.')]
    """

    item_id: str
    task: FindingTask
    key: str
    made_by: str = ""
    value: Mapping[str, Any] = field(default_factory=dict)
    problem: Problem | None = None

    @property
    def passages(self) -> list[TimedText]:
        return [TimedText(*passage) for passage in self.value.get("passages", ())]

    @property
    def text(self) -> str:
        """All its words."""
        return " ".join(passage.text for passage in self.passages)


class Findings:
    """The findings of a store; one of each task for an item, the latest.

    >>> import mmrec
    >>> from mmrec.store import Finding, Findings
    >>> findings = Findings(mmrec.FeatureStore("store"))
    >>> with findings.lock():
    ...     findings.put([Finding(item_id="rain-0", task="seen", key="1", value={"passages": [[0.0, 0.0, "RAIN"]]})])
    >>> findings.keys("seen")
    {'rain-0': '1'}
    >>> findings.of(["rain-0", "rain-1"])["rain-0"]["seen"].text
    'RAIN'
    """

    def __init__(self, store: FeatureStore) -> None:
        self._tables = Tables(store.folder)
        busy = "is being looked into by another process, which understands its items"
        self._lock = WriteLock(store.folder, "findings.lock", busy)

    def lock(self) -> AbstractContextManager[None]:
        """The right to write them, beside a job that embeds; `StoreError` at once where another process holds it."""
        return self._lock.held()

    def keys(self, task: FindingTask) -> dict[str, str]:
        """The key of each item's finding."""
        rows = self._read(f"task = '{task}'", ["item_id", "key"])
        return dict(zip(rows["item_id"].to_pylist(), rows["key"].to_pylist(), strict=True))

    def problems(self, task: FindingTask) -> dict[str, Problem]:
        """Of the items about which it found nothing out."""
        rows = self._read(f"task = '{task}' AND reason IS NOT NULL", ["item_id", "reason", "detail"]).to_pylist()
        return {row["item_id"]: Problem(Reason(row["reason"]), row["detail"] or "") for row in rows}

    def of(self, item_ids: Collection[str]) -> dict[str, dict[FindingTask, Finding]]:
        """The findings of items, by task; those that have none are left out."""
        found: dict[str, dict[FindingTask, Finding]] = {}
        if item_ids:
            among = ", ".join(map(text_literal, item_ids))
            for row in self._read(f"item_id IN ({among})", _SCHEMA.names).to_pylist():
                found.setdefault(row["item_id"], {})[row["task"]] = _to_finding(row)
        return found

    def word_digests(self, item_ids: Collection[str] | None = None) -> dict[str, str]:
        """A hash of the words that are heard and seen in each item that has any, of all or of these."""
        hashes: dict[str, Any] = {}
        among = ", ".join(f"'{task}'" for task in _WITH_PASSAGES)
        where = f"task IN ({among}) AND reason IS NULL"
        if item_ids is not None:
            literals = [text_literal(item_id) for item_id in item_ids if "\0" not in item_id]
            where += f" AND item_id IN ({', '.join(['NULL', *literals])})"
        rows = self._read(where, ["item_id", "task", "value"])
        for row in sorted(rows.to_pylist(), key=lambda row: (row["item_id"], row["task"])):
            if passages := json.loads(row["value"]).get("passages"):
                hashed = hashes.setdefault(row["item_id"], hashlib.blake2b(digest_size=8))
                hashed.update(json.dumps(passages).encode())
        return {item_id: hashed.hexdigest() for item_id, hashed in hashes.items()}

    def words(self, item_ids: Collection[str]) -> dict[str, list[TimedText]]:
        """What is heard and seen in items, in the order of time."""
        return {
            item_id: sorted(
                (passage for task in _WITH_PASSAGES if task in of_item for passage in of_item[task].passages),
                key=lambda passage: passage.start,
            )
            for item_id, of_item in self.of(item_ids).items()
        }

    def put(self, findings: Sequence[Finding]) -> None:
        """Store findings in the place of those that there are; all of them, or none."""
        if not findings:
            return
        now = datetime.now(UTC)
        rows = pa.Table.from_pylist([_to_row(finding, now) for finding in findings], schema=_SCHEMA)
        with self._tables.errors():
            table = self._tables.open(FINDINGS_TABLE, _SCHEMA, create=True)
            upsert = table.merge_insert(["item_id", "task"]).when_matched_update_all().when_not_matched_insert_all()
            upsert.execute(rows)

    def prune(self, kept: pa.Table) -> None:
        """Delete the findings of all items but those whose `item_id` is in a table."""
        if self._tables.has(FINDINGS_TABLE):
            with self._tables.errors():
                table = self._tables.existing(FINDINGS_TABLE)
                table.merge_insert("item_id").when_not_matched_by_source_delete().execute(kept)

    def compact(self) -> None:
        if self._tables.has(FINDINGS_TABLE):
            with self._tables.errors():
                drop_old_versions(self._tables.existing(FINDINGS_TABLE), LONGEST_READ)

    def _read(self, where: str, columns: Sequence[str]) -> pa.Table:
        if not self._tables.has(FINDINGS_TABLE):
            return _SCHEMA.empty_table().select(columns)
        with self._tables.errors():
            return self._tables.existing(FINDINGS_TABLE).search().where(where).select(list(columns)).to_arrow()


def neighbours_joined(words: Sequence[TimedText]) -> list[TimedText]:
    """Neighbouring words joined to passages that are worth embedding.

    >>> from mmrec.store import TimedText, neighbours_joined
    >>> words = [TimedText(0.0, 2.0, "Hello."), TimedText(2.5, 4.0, "It rains."), TimedText(60.0, 61.0, "Bye.")]
    >>> neighbours_joined(words)
    [TimedText(start=0.0, end=4.0, text='Hello. It rains.'), TimedText(start=60.0, end=61.0, text='Bye.')]
    """
    joined: list[TimedText] = []
    for word in words:
        last = joined[-1] if joined else None
        fits = last is not None and len(last.text) + len(word.text) < PASSAGE_CHARACTERS
        if last is not None and fits and word.end - last.start <= PASSAGE_SECONDS:
            joined[-1] = TimedText(last.start, word.end, f"{last.text} {word.text}")
        else:
            joined.append(word)
    return joined


def _to_row(finding: Finding, made: datetime) -> dict[str, Any]:
    problem = finding.problem
    return {
        "item_id": finding.item_id,
        "task": finding.task,
        "key": finding.key,
        "made_by": finding.made_by,
        "made": made,
        "value": json.dumps(dict(finding.value), ensure_ascii=False),
        "reason": None if problem is None else problem.reason,
        "detail": None if problem is None else problem.detail,
    }


def _to_finding(row: Mapping[str, Any]) -> Finding:
    reason = row["reason"]
    return Finding(
        item_id=row["item_id"],
        task=row["task"],
        key=row["key"],
        made_by=row["made_by"] or "",
        value=json.loads(row["value"]),
        problem=None if reason is None else Problem(Reason(reason), row["detail"] or ""),
    )
