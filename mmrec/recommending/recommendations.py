"""Recommendations for any number of users, written to one Parquet, CSV or JSONL file as they are made.

    >>> from mmrec.recommending import Recommender, RecommenderConfig
    >>> from mmrec.store import FeatureStore
    >>> config = RecommenderConfig.from_mapping({"dim": 16, "max_epochs": 1})
    >>> model = Recommender.fit(FeatureStore("store"), "interactions.csv", config=config)
    >>> write_recommendations(model, model.user_ids, "recommendations.parquet", k=2)
    >>> pq.read_table("recommendations.parquet").column_names
    ['user_id', 'rank', 'item_id', 'score']

Memory holds the lists of one block of users, whatever their number.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmrec.cluster import uses_ray
from mmrec.errors import ModelError
from mmrec.recommending.recommender import Recommender
from mmrec.recommending.users import UserState
from mmrec.remote import Place, to_place, written

_Lists = tuple[NDArray[np.str_], NDArray[np.float32]]
_Rank = Callable[[Sequence[str]], _Lists]
_OpenWriter = Callable[[Path], AbstractContextManager[Callable[[pa.Table], None]]]

USERS_AT_ONCE = 4096
SCHEMA = pa.schema([("user_id", pa.string()), ("rank", pa.int32()), ("item_id", pa.string()), ("score", pa.float32())])


def recommend_in_blocks(
    model: Recommender,
    users: Sequence[str],
    *,
    state_of: Callable[[str], UserState] | None = None,
    engine: str = "local",
    address: str | None = None,
    **options: Any,
) -> Iterator[tuple[Sequence[str], NDArray[np.str_], NDArray[np.float32]]]:
    """Blocks of users with their ids and scores `(U, K)`; options as `Recommender.recommend`.

    `state_of` gives the state by which a user is ranked; by default it is what the model knows of them. With the engine
    "ray" the machines of a cluster rank, that at an `address` or processes of this machine: the same lists in the same
    order.

    Raises `MMRecError` for an engine that is not known, not installed or not to be reached.
    """
    blocks = [users[start : start + USERS_AT_ONCE] for start in range(0, len(users), USERS_AT_ONCE)]
    rank = partial(_rank, model, state_of, options)
    for block, found in zip(blocks, _in_order(rank, blocks, engine, address), strict=True):
        yield block, *found


def _in_order(rank: _Rank, blocks: Iterable[Sequence[str]], engine: str, address: str | None) -> Iterator[_Lists]:
    if not uses_ray(engine, address=address):
        return map(rank, blocks)
    from mmrec.cluster import run_in_order

    return run_in_order(rank, blocks, address)


def _rank(
    model: Recommender, state_of: Callable[[str], UserState] | None, options: Mapping[str, Any], block: Sequence[str]
) -> _Lists:
    return model.recommend(block if state_of is None else list(map(state_of, block)), **options)


def write_recommendations(
    model: Recommender,
    users: Sequence[str],
    path: str | os.PathLike[str],
    *,
    on_users: Callable[[int], None] = lambda count: None,
    **options: Any,
) -> None:
    """Write `user_id, rank, item_id, score`, best first, ranks from 1; options as `recommend_in_blocks`.

    The suffix of the file says which kind it is. It appears when it is complete. `on_users` is called with the number
    of users done after each block.

    Raises `ModelError` for another suffix, and where the file cannot be written.
    """
    target = to_place(path, ModelError)
    open_writer = writer_of(target)
    with written(target) as file:
        _write(model, users, file, open_writer, on_users, options)


def _write(
    model: Recommender,
    users: Sequence[str],
    path: Path,
    open_writer: _OpenWriter,
    on_users: Callable[[int], None],
    options: Mapping[str, Any],
) -> None:
    partial = path.with_name(path.name + ".partial")
    done = 0
    try:
        with open_writer(partial) as write:
            for block, ids_UK, scores_UK in recommend_in_blocks(model, users, **options):
                write(_to_table(block, ids_UK, scores_UK))
                done += len(block)
                on_users(done)
        os.replace(partial, path)
    except OSError as error:
        raise ModelError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)


def writer_of(path: Place) -> _OpenWriter:
    """What writes tables to such a file. Raises `ModelError` for a file that would be of no known kind."""
    writers = {".csv": _csv_writer, ".jsonl": _jsonl_writer, ".parquet": _parquet_writer}
    if path.suffix.lower() not in writers:
        raise ModelError(f"{path}: recommendations are written to files that end in .csv, .jsonl or .parquet")
    return writers[path.suffix.lower()]


@contextmanager
def _parquet_writer(path: Path) -> Iterator[Callable[[pa.Table], None]]:
    with pq.ParquetWriter(path, SCHEMA) as writer:
        yield writer.write_table


@contextmanager
def _csv_writer(path: Path) -> Iterator[Callable[[pa.Table], None]]:
    with pa.csv.CSVWriter(path, SCHEMA, write_options=pa.csv.WriteOptions(quoting_style="needed")) as writer:
        yield writer.write_table


@contextmanager
def _jsonl_writer(path: Path) -> Iterator[Callable[[pa.Table], None]]:
    with path.open("w", encoding="utf-8") as file:
        yield lambda table: file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in _rows(table))


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for row in table.to_pylist():
        yield {**row, "score": float(str(np.float32(row["score"])))}  # the shortest digits of a float32


def _to_table(users: Sequence[str], ids_UK: NDArray[np.str_], scores_UK: NDArray[np.float32]) -> pa.Table:
    there_UK = ids_UK != ""
    places = np.broadcast_to(np.arange(1, ids_UK.shape[1] + 1, dtype=np.int32), ids_UK.shape)
    owners = np.repeat(np.arange(len(users)), there_UK.sum(1))
    columns = [
        pa.array(users, pa.string()).take(pa.array(owners)),
        places[there_UK],
        pa.array(ids_UK[there_UK], pa.string()),
        scores_UK[there_UK],
    ]
    return pa.table(columns, schema=SCHEMA)
