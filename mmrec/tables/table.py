"""A table in any of the formats: rows as a stream, or a few columns whole."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

from mmrec.errors import MMRecError, RemoteError
from mmrec.remote import Place, state_of, to_place
from mmrec.tables.names import ColumnNames
from mmrec.tables.parquet import count_rows, list_parts, part_rows, partition_values, source
from mmrec.tables.paths import is_folder
from mmrec.tables.text_files import csv_header, csv_rows, encoding_of, is_spaced, json_rows

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

TEXT_SUFFIXES = (".csv", ".jsonl", ".ndjson")
SUFFIXES = (*TEXT_SUFFIXES, ".parquet")
CSV_BLOCK_BYTES = 4 * 2**20

Row = tuple[int, dict[str, Any]]


class Table:
    """A `.csv`, `.jsonl`, `.ndjson` or `.parquet` file, or a folder of Parquet parts.

    Text is UTF-8, with or without its mark, or UTF-16 with it. Columns that are almost named as a known one are taken
    for it. In a folder, files that begin with `_` or `.` are no parts, and folders `column=value` are columns.

    Args:
        path: where it lies; a URL serves as well.
        known: the names of columns that mean something.
        required: those that each row must have.
        others: whether columns of other names are kept.
        error: what is raised, with one line that names the file and the row, for whatever is wrong with it.

    >>> from mmrec.errors import CatalogError
    >>> from mmrec.tables import Table
    >>> table = Table("catalog.csv", known=["item_id", "title"], required=["item_id"], others=False, error=CatalogError)
    >>> next(table.rows())
    (2, {'item_id': 'piano-0', 'title': 'Slow piano at midnight, part 1'})
    >>> table.columns().num_rows
    16
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        known: Sequence[str],
        required: Sequence[str],
        others: bool,
        error: type[MMRecError],
    ) -> None:
        self.path = to_place(path, error)
        self._error = error
        self._names = ColumnNames(known, required=required, others=others, error=error)
        with self._reading():
            self._suffix = ".parquet" if self._is_folder() else self.path.suffix.lower()
        if self._suffix not in SUFFIXES:
            raise error(f"{path}: expected a folder or a file that ends in {', '.join(SUFFIXES)}")

    def _is_folder(self) -> bool:
        return self.path.suffix.lower() not in TEXT_SUFFIXES and is_folder(self.path)

    def rows(self) -> Iterator[Row]:
        """(number of the row, value of each column): rows are counted from 1, with the header of a CSV file.

        Values are text in CSV, and otherwise of the types that they have. In a folder, rows are counted through all
        its parts.
        """
        readers = {".csv": self._csv_rows, ".parquet": self._parquet_rows}
        with self._reading():
            yield from readers.get(self._suffix, self._json_rows)()

    def columns(self) -> pa.Table:
        """The columns as Arrow has them, as text where they are written as text; each row of `rows()` is one row."""
        readers = {".csv": self._csv_columns, ".parquet": self._parquet_columns}
        with self._reading():
            return readers.get(self._suffix, self._collect)()

    def where(self, row: int) -> str:
        """The file and the row of it, for a number of `rows()`."""
        part = self.path
        if self._suffix == ".parquet":
            for part in list_parts(self.path):
                if row <= (num_rows := count_rows(part)):
                    break
                row -= num_rows
        return f"{part}, row {row}"

    def where_record(self, index: int) -> str:
        """The file and the row of it, for an index of `columns()`."""
        if self._suffix == ".parquet":
            return self.where(index + 1)
        return self.where(next(islice(self.rows(), index, None))[0])

    def state(self) -> tuple[int, ...]:
        """What changes when the table is written anew."""
        with self._reading():
            return tuple(number for part in list_parts(self.path) for number in state_of(part))

    def warn_of_renamed(self) -> None:
        """One line about the columns, of those read so far, that were taken for others."""
        if self._names.renamed:
            taken = ", ".join(f"{found!r} for {name}" for found, name in self._names.renamed.items())
            logger.warning("%s: columns are taken by names that are almost theirs: %s", self.path, taken)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        import pyarrow as pa

        try:
            yield
        except pa.ArrowException as error:
            raise self._error(f"{self.path} is not a readable Parquet file: {error}") from error
        except RemoteError as error:
            raise self._error(str(error)) from error
        except OSError as error:
            raise self._error(f"{error.filename or self.path} cannot be read: {error.strerror or error}") from error

    def _json_rows(self) -> Iterator[Row]:
        for row, values in json_rows(self.path, self._error):
            names = self._names.resolve(list(values), f"{self.path}, row {row}")
            yield row, _named(names, values.values())

    def _csv_rows(self) -> Iterator[Row]:
        records = csv_rows(self.path, self._error)
        names = self._names.resolve(next(records)[1], str(self.path))
        for row, cells in records:
            yield row, _named(names, cells)

    def _csv_columns(self) -> pa.Table:
        """By Arrow; where it does not get along with the file, row by row, which reads it or says what is wrong."""
        import pyarrow as pa
        from pyarrow import csv

        header = csv_header(self.path, self._error)
        taken = _taken(header, self._names.resolve(header, str(self.path)))
        if is_spaced(header) or encoding_of(self.path, self._error) == "utf-16":
            return self._collect()
        convert = csv.ConvertOptions(include_columns=list(taken), column_types=dict.fromkeys(taken, pa.string()))
        try:
            table = csv.read_csv(
                source(self.path),
                read_options=csv.ReadOptions(block_size=CSV_BLOCK_BYTES),
                parse_options=csv.ParseOptions(newlines_in_values=True),
                convert_options=convert,
            )
        except (pa.ArrowInvalid, pa.ArrowKeyError):
            return self._collect()
        return table.rename_columns(list(taken.values()))

    def _parquet_rows(self) -> Iterator[Row]:
        import pyarrow.parquet as pq

        row = 0
        for part in self._parts():
            with pq.ParquetFile(source(part)) as file:
                taken, constants = self._part_columns(file.schema_arrow.names, part)
                for cells in part_rows(file, list(taken)):
                    row += 1
                    yield row, {**dict(zip(taken.values(), cells, strict=True)), **constants}

    def _parquet_columns(self) -> pa.Table:
        import pyarrow as pa
        import pyarrow.parquet as pq

        tables = []
        for part in self._parts():
            with pq.ParquetFile(source(part)) as file:
                taken, constants = self._part_columns(file.schema_arrow.names, part)
                table = file.read(columns=list(taken)).select(list(taken)).rename_columns(list(taken.values()))
            for name, value in constants.items():
                table = table.append_column(name, pa.repeat(pa.scalar(value, pa.string()), table.num_rows))
            tables.append(table)
        try:
            return pa.concat_tables(tables, promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise self._error(f"{self.path}: its parts do not fit together: {error}") from None

    def _parts(self) -> list[Place]:
        parts = list_parts(self.path)
        if not parts:
            raise self._error(f"{self.path} is a folder without Parquet files: expected parts such as part-0.parquet")
        return parts

    def _part_columns(self, found: Sequence[str], part: Place) -> tuple[dict[str, str], dict[str, str | None]]:
        """The columns in a part, with the names that they are taken for; and the values that its folders name."""
        folders = {} if part == self.path else partition_values(part, self.path)
        constants = {name: value for name, value in folders.items() if name not in found}
        taken = _taken([*found, *constants], self._names.resolve([*found, *constants], str(part)))
        named = {taken.pop(name): value for name, value in constants.items() if name in taken}
        return taken, named

    def _collect(self) -> pa.Table:
        """The columns of `rows()`."""
        import pyarrow as pa

        columns: dict[str, list[Any]] = {}
        count = 0
        for count, (_, values) in enumerate(self.rows(), start=1):
            for name, value in values.items():
                column = columns.setdefault(name, [])
                column += [None] * (count - 1 - len(column))
                column.append(None if value != value else value)
        for column in columns.values():
            column += [None] * (count - len(column))
        return pa.table({name: self._to_array(name, column) for name, column in columns.items()})

    def _to_array(self, name: str, values: list[Any]) -> pa.Array:
        import pyarrow as pa

        try:
            return pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            for index, value in enumerate(values):
                if isinstance(value, bool) or not isinstance(value, str | int | None):
                    raise self._error(
                        f"{self.where_record(index)}: {name} {value!r} is unlike the values of other rows: expected "
                        "text or numbers, the same in all"
                    ) from None
        return pa.array([None if value is None else str(value) for value in values])


def _taken(found: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    return {column: name for column, name in zip(found, names, strict=True) if name}


def _named(names: Sequence[str], values: Iterable[Any]) -> dict[str, Any]:
    return {name: value for name, value in zip(names, values, strict=True) if name}
