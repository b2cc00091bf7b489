"""Recommendations as files: CSV, JSONL or Parquet, by the suffix."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mmrec.errors import ModelError

if TYPE_CHECKING:
    from mmrec.recommending import Recommender

COLUMNS = ("user_id", "rank", "item_id", "score")

Rows = Iterator[tuple[str, int, str, float]]


def check_suffix(path: Path) -> None:
    """Raises `ModelError` for a file that would be of no known kind."""
    if path.suffix.lower() not in (*_TEXT_WRITERS, ".parquet"):
        raise ModelError(f"{path}: recommendations are written to files that end in .csv, .jsonl or .parquet")


def write_file(
    model: Recommender, users: Sequence[str], path: Path, *, on_users: Callable[[int], None], **options: Any
) -> None:
    """Write `user_id, rank, item_id, score`; the file appears when it is complete.

    `on_users` is called with the number of users done; options as `Recommender.recommend`.
    """
    from mmrec.recommending import write_recommendations

    write = _TEXT_WRITERS.get(path.suffix.lower())
    if write is None:
        write_recommendations(model, users, path, on_users=on_users, **options)
        return
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "w", encoding="utf-8", newline="") as file:
            write(file, _rows(model, users, on_users, options))
        os.replace(partial, path)
    except OSError as error:
        raise ModelError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)


def _rows(model: Recommender, users: Sequence[str], on_users: Callable[[int], None], options: dict[str, Any]) -> Rows:
    from mmrec.recommending import recommend_in_blocks

    done = 0
    for block, ids_UK, scores_UK in recommend_in_blocks(model, users, **options):
        for user, ids, scores in zip(block, ids_UK, scores_UK, strict=True):
            for rank, (item_id, score) in enumerate(zip(ids, scores, strict=True), start=1):
                if item_id:
                    yield user, rank, str(item_id), float(str(score))  # the shortest digits of a float32
        done += len(block)
        on_users(done)


def _write_csv(file: IO[str], rows: Rows) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)


def _write_jsonl(file: IO[str], rows: Rows) -> None:
    for row in rows:
        file.write(json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=False) + "\n")


_TEXT_WRITERS: dict[str, Callable[[IO[str], Rows], None]] = {".csv": _write_csv, ".jsonl": _write_jsonl}
