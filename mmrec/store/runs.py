"""The runs of jobs on a store: what ran when, with what result."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from mmrec.store.folders import has_table
from mmrec.store.tables import Tables, new_run_id, run_start

RUNS_TABLE = "runs"
_SCHEMA = pa.schema(
    [
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("command", pa.string()),
        pa.field("mmrec", pa.string()),
        pa.field("end", pa.timestamp("us", "UTC")),
        pa.field("exit", pa.int64()),
        pa.field("message", pa.string()),
        pa.field("counts", pa.string()),
    ]
)


@dataclass(slots=True, kw_only=True)
class Run:
    """One run of a job. `end` and `exit` (0 done, 1 failed) are None while it runs, and where it was killed.

    >>> import mmrec
    >>> report = mmrec.embed("catalog.csv", "embedded", preset="preset.yaml", workers=1)
    >>> run = mmrec.FeatureStore("embedded").runs()[0]
    >>> run.exit, run.counts["items"], run.counts["ok"]
    (0, 16, 16)
    """

    run_id: str
    command: str
    mmrec: str
    end: datetime | None = None
    exit: int | None = None
    message: str = ""
    counts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def start(self) -> datetime:
        return run_start(self.run_id)


class RunLog:
    """The runs in the folder of a store."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    @contextmanager
    def record(self, command: str) -> Iterator[Run]:
        """Record a run from its start on; who runs it sets its counts, and its exit and message where it failed."""
        from mmrec import __version__

        run = Run(run_id=new_run_id(), command=command, mmrec=__version__)
        self._write(run)
        try:
            yield run
        except BaseException as error:
            run.exit, run.message = 1, str(error) or type(error).__name__
            raise
        finally:
            self._write(replace(run, end=datetime.now(UTC), exit=run.exit or 0))

    def all(self) -> list[Run]:
        """The newest first."""
        if not has_table(self._tables.folder, RUNS_TABLE):
            return []
        with self._tables.errors():
            rows = self._tables.open(RUNS_TABLE, _SCHEMA, create=False).to_arrow().to_pylist()
        runs = [Run(**{**row, "counts": json.loads(row["counts"])}) for row in rows]
        return sorted(runs, key=lambda run: run.run_id, reverse=True)

    def _write(self, run: Run) -> None:
        row = {name: getattr(run, name) for name in _SCHEMA.names} | {"counts": json.dumps(run.counts)}
        with self._tables.errors():
            table = self._tables.open(RUNS_TABLE, _SCHEMA, create=True)
            upsert = table.merge_insert("run_id").when_matched_update_all().when_not_matched_insert_all()
            upsert.execute(pa.Table.from_pylist([row], schema=_SCHEMA))
