"""Small things done alike on this machine and in an object store."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from mmrec.errors import Reason, RemoteError
from mmrec.remote import objects
from mmrec.remote.access import Access, host_of
from mmrec.remote.files import stat
from mmrec.remote.urls import OBJECT_STORES, Place, Url, expected_places


def read_text(place: Place) -> str:
    """A small file, as UTF-8. Raises `OSError` for a local one, `RemoteError` for a URL."""
    return place.read_text(encoding="utf-8") if isinstance(place, Path) else objects.read_whole(place).decode()


def text_if_there(place: Place) -> str | None:
    """As `read_text`; None where there is no such file."""
    try:
        return read_text(place)
    except FileNotFoundError:
        return None
    except RemoteError as error:
        if error.reason is Reason.MISSING_FILE:
            return None
        raise


def write_text(place: Place, text: str) -> None:
    """Put a small file in the place of the one that there is; whoever reads sees the one or the other."""
    if isinstance(place, Url):
        objects.write(place, text.encode())
        return
    beside = place.with_suffix(".new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(place)


def state_of(place: Place) -> tuple[int, ...]:
    """Numbers that change when a file is written anew."""
    if isinstance(place, Path):
        found = place.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns
    there = stat(place, Access(hosts=(host_of(place),)))
    return there.size, int.from_bytes(hashlib.blake2b(there.etag.encode(), digest_size=8).digest())


def subfolders(place: Place) -> list[str]:
    """The names of the folders directly in a folder; none where it is not there."""
    if isinstance(place, Url):
        return objects.folders(place)
    return [path.name for path in place.iterdir() if path.is_dir()] if place.is_dir() else []


def has_files(place: Place) -> bool:
    """Whether there is anything in a folder."""
    return any(objects.listed(place)) if isinstance(place, Url) else place.is_dir() and any(place.iterdir())


def total_bytes(place: Place) -> int:
    """Of all files below a folder."""
    if isinstance(place, Url):
        return sum(there.size for _, there in objects.listed(place))
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file())


def remove_folder(place: Place) -> None:
    """With all that is below it."""
    if isinstance(place, Path):
        shutil.rmtree(place, ignore_errors=True)
        return
    for url, _ in objects.listed(place):
        objects.delete(url)


@contextmanager
def written(place: Place) -> Iterator[Path]:
    """A local path to write a file, or a folder of files, to; when all is well, it is what lies at `place`.

    Raises `RemoteError`, before anything is written, where that cannot be.

    >>> from pathlib import Path
    >>> from mmrec.remote import written
    >>> with written(Path("list.csv")) as path:
    ...     path
    PosixPath('list.csv')
    """
    if isinstance(place, Path):
        yield place
        return
    if not place.is_writable:
        raise RemoteError(f"{place} can only be read: {expected_places(OBJECT_STORES)}", Reason.FORBIDDEN_PATH)
    has_files(place)  # says whether the bucket is there, and may be used
    with TemporaryDirectory() as folder:
        path = Path(folder) / place.name
        yield path
        if path.is_file():
            objects.write(place, path)
            return
        for file in sorted(path.rglob("*")):
            if file.is_file():
                objects.write(place / file.relative_to(path).as_posix(), file)
