"""The folder of a store, on this machine or in a bucket: which tables it has, and who may write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import pyarrow as pa

from mmrec.errors import MMRecError, RemoteError, StoreError
from mmrec.remote import Lease, LeaseHeld, Place, explained, has_files, subfolders


def has_table(folder: Place, name: str) -> bool:
    """Whether a table was made to its end; a kill while it is made leaves a folder without any version."""
    return has_files(folder / f"{name}.lance" / "_versions")


def table_names(folder: Place) -> list[str]:
    with store_errors(folder):
        names = [name.removesuffix(".lance") for name in subfolders(folder) if name.endswith(".lance")]
        return sorted(name for name in names if has_table(folder, name))


@contextmanager
def store_errors(folder: Place) -> Iterator[None]:
    """Whatever the engine or an object store raises is a `StoreError` that names the folder."""
    try:
        yield
    except RemoteError as error:
        raise StoreError(f"store {error}") from error
    except MMRecError:
        raise
    except (OSError, RuntimeError, ValueError, pa.ArrowException) as error:
        told = f"{folder}: {error}" if isinstance(folder, Path) else explained(folder, error)
        raise StoreError(f"store {told}") from error


class WriteLock:
    """A right to write into a folder that one process has at a time: a locked file, or an object in the bucket."""

    def __init__(self, folder: Place, name: str, busy: str) -> None:
        self._folder, self._busy = folder, busy
        self._lease = None if isinstance(folder, Path) else Lease(folder / name)
        self._file = filelock.FileLock(folder / name) if isinstance(folder, Path) else None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it; `StoreError` at once where another process holds it, or it cannot be had."""
        try:
            if self._lease is not None:
                self._lease.acquire()
            if self._file is not None:
                self._file.acquire(timeout=0)
        except (filelock.Timeout, LeaseHeld):
            raise StoreError(f"store {self._folder} {self._busy}") from None
        except OSError as error:
            raise StoreError(f"store {self._folder} cannot be written: {error.strerror or error}") from error
        try:
            yield
        finally:
            if self._lease is not None:
                self._lease.release()
            if self._file is not None:
                self._file.release()

    def check(self) -> None:
        """Raises `StoreError` where it was held, and another process may have it by now."""
        if self._lease is not None and self._lease.is_held and not self._lease.is_safe:
            raise StoreError(
                f"store {self._folder} could not be told in time that this job goes on, so that another may write by "
                "now: run the same command again"
            )
