"""Interactions: read from CSV, JSONL or Parquet, and written again.

>>> interactions = read_interactions("interactions.csv")                    # doctest: +SKIP
>>> interactions.matrix().shape                                             # doctest: +SKIP
(9298, 6710)
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmrec.errors import InteractionError, LeakError

if TYPE_CHECKING:
    import pyarrow as pa
    import scipy.sparse as sp

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Interactions:
    """N interactions of U users with I items, each pair at most once.

    `user_rows` and `item_rows` `(N,)` index `user_ids` and `item_ids`, which may name more users and items than occur.
    `weights` `(N,)` are positive. `timestamps` `(N,)` are seconds since 1970, or None where they are not known.
    """

    user_ids: tuple[str, ...]
    item_ids: tuple[str, ...]
    user_rows: Rows
    item_rows: Rows
    weights: NDArray[np.float32]
    timestamps: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.user_rows)

    @cached_property
    def user_index(self) -> dict[str, int]:
        """User id -> row."""
        return {user_id: row for row, user_id in enumerate(self.user_ids)}

    @cached_property
    def item_index(self) -> dict[str, int]:
        """Item id -> row."""
        return {item_id: row for row, item_id in enumerate(self.item_ids)}

    def matrix(self) -> sp.csr_array:
        """The weights as a sparse matrix `(U, I)`, item rows in ascending order."""
        import scipy.sparse as sp

        shape = (len(self.user_ids), len(self.item_ids))
        matrix = sp.csr_array((self.weights, (self.user_rows, self.item_rows)), shape=shape)
        matrix.sort_indices()
        return matrix

    def order(self) -> Rows:
        """The place of each interaction in time `(N,)`: by timestamp; equal or unknown times by row, as in a log."""
        times_N = np.zeros(len(self)) if self.timestamps is None else self.timestamps
        places_N = np.empty(len(self), np.int64)
        places_N[np.argsort(times_N, kind="stable")] = np.arange(len(self))
        return places_N

    def select(self, chosen: NDArray[np.bool_] | Rows) -> Interactions:
        """The chosen interactions, with the same id maps."""
        return Interactions(
            self.user_ids,
            self.item_ids,
            self.user_rows[chosen],
            self.item_rows[chosen],
            self.weights[chosen],
            None if self.timestamps is None else self.timestamps[chosen],
        )

    def user_degrees(self) -> Rows:
        """How many interactions each user has `(U,)`."""
        return np.bincount(self.user_rows, minlength=len(self.user_ids))

    def item_degrees(self) -> Rows:
        """How many interactions each item has `(I,)`."""
        return np.bincount(self.item_rows, minlength=len(self.item_ids))


InteractionSource = Interactions | str | os.PathLike[str]


def read_interactions(
    path: str | os.PathLike[str],
    *,
    item_ids: Sequence[str] | None = None,
    user_ids: Sequence[str] = (),
    unknown_items: Literal["raise", "drop"] = "raise",
) -> Interactions:
    """Reads `user_id`, `item_id` and, where present, `timestamp` (seconds) and `weight`; other columns are ignored.

    A pair that occurs more than once becomes one interaction with the latest timestamp and the sum of the weights.

    Args:
        path: a `.csv`, `.jsonl` or `.parquet` file. Ids are taken as text: `007` stays `007`.
        item_ids: the catalog, in the order its rows shall have; without it, the items that occur.
        user_ids: users that come first in the id map, as those of a fitted model; others follow.
        unknown_items: what to do with interactions whose item is not in `item_ids`.

    Raises:
        InteractionError: for a file that cannot be read, missing columns, empty ids, weights that are not positive
            and finite, timestamps that are no numbers, unknown items, or a file without interactions.
    """
    path = Path(path)
    table = _read_table(path)
    return make_interactions(
        _ids(table, "user_id", path),
        _ids(table, "item_id", path),
        timestamps=_timestamps(table, path),
        weights=_numbers(table, "weight", path),
        known_items=item_ids,
        known_users=user_ids,
        unknown_items=unknown_items,
        source=str(path),
    )


def make_interactions(
    users: Sequence[str],
    items: Sequence[str],
    *,
    timestamps: NDArray[np.float64] | None = None,
    weights: NDArray[np.float64] | None = None,
    known_items: Sequence[str] | None = None,
    known_users: Sequence[str] = (),
    unknown_items: Literal["raise", "drop"] = "raise",
    source: str = "interactions",
) -> Interactions:
    """Interactions from columns of equal length; arguments and errors as `read_interactions`."""
    lengths = {len(column) for column in (users, items, timestamps, weights) if column is not None}
    if len(lengths) > 1:
        raise InteractionError(f"{source}: columns of different lengths {sorted(lengths)}")
    if not len(users):
        raise InteractionError(f"{source}: there are no interactions")
    _check_numbers(timestamps, weights, source)
    user_ids, user_rows = _to_rows(users, known_users)
    item_ids, item_rows = _to_rows(items, known_items or ())
    weight_N = np.ones(len(users), np.float32) if weights is None else weights.astype(np.float32)
    if known_items is not None and len(item_ids) > len(known_items):
        known_N = item_rows < len(known_items)
        if unknown_items == "raise" or not known_N.any():
            names = ", ".join(map(repr, item_ids[len(known_items) : len(known_items) + 3]))
            raise InteractionError(
                f"{source}: {int((~known_N).sum())} of {len(known_N)} interactions name "
                f"{len(item_ids) - len(known_items)} items that are not in the catalog, as {names}"
            )
        item_ids = item_ids[: len(known_items)]
        user_rows, item_rows, weight_N = user_rows[known_N], item_rows[known_N], weight_N[known_N]
        timestamps = None if timestamps is None else timestamps[known_N]
    return _merge_repeated(Interactions(user_ids, item_ids, user_rows, item_rows, weight_N, timestamps))


def read_catalog_interactions(source: InteractionSource, item_ids: Sequence[str]) -> Interactions:
    """Interactions with these items; `InteractionError` where others are named."""
    if not isinstance(source, Interactions):
        return read_interactions(source, item_ids=item_ids)
    aligned = align(source, user_ids=(), item_ids=item_ids)
    unknown_N = aligned.item_rows >= len(item_ids)
    if unknown_N.any():
        first = aligned.item_ids[aligned.item_rows[unknown_N.argmax()]]
        raise InteractionError(
            f"{int(unknown_N.sum())} of {len(aligned)} interactions name items that are not in the catalog, "
            f"as {first!r}"
        )
    return replace(aligned, item_ids=tuple(item_ids))


def write_interactions(interactions: Interactions, path: str | os.PathLike[str]) -> None:
    """Writes `user_id`, `item_id`, `weight` and, where known, `timestamp` as `.csv` or `.parquet`."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow import csv

    path = Path(path)
    writers = {".csv": csv.write_csv, ".parquet": pq.write_table}
    if path.suffix.lower() not in writers:
        raise InteractionError(f"{path}: interactions are written to files that end in {' or '.join(writers)}")
    columns: dict[str, Any] = {
        "user_id": pa.array(interactions.user_ids).take(pa.array(interactions.user_rows)),
        "item_id": pa.array(interactions.item_ids).take(pa.array(interactions.item_rows)),
        "weight": interactions.weights,
    }
    if interactions.timestamps is not None:
        columns["timestamp"] = interactions.timestamps
    try:
        writers[path.suffix.lower()](pa.table(columns), path)
    except OSError as error:
        raise InteractionError(f"{path} cannot be written: {error}") from error


