"""Catalogs: manifests in CSV, JSONL or Parquet, or a folder of media files, read as a stream of items."""

from __future__ import annotations

import csv
import json
import os
import re
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmrec.errors import CatalogError, Problem, Reason

MEDIA_SUFFIXES = frozenset(
    "3g2 3gp aac ac3 aif aiff amr apng avi avif bmp caf flac flv gif heic jpeg jpg jxl m2ts m4a m4v mka mkv mov mp2 "
    "mp3 mp4 mpeg mpg mts mxf oga ogg ogv opus png tif tiff ts vob wav weba webm webp wma wmv wv".split()
)
TEXT_COLUMNS = ("title", "description", "language")
MAX_FIELD_CHARACTERS = 16 * 2**20

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One row of a catalog.

    `media` is None where the row names no file. `problem` is set where the row names one that may not be opened; the
    item still goes through the job, so that its text is embedded and its failure recorded.

    >>> import mmrec
    >>> item = next(mmrec.read_catalog("catalog.csv").items())
    >>> item
    Item('piano-0', title 'Slow piano a...ight, part 1', description of 47 characters, 3 tags, language 'en')
    >>> item.tags, item.metadata
    (('music', 'piano', 'calm'), {'kind': 'piano'})
    """

    item_id: str
    media: Path | None = None
    title: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    language: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    problem: Problem | None = None

    def __repr__(self) -> str:
        parts = [
            self.media and f"media {os.path.basename(self.media)!r}",
            self.title and f"title {reprlib.repr(self.title)}",
            self.description and f"description of {len(self.description)} characters",
            self.tags and f"{len(self.tags)} tags",
            self.language and f"language {reprlib.repr(self.language)}",
            self.problem and self.problem.reason,
        ]
        return f"Item({', '.join([repr(self.item_id), *(part for part in parts if part)])})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """A validated manifest: `items()` streams it; it is never held in memory whole.

    Build one with `read_catalog`.

    >>> import mmrec
    >>> catalog = mmrec.read_catalog("catalog.csv")
    >>> catalog
    Catalog('catalog.csv', 16 items)
    >>> [item.item_id for item in catalog.items() if item.media is not None]
    ['rain-0', 'football-0']
    """

    path: Path
    media_root: Path | None
    num_items: int
    state: tuple[int, ...]

    def __repr__(self) -> str:
        return f"Catalog({str(self.path)!r}, {self.num_items} items)"

    def items(self) -> Iterator[Item]:
        """The items in the order of the manifest."""
        is_folder = self.path.is_dir()
        folder = self.path if is_folder else self.path.parent
        for _, values in _read_rows(self.path):
            yield _to_item(values, folder, self.media_root, keep_surrogates=is_folder)

    def check_unchanged(self) -> None:
        """Raises `CatalogError` if the manifest changed since it was validated."""
        if _state(self.path) != self.state:
            raise CatalogError(
                f"{self.path} changed while it was read: run the same command again to take up the changes"
            )


def read_catalog(path: str | os.PathLike[str], *, media_root: str | os.PathLike[str] | None = None) -> Catalog:
    """Validate a manifest (`.csv`, `.jsonl`, `.parquet`) or a folder of media files, in one streaming pass.

    Relative media paths are relative to the manifest and may not leave its folder; absolute ones are taken as given.
    With `media_root`, every file must lie below that folder after links are resolved. In a folder, each media file
    is an item whose id is its path relative to the folder.

    Raises `CatalogError` naming the row for anything that makes the manifest ambiguous or unreadable: an empty or
    repeated `item_id`, a missing column, bytes that are not UTF-8, a line that does not parse. A catalog without any
    item is refused as well: it is more likely lost than empty.

    >>> import mmrec
    >>> mmrec.read_catalog("catalog.csv").num_items
    16
    >>> [item.item_id for item in mmrec.read_catalog("media").items()]
    ['football-0.mp4', 'rain-0.wav']
    """
    path = Path(path)
    root = None
    if media_root is not None:
        root = Path(media_root).resolve()
        if not root.is_dir():
            raise CatalogError(f"media root {root} is not a folder: name the folder that all media must lie in")
    state = _state(path)
    rows_by_id: dict[int, int] = {}
    num_items = 0
    for row, values in _read_rows(path):
        num_items += 1
        item_id = values["item_id"]
        first = rows_by_id.setdefault(hash(item_id), row)
        if first != row:
            raise CatalogError(
                f"{path}, row {row}: item_id {item_id!r} stands already in row {first}: ids must be unique"
            )
    if not num_items:
        wanted = "a media file" if path.is_dir() else "a row"
        raise CatalogError(f"{path} has no items: expected at least {wanted}; is it whole, and is its disk mounted?")
    return Catalog(path=path, media_root=root, num_items=num_items, state=state)


def _state(path: Path) -> tuple[int, ...]:
    """What changes when the manifest is written anew; a folder of media may grow while it is read."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        raise CatalogError(f"there is no catalog at {path}") from None
    return () if path.is_dir() else (stat.st_ino, stat.st_size, stat.st_mtime_ns)


