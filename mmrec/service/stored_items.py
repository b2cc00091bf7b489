"""What the store says of its items, in memory: lists are made from it without a read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmrec.errors import Reason
from mmrec.service.media_files import common_root, content_type
from mmrec.service.problems import not_found
from mmrec.service.schemas import FailedItem, Item, ItemDetails, Medium, Passage, Problem
from mmrec.store import MODALITIES, FeatureStore, Finding, Findings, Status

_SHOWN = (
    "item_id", "title", "status", "tags", "metadata", "media", "duration_seconds", "facts", "language", "text_language",
)  # fmt: skip
_MARKS = ("fingerprint", "reason", "stale_since")
_COLUMNS = [*_SHOWN, *(f"{modality}_{mark}" for modality in MODALITIES for mark in _MARKS)]
MOST_MADE = 10_000
"""Summaries that are kept for the next list."""
_UNREADABLE = (Reason.MISSING_FILE, Reason.FORBIDDEN_PATH, Reason.NOT_A_FILE, Reason.NOT_READABLE, Reason.NOT_MEDIA)


class StoredItems:
    """The items of a store in one `state`, in its order."""

    def __init__(self, store: FeatureStore) -> None:
        self._store, self.state = store, state_of(store)
        self._table = store.to_arrow(_COLUMNS).combine_chunks()
        self.item_ids: list[str] = self._table["item_id"].to_pylist()
        self._labels = store.labels.of_items()
        self._made: dict[str, Item] = {}
        self._columns: dict[str, list[Any]] = {}

    def __len__(self) -> int:
        return len(self.item_ids)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._rows

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {item_id: row for row, item_id in enumerate(self.item_ids)}

    @cached_property
    def media_root(self) -> Path | None:
        """The deepest folder that all media lie in, by their names in the catalog."""
        return common_root([path for path in self._table["media"].to_pylist() if path is not None])

    @cached_property
    def statuses(self) -> dict[str, int]:
        counts = Counter(self._table["status"].to_pylist())
        return {status: counts[status] for status in Status}

    @cached_property
    def languages(self) -> dict[str, int]:
        return dict(Counter(filter(None, self._table["text_language"].to_pylist())).most_common())

    def summaries(self, item_ids: Sequence[str], titles: Callable[[str], str] = lambda item_id: "") -> list[Item]:
        """What lists show of items; of one that left the store, the title that somebody else knows of it."""
        if len(self._made) > MOST_MADE:
            self._made = {}
        made = self._made
        lacking = [i for i in dict.fromkeys(item_ids) if i not in made and i in self._rows]
        made |= {row["item_id"]: _summary(row) for row in self._taken([self._rows[i] for i in lacking])}
        return [made[i] if i in made else _gone(i, titles(i)) for i in item_ids]

    def page(self, kept: Collection[str] | None, status: str | None, offset: int, limit: int) -> tuple[list[Item], int]:
        """Some of the items that have a status and are among the `kept`, in the store's order; and how many there are.

        None: whatever it is.
        """
        wanted_I = np.ones(len(self), np.bool_)
        if status is not None:
            wanted_I &= pc.equal(self._table["status"], status).to_numpy(zero_copy_only=False)
        if kept is not None:
            wanted_I &= pc.is_in(self._table["item_id"], pa.array(kept, pa.string())).to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(wanted_I)
        return [_summary(row) for row in self._taken(rows[offset : offset + limit].tolist())], len(rows)

    def failures(self, offset: int, limit: int) -> tuple[list[FailedItem], int]:
        """The items with a fault, as `mmrec status --failed` names them."""
        faults = pa.array([reason.value for reason in Reason if reason.is_fault], pa.string())
        faulty_I = np.zeros(len(self), np.bool_)
        for modality in MODALITIES:
            is_fault = pc.is_in(self._table[f"{modality}_reason"], faults)
            is_stale = pc.is_valid(self._table[f"{modality}_stale_since"])
            faulty_I |= pc.or_(is_fault, is_stale).to_numpy(zero_copy_only=False)
        item_ids = [self.item_ids[row] for row in np.flatnonzero(faulty_I)]
        shown = item_ids[offset : offset + limit]
        rows = {row["item_id"]: row for row in self._read(shown, ["media", *_problem_columns()])}
        return [
            FailedItem(item=item, problems=_problems(rows[item.item_id]), media=rows[item.item_id]["media"] or "")
            for item in self.summaries([item_id for item_id in shown if item_id in rows])
        ], len(item_ids)

    def details(self, item_id: str) -> ItemDetails:
        """All that the store says of an item but its tokens."""
        self.check(item_id)
        spans = [f"{modality}_{side}" for modality in MODALITIES for side in ("starts", "ends")]
        columns = ["description", "language", *spans, *_problem_columns(), "visual_classes", "visual_class_scores"]
        rows = self._read([item_id], columns)
        if not rows:
            raise not_found(f"the store has no item {item_id!r} any more")
        (row,), (item,) = rows, self.summaries([item_id])
        (shown,) = self._taken([self._rows[item_id]])
        found = Findings(self._store).of([item_id]).get(item_id, {})
        return ItemDetails(
            **item.model_dump(),
            description=row["description"] or "",
            language=row["language"] or "",
            facts=json.loads(shown["facts"] or "{}"),
            problems=_problems(row),
            stale_since={m: at.isoformat(timespec="seconds") for m in MODALITIES if (at := row[f"{m}_stale_since"])},
            moments={
                m: list(zip(row[f"{m}_starts"], row[f"{m}_ends"], strict=True))
                for m in MODALITIES
                if row[f"{m}_starts"] is not None
            },
            classes=list(zip(row["visual_classes"] or (), row["visual_class_scores"] or (), strict=True)),
            tag_columns=self._labels.get(item_id, {}),
            heard=_passages(found.get("heard")),
            seen=_passages(found.get("seen")),
            about=dict(found["about"].value) if "about" in found else {},
        )

    def media(self, item_id: str) -> tuple[str, str]:
        """The path of an item's media file, as the catalog has it, and its content type."""
        self.check(item_id)
        (row,) = self._taken([self._rows[item_id]])
        if row["media"] is None:
            raise not_found(f"item {item_id!r} has no media file")
        kind = _shown_as(row, json.loads(row["facts"] or "{}"))
        if kind is None:
            raise not_found(f"the media file of item {item_id!r} is no picture, sound or video that can be shown")
        return row["media"], kind

    def column(self, name: str, item_ids: Sequence[str]) -> list[Any]:
        """What a set of labels, or a column of the catalog or of mmrec, says of items."""
        values = self._values(name)
        rows = ((item_id, self._rows.get(item_id)) for item_id in item_ids)
        return [self._labels.get(i, {}).get(name) or (None if row is None else values[row]) for i, row in rows]

    def _values(self, name: str) -> list[Any]:
        """Of all items; the catalog's own columns come before those of mmrec, as in filters."""
        if name not in self._columns:
            values = [json.loads(text or "{}").get(name) for text in self._table["metadata"].to_pylist()]
            if name in _SHOWN and not any(values):
                values = self._table[name].to_pylist()
            elif name == "medium":
                values = [_medium(row, json.loads(row["facts"] or "{}")) for row in self._table.to_pylist()]
            self._columns[name] = values
        return self._columns[name]

    def check(self, item_id: str) -> None:
        if item_id not in self._rows:
            raise not_found(f"the store has no item {item_id!r}")

    def _taken(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._table.take(pa.array(rows, pa.int64())).to_pylist() if rows else []
        return found

    def _read(self, item_ids: Sequence[str], columns: Sequence[str]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self._store.scan(["item_id", *columns], item_ids).read_all().to_pylist()
        return rows


def state_of(store: FeatureStore) -> tuple[object, ...]:
    """Tells what a store says of its items from what it said before."""
    return store.version, *store.labels.versions().items()


def _summary(row: Mapping[str, Any]) -> Item:
    facts = json.loads(row["facts"] or "{}")
    return Item(
        item_id=row["item_id"],
        title=row["title"] or "",
        status=row["status"],
        medium=_medium(row, facts),
        duration_seconds=row["duration_seconds"] or 0.0,
        has_media=_shown_as(row, facts) is not None,
        tags=row["tags"] or [],
        metadata=json.loads(row["metadata"] or "{}"),
    )


def _shown_as(row: Mapping[str, Any], facts: Mapping[str, Any]) -> str | None:
    """The content type of the media file; None where there is none, or the job found that it is no media."""
    is_refused = row["visual_reason"] in _UNREADABLE or row["audio_reason"] in _UNREADABLE
    return None if row["media"] is None or is_refused else content_type(row["media"], facts)


def _gone(item_id: str, title: str) -> Item:
    return Item(
        item_id=item_id, title=title, status="gone", medium="text",
        duration_seconds=0.0, has_media=False, tags=[], metadata={},
    )  # fmt: skip


def _medium(row: Mapping[str, Any], facts: Mapping[str, Any]) -> Medium:
    if row["visual_fingerprint"] and facts.get("visual_source") != "attached_picture":
        return "clip" if row["duration_seconds"] else "picture"
    return "sound" if row["audio_fingerprint"] else "text"


def _passages(finding: Finding | None) -> list[Passage]:
    return [] if finding is None else [Passage(**asdict(passage)) for passage in finding.passages]


def _problem_columns() -> list[str]:
    return [f"{modality}_{mark}" for modality in MODALITIES for mark in ("reason", "detail", "stale_since")]


def _problems(row: Mapping[str, Any]) -> dict[Any, Problem]:
    return {
        modality: Problem(reason=row[f"{modality}_reason"], detail=row[f"{modality}_detail"] or "")
        for modality in MODALITIES
        if row[f"{modality}_reason"] is not None
    }