def align(interactions: Interactions, *, user_ids: Sequence[str], item_ids: Sequence[str]) -> Interactions:
    """The same interactions under other id maps; users and items missing from the maps are appended."""
    users, user_rows = _to_rows(interactions.user_ids, user_ids)
    items, item_rows = _to_rows(interactions.item_ids, item_ids)
    return Interactions(
        users,
        items,
        user_rows[interactions.user_rows],
        item_rows[interactions.item_rows],
        interactions.weights,
        interactions.timestamps,
    )


def check_no_leak(train: Interactions, held_out: Interactions) -> None:
    """Raises `LeakError`, saying how many, where held-out interactions are present in training."""
    held_out = align(held_out, user_ids=train.user_ids, item_ids=train.item_ids)
    num_items = len(held_out.item_ids)
    train_pairs = train.user_rows * num_items + train.item_rows
    leaked_N = np.isin(held_out.user_rows * num_items + held_out.item_rows, train_pairs)
    if leaked_N.any():
        first = int(leaked_N.argmax())
        user_id = held_out.user_ids[held_out.user_rows[first]]
        item_id = held_out.item_ids[held_out.item_rows[first]]
        raise LeakError(
            f"{int(leaked_N.sum())} of {len(held_out)} held-out interactions are present in training, "
            f"as user {user_id!r} with item {item_id!r}"
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


def _check_numbers(timestamps: NDArray[np.float64] | None, weights: NDArray[np.float64] | None, source: str) -> None:
    if timestamps is not None and not np.isfinite(timestamps).all():
        row = int((~np.isfinite(timestamps)).argmax()) + 1
        raise InteractionError(f"{source}: interaction {row} has no finite timestamp; give one to all or to none")
    if weights is not None:
        bad_N = ~(np.isfinite(weights) & (weights > 0))
        if bad_N.any():
            row = int(bad_N.argmax())
            raise InteractionError(
                f"{source}: {int(bad_N.sum())} weights are not positive and finite, "
                f"the first is {weights[row]} of interaction {row + 1}"
            )


def _to_rows(names: Sequence[str], known: Sequence[str]) -> tuple[tuple[str, ...], Rows]:
    """(ids, the row of each name): known ids keep their rows, new ones follow in order of appearance."""
    index = {name: row for row, name in enumerate(known)}
    if len(index) != len(known):
        raise InteractionError(f"{len(known) - len(index)} ids of a map are repeated: ids must be unique")
    rows = np.fromiter((index.setdefault(name, len(index)) for name in names), np.int64, len(names))
    return tuple(index), rows


def _merge_repeated(interactions: Interactions) -> Interactions:
    pairs = interactions.user_rows * len(interactions.item_ids) + interactions.item_rows
    _, first, group_N = np.unique(pairs, return_index=True, return_inverse=True)
    weights = np.bincount(group_N, interactions.weights)
    order = np.argsort(first)
    times = interactions.timestamps
    if times is not None:
        latest = np.full(len(first), -np.inf)
        np.maximum.at(latest, group_N, times)
        times = latest[order]
    first = first[order]
    return Interactions(
        interactions.user_ids,
        interactions.item_ids,
        interactions.user_rows[first],
        interactions.item_rows[first],
        weights[order].astype(np.float32),
        times,
    )
