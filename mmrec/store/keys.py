"""What a job needs to know of every row of a store to see which items are new or changed."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable
from functools import cache
from itertools import islice
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
    return hashlib.blake2b(_JSON.encode(parts).encode(), digest_size=HASH_CHARACTERS // 2).hexdigest()


_JSON = json.JSONEncoder(default=str)
_OF_THE_ROW = ("catalog_key", "media_state", "media_hash")
_OF_A_MODALITY = ("with_tokens", "faulty", "stale", "worth_retrying")
_HASHES = (*_OF_THE_ROW, *(f"{m}_key" for m in MODALITIES))
KEY_COLUMNS = (
    "item_id",
    "status",
    *_OF_THE_ROW,
    *(f"{m}_{name}" for m in MODALITIES for name in ("key", "reason", "fingerprint", "stale_since")),
)
_DIGITS = np.array([int(chr(code), 16) if chr(code) in "0123456789abcdef" else 0 for code in range(256)], np.uint8)
_FLAGS = [(modality, name) for modality in MODALITIES for name in _OF_A_MODALITY]
_IDS_AT_ONCE = 2**16


class StoredKeys:
    """The keys of all rows, compactly: 58 bytes a row, made from batches of `KEY_COLUMNS`. They mean the same in any
    process, and are handed to another as the arrays that they are.

    >>> import mmrec
    >>> keys = mmrec.FeatureStore("store").keys()
    >>> keys.holds("rain-0"), keys.holds("rain-99")
    (True, False)
    >>> sorted(keys.row("rain-0").with_tokens)
    ['audio', 'text', 'visual']
    """

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        columns = {name: array("Q") for name in ("item_id", *_HASHES)} | {"flags": array("H")}
        for batch in batches:
            for name, values in _columns(batch).items():
                columns[name].frombytes(values.tobytes())
        order = np.argsort(np.asarray(columns["item_id"]))
        self._ids = np.asarray(columns.pop("item_id"))[order]
        self._flags = np.asarray(columns.pop("flags"))[order]
        self._hashes = {name: np.asarray(columns.pop(name))[order] for name in _HASHES}

    def __len__(self) -> int:
        return len(self._ids)

    def num_leaving(self, staying: Iterable[str]) -> int:
        """How many rows have none of these item ids.

        >>> import mmrec
        >>> mmrec.FeatureStore("store").keys().num_leaving(["rain-0", "rain-1", "new"])
        14
        """
        is_leaving = np.ones(len(self._ids), np.bool_)
        numbers = map(_number, staying)
        while len(some := np.fromiter(islice(numbers, _IDS_AT_ONCE), np.uint64)):
            places = np.searchsorted(self._ids, some)
            there = places < len(self._ids)
            places, some = places[there], some[there]
            is_leaving[places[self._ids[places] == some]] = False
        return int(is_leaving.sum())

    def holds(self, item_id: str) -> bool:
        return self._place(item_id) is not None

    def row(self, item_id: str) -> StoredRow | None:
        """What is known of an item; None where the store has no row of it."""
        place = self._place(item_id)
        if place is None:
            return None
        texts = {name: _text(numbers[place]) for name, numbers in self._hashes.items()}
        flagged = _flagged(int(self._flags[place]))
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
        number = _number(item_id)
        place = int(np.searchsorted(self._ids, np.uint64(number)))
        return place if place < len(self._ids) and self._ids[place] == number else None


@cache
def _flagged(bits: int) -> dict[str, frozenset[Modality]]:
    """The modalities that have each flag, of a row's bits."""
    found = [flag for place, flag in enumerate(_FLAGS) if bits >> place & 1]
    return {name: frozenset(m for m, other in found if other == name) for name in _OF_A_MODALITY}


def _number(item_id: str) -> int:
    hashed = hashlib.blake2b(item_id.encode("utf-8", "surrogatepass"), digest_size=HASH_CHARACTERS // 2)
    return int.from_bytes(hashed.digest(), "big")


def _columns(batch: pa.RecordBatch) -> dict[str, NDArray[Any]]:
    """What is kept of a batch: hashes as numbers, and flags."""
    ids = np.fromiter(map(_number, batch["item_id"].to_pylist()), np.uint64, batch.num_rows)
    flags = {m: _flags(batch, m) for m in MODALITIES}
    bits = sum(flags[m][name].astype(np.uint16) << place for place, (m, name) in enumerate(_FLAGS))
    return {"item_id": ids, **{name: _numbers(batch[name]) for name in _HASHES}, "flags": np.asarray(bits, np.uint16)}


def _numbers(column: pa.Array) -> NDArray[np.uint64]:
    """Hashes as numbers; 0 is none."""
    padded = pc.utf8_lpad(column.fill_null(""), HASH_CHARACTERS, "0")
    _, offsets, data = padded.buffers()
    start = int(np.frombuffer(offsets, np.int32)[padded.offset]) if len(padded) else 0
    digits_N16 = np.frombuffer(data or b"", np.uint8)[start : start + HASH_CHARACTERS * len(padded)]
    halves_N8 = _DIGITS[digits_N16].reshape(-1, 2)
    return (halves_N8[:, 0] << 4 | halves_N8[:, 1]).view(">u8").astype(np.uint64)


def _text(number: np.uint64) -> str:
    return f"{int(number):0{HASH_CHARACTERS}x}" if number else ""


def _flags(batch: pa.RecordBatch, modality: Modality) -> dict[str, NDArray[np.bool_]]:
    reason, failed = batch[f"{modality}_reason"], pc.equal(batch["status"], Status.FAILED.value)
    transient = pa.array([reason.value for reason in Reason if reason.may_pass])
    faults = pa.array([reason.value for reason in Reason if reason.is_fault])
    flags = {
        "with_tokens": batch[f"{modality}_fingerprint"].is_valid(),
        "faulty": pc.is_in(reason, value_set=faults),
        "stale": batch[f"{modality}_stale_since"].is_valid(),
        "worth_retrying": pc.or_(failed, pc.is_in(reason, value_set=transient)),
    }
    return {name: np.asarray(column.to_numpy(zero_copy_only=False), np.bool_) for name, column in flags.items()}
