"""Interactions of users with items: made from columns, read from files, written again, and aligned with a catalog."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmrec.errors import InteractionError, LeakError
from mmrec.evaluation.interaction_files import read_columns

if TYPE_CHECKING:
    import scipy.sparse as sp

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Interactions:
    """N interactions of U users with I items, each pair at most once.

    `user_rows` and `item_rows` `(N,)` index `user_ids` and `item_ids`, which may name more users and items than occur.
    `weights` `(N,)` are above 0 for an interaction that counts, 0 for what was seen and not liked, below 0 for negative
    feedback. `timestamps` `(N,)` are seconds since 1970, or None where they are not known.

    >>> from mmrec.evaluation import read_interactions
    >>> interactions = read_interactions("interactions.csv")
    >>> interactions
    Interactions(24 users, 16 items, 96 interactions, with timestamps)
    >>> interactions.matrix().shape
    (24, 16)
    >>> interactions.user_degrees().max()
    np.int64(4)
    """

    user_ids: tuple[str, ...]
    item_ids: tuple[str, ...]
    user_rows: Rows
    item_rows: Rows
    weights: NDArray[np.float32]
    timestamps: NDArray[np.float64] | None = None

    def __repr__(self) -> str:
        times = "without" if self.timestamps is None else "with"
        sizes = f"{len(self.user_ids)} users, {len(self.item_ids)} items, {len(self)} interactions"
        return f"Interactions({sizes}, {times} timestamps)"

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

    A pair that occurs more than once becomes one interaction: it stands where the pair occurred last, by time and,
    where times are equal or not known, by row; its weight is the sum. A weight above 0 counts, 0 says seen and not
    liked, below 0 is negative feedback. Timestamps are seconds, or dates and times in ISO 8601 (UTC where they name no
    zone), in any of the formats; numbers in milliseconds, microseconds or nanoseconds are recognised by their size,
    with a warning.

    Args:
        path: a `.csv`, `.jsonl` or `.parquet` file, or a folder of Parquet parts. Ids are taken as text: `007` stays
            `007`.
        item_ids: the catalog, in the order its rows shall have; without it, the items that occur.
        user_ids: users that come first in the id map, as those of a fitted model; others follow.
        unknown_items: what to do with interactions whose item is not in `item_ids`.

    Raises:
        InteractionError: for a file that cannot be read, missing columns, unknown items, or a file without
            interactions; and, with the row and the value, for ids that are missing, weights that are no finite numbers,
            and timestamps that are neither numbers nor dates.

    >>> import mmrec
    >>> from mmrec.evaluation import read_interactions
    >>> item_ids = [item.item_id for item in mmrec.read_catalog("catalog.csv").items()]
    >>> read_interactions("interactions.csv", item_ids=item_ids)
    Interactions(24 users, 16 items, 96 interactions, with timestamps)
    """
    columns = read_columns(path)
    return make_interactions(
        columns.user_ids,
        columns.item_ids,
        timestamps=columns.timestamps,
        weights=columns.weights,
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
    """Interactions from columns of equal length; arguments and errors as `read_interactions`.

    >>> import numpy as np
    >>> from mmrec.evaluation import make_interactions
    >>> make_interactions(["u1", "u1", "u2"], ["rain", "wind", "rain"], weights=np.array([1.0, 0.2, 0.9]))
    Interactions(2 users, 2 items, 3 interactions, without timestamps)
    """
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


def check_sources(*sources: InteractionSource | None) -> None:
    """Raises `InteractionError` for a file that is not there, long before it would be read.

    >>> from mmrec.evaluation import check_sources
    >>> check_sources("interactions.csv", None)
    """
    for source in sources:
        if isinstance(source, str | os.PathLike) and not os.path.exists(source):
            raise InteractionError(f"there is no file {os.fspath(source)}")


def read_catalog_interactions(source: InteractionSource, item_ids: Sequence[str]) -> Interactions:
    """Interactions with these items; `InteractionError` where others are named.

    >>> import mmrec
    >>> from mmrec.evaluation import read_catalog_interactions
    >>> ids, _ = mmrec.FeatureStore("store").vectors("text")
    >>> interactions = read_catalog_interactions("interactions.csv", ids)
    >>> list(interactions.item_ids) == ids
    True
    """
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
    """Writes `user_id`, `item_id`, `weight` and, where known, `timestamp` as `.csv` or `.parquet`.

    >>> from mmrec.evaluation import read_interactions, write_interactions
    >>> write_interactions(read_interactions("interactions.csv"), "interactions.parquet")
    >>> read_interactions("interactions.parquet")
    Interactions(24 users, 16 items, 96 interactions, with timestamps)
    """
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
    """The same interactions under other id maps; users and items missing from the maps are appended.

    >>> from mmrec.evaluation import align, make_interactions
    >>> interactions = make_interactions(["u2", "u1"], ["rain", "wind"])
    >>> align(interactions, user_ids=["u1", "u2"], item_ids=["fog", "wind"]).item_ids
    ('fog', 'wind', 'rain')
    """
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
    """Raises `LeakError`, saying how many, where held-out interactions are present in training.

    >>> from mmrec.evaluation import check_no_leak, read_interactions
    >>> train = read_interactions("interactions.csv")
    >>> check_no_leak(train, read_interactions("validation.csv"))
    >>> check_no_leak(train, train)
    Traceback (most recent call last):
    mmrec.errors.LeakError: 96 of 96 held-out interactions are present in training, ...
    """
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


def _check_numbers(timestamps: NDArray[np.float64] | None, weights: NDArray[np.float64] | None, source: str) -> None:
    if timestamps is not None and not np.isfinite(timestamps).all():
        row = int((~np.isfinite(timestamps)).argmax()) + 1
        raise InteractionError(f"{source}: interaction {row} has no finite timestamp; give one to all or to none")
    if weights is not None:
        bad_N = ~np.isfinite(weights)
        if bad_N.any():
            row = int(bad_N.argmax())
            raise InteractionError(
                f"{source}: {int(bad_N.sum())} weights are no finite numbers, "
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
    """Each pair once: where it occurred last, with the sum of its weights."""
    pairs_N = interactions.user_rows * len(interactions.item_ids) + interactions.item_rows
    order_N = np.argsort(interactions.order(), kind="stable")
    _, last, group_N = np.unique(pairs_N[order_N][::-1], return_index=True, return_inverse=True)
    kept = order_N[len(order_N) - 1 - last]
    weights = np.bincount(group_N, interactions.weights[order_N][::-1])
    by_row = np.argsort(kept)
    merged = interactions.select(kept[by_row])
    return replace(merged, weights=weights[by_row].astype(np.float32))
