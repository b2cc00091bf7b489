"""Folders as catalogs: each media file below one is a row."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

from mmrec.errors import CatalogError, RemoteError
from mmrec.remote import Place
from mmrec.tables import SUFFIXES, is_folder, walk_files

MEDIA_SUFFIXES = frozenset(
    "3g2 3gp aac ac3 aif aiff amr apng asf avi avif bmp caf divx f4v flac flv gif heic jfif jpe jpeg jpg jxl m2ts m4a "
    "m4b m4v mka mkv mov mp2 mp3 mp4 mpeg mpg mts mxf oga ogg ogv opus png tif tiff ts vob wav weba webm webp wma wmv "
    "wv".split()
)

_SUFFIXES_NAMED = 5


def is_media_folder(path: Place) -> bool:
    """False for a file, and for a folder that is a table: `catalog.parquet`, or one with Parquet parts and no media."""
    if path.suffix.lower() in SUFFIXES or not is_folder(path):
        return False
    has_parts = False
    for file in _walk(path):
        if _is_media(file):
            return True
        has_parts = has_parts or file.suffix.lower() == ".parquet"
    return not has_parts


def folder_rows(folder: Place) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row from 1, id and path): both relative to the folder."""
    media = (file for file in _walk(folder) if _is_media(file))
    for row, file in enumerate(media, start=1):
        relative = os.path.relpath(file, folder).replace(os.sep, "/")  # of URLs as well
        item_id = os.fsencode(relative).decode("utf-8", "backslashreplace")
        yield row, {"item_id": item_id, "media": relative}


def passed_over(folder: Place) -> str:
    """What in a folder is no media: `4 files that are no media: 3 .txt, 1 .srt`; empty where there is nothing."""
    suffixes = Counter(file.suffix.lower() for file in _walk(folder) if not _is_media(file))
    if not suffixes:
        return ""
    kinds = [f"{count} {suffix or 'without a suffix'}" for suffix, count in suffixes.most_common(_SUFFIXES_NAMED)]
    others = suffixes.total() - sum(count for _, count in suffixes.most_common(_SUFFIXES_NAMED))
    listed = ", ".join([*kinds, *([f"{others} others"] if others else [])])
    files = "1 file that is" if suffixes.total() == 1 else f"{suffixes.total()} files that are"
    return f"{files} no media: {listed}"


def _is_media(file: Place) -> bool:
    return file.suffix[1:].lower() in MEDIA_SUFFIXES


def _walk(folder: Place) -> Iterator[Place]:
    try:
        yield from walk_files(folder)
    except RemoteError as error:
        raise CatalogError(str(error)) from error
    except OSError as error:
        raise CatalogError(f"{error.filename} cannot be read: {error.strerror}") from error
