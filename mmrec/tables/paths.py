"""Paths: what is local, and the files below a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mmrec.errors import MMRecError
from mmrec.remote import Url, to_place

JUNK_FOLDERS = frozenset({"@eadir", "__macosx", "$recycle.bin", "system volume information", "lost+found"})
JUNK_FILES = frozenset({".ds_store", "thumbs.db", "desktop.ini"})


def local_path(path: str | os.PathLike[str], error: type[MMRecError]) -> Path:
    """The path; raises `error` for a URL such as `s3://bucket/store`, of which pathlib would make a folder `s3:`."""
    place = to_place(path, error)
    if isinstance(place, Url):
        raise error(f"{place} is a URL: only local paths are read and written here; copy it, and name its path")
    return place


def walk_files(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """Every file below a folder, sorted, those of a folder before those of its subfolders.

    Linked folders are followed, but not in circles. Hidden folders, and files and folders that systems leave behind
    (`.Trashes`, `@eaDir`, `._*`, `Thumbs.db`), are left out.

    Raises `OSError` for a folder that cannot be read.
    """
    stat = folder.stat()
    here = (stat.st_dev, stat.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        found = sorted((entry.name, entry.is_dir()) for entry in entries)
    for name, is_folder in found:
        if not is_folder and not name.startswith("._") and name.lower() not in JUNK_FILES:
            yield folder / name
    for name, is_folder in found:
        if is_folder and not name.startswith(".") and name.lower() not in JUNK_FOLDERS:
            yield from walk_files(folder / name, above | {here})
