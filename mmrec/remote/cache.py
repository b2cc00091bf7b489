"""Media that can only be read whole lie in a folder of bounded size meanwhile; what was used last stays longest."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import filelock

from mmrec.errors import Reason, RemoteError
from mmrec.remote.access import Access
from mmrec.remote.files import RangedFile

_PART, _LOCK = ".part", "cache.lock"
_FORSAKEN_SECONDS = 3600.0
"""A download that was not written to for so long has no process any more."""


def fetched(file: RangedFile, access: Access) -> BinaryIO:
    """The whole file, opened where it lies in the cache; any number of processes may share that.

    Raises `RemoteError` where it is larger than the cache, or the cache cannot be written.
    """
    name = hashlib.blake2b(f"{file.url}\0{file.stat}".encode(), digest_size=16).hexdigest()
    path = access.cache / f"{name}{file.url.suffix[:16]}"
    with _told(access):
        try:
            return _used(path)
        except FileNotFoundError:
            _download(file, path, access)
            return _used(path)


def _used(path: Path) -> BinaryIO:
    opened = path.open("rb")
    os.utime(path)
    return opened


def _download(file: RangedFile, path: Path, access: Access) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}{_PART}")
    access.cache.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(access.cache / _LOCK):
            _make_room(file, access)
            with part.open("wb") as target:
                target.truncate(file.stat.size)  # counted from now on
        with part.open("r+b") as target:
            file.seek(0)
            shutil.copyfileobj(file, target, 2**20)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _make_room(file: RangedFile, access: Access) -> None:
    """Delete what was not used for longest, until the file fits."""
    needed, limit = file.stat.size, access.cache_bytes
    if needed > limit:
        told = f"{file.url} has {needed} bytes, more than the cache of {limit} holds: allow more by --cache-size"
        raise RemoteError(told, Reason.TOO_LARGE)
    entries = sorted((entry.stat().st_mtime, entry) for entry in _files(access.cache))
    total = sum(entry.stat().st_size for _, entry in entries)
    for modified, entry in entries:
        if total + needed <= limit:
            return
        if not entry.name.endswith(_PART) or time.time() - modified > _FORSAKEN_SECONDS:
            total -= entry.stat().st_size
            entry.unlink()
    if total + needed > limit:
        told = f"{file.url}: the cache of {limit} bytes is full of what is being fetched: allow more by --cache-size"
        raise RemoteError(told, Reason.NOT_READABLE)


def _files(folder: Path) -> Iterator[Path]:
    return (entry for entry in folder.iterdir() if entry.name != _LOCK)


@contextmanager
def _told(access: Access) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        told = f"the cache {access.cache} cannot be used: {error.strerror or error}: name another by --cache"
        raise RemoteError(told, Reason.NOT_READABLE) from None
