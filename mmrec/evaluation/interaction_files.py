"""Files of interactions: CSV, JSONL and Parquet, read as columns."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmrec.errors import InteractionError

if TYPE_CHECKING:
    import pyarrow as pa


logger = logging.getLogger(__name__)


class Columns(NamedTuple):
    """The columns of a file, one value for each of its rows; None where it has no such column."""

    user_ids: list[str]
    item_ids: list[str]
    timestamps: NDArray[np.float64] | None
    weights: NDArray[np.float64] | None


def read_columns(path: Path) -> Columns:
    """Read a file. Raises `InteractionError` where it cannot be read, lacks a column or an id, or has no numbers."""
    table = _read_table(path)
    return Columns(
        user_ids=_ids(table, "user_id", path),
        item_ids=_ids(table, "item_id", path),
        timestamps=_timestamps(table, path),
        weights=_numbers(table, "weight", path),
    )


def _read_table(path: Path) -> pa.Table:
    import pyarrow as pa

    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".ndjson": _read_jsonl, ".parquet": _read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InteractionError(f"{path}: interactions are files that end in {', '.join(readers)}")
    try:
        table = reader(path)
    except FileNotFoundError:
        raise InteractionError(f"there is no file {path}") from None
    except (OSError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InteractionError(f"{path} cannot be read: {error}") from error
    if missing := [name for name in ("user_id", "item_id") if name not in table.column_names]:
        raise InteractionError(f"{path}: no column {' and '.join(missing)}; found {', '.join(table.column_names)}")
    return table


def _read_csv(path: Path) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv

    as_text = {"user_id": pa.string(), "item_id": pa.string()}
    return csv.read_csv(path, convert_options=csv.ConvertOptions(column_types=as_text, null_values=[""]))


def _read_jsonl(path: Path) -> pa.Table:
    import pyarrow as pa

    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                values = json.loads(line.removeprefix("\ufeff"))
            except ValueError as error:
                raise InteractionError(f"{path}, line {number}: not JSON: {error}") from None
            if not isinstance(values, dict):
                raise InteractionError(f"{path}, line {number}: expected an object, got {type(values).__name__}")
            rows.append({name: values.get(name) for name in ("user_id", "item_id", "timestamp", "weight")})
    names = {name for row in rows for name, value in row.items() if value is not None} | {"user_id", "item_id"}
    return pa.table({name: [_text_id(row[name]) if name.endswith("_id") else row[name] for row in rows]
                     for name in sorted(names)})  # fmt: skip


def _text_id(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _read_parquet(path: Path) -> pa.Table:
    import pyarrow.parquet as pq

    names = pq.read_schema(path).names
    return pq.read_table(path, columns=[n for n in ("user_id", "item_id", "timestamp", "weight") if n in names])


def _ids(table: pa.Table, name: str, path: Path) -> list[str]:
    import pyarrow as pa

    column = table[name]
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_id = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)
    if not (is_id or pa.types.is_null(kind)):
        raise InteractionError(f"{path}: {name} holds {kind}, expected text or whole numbers")
    values: list[Any] = column.cast(pa.string()).to_pylist()
    empty = [row for row, value in enumerate(values, start=1) if value is None or not value.strip()]
    if empty:
        raise InteractionError(f"{path}: {len(empty)} interactions have no {name}, the first is number {empty[0]}")
    return values


def _numbers(table: pa.Table, name: str, path: Path) -> NDArray[np.float64] | None:
    import pyarrow as pa

    if name not in table.column_names:
        return None
    try:
        column = table[name].cast(pa.float64(), safe=False)  # whole numbers beyond 2^53 are rounded
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        row, value = _first_misfit(table[name], pa.float64())
        raise InteractionError(f"{path}: {name} must hold numbers; interaction {row} has {value!r}") from None
    numbers: NDArray[np.float64] = column.to_numpy(zero_copy_only=False).astype(np.float64)
    return numbers


def _timestamps(table: pa.Table, path: Path) -> NDArray[np.float64] | None:
    """Seconds since 1970; dates and times without a zone are taken as UTC."""
    import pyarrow as pa

    column = table["timestamp"] if "timestamp" in table.column_names else None
    if column is None:
        return None
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = _from_text(column, path)
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        micros = column.cast(pa.timestamp("us", tz=getattr(column.type, "tz", None)), safe=False).cast(pa.int64())
        seconds: NDArray[np.float64] = micros.to_numpy(zero_copy_only=False).astype(np.float64) / 1e6
        return seconds
    if column.type == pa.float64():
        return _in_seconds(column.to_numpy().astype(np.float64), path)
    numbers = _numbers(table, "timestamp", path)
    return None if numbers is None else _in_seconds(numbers, path)


def _from_text(column: pa.ChunkedArray, path: Path) -> pa.ChunkedArray:
    """Texts as numbers, or as dates and times in ISO 8601."""
    import pyarrow as pa

    kinds = (pa.float64(), pa.timestamp("us", tz="UTC"), pa.timestamp("us"))
    for kind in kinds:
        try:
            return column.cast(kind)
        except pa.ArrowInvalid:
            continue
    row, value = max(_first_misfit(column, kind) for kind in kinds)  # by the kind that fits longest
    raise InteractionError(
        f"{path}: timestamp must hold seconds since 1970, or dates and times in ISO 8601, all alike; interaction {row} "
        f"has {value!r}"
    )


def _first_misfit(column: pa.ChunkedArray, kind: pa.DataType) -> tuple[int, Any]:
    """The number of the first interaction whose value cannot be of this type, and the value; there must be one."""
    import pyarrow as pa

    for row, scalar in enumerate(column, start=1):
        try:
            scalar.cast(kind, safe=False)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return row, scalar.as_py()
    raise AssertionError(f"all values of {column.type} can be {kind}")


def _in_seconds(numbers_N: NDArray[np.float64], path: Path) -> NDArray[np.float64]:
    """Numbers too large for seconds (the year 5138 and later) are those of a smaller unit, the same for all."""
    sizes_N = np.abs(numbers_N[np.isfinite(numbers_N) & (numbers_N != 0)])
    units = np.digitize(sizes_N, [1e11, 1e14, 1e17])
    if not units.any():
        return numbers_N
    if (units != units[0]).any():
        raise InteractionError(
            f"{path}: timestamps of several units, from {sizes_N.min():.0f} to {sizes_N.max():.0f}: expected seconds"
        )
    name = ("seconds", "milliseconds", "microseconds", "nanoseconds")[units[0]]
    logger.warning("%s: timestamps are taken for %s, by their size", path, name)
    seconds_N: NDArray[np.float64] = numbers_N / 10.0 ** (3 * int(units[0]))
    return seconds_N
