"""Writers of manifests, and what is read from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmrec.catalog.manifest import Item, read_catalog


def write_csv(path: Path, rows: Sequence[Mapping[str, str]], *, encoding: str = "utf-8") -> Path:
    import csv

    with open(path, "w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    return path


def items_of(path: Path, **options: Any) -> list[Item]:
    catalog = read_catalog(path, **options)
    items = list(catalog.items())
    assert catalog.num_items == len(items)
    assert list(catalog.item_ids()) == [item.item_id for item in items]
    return items


def only(path: Path, **options: Any) -> Item:
    (item,) = items_of(path, **options)
    return item


def one_row(folder: Path, **values: str) -> Path:
    return write_csv(folder / "catalog.csv", [{"item_id": "a", **values}])


WRITERS = {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet}
