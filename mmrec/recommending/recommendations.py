"""Recommendations for any number of users, written to one Parquet file as they are made.

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

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmrec.errors import ModelError
from mmrec.recommending.recommender import Recommender

USERS_AT_ONCE = 4096
SCHEMA = pa.schema([("user_id", pa.string()), ("rank", pa.int32()), ("item_id", pa.string()), ("score", pa.float32())])


def recommend_in_blocks(
    model: Recommender, users: Sequence[str], **options: Any
) -> Iterator[tuple[Sequence[str], NDArray[np.str_], NDArray[np.float32]]]:
    """Blocks of users with their ids and scores `(U, K)`; options as `Recommender.recommend`."""
    for start in range(0, len(users), USERS_AT_ONCE):
        block = users[start : start + USERS_AT_ONCE]
        yield block, *model.recommend(block, **options)


def write_recommendations(
    model: Recommender,
    users: Sequence[str],
    path: str | os.PathLike[str],
    *,
    on_users: Callable[[int], None] = lambda count: None,
    **options: Any,
) -> None:
    """Write `user_id, rank, item_id, score`, best first, ranks from 1; options as `Recommender.recommend`.

    The file appears when it is complete. `on_users` is called with the number of users done after each block.

    Raises `ModelError` where the file cannot be written.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    done = 0
    try:
        with pq.ParquetWriter(partial, SCHEMA) as writer:
            for block, ids_UK, scores_UK in recommend_in_blocks(model, users, **options):
                writer.write_table(_to_table(block, ids_UK, scores_UK))
                done += len(block)
                on_users(done)
        os.replace(partial, path)
    except OSError as error:
        raise ModelError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)


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
