"""Files of interactions: CSV, JSONL and Parquet, read as columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmrec.errors import InteractionError

if TYPE_CHECKING:
    import pyarrow as pa


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
    except (OSError, pa.ArrowInvalid) as error:
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
                values = json.loads(line)
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
        column = table[name].cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InteractionError(f"{path}: {name} must hold numbers: {error}") from None
    numbers: NDArray[np.float64] = column.to_numpy(zero_copy_only=False).astype(np.float64)
    return numbers


def _timestamps(table: pa.Table, path: Path) -> NDArray[np.float64] | None:
    """Seconds; dates and times of Parquet are taken as UTC."""
    import pyarrow as pa

    column = table["timestamp"] if "timestamp" in table.column_names else None
    if column is not None and (pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)):
        micros = column.cast(pa.timestamp("us", tz=getattr(column.type, "tz", None)), safe=False).cast(pa.int64())
        seconds: NDArray[np.float64] = micros.to_numpy(zero_copy_only=False).astype(np.float64) / 1e6
        return seconds
    return _numbers(table, "timestamp", path)
