"""Labels of the items, set by set: tables of their own beside the items, which a job that embeds does not touch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mmrec.store.features import MODALITIES
from mmrec.store.folders import table_names
from mmrec.store.tables import Tables, drop_old_versions

if TYPE_CHECKING:
    from mmrec.store.feature_store import FeatureStore

_CONTENT_COLUMNS = tuple(f"{modality}_{name}" for modality in MODALITIES for name in ("key", "fingerprint"))
_SCORE = pa.struct([pa.field("label", pa.string()), pa.field("score", pa.float32())])
_SCHEMA = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("labels", pa.list_(pa.string())),
        pa.field("scores", pa.list_(_SCORE)),
        pa.field("made_from", pa.string()),
    ]
)
_KEEP_VERSIONS = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledItem:
    """The labels that hold for an item, best first, and the scores (0 to 1) of all labels that could be scored."""

    item_id: str
    labels: Sequence[str]
    scores: Mapping[str, float]


class StoredLabels:
    """The sets of labels of a store. They stay while the items are written, and say which items changed since.

    >>> import mmrec
    >>> from mmrec.store import LabelledItem
    >>> store = mmrec.FeatureStore("store")
    >>> store.labels.write("mood", [LabelledItem(item_id="rain-0", labels=["calm"], scores={"calm": 0.9})])
    >>> store.labels.names(), store.labels.of_items()["rain-0"]
    (['mood'], {'mood': ['calm']})
    >>> store.labels.read("mood").to_pylist()[0]["scores"]
    [{'label': 'calm', 'score': 0.8999999761581421}]
    >>> store.labels.state("mood")
    {'items': 1, 'outdated': 0, 'missing': 15}
    """

    def __init__(self, store: FeatureStore, tables: Tables) -> None:
        self._store, self._tables = store, tables
        self._prefix = f"labels.{store.encoder_set}." if store.encoder_set else "labels."

    def names(self) -> list[str]:
        names = (name.removeprefix(self._prefix) for name in table_names(self._store.folder) if self._is_own(name))
        return sorted(names)

    def versions(self) -> dict[str, int]:
        """The number of the state of each set; every write makes a new one."""
        with self._tables.errors():
            return {name: int(self._table(name).version) for name in self.names()}

    def write(self, name: str, items: Iterable[LabelledItem]) -> None:
        """Put these labels in the place of all that the set has; it is made where it is not there."""
        made_from = self._content()
        rows = [
            {
                "item_id": item.item_id,
                "labels": list(item.labels),
                "scores": [{"label": label, "score": score} for label, score in item.scores.items()],
                "made_from": made_from.get(item.item_id),
            }
            for item in items
        ]
        with self._tables.errors():
            table = self._tables.open(self._prefix + name, _SCHEMA, create=True)
            upsert = table.merge_insert("item_id").when_matched_update_all().when_not_matched_insert_all()
            upsert.when_not_matched_by_source_delete().execute(pa.Table.from_pylist(rows, schema=_SCHEMA))
            drop_old_versions(table, _KEEP_VERSIONS)

    def remove(self, name: str) -> None:
        with self._tables.errors():
            self._tables.drop(self._prefix + name)

    def prune(self, kept: pa.Table) -> None:
        """Delete the labels of all items but those whose `item_id` is in a table."""
        with self._tables.errors():
            for name in self.names():
                self._table(name).merge_insert("item_id").when_not_matched_by_source_delete().execute(kept)

    def read(self, name: str) -> pa.Table:
        """The columns `item_id`, `labels` and `scores` of a set."""
        with self._tables.errors():
            return self._table(name).search().select(["item_id", "labels", "scores"]).to_arrow()

    def of_items(self) -> dict[str, dict[str, list[str]]]:
        """Of each item that has some, the labels that hold, by set."""
        found: dict[str, dict[str, list[str]]] = {}
        for name in self.names():
            with self._tables.errors():
                rows = self._table(name).search().select(["item_id", "labels"]).to_arrow().to_pylist()
            for row in rows:
                found.setdefault(row["item_id"], {})[name] = row["labels"]
        return found

    def state(self, name: str) -> dict[str, int]:
        """How many items of the store the set has, and of how many it has what they were before, or nothing.

        Imported features have no key to tell a change by.
        """
        now = self._content()
        with self._tables.errors():
            rows = self._table(name).search().select(["item_id", "made_from"]).to_arrow().to_pylist()
        before = {row["item_id"]: row["made_from"] for row in rows if row["item_id"] in now}
        return {
            "items": len(before),
            "outdated": sum(now[item_id] != digest for item_id, digest in before.items()),
            "missing": len(now) - len(before),
        }

    def _content(self) -> dict[str, str]:
        """A hash of what the tokens of each item were made from."""
        found = {}
        for batch in self._store.scan(["item_id", *_CONTENT_COLUMNS]):
            ids, *columns = (batch.column(name).to_pylist() for name in ("item_id", *_CONTENT_COLUMNS))
            for item_id, *parts in zip(ids, *columns, strict=True):
                found[item_id] = hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()
        return found

    def _is_own(self, table: str) -> bool:
        return table.startswith(self._prefix) and "." not in table.removeprefix(self._prefix)

    def _table(self, name: str) -> Any:
        return self._tables.existing(self._prefix + name)
