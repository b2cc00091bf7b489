"""Parquet: a file, or a folder of parts as Spark, Dask and pandas write it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from mmrec.remote import Place, Url, open_named
from mmrec.tables.paths import is_folder, walk_files

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BATCH_ROWS = 1024
BATCH_BYTES = 8 * 2**20

_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


def list_parts(path: Place) -> list[Place]:
    """The Parquet files of a table, in the order of their names; `_SUCCESS`, `_metadata` and hidden files are none."""
    if not is_folder(path):
        return [path]
    return [part for part in walk_files(path) if part.suffix.lower() == ".parquet" and _is_data(below(part, path))]


def below(part: Place, folder: Place) -> PurePath:
    """The path from a folder to a file in it."""
    if isinstance(part, Url):
        assert isinstance(folder, Url)
        return part.relative_to(folder)
    return part.relative_to(folder)


def source(place: Place) -> Any:
    """What Arrow reads a file from."""
    return place if isinstance(place, Path) else open_named(place)


def _is_data(name: PurePath) -> bool:
    return not any(step.startswith((".", "_")) for step in name.parts)


def partition_values(part: Place, root: Place) -> dict[str, str | None]:
    """What the folders `column=value` between the root and a part say, as text: `007` stays `007`.

    >>> from pathlib import Path, PurePath
    >>> partition_values(Path("c.parquet/year=2001/genre=sci%2Dfi/part-0.parquet"), Path("c.parquet"))
    {'year': '2001', 'genre': 'sci-fi'}
    """
    steps = [step.partition("=") for step in below(part, root).parts[:-1] if "=" in step]
    return {unquote(name): None if value == _NO_VALUE else unquote(value) for name, _, value in steps}


def count_rows(part: Place) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(source(part)).num_rows)


def part_rows(file: pq.ParquetFile, columns: Sequence[str]) -> Iterator[list[Any]]:
    """The values of these columns, row by row, with only so many rows in memory as take a few MB."""
    metadata = file.metadata
    num_bytes = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    batch_rows = min(BATCH_ROWS, max(1, BATCH_BYTES * metadata.num_rows // max(1, num_bytes)))
    for batch in file.iter_batches(batch_size=batch_rows, columns=columns):
        values = [_to_python(batch.column(name)) for name in columns]
        yield from map(list, zip(*values, strict=True))


def _to_python(column: pa.Array) -> list[Any]:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_float32(kind):
        column = column.cast(pa.string()).cast(pa.float64())  # 4.1, not 4.099999904632568
    elif pa.types.is_timestamp(kind) and kind.unit == "ns":  # Python knows no nanoseconds
        column = column.cast(pa.timestamp("us", kind.tz), safe=False)
    elif pa.types.is_time64(kind):
        column = column.cast(pa.time64("us"), safe=False)
    elif pa.types.is_duration(kind):
        column = column.cast(pa.duration("us"), safe=False)
    values: list[Any] = column.to_pylist()
    return values
