"""Live interactions on disk: an SQLite file that several processes write to and read from.

An interaction that was acknowledged is on the disk: `synchronous=FULL` syncs the log of SQLite before a commit returns.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmrec.errors import ServiceError
from mmrec.evaluation import Interactions, make_interactions

BUSY_SECONDS = 10.0
_TABLES = """
CREATE TABLE IF NOT EXISTS interactions (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id TEXT NOT NULL, item_id TEXT NOT NULL, timestamp REAL, weight REAL NOT NULL, recorded_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS of_user ON interactions (user_id, number);
CREATE TABLE IF NOT EXISTS forgotten (
    mark BLOB NOT NULL, model TEXT NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (mark, model)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO settings VALUES ('generation', 0);
"""


@dataclass(frozen=True, slots=True)
class LiveInteraction:
    """One row: `timestamp` as the client gave it, `recorded_at` when it came, both in seconds since 1970."""

    number: int
    item_id: str
    timestamp: float | None
    weight: float
    recorded_at: float

    @property
    def time(self) -> float:
        return self.recorded_at if self.timestamp is None else self.timestamp


class InteractionLog:
    """The interactions of all users, in the order in which they came.

    `generation` counts the users that were forgotten: whoever keeps what was read drops it where that has changed.

    >>> from pathlib import Path
    >>> from mmrec.service.interaction_log import InteractionLog
    >>> log = InteractionLog(Path("interactions.sqlite"))
    >>> log.add([("u1", "rain-0", None, 1.0), ("u1", "rain-1", 1.5e9, -1.0)])
    2
    >>> [(row.item_id, row.weight) for row in log.of_user("u1")]
    [('rain-0', 1.0), ('rain-1', -1.0)]
    >>> log.forget("u1", {})
    >>> log.of_user("u1")
    []
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._of_thread = threading.local()
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = self._connection()
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_TABLES)
            salt = "INSERT OR IGNORE INTO settings VALUES ('salt', ?)"
            connection.execute(salt, (secrets.token_bytes(16),))
            (self._salt,) = connection.execute("SELECT value FROM settings WHERE name = 'salt'").fetchone()

    def add(self, rows: Sequence[tuple[str, str, float | None, float]]) -> int:
        """Append interactions (user, item, timestamp, weight), all or none; they are on disk when this returns."""
        now = time.time()
        insert = "INSERT INTO interactions (user_id, item_id, timestamp, weight, recorded_at) VALUES (?, ?, ?, ?, ?)"
        with self._transaction() as connection:
            connection.executemany(insert, [(*row, now) for row in rows])
        return len(rows)

    def of_user(self, user_id: str, after: int = 0) -> list[LiveInteraction]:
        """Those of a user that came after number `after`."""
        query = (
            "SELECT number, item_id, timestamp, weight, recorded_at FROM interactions "
            "WHERE user_id = ? AND number > ? ORDER BY number"
        )
        with self._errors():
            return [LiveInteraction(*row) for row in self._connection().execute(query, (user_id, after))]

    def users(self, prefix: str = "") -> list[str]:
        """The users who have any, in the order of their ids."""
        query = "SELECT DISTINCT user_id FROM interactions WHERE user_id >= ? AND user_id < ? ORDER BY user_id"
        with self._errors():
            return [row[0] for row in self._connection().execute(query, (prefix, prefix + "\U0010ffff"))]

    def interactions(self) -> Interactions | None:
        """All of them as a fit takes them: at the times that clients gave, else when they came. None without any."""
        query = "SELECT user_id, item_id, coalesce(timestamp, recorded_at), weight FROM interactions ORDER BY number"
        with self._errors():
            rows = self._connection().execute(query).fetchall()
        if not rows:
            return None
        users, items, timestamps, weights = zip(*rows, strict=True)
        return make_interactions(users, items, timestamps=np.array(timestamps), weights=np.array(weights))

    def generation(self) -> int:
        with self._errors():
            found = self._connection().execute("SELECT value FROM settings WHERE name = 'generation'").fetchone()
        return int(found[0])

    def forget(self, user_id: str, versions: Mapping[str, int]) -> None:
        """Delete what is known of a user, and mark them as unknown to these versions of models, and all before."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM interactions WHERE user_id = ?", (user_id,))
            upsert = "INSERT INTO forgotten VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET version = excluded.version"
            connection.executemany(upsert, [(self._mark(user_id), *version) for version in versions.items()])
            connection.execute("UPDATE settings SET value = value + 1 WHERE name = 'generation'")
        with self._errors():  # what was deleted stays in the log of SQLite until it is written back
            self._connection().execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def is_forgotten(self, user_id: str, model: str, version: int) -> bool:
        """Whether a version of a model still knows a user who wants to be forgotten."""
        query = "SELECT 1 FROM forgotten WHERE mark = ? AND model = ? AND version >= ?"
        with self._errors():
            return self._connection().execute(query, (self._mark(user_id), model, version)).fetchone() is not None

    def close(self) -> None:
        """Close the connection of this thread, as before a fork, which none outlives; the next use opens another."""
        connection: sqlite3.Connection | None = self._of_thread.__dict__.pop("connection", None)
        if connection is not None:
            connection.close()

    def _mark(self, user_id: str) -> bytes:
        """Tells a user who was forgotten without keeping the id."""
        return hashlib.blake2b(user_id.encode("utf-8", "surrogatepass"), key=self._salt, digest_size=16).digest()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._errors():
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise

    def _connection(self) -> sqlite3.Connection:
        """That of this thread."""
        connection: sqlite3.Connection | None = getattr(self._of_thread, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA secure_delete = ON")
            self._of_thread.connection = connection
        return connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise InteractionLogError(f"live interactions cannot be kept in {self._path}: {error}") from error


class InteractionLogError(ServiceError):
    """The file of live interactions cannot be read or written."""