def _read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row number as a person would count it, values) with a checked `item_id` in each row."""
    if path.is_dir():
        yield from _read_folder(path)
        return
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".ndjson": _read_jsonl, ".parquet": _read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise CatalogError(f"{path}: a catalog is a folder or a file that ends in {', '.join(readers)}")
    try:
        for row, values in reader(path):
            yield row, {**values, "item_id": _check_item_id(values, path, row)}
    except OSError as error:
        raise CatalogError(f"{path} cannot be read: {error.strerror or error}") from error


def _check_item_id(values: Mapping[str, Any], path: Path, row: int) -> str:
    if "item_id" not in values:
        raise CatalogError(
            f"{path}, row {row}: there is no item_id; a catalog needs that column, found {', '.join(map(repr, values))}"
        )
    value = values["item_id"]
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        raise CatalogError(f"{path}, row {row}: item_id {value!r} is neither text nor a whole number")
    item_id = "" if value is None else str(value)
    if not item_id.strip():
        raise CatalogError(f"{path}, row {row}: item_id is empty")
    try:
        item_id.encode()
    except UnicodeEncodeError:
        raise CatalogError(f"{path}, row {row}: item_id {item_id!r} is not valid Unicode") from None
    return item_id


def _read_csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    previous_limit = csv.field_size_limit(MAX_FIELD_CHARACTERS)
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        row = 1
        try:
            header = next(reader, None)
            if header is None:
                raise CatalogError(f"{path} is empty: expected a header row with item_id")
            _check_header(header, path)
            for row, cells in enumerate(reader, start=2):
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise CatalogError(
                        f"{path}, row {row}: {len(cells)} cells, but the header has {len(header)}: "
                        "quote the cells that hold commas"
                    )
                yield row, dict(zip(header, cells, strict=True))
        except UnicodeDecodeError as error:
            raise CatalogError(f"{path}, after row {row}: not UTF-8 ({error.reason}): save the file as UTF-8") from None
        except csv.Error as error:
            raise CatalogError(f"{path}, after row {row}: not CSV ({error})") from None
        finally:
            csv.field_size_limit(previous_limit)


def _check_header(header: list[str], path: Path) -> None:
    if "item_id" not in header:
        raise CatalogError(f"{path}: there is no column item_id; found {', '.join(map(repr, header))}")
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise CatalogError(f"{path}: the header names {', '.join(map(repr, repeated))} more than once")


def _read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open(path, "rb") as file:
        for row, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                values = json.loads(line.decode("utf-8-sig" if row == 1 else "utf-8"))
            except UnicodeDecodeError as error:
                raise CatalogError(f"{path}, row {row}: not UTF-8 ({error.reason}): save the file as UTF-8") from None
            except (ValueError, RecursionError) as error:
                raise CatalogError(f"{path}, row {row}: not JSON ({error}): expected one object a line") from None
            if not isinstance(values, dict):
                raise CatalogError(f"{path}, row {row}: expected a JSON object, found {type(values).__name__}")
            yield row, values


def _read_parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _check_header(file.schema_arrow.names, path)
            row = 0
            for batch in file.iter_batches(batch_size=1024):
                for values in batch.to_pylist():
                    row += 1
                    yield row, values
    except pa.ArrowException as error:
        raise CatalogError(f"{path} is not a readable Parquet file: {error}") from error


def _read_folder(folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    row = 0
    for parent, folders, files in os.walk(folder, onerror=_refuse):
        folders.sort()
        for name in sorted(files):
            if os.path.splitext(name)[1][1:].lower() in MEDIA_SUFFIXES:
                row += 1
                relative = os.path.relpath(os.path.join(parent, name), folder).replace(os.sep, "/")
                item_id = os.fsencode(relative).decode("utf-8", "backslashreplace")
                yield row, {"item_id": item_id, "media": relative}


def _refuse(error: OSError) -> None:
    raise CatalogError(f"{error.filename} cannot be read: {error.strerror}") from error


def _to_item(values: Mapping[str, Any], folder: Path, media_root: Path | None, *, keep_surrogates: bool) -> Item:
    texts = {column: _to_text(values.get(column)) for column in TEXT_COLUMNS}
    tags = _to_tags(values.get("tags"))
    media_name = _to_text(values.get("media"), keep_surrogates=keep_surrogates)
    media, problem = _resolve_media(media_name, folder, media_root)
    if not media_name and not tags and not texts["title"].strip() and not texts["description"].strip():
        problem = Problem(Reason.NO_CONTENT, "the row has neither media nor text")
    known = {"item_id", "media", "tags", *TEXT_COLUMNS}
    metadata = {_to_text(k): _to_text(v) for k, v in values.items() if k not in known and v is not None and v != ""}
    return Item(item_id=values["item_id"], media=media, tags=tags, metadata=metadata, problem=problem, **texts)


def _to_text(value: Any, *, keep_surrogates: bool = False) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if keep_surrogates else text.encode("utf-8", "replace").decode("utf-8")


def _to_tags(value: Any) -> tuple[str, ...]:
    parts = value if isinstance(value, list | tuple) else _to_text(value).split("|")
    return tuple(tag for tag in (_to_text(part).strip() for part in parts) if tag)


def _resolve_media(name: str, folder: Path, media_root: Path | None) -> tuple[Path | None, Problem | None]:
    if not name.strip():
        return None, None
    if _URL.match(name):
        return None, Problem(
            Reason.FORBIDDEN_PATH, f"{name!r} is a URL; only local files are opened: download it first"
        )
    if "\0" in name:
        return None, Problem(Reason.FORBIDDEN_PATH, f"{name!r} holds a NUL character")
    path = Path(name)
    if not path.is_absolute():
        path = Path(os.path.abspath(folder / name))
        if not path.is_relative_to(os.path.abspath(folder)):
            return None, Problem(Reason.FORBIDDEN_PATH, f"{name!r} leaves the catalog's folder; use an absolute path")
    if media_root is not None:
        try:
            path = path.resolve()
        except (OSError, RuntimeError) as error:
            return None, Problem(Reason.FORBIDDEN_PATH, f"{name!r} cannot be resolved: {error}")
        if not path.is_relative_to(media_root):
            return None, Problem(Reason.FORBIDDEN_PATH, f"{name!r} lies outside the media root")
    return path, None
