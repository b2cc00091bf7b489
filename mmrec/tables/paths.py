"""Paths: what is local, and the files below a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mmrec.errors import MMRecError
from mmrec.remote import Place, Url, has_files, listed, to_place

JUNK_FOLDERS = frozenset({"@eadir", "__macosx", "$recycle.bin", "system volume information", "lost+found"})
JUNK_FILES = frozenset({".ds_store", "thumbs.db", "desktop.ini"})


def local_path(path: str | os.PathLike[str], error: type[MMRecError]) -> Path:
    """The path; raises `error` for a URL such as `s3://bucket/store`, of which pathlib would make a folder `s3:`."""
    place = to_place(path, error)
    if isinstance(place, Url):
        raise error(f"{place} is a URL: only local paths are read and written here; copy it, and name its path")
    return place


def walk_files(folder: Place) -> Iterator[Place]:
    """Every file below a folder, sorted, those of a folder before those of its subfolders, or as a bucket lists them.

    Linked folders are followed, but not in circles. Hidden folders, and files and folders that systems leave behind
    (`.Trashes`, `@eaDir`, `._*`, `Thumbs.db`), are left out.

    Raises `OSError` for a folder that cannot be read, `RemoteError` for a URL.
    """
    if isinstance(folder, Path):
        yield from _walk_local(folder)
        return
    for url, _ in listed(folder):
        *folders, name = url.relative_to(folder).parts
        if not _is_junk(name) and not any(map(_is_junk_folder, folders)):
            yield url


def _is_junk(name: str) -> bool:
    return name.startswith("._") or name.lower() in JUNK_FILES


def _is_junk_folder(name: str) -> bool:
    return name.startswith(".") or name.lower() in JUNK_FOLDERS


def is_folder(place: Place) -> bool:
    """Whether there are files below it; a bucket knows no others."""
    if isinstance(place, Path):
        return place.is_dir()
    return place.is_writable and has_files(place)


def _walk_local(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    stat = folder.stat()
    here = (stat.st_dev, stat.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        found = sorted((entry.name, entry.is_dir()) for entry in entries)
    for name, is_below in found:
        if not is_below and not _is_junk(name):
            yield folder / name
    for name, is_below in found:
        if is_below and not _is_junk_folder(name):
            yield from _walk_local(folder / name, above | {here})
