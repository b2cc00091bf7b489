"""What a job needs to know of every row of a store to see which items are new or changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmrec.errors import Reason
from mmrec.store.features import MODALITIES, Modality, Status, StoredRow

HASH_CHARACTERS: Final = 16
"""Of hexadecimal: all hashes in a row are of 64 bits. Two are compared only for one item."""


def digest(*parts: Any) -> str:
    """A hash of values that JSON knows, as keys are.

    >>> from mmrec.store import digest
    >>> digest("a title", ["a", "tag"])
    '1ab9841eee5b8540'
    """
    return hashlib.blake2b(json.dumps(parts, default=str).encode(), digest_size=HASH_CHARACTERS // 2).hexdigest()


_OF_THE_ROW = ("catalog_key", "media_state", "media_hash")
_OF_A_MODALITY = ("with_tokens", "faulty", "stale", "worth_retrying")
KEY_COLUMNS = (
    "item_id",
    "status",
    *_OF_THE_ROW,
    *(f"{m}_{name}" for m in MODALITIES for name in ("key", "reason", "fingerprint", "stale_since")),
)


class StoredKeys:
    """The keys of all rows, compactly: 68 bytes a row.

    >>> import mmrec
    >>> keys = mmrec.FeatureStore("store").keys()
    >>> keys.holds("rain-0"), keys.holds("rain-99")
    (True, False)
    >>> sorted(keys.row("rain-0").with_tokens)
    ['audio', 'text', 'visual']
    """

    def __init__(self, table: pa.Table) -> None:
        ids = np.fromiter((hash(i) for i in table["item_id"].to_pylist()), np.int64, len(table))
        order = np.argsort(ids)
        self._ids = ids[order]
        self._hashes = {
            name: _numbers(table[name])[order] for name in (*_OF_THE_ROW, *(f"{m}_key" for m in MODALITIES))
        }
        self._flags = {(m, name): flags[order] for m in MODALITIES for name, flags in _flags(table, m).items()}

    def __len__(self) -> int:
        return len(self._ids)

    def num_leaving(self, staying: Iterable[str]) -> int:
        """How many rows have none of these item ids.

        >>> import mmrec
        >>> mmrec.FeatureStore("store").keys().num_leaving(["rain-0", "rain-1", "new"])
        14
        """
        staying_N = np.fromiter((hash(item_id) for item_id in staying), np.int64)
        return int((~np.isin(self._ids, staying_N)).sum())

    def holds(self, item_id: str) -> bool:
        return self._place(item_id) is not None

    def row(self, item_id: str) -> StoredRow | None:
        """What is known of an item; None where the store has no row of it."""
        place = self._place(item_id)
        if place is None:
            return None
        texts = {name: _text(numbers[place]) for name, numbers in self._hashes.items()}
        flagged = {name: frozenset(m for m in MODALITIES if self._flags[m, name][place]) for name in _OF_A_MODALITY}
        return StoredRow(
            keys={modality: texts[f"{modality}_key"] for modality in MODALITIES},
            with_tokens=flagged["with_tokens"],
            faulty=flagged["faulty"],
            stale=flagged["stale"],
            worth_retrying=flagged["worth_retrying"],
            catalog_key=texts["catalog_key"],
            media_state=texts["media_state"],
            media_hash=texts["media_hash"],
        )

    def _place(self, item_id: str) -> int | None:
        number = hash(item_id)
        place = int(np.searchsorted(self._ids, number))
        return place if place < len(self._ids) and self._ids[place] == number else None


def _numbers(column: pa.ChunkedArray) -> NDArray[np.uint64]:
    """Hashes as numbers; 0 is none."""
    return np.fromiter((int(key or "0", 16) for key in column.to_pylist()), np.uint64, len(column))


def _text(number: np.uint64) -> str:
    return f"{int(number):0{HASH_CHARACTERS}x}" if number else ""


def _flags(table: pa.Table, modality: Modality) -> dict[str, NDArray[np.bool_]]:
    reason, failed = table[f"{modality}_reason"], pc.equal(table["status"], Status.FAILED.value)
    transient = pa.array([reason.value for reason in Reason if reason.may_pass])
    faults = pa.array([reason.value for reason in Reason if reason.is_fault])
    flags = {
        "with_tokens": table[f"{modality}_fingerprint"].is_valid(),
        "faulty": pc.is_in(reason, value_set=faults),
        "stale": table[f"{modality}_stale_since"].is_valid(),
        "worth_retrying": pc.or_(failed, pc.is_in(reason, value_set=transient)),
    }
    return {name: np.asarray(column.to_numpy() if len(table) else [], np.bool_) for name, column in flags.items()}
