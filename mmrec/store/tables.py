"""The tables in a store's folder, on LanceDB: opening and making them, their versions."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from mmrec.errors import StoreError
from mmrec.remote import Place, has_files, remove_folder
from mmrec.store.folders import WriteLock, has_table, store_errors

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


class Tables:
    """The tables of one folder. Reads see what any process has committed; nothing is kept open between them."""

    def __init__(self, folder: Place) -> None:
        self.folder = folder
        with self.errors():
            if isinstance(folder, Path):
                folder.mkdir(parents=True, exist_ok=True)
            else:
                has_files(folder)  # a bucket that cannot be used is told in clearer words than the engine's
            self._database = _lancedb().connect(
                folder if isinstance(folder, Path) else str(folder), read_consistency_interval=timedelta(0)
            )
        self._lock = WriteLock(
            folder, "writer.lock", "is being written by another job: wait for it, or use another folder"
        )

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Whatever the engine raises is a `StoreError` that names the folder."""
        with store_errors(self.folder):
            yield

    def lock(self) -> AbstractContextManager[None]:
        """Hold the right to write; `StoreError` at once where another process holds it."""
        return self._lock.held()

    def check_lock(self) -> None:
        """Raises `StoreError` where the right to write was held, and may have been lost."""
        self._lock.check()

    def open(self, name: str, schema: pa.Schema, *, create: bool, added: Collection[str] = ()) -> Any:
        """Open a table, made where it is not there and `create` is set.

        One of an earlier version of mmrec gets those of the `added` columns that it lacks, empty.
        """
        with self.errors():
            if create and not has_table(self.folder, name):
                with self.lock():
                    if not has_table(self.folder, name):
                        remove_folder(self.folder / f"{name}.lance")
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
        remove_folder(self.folder / f"{name}.lance")
        return self._database.create_table(name, schema=schema)

    def rewrite(self, name: str, where: str) -> None:
        """Leave the rows that a condition holds for; nothing of the others stays on disk, nor of earlier versions."""
        rows = self.existing(name).search().where(where).to_arrow()
        self._database.create_table(name, rows, mode="overwrite").optimize(cleanup_older_than=timedelta(microseconds=1))

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
