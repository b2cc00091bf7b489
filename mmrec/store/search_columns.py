"""The columns of the catalog by which a search may be filtered: their types, and their values of each row."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

Kind = Literal["text", "number", "list"]
_TYPES: dict[Kind, pa.DataType] = {"text": pa.string(), "number": pa.float64(), "list": pa.list_(pa.string())}


@dataclass(frozen=True, slots=True)
class SearchColumn:
    """A column: `place` is its name in the tables that are searched, `kind` what it holds."""

    place: str
    kind: Kind


_OF_THE_ROW: dict[str, Kind] = {
    "item_id": "text",
    "title": "text",
    "description": "text",
    "tags": "list",
    "language": "text",
    "status": "text",
    "duration_seconds": "number",
    "visual_classes": "list",
    "text_language": "text",
}
READ = (*_OF_THE_ROW, "metadata")
"""The columns of a store that hold them."""


class SearchColumns(Mapping[str, SearchColumn]):
    """The columns by the names that the catalog gives them; its own come before those of mmrec.

    >>> SearchColumns.of([{"year": "2001"}, {"year": "1999", "studio": "A"}])["year"]
    SearchColumn(place='c1', kind='number')
    """

    def __init__(self, own: Mapping[str, Kind]) -> None:
        self.own = dict(own)
        self._columns = {name: SearchColumn(name, kind) for name, kind in _OF_THE_ROW.items()}
        self._columns |= {name: SearchColumn(f"c{number}", kind) for number, (name, kind) in enumerate(own.items())}

    @classmethod
    def of(cls, rows: list[Mapping[str, Any]]) -> SearchColumns:
        """Of the metadata and labels of all rows: a column holds numbers where each of its values is one."""
        kinds: dict[str, Kind] = {}
        for row in rows:
            for name, value in row.items():
                if isinstance(value, list):
                    kinds[name] = "list"
                elif kinds.get(name) not in ("text", "list") and value not in (None, ""):
                    kinds[name] = "text" if _number(value) is None else "number"
        return cls(dict(sorted(kinds.items())))

    def __getitem__(self, name: str) -> SearchColumn:
        return self._columns[name]

    def __iter__(self) -> Any:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    @property
    def fields(self) -> list[pa.Field]:
        """Of the tables that are searched."""
        of_the_row = [pa.field(name, _TYPES[kind]) for name, kind in _OF_THE_ROW.items()]
        return of_the_row + [pa.field(f"c{number}", _TYPES[kind]) for number, kind in enumerate(self.own.values())]

    def of_row(self, row: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
        """What the tables that are searched hold of a row."""
        own = {f"c{number}": _VALUES[kind](metadata.get(name)) for number, (name, kind) in enumerate(self.own.items())}
        return {name: row[name] for name in _OF_THE_ROW} | own


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _labels(value: Any) -> list[str]:
    return value if isinstance(value, list) else []


_VALUES: dict[Kind, Callable[[Any], Any]] = {"text": _text, "number": _number, "list": _labels}
