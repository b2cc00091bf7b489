"""Which items may stand in any list: by what the catalog says of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrec.errors import ModelError

Where = Mapping[str, Any]


class CatalogFilter:
    """Finds the items whose columns have wanted values; each column is encoded when it is first asked for.

    Args:
        catalog: what is said of each of the I items, by column.
    """

    def __init__(self, catalog: Sequence[Mapping[str, Any]]) -> None:
        self._catalog = catalog
        self._columns: dict[str, _Column] = {}

    def matching(self, where: Where) -> NDArray[np.bool_]:
        """The items `(I,)` that have the wanted values in all columns; arguments as `Recommender.recommend`.

        Raises `ModelError` for a column that no item has.
        """
        matching_I = np.ones(len(self._catalog), np.bool_)
        for name, wanted in where.items():
            if name not in self._columns:
                self._columns[name] = _Column.of(self._catalog, name)
            matching_I &= self._columns[name].matching(wanted)
        return matching_I


class _Column:
    """The values of a column as codes: `codes_N` of the values of the items `items_N`; None where each item has one."""

    def __init__(
        self, values: list[Any], codes_N: NDArray[np.int32], items_N: NDArray[np.int64] | None, num_items: int
    ) -> None:
        self._values, self._codes_N, self._items_N, self._num_items = values, codes_N, items_N, num_items
        self._places: dict[str, list[int]] = {}
        for place, value in enumerate(values):
            self._places.setdefault(str(value), []).append(place)

    @classmethod
    def of(cls, catalog: Sequence[Mapping[str, Any]], name: str) -> _Column:
        if not any(name in row for row in catalog):
            raise ModelError(f"the catalog has no column {name!r}; it has {', '.join(sorted(_names(catalog)))}")
        rows = [row.get(name) for row in catalog]
        several = any(isinstance(value, list) for value in rows)
        cells = [value if isinstance(value, list) else [value] for value in rows]
        places: dict[Any, int] = {}
        codes = [places.setdefault((type(value), value), len(places)) for cell in cells for value in cell]
        items_N = np.repeat(np.arange(len(rows)), [len(cell) for cell in cells]) if several else None
        return cls([value for _, value in places], np.array(codes, np.int32), items_N, len(rows))

    def matching(self, wanted: Any) -> NDArray[np.bool_]:
        keep_V = np.zeros(len(self._values), np.bool_)
        if callable(wanted):
            keep_V[:] = [bool(wanted(value)) for value in self._values]
        else:
            several = isinstance(wanted, Collection) and not isinstance(wanted, str)
            for text in {str(value) for value in (wanted if several else [wanted])}:
                keep_V[self._places.get(text, [])] = True
        kept_N = keep_V[self._codes_N]
        if self._items_N is None:
            return kept_N
        matching_I = np.zeros(self._num_items, np.bool_)
        matching_I[self._items_N[kept_N]] = True
        return matching_I


def _names(catalog: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield from {name for row in catalog for name in row}
