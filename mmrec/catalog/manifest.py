"""Catalogs: manifests in CSV, JSONL or Parquet, or a folder of media files, read as a stream of items."""

from __future__ import annotations

import logging
import os
import reprlib
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from mmrec.catalog.folders import folder_rows, is_media_folder, passed_over
from mmrec.catalog.media_paths import resolve_media
from mmrec.errors import CatalogError, Problem, Reason, RemoteError
from mmrec.remote import Access, Place, to_place
from mmrec.tables import SUFFIXES, Table, is_folder, is_missing, to_text

logger = logging.getLogger(__name__)

TEXT_COLUMNS = ("title", "description", "language")
KNOWN_COLUMNS = ("item_id", "media", "tags", *TEXT_COLUMNS)


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
    media: Place | None = None
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

    path: Place
    media_root: Place | None
    num_items: int
    state: tuple[int, ...]
    access: Access = field(default_factory=Access)

    def __repr__(self) -> str:
        return f"Catalog({str(self.path)!r}, {self.num_items} items)"

    def items(self) -> Iterator[Item]:
        """The items in the order of the manifest."""
        if is_media_folder(self.path):
            for _, values in folder_rows(self.path):
                yield self._to_item(values["item_id"], values, self.path, keep_surrogates=True)
            return
        table = _table(self.path)
        for row, values in table.rows():
            item_id = _check_item_id(values["item_id"], table, row)
            yield self._to_item(item_id, values, self.path.parent, keep_surrogates=False)

    def item_ids(self) -> Iterator[str]:
        """The ids alone, in the same order."""
        if is_media_folder(self.path):
            yield from (values["item_id"] for _, values in folder_rows(self.path))
            return
        table = _table(self.path)
        yield from (_check_item_id(values["item_id"], table, row) for row, values in table.rows())

    def _to_item(self, item_id: str, values: Mapping[str, Any], folder: Place, *, keep_surrogates: bool) -> Item:
        media_name = to_text(values.get("media")) if keep_surrogates else _to_valid(values.get("media"))
        media, problem = resolve_media(media_name, folder, self.media_root, self.access)
        item = _to_item(item_id, values, media, problem)
        if not media_name and not item.tags and not item.title.strip() and not item.description.strip():
            return replace(item, problem=Problem(Reason.NO_CONTENT, "the row has neither media nor text"))
        return item

    def check_unchanged(self) -> None:
        """Raises `CatalogError` if the manifest changed since it was validated."""
        if _state(self.path) != self.state:
            raise CatalogError(
                f"{self.path} changed while it was read: run the same command again to take up the changes"
            )


def read_catalog(
    path: str | os.PathLike[str],
    *,
    media_root: str | os.PathLike[str] | None = None,
    access: Access | None = None,
) -> Catalog:
    """Validate a manifest (`.csv`, `.jsonl`, `.parquet`) or a folder of media files, in one streaming pass.

    The manifest, the folder and the media may be URLs: `s3://`, `gs://`, `az://`, and of files `https://`; media by
    `https` only from the hosts of `access`. Relative media paths are relative to the manifest and may not leave its
    folder; absolute ones are taken as given, but for those of this machine in a manifest at a URL. With `media_root`,
    every file must lie below that folder after links are resolved. In a folder, each media file is an item whose id is
    its path relative to the folder.

    Raises `CatalogError` naming the row for anything that makes the manifest ambiguous or unreadable: an empty or
    repeated `item_id`, a missing column, bytes that are not UTF-8, a line that does not parse. A catalog without any
    item is refused as well: it is more likely lost than empty.

    >>> import mmrec
    >>> mmrec.read_catalog("catalog.csv").num_items
    16
    >>> [item.item_id for item in mmrec.read_catalog("media").items()]
    ['football-0.mp4', 'rain-0.wav']
    """
    place = to_place(path, CatalogError)
    root = None if media_root is None else to_place(media_root, CatalogError)
    if isinstance(root, Path):
        root = root.resolve()
        if not root.is_dir():
            raise CatalogError(f"media root {root} is not a folder: name the folder that all media must lie in")
    try:
        state = _state(place)
        num_items = _count_folder(place) if is_media_folder(place) else _check_table(place)
    except RemoteError as error:
        raise CatalogError(str(error)) from error
    return Catalog(path=place, media_root=root, num_items=num_items, state=state, access=access or Access())


