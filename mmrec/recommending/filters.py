"""Which items may stand in any list: by what the catalog says of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrec.errors import ModelError
from mmrec.tables import to_text

Where = Mapping[str, Any]

_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


class CatalogFilter:
    """Finds the items whose columns have wanted values; each column is encoded when it is first asked for.

    Values are compared by what they say: `True` is "true", 2001 is "2001.0", a date is itself at midnight.

    Args:
        catalog: what is said of each of the I items, by column.

    >>> CatalogFilter([{"year": "2001.0"}, {"year": "1999"}]).matching({"year": 2001})
    array([ True, False])
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

    def allowed(
        self, where: Where, candidates: NDArray[np.int64] | None, exclude: NDArray[np.int64]
    ) -> NDArray[np.bool_] | None:
        """The items `(I,)` that match, are in these rows, and not in those; None where that is all of them."""
        if not where and candidates is None and not len(exclude):
            return None
        allowed_I = self.matching(where)
        if candidates is not None:
            named_I = np.zeros(len(allowed_I), np.bool_)
            named_I[candidates] = True
            allowed_I &= named_I
        allowed_I[exclude] = False
        return allowed_I


class _Column:
    """The values of a column as codes: `codes_N` of the values of the items `items_N`; None where each item has one."""

    def __init__(
        self, values: list[Any], codes_N: NDArray[np.int32], items_N: NDArray[np.int64] | None, num_items: int
    ) -> None:
        self._values, self._codes_N, self._items_N, self._num_items = values, codes_N, items_N, num_items
        self._places: dict[str, list[int]] = {}
        for place, value in enumerate(values):
            self._places.setdefault(_meaning(value), []).append(place)

    @classmethod
    def of(cls, catalog: Sequence[Mapping[str, Any]], name: str) -> _Column:
        if not any(name in row for row in catalog):
            raise _unknown_column(catalog, name)
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
            several = isinstance(wanted, Collection) and not isinstance(wanted, str | bytes)
            for meaning in {_meaning(value) for value in (wanted if several else [wanted])}:
                keep_V[self._places.get(meaning, [])] = True
        kept_N = keep_V[self._codes_N]
        if self._items_N is None:
            return kept_N
        matching_I = np.zeros(self._num_items, np.bool_)
        matching_I[self._items_N[kept_N]] = True
        return matching_I


def _unknown_column(catalog: Sequence[Mapping[str, Any]], name: str) -> ModelError:
    names = {column.casefold(): column for row in catalog for column in row}
    near = [names[found] for found in get_close_matches(name.strip().casefold(), names)]
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    return ModelError(f"the catalog has no column {name!r}{hint}; it has {', '.join(sorted(names.values()))}")


def _meaning(value: Any) -> str:
    """One text for all ways to write a truth value, a number, or a date and time; any other text as it is."""
    text = to_text(value)
    if _NUMBER.fullmatch(text):
        return text.rstrip("0").rstrip(".") if "." in text else text
    if text in ("True", "False", "TRUE", "FALSE"):
        return text.lower()
    return _moment(text) if _DATE.match(text) else text


def _moment(text: str) -> str:
    """In UTC, as times without a zone are; days without their midnight."""
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return text
    return (moment if moment.time() != datetime.min.time() else moment.date()).isoformat()
