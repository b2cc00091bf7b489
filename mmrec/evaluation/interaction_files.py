"""Files of interactions: CSV, JSONL and Parquet, read as columns."""

from __future__ import annotations

import logging
import os
import reprlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmrec.errors import InteractionError
from mmrec.tables import Table, local_path, to_text

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

UNITS = ("seconds", "milliseconds", "microseconds", "nanoseconds")
IDS = "text or a whole number"
WEIGHTS = "a finite number, in every row or in none"
TIMES = "seconds since 1970, or a date and time in ISO 8601, all alike, in every row or in none"


class Columns(NamedTuple):
    """The columns of a file, one value for each of its rows; None where it has no such column, or nothing in it."""

    user_ids: list[str]
    item_ids: list[str]
    timestamps: NDArray[np.float64] | None
    weights: NDArray[np.float64] | None


def read_columns(path: str | os.PathLike[str]) -> Columns:
    """Read a file, or a folder of Parquet parts.

    Raises `InteractionError` where it cannot be read or lacks a column, and for the first value that is no id, no
    finite number, or no time.
    """
    required = ["user_id", "item_id"]
    table = Table(
        local_path(path, InteractionError),
        known=[*required, "timestamp", "weight"],
        required=required,
        others=False,
        error=InteractionError,
    )
    if not os.path.exists(table.path):
        raise InteractionError(f"there is no file {path}")
    columns = table.columns()
    if not columns.num_rows:
        raise InteractionError(f"{path}: there are no interactions")
    table.warn_of_renamed()
    named = {name: _Column(table, name, columns[name]) for name in columns.column_names}
    return Columns(
        user_ids=_ids(named["user_id"]),
        item_ids=_ids(named["item_id"]),
        timestamps=_timestamps(named["timestamp"]) if "timestamp" in named else None,
        weights=_weights(named["weight"]) if "weight" in named else None,
    )


class _Column(NamedTuple):
    table: Table
    name: str
    values: pa.ChunkedArray

    def refusal(self, index: int, expected: str) -> InteractionError:
        value = self.values[index].as_py()
        found = "is missing" if value is None or value == "" else f"is {reprlib.repr(value)}"
        return InteractionError(f"{self.table.where_record(index)}: {self.name} {found}: expected {expected}")

    def as_text(self) -> pa.ChunkedArray | None:
        """Texts, whatever Arrow calls them; None where the values are of another kind."""
        import pyarrow as pa

        kind = self.values.type.value_type if pa.types.is_dictionary(self.values.type) else self.values.type
        texts = ("string", "large_string", "string_view", "binary", "large_binary", "null")
        if not any(getattr(pa.types, f"is_{name}")(kind) for name in texts):
            return None
        try:
            return self.values.cast(pa.string())
        except pa.ArrowInvalid:
            index = next(i for i, value in enumerate(self.values.to_pylist()) if value and not to_text(value))
            raise self.refusal(index, "text in UTF-8") from None


def _ids(column: _Column) -> list[str]:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.values.type
    texts = column.as_text()
    if texts is None:
        if not (pa.types.is_integer(kind) or (pa.types.is_decimal(kind) and kind.scale == 0)):
            raise column.refusal(pc.index(column.values.is_valid(), True).as_py(), IDS)
        texts = column.values.cast(pa.string())
    empty = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(texts), ""), True)
    if (index := pc.index(empty, True).as_py()) >= 0:
        raise column.refusal(index, IDS)
    ids: list[str] = texts.to_pylist()
    return ids


def _weights(column: _Column) -> NDArray[np.float64] | None:
    import pyarrow as pa

    return _numbers(column, (pa.float64(), pa.bool_()), WEIGHTS)


def _timestamps(column: _Column) -> NDArray[np.float64] | None:
    """Seconds since 1970; dates and times without a zone are taken as UTC."""
    import pyarrow as pa

    dates = [pa.timestamp(unit, zone) for unit in ("us", "ns") for zone in ("UTC", None)]
    numbers_N = _numbers(column, (pa.float64(), *dates), TIMES)
    return None if numbers_N is None else _in_seconds(numbers_N, column)


def _numbers(column: _Column, kinds: tuple[pa.DataType, ...], expected: str) -> NDArray[np.float64] | None:
    """Finite numbers, dates and times as seconds; None where there is no value at all.

    Texts become the first of `kinds` that all of them can be.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    values = column.values
    if (texts := column.as_text()) is not None:
        trimmed = pc.utf8_trim_whitespace(texts)
        values = _cast_texts(column, pc.if_else(pc.equal(trimmed, ""), None, trimmed), kinds, expected)
    if values.null_count == len(values):
        return None
    if not _is_among(values.type, kinds):
        raise column.refusal(pc.index(values.is_valid(), True).as_py(), expected)
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_temporal(values.type):
        micros = values.cast(pa.timestamp("us", tz=getattr(values.type, "tz", None)), safe=False).cast(pa.int64())
        numbers_N: NDArray[np.float64] = micros.to_numpy(zero_copy_only=False).astype(np.float64) / 1e6
    else:  # whole numbers beyond 2^53 are rounded
        numbers_N = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)
    finite_N = np.isfinite(numbers_N)
    if not finite_N.all():
        raise column.refusal(int(finite_N.argmin()), expected)
    return numbers_N


def _is_among(kind: pa.DataType, kinds: tuple[pa.DataType, ...]) -> bool:
    """Whether values are numbers, or truth values, dates or times where these are among the kinds."""
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_boolean(kind):
        return pa.bool_() in kinds
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return any(map(pa.types.is_timestamp, kinds))
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _cast_texts(
    column: _Column, texts: pa.ChunkedArray, kinds: tuple[pa.DataType, ...], expected: str
) -> pa.ChunkedArray:
    import pyarrow as pa

    for kind in kinds:
        try:
            return texts.cast(kind)
        except pa.ArrowInvalid:
            continue
    raise column.refusal(max(_first_misfit(texts, kind) for kind in kinds), expected)  # by the kind that fits longest


def _first_misfit(texts: pa.ChunkedArray, kind: pa.DataType) -> int:
    """The index of the first text that cannot be of this type; there must be one."""
    import pyarrow as pa

    for index, text in enumerate(texts):
        try:
            text.cast(kind)
        except pa.ArrowInvalid:
            return index
    raise AssertionError(f"all texts can be {kind}")


def _in_seconds(numbers_N: NDArray[np.float64], column: _Column) -> NDArray[np.float64]:
    """Numbers too large for seconds (the year 5138 and later) are those of a smaller unit, the same for all."""
    units_N = np.digitize(np.abs(numbers_N), [1e11, 1e14, 1e17])
    first = int((numbers_N != 0).argmax())
    unit = int(units_N[first])
    others_N = (units_N != unit) & (numbers_N != 0)
    if others_N.any():
        expected = f"{UNITS[unit]} since 1970, as {numbers_N[first]:.0f} in the rows before"
        raise column.refusal(int(others_N.argmax()), expected)
    if not unit:
        return numbers_N
    logger.warning("%s: timestamps are taken for %s, by their size", column.table.path, UNITS[unit])
    seconds_N: NDArray[np.float64] = numbers_N / 10.0 ** (3 * unit)
    return seconds_N
