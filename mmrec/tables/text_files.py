"""Text files in UTF-8, or in UTF-16 with its mark: lines, rows of CSV, rows of JSON lines."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from mmrec.errors import MMRecError
from mmrec.remote import Place, open_named

MAX_CELL_CHARACTERS = 64 * 2**20
"""A longer cell is a quote that was left open."""

_START_BYTES = 1024


def encoding_of(path: Place, error: type[MMRecError]) -> str:
    """`utf-8-sig` or `utf-16`, by how the file begins; raises `error` for what is clearly neither."""
    with open_named(path) as file:
        start = file.read(_START_BYTES)
    is_utf32 = start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE))
    if not is_utf32 and start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if is_utf32 or b"\0" in start:
        raise error(f"{path}: not UTF-8 (it has zero bytes, as UTF-16 and UTF-32 do): save the file as UTF-8")
    return "utf-8-sig"


def not_text(path: Place, row: str, error: type[MMRecError], cause: UnicodeDecodeError) -> MMRecError:
    encoding = "UTF-16" if cause.encoding.startswith("utf-16") else "UTF-8"
    return error(f"{path}, {row}: not {encoding} ({cause.reason}): save the file as UTF-8")


def read_lines(path: Place, error: type[MMRecError]) -> Iterator[tuple[int, str]]:
    """(number from 1, line without its end) of each line that is not blank, whether it ends as on Windows or not.

    >>> from pathlib import Path
    >>> from mmrec.errors import ModelError
    >>> from mmrec.tables import read_lines
    >>> _ = Path("users.txt").write_bytes(b"\\xef\\xbb\\xbfuser00\\r\\n\\r\\nuser01\\r\\n")
    >>> list(read_lines(Path("users.txt"), ModelError))
    [(1, 'user00'), (3, 'user01')]
    """
    number = 0
    try:
        for number, line in enumerate(_decoded_lines(path, encoding_of(path, error)), start=1):
            if line.strip():
                yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as cause:
        raise not_text(path, f"row {number + 1}", error, cause) from None


def _decoded_lines(path: Place, encoding: str) -> Iterator[str]:
    if encoding == "utf-16":
        with io.TextIOWrapper(open_named(path), encoding=encoding, newline="\n") as file:
            yield from file
        return
    with open_named(path) as data:  # line by line, to know which cannot be decoded
        for line in data:
            yield line.decode(encoding)
            encoding = "utf-8"


def json_rows(path: Place, error: type[MMRecError]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row from 1, object) of each line that is not blank."""
    for row, line in read_lines(path, error):
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as cause:
            raise error(f"{path}, row {row}: not JSON ({cause}): expected one object a line") from None
        if not isinstance(values, dict):
            raise error(f"{path}, row {row}: expected a JSON object, found {type(values).__name__}")
        yield row, values


def csv_header(path: Place, error: type[MMRecError]) -> list[str]:
    """The names in the first row, whatever bytes follow it."""
    return next(csv_rows(path, error, errors="surrogateescape"))[1]


def csv_rows(path: Place, error: type[MMRecError], *, errors: str = "strict") -> Iterator[tuple[int, list[str]]]:
    """(row from 1, cells) of each row that is not blank; the first is the header.

    Where the names in the header follow the commas after a blank, so do the cells. `errors` as of `open`.
    """
    encoding = encoding_of(path, error)
    csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL_CHARACTERS))
    with io.TextIOWrapper(open_named(path), encoding=encoding, errors=errors, newline="") as file:
        row = 0
        try:
            reader = csv.reader(file, strict=True)
            header = next(reader, None)
            if header is None:
                raise error(f"{path} is empty: expected a header row")
            row = 1
            yield row, header
            reader = csv.reader(file, strict=True, skipinitialspace=is_spaced(header))
            for row, cells in enumerate(reader, start=2):
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise error(
                        f"{path}, row {row}: {len(cells)} cells, but the header has {len(header)}: "
                        "quote the cells that hold commas"
                    )
                yield row, cells
        except UnicodeDecodeError as cause:
            raise not_text(path, f"after row {row}", error, cause) from None
        except csv.Error as cause:
            raise error(f"{path}, after row {row}: not CSV ({cause})") from None


def is_spaced(header: list[str]) -> bool:
    """Whether a header is written `user_id, item_id`."""
    return len(header) > 1 and all(name.startswith(" ") for name in header[1:])
