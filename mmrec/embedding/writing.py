"""Finished items go to the store in batches, from a thread of its own."""

from __future__ import annotations

import queue
import threading
import time

from mmrec.embedding.report import EmbedReport
from mmrec.store import Features, FeatureStore, StoredKeys

ROWS_PER_COMMIT = 2048
BYTES_PER_COMMIT = 64 * 2**20
SECONDS_PER_COMMIT = 10.0
ROWS_WAITING_TO_BE_WRITTEN = 1024


class Writer:
    """Commits finished items to the store in batches, from a thread of its own.

    Leaving the context commits the rest, whatever happened inside. An error of the store is raised by the next call.

    >>> import mmrec
    >>> from mmrec.embedding import Writer
    >>> source, target = mmrec.FeatureStore("store"), mmrec.FeatureStore("copy", create=True)
    >>> with Writer(target, target.keys(), mmrec.EmbedReport()) as writer:
    ...     for features in source.features(["rain-0", "rain-1"]):
    ...         writer.put(features)
    >>> len(target)
    2
    """

    def __init__(self, store: FeatureStore, keys: StoredKeys, report: EmbedReport) -> None:
        self._store, self._keys, self._report = store, keys, report
        self._queue: queue.Queue[Features | None] = queue.Queue(ROWS_WAITING_TO_BE_WRITTEN)
        self._error: BaseException | None = None
        self._rows: list[Features] = []
        self._bytes = 0
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._queue.put(None)
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def put(self, features: Features) -> None:
        if self._error is not None:
            raise self._error
        self._queue.put(features)

    def _work(self) -> None:
        oldest = time.monotonic()
        while True:
            try:
                entry = self._queue.get(timeout=SECONDS_PER_COMMIT)
            except queue.Empty:
                self._commit()
                continue
            if entry is None:
                self._commit()
                return
            if not self._rows:
                oldest = time.monotonic()
            self._rows.append(entry)
            self._bytes += sum(tokens.vectors_TD.nbytes for tokens in entry.tokens.values())
            full = len(self._rows) >= ROWS_PER_COMMIT or self._bytes >= BYTES_PER_COMMIT
            if full or time.monotonic() - oldest >= SECONDS_PER_COMMIT:
                self._commit()

    def _commit(self) -> None:
        start = time.perf_counter()
        rows, self._rows, self._bytes = self._rows, [], 0
        if self._error is None:
            try:
                changed = [row for row in rows if self._keys.holds(row.item.item_id)]
                new = [row for row in rows if not self._keys.holds(row.item.item_id)]
                self._store.write(new, changed)
            except BaseException as error:  # noqa: BLE001 - handed over to the job's own thread
                self._error = error
        self._report.stage_seconds["write"] += time.perf_counter() - start
