"""The tables in a store's folder, on LanceDB: opening and making them, their versions, the right to write."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import filelock
import pyarrow as pa

from mmrec.errors import MMRecError, StoreError

LONGEST_READ = timedelta(hours=1)
CLIENT_OF_SERVERS = "lance_namespace_urllib3_client"
RUN_ID_FORMAT = "%Y%m%dT%H%M%S.%f"  # the second when it started, UTC


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A state that a table had, made at `time` (UTC); `tag` names the run that started from it."""

    number: int
    time: datetime
    rows: int
    tag: str = ""


def _lancedb() -> Any:
    _defer(CLIENT_OF_SERVERS)
    import lancedb

    return lancedb


def _defer(package: str) -> None:
    """Have what a package imports imported when somebody asks it for a name; its modules are found as ever.

    LanceDB imports a client of servers that no store of a folder has, which takes longer than the rest of it.
    """
    spec = importlib.util.find_spec(package)
    if package in sys.modules or spec is None or spec.loader is None:
        return
    module, loader = importlib.util.module_from_spec(spec), spec.loader

    def load(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        del module.__getattr__
        loader.exec_module(module)
        return getattr(module, name)

    module.__getattr__ = load  # type: ignore[method-assign]
    sys.modules[package] = module


def has_table(folder: Path, name: str) -> bool:
    """Whether a table was made to its end; a kill while it is made leaves a folder without any version."""
    return any((folder / f"{name}.lance" / "_versions").glob("*"))


def table_names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.lance") if has_table(folder, path.stem))


class Tables:
    """The tables of one folder. Reads see what any process has committed; nothing is kept open between them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with self.errors():
            folder.mkdir(parents=True, exist_ok=True)
            self._database = _lancedb().connect(folder, read_consistency_interval=timedelta(0))
        self._lock = filelock.FileLock(folder / "writer.lock")

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Whatever the engine raises is a `StoreError` that names the folder."""
        try:
            yield
        except MMRecError:
            raise
        except (OSError, RuntimeError, ValueError, pa.ArrowException) as error:
            raise StoreError(f"store {self.folder}: {error}") from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the right to write; `StoreError` at once where another process holds it."""
        with held(self._lock, self.folder, "is being written by another job: wait for it, or use another folder"):
            yield

    def open(self, name: str, schema: pa.Schema, *, create: bool, added: Collection[str] = ()) -> Any:
        """Open a table, made where it is not there and `create` is set.

        One of an earlier version of mmrec gets those of the `added` columns that it lacks, empty.
        """
        with self.errors():
            if create and not has_table(self.folder, name):
                with self.lock():
                    if not has_table(self.folder, name):
                        shutil.rmtree(self.folder / f"{name}.lance", ignore_errors=True)
                        self._database.create_table(name, schema=schema)
            table = self._database.open_table(name)
            if set(table.schema.names) != set(schema.names):
                self._migrate(table, schema, added)
            return table

    def has(self, name: str) -> bool:
        return has_table(self.folder, name)

    def existing(self, name: str) -> Any:
        return self._database.open_table(name)

    def derived(self, name: str, schema: pa.Schema) -> Any:
        """A table that can be made again from others: one of another schema gives way to an empty one."""
        if self.has(name):
            table = self.existing(name)
            if table.schema.equals(schema):
                return table
        shutil.rmtree(self.folder / f"{name}.lance", ignore_errors=True)
        return self._database.create_table(name, schema=schema)

    def drop(self, name: str) -> None:
        self._database.drop_table(name, ignore_missing=True)

    def _migrate(self, table: Any, schema: pa.Schema, added: Collection[str]) -> None:
        missing = [field for field in schema if field.name not in table.schema.names]
        if any(field.name not in added for field in missing):
            raise StoreError(f"store {self.folder} was made by another version of mmrec: embed into a new folder")
        with self.lock():
            if missing:
                table.add_columns(pa.schema(missing))
            if outdated := [name for name in table.schema.names if name not in schema.names]:
                table.drop_columns(outdated)


@contextmanager
def held(lock: filelock.BaseFileLock, folder: Path, busy: str) -> Iterator[None]:
    """Hold a lock of a store; `StoreError` at once where another process holds it, or it cannot be had."""
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise StoreError(f"store {folder} {busy}") from None
    except OSError as error:
        raise StoreError(f"store {folder} cannot be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def versions(table: Any) -> list[Version]:
    """Those that are still kept, the newest first."""
    tags = {entry["version"]: name for name, entry in table.tags.list().items()}
    return [
        Version(
            number=version["version"],
            time=version["timestamp"].astimezone(UTC),
            rows=int(version["metadata"].get("total_rows", 0)),
            tag=tags.get(version["version"], ""),
        )
        for version in reversed(table.list_versions())
    ]


def drop_old_versions(table: Any, kept: timedelta) -> None:
    """Merge small fragments, and drop versions older than `kept`, except those from which younger runs started.

    None is dropped that a reader may still be in the middle of.
    """
    now, oldest = datetime.now(UTC), max(kept, LONGEST_READ)
    for version in versions(table):
        if version.tag and now - run_start(version.tag) > kept:
            table.tags.delete(version.tag)
        elif version.tag:
            oldest = max(oldest, now - version.time + timedelta(seconds=1))
    table.optimize(cleanup_older_than=oldest)


def new_run_id() -> str:
    return datetime.now(UTC).strftime(RUN_ID_FORMAT)


def run_start(run_id: str) -> datetime:
    return datetime.strptime(run_id, RUN_ID_FORMAT).replace(tzinfo=UTC)


def text_literal(value: str) -> str:
    """A text as a literal of the engine's SQL, which knows no other escape than the doubled quote."""
    if "\0" in value:
        raise StoreError(f"{value!r} holds a zero byte, which no text of a store does")
    return "'" + value.replace("'", "''") + "'"
