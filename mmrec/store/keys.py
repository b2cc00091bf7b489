"""What a job needs to know of every row of a store to see which items are new or changed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmrec.errors import Reason
from mmrec.store.features import MODALITIES, Status


class StoredKeys:
    """The keys of all rows, compactly: 25 bytes a row.

    >>> import mmrec
    >>> keys = mmrec.FeatureStore("store").keys()
    >>> keys.holds("rain-0"), keys.holds("rain-99")
    (True, False)
    >>> keys.compare("rain-0", content_key="f" * 32, catalog_key="0" * 32)
    'changed'
    """

    def __init__(self, table: pa.Table) -> None:
        ids = np.fromiter((hash(i) for i in table["item_id"].to_pylist()), np.int64, len(table))
        order = np.argsort(ids)
        self._ids = ids[order]
        self._content = self._numbers(table["content_key"])[order]
        self._catalog = self._numbers(table["catalog_key"])[order]
        self._worth_retrying = _may_pass(table)[order]

    @staticmethod
    def _numbers(column: pa.ChunkedArray) -> NDArray[np.uint64]:
        return np.fromiter((int(key[:16], 16) for key in column.to_pylist()), np.uint64, len(column))

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

    def worth_retrying(self, item_id: str) -> bool:
        """Whether the item failed, or lacks something that another try may bring."""
        place = self._place(item_id)
        return place is not None and bool(self._worth_retrying[place])

    def compare(
        self, item_id: str, content_key: str, catalog_key: str
    ) -> Literal["new", "changed", "relabelled", "same"]:
        """What the store knows of an item: `relabelled` where only its catalog row changed, not what was embedded."""
        place = self._place(item_id)
        if place is None:
            return "new"
        if self._content[place] != int(content_key[:16], 16):
            return "changed"
        return "same" if self._catalog[place] == int(catalog_key[:16], 16) else "relabelled"

    def _place(self, item_id: str) -> int | None:
        number = hash(item_id)
        place = int(np.searchsorted(self._ids, number))
        return place if place < len(self._ids) and self._ids[place] == number else None


def _may_pass(table: pa.Table) -> NDArray[np.bool_]:
    transient = [reason.value for reason in Reason if reason.may_pass]
    found = pc.equal(table["status"], Status.FAILED.value)
    for modality in MODALITIES:
        found = pc.or_(found, pc.is_in(table[f"{modality}_reason"], value_set=pa.array(transient)))
    return np.asarray(found.to_numpy(zero_copy_only=False) if len(table) else [], np.bool_)