def _count_folder(path: Place) -> int:
    num_items = sum(1 for _ in folder_rows(path))
    others = passed_over(path)
    if not num_items:
        found = f"passed over {others}" if others else "is it whole, and is its disk mounted?"
        raise CatalogError(f"{path} has no items: expected at least a media file; {found}")
    if others:
        logger.warning("%s: passed over %s", path, others)
    return num_items


def _check_table(path: Place) -> int:
    """The number of rows, all of them with an id of their own."""
    table = _table(path)
    hashes = array("q", (hash(_check_item_id(values["item_id"], table, row)) for row, values in table.rows()))
    if not hashes:
        raise CatalogError(f"{path} has no items: expected at least a row; is it whole, and is its disk mounted?")
    if repeated := _repeated(hashes):
        _refuse_repeated(table, repeated)
    table.warn_of_renamed()
    return len(hashes)


def _repeated(hashes: array[int]) -> set[int]:
    """The numbers that stand more than once."""
    ordered = np.sort(np.frombuffer(hashes, np.int64))
    return set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())


def _refuse_repeated(table: Table, hashes: set[int]) -> None:
    """Raises `CatalogError` for the first row whose id, of one of these hashes, stood before."""
    rows_by_id: dict[str, int] = {}
    for row, values in table.rows():
        item_id = _check_item_id(values["item_id"], table, row)
        first = rows_by_id.setdefault(item_id, row) if hash(item_id) in hashes else row
        if first != row:
            here, before = table.where(row), table.where(first).removeprefix(f"{table.path}, ")
            raise CatalogError(f"{here}: item_id {item_id!r} stands already in {before}: ids must be unique")


def _state(path: Place) -> tuple[int, ...]:
    """What changes when the manifest is written anew; a folder of media may grow while it is read."""
    is_there = path.exists() if isinstance(path, Path) else path.suffix.lower() in SUFFIXES or is_folder(path)
    if not is_there:
        raise CatalogError(f"there is no catalog at {path}")
    return () if is_media_folder(path) else _table(path).state()


def _table(path: Place) -> Table:
    return Table(path, known=KNOWN_COLUMNS, required=["item_id"], others=True, error=CatalogError)


def _check_item_id(value: Any, table: Table, row: int) -> str:
    if isinstance(value, Decimal) and value == value.to_integral_value():
        value = int(value)
    item_id = to_text(value)
    if isinstance(value, bool) or not (is_missing(value) or isinstance(value, str | int | bytes)):
        raise CatalogError(f"{table.where(row)}: item_id {value!r} is neither text nor a whole number")
    if not item_id.strip():
        raise CatalogError(f"{table.where(row)}: item_id is empty")
    try:
        item_id.encode()
    except UnicodeEncodeError:
        raise CatalogError(f"{table.where(row)}: item_id {item_id!r} is not valid Unicode") from None
    return item_id


def _to_item(item_id: str, values: Mapping[str, Any], media: Place | None, problem: Problem | None) -> Item:
    title, description, language = (_to_valid(values.get(column)) for column in TEXT_COLUMNS)
    others = {_to_valid(name): _to_valid(value) for name, value in values.items() if name not in KNOWN_COLUMNS}
    metadata = {name: text for name, text in others.items() if text}
    return Item(
        item_id=item_id,
        title=title,
        description=description,
        tags=_to_tags(values.get("tags")),
        language=language,
        metadata=metadata,
        media=media,
        problem=problem,
    )


def _to_valid(value: Any) -> str:
    """A value in words that can be written as UTF-8: JSON can hold halves of characters."""
    text = to_text(value)
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _to_tags(value: Any) -> tuple[str, ...]:
    parts = value if isinstance(value, list | tuple) else _to_valid(value).split("|")
    return tuple(tag for tag in (_to_valid(part).strip() for part in parts) if tag)
