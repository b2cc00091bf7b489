"""The items of a store as a report needs them: names, files, and columns to colour and to group by."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrec.errors import MMRecError
from mmrec.evaluation import count_groups
from mmrec.remote import Place, to_place
from mmrec.store import FeatureStore

MAX_LABELS = 8  # colours that can be told apart; rarer values are `OTHER`
MAX_COLUMNS = 12
MAX_LABEL_LENGTH = 60
NUM_BINS = 6
MOSTLY = 0.95
OTHER, NONE = "other", "none"

Codes = NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Column:
    """A column cut into few groups: `labels`, and the label of each item, -1 where it has no value.

    Where `ordered`, the labels are ranges of numbers, ascending.
    """

    name: str
    labels: list[str]
    codes_I: Codes
    ordered: bool = False

    @classmethod
    def of_words(cls, name: str, values: Sequence[str]) -> Column:
        """The most frequent values, and the others as one; empty ones are none."""
        counts = Counter(filter(None, values))
        frequent = [value for value, _ in counts.most_common(MAX_LABELS)]
        labels = [value[:MAX_LABEL_LENGTH] for value in frequent]
        if len(counts) > MAX_LABELS:
            labels.append(OTHER)
        places = {"": -1, **{value: place for place, value in enumerate(frequent)}}
        codes_I = np.array([places.get(value, MAX_LABELS) for value in values], np.int16)
        return cls(name, labels, codes_I)

    @classmethod
    def of_numbers(cls, name: str, values_I: NDArray[np.float64]) -> Column:
        """About equally many items in each of a few ranges; those that are not finite are none."""
        known_I = np.isfinite(values_I)
        bounds = np.unique(np.quantile(values_I[known_I], np.linspace(0, 1, NUM_BINS + 1)))
        codes_I = np.searchsorted(bounds[1:-1], values_I, side="right")
        present = np.unique(codes_I[known_I])
        labels = [_range(values_I[known_I & (codes_I == code)]) for code in present]
        codes_I = np.where(known_I, np.searchsorted(present, codes_I), -1)
        return cls(name, labels, codes_I.astype(np.int16), ordered=True)

    def aligned(self, rows_N: NDArray[np.int64]) -> Column:
        """The same column for items in other rows; -1 stands for an item that has no row here."""
        return replace(self, codes_I=np.where(rows_N >= 0, self.codes_I[rows_N], -1).astype(np.int16))

    @property
    def groups(self) -> list[tuple[str, NDArray[np.bool_]]]:
        """Each label with its items, and last those without a value, where there are any."""
        named = [(label, self.codes_I == code) for code, label in enumerate(self.labels)]
        return named + ([(NONE, self.codes_I == -1)] if (self.codes_I == -1).any() else [])


@dataclass(frozen=True)
class StoreItems:
    """All items of a store, without their tokens."""

    ids: list[str]
    titles: list[str]
    media: list[str]
    durations_I: NDArray[np.float64]
    facts: list[str]
    columns: list[Column] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def rows(self) -> dict[str, int]:
        """Item id -> row."""
        return {item_id: row for row, item_id in enumerate(self.ids)}

    def name(self, item_id: str) -> str:
        """The title of an item; its id where it has none, or is not in the store."""
        row = self.rows.get(item_id)
        return item_id if row is None else self.titles[row] or item_id

    def file(self, item_id: str) -> Place | None:
        """The media of an item, as the catalog named it when it was embedded."""
        row = self.rows.get(item_id)
        return to_place(self.media[row], MMRecError) if row is not None and self.media[row] else None


def parts_by_count(counts_N: NDArray[np.int64]) -> list[tuple[str, NDArray[np.bool_]]]:
    """Ranges of counts, ascending, each with what lies in it; empty ones are left out.

    >>> import numpy as np
    >>> from mmrec.reporting.items import parts_by_count
    >>> [name for name, _ in parts_by_count(np.array([0, 60, 3, 4]))]
    ['0', '2-4', '50+']
    """
    names_N = count_groups(counts_N)
    ascending = sorted(set(names_N.tolist()), key=lambda name: int(name.rstrip("+").partition("-")[0]))
    return [(name, names_N == name) for name in ascending]


def read_items(store: FeatureStore) -> StoreItems:
    """Every item with what the catalog says of it, read in one pass.

    >>> from mmrec import FeatureStore
    >>> from mmrec.reporting.items import read_items
    >>> items = read_items(FeatureStore("store"))
    >>> items.name("rain-0"), [column.name for column in items.columns]
    ('Rain on the roof, part 1', ['status', 'language', 'first tag', 'seconds', 'kind'])
    """
    names = ["item_id", "status", "title", "tags", "language", "text_language", "metadata", "media", "facts"]
    table = store.to_arrow([*names, "duration_seconds", "visual_classes"])
    columns = {name: table[name].to_pylist() for name in names}
    durations_I = np.array(table["duration_seconds"].fill_null(0).to_numpy(), np.float64)
    words = {
        "status": columns["status"],
        "language": [a or b or "" for a, b in zip(columns["language"], columns["text_language"], strict=True)],
        "first tag": [_first(tags) for tags in columns["tags"]],
        "shows": [_first(classes) for classes in table["visual_classes"].to_pylist()],
    }
    named = [Column.of_words(name, values) for name, values in words.items() if any(values)]
    if (durations_I > 0).any():
        named.append(Column.of_numbers("seconds", np.where(durations_I > 0, durations_I, np.nan)))
    taken = {column.name for column in named}
    of_their_own = _metadata_columns([json.loads(row or "{}") for row in columns["metadata"]])
    named += [column for column in of_their_own if column.name not in taken]
    return StoreItems(
        ids=columns["item_id"],
        titles=[" ".join((title or "").split()) for title in columns["title"]],
        media=[path or "" for path in columns["media"]],
        durations_I=durations_I,
        facts=columns["facts"],
        columns=named[:MAX_COLUMNS],
    )


def _metadata_columns(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """The catalog's own columns that group items: numbers, and words of which items share the same."""
    found = []
    for name in dict.fromkeys(name for row in rows for name in row):
        values = ["" if row.get(name) is None else str(row[name]).strip() for row in rows]
        distinct = set(values) - {""}
        numbers = _numbers(values) if len(distinct) > MAX_LABELS else None
        if numbers is not None:
            found.append(Column.of_numbers(name, numbers))
        elif 1 < len(distinct) <= max(MAX_LABELS, len(values) // 4):
            found.append(Column.of_words(name, values))
    return found


def _numbers(values: Sequence[str]) -> NDArray[np.float64] | None:
    """The values as numbers, where nearly all but the empty ones are."""
    numbers_I = np.array([_number(value) for value in values])
    are_numbers = np.isfinite(numbers_I).sum() >= MOSTLY * sum(map(bool, values))
    return numbers_I if are_numbers else None


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan


def _first(values: Sequence[str] | None) -> str:
    return values[0] if values else ""


def _range(values: NDArray[np.float64]) -> str:
    low, high = f"{values.min():.4g}", f"{values.max():.4g}"
    return low if low == high else f"{low} to {high}"
