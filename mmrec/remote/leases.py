"""The right to write, held in a bucket by an object that its holder writes again and again.

Object stores have no locks, but a write under a condition: of two that write at once, one alone succeeds. A holder that
dies leaves its object behind, which counts as long as its last renewal is younger than `LEASE_SECONDS` by the clocks of
the store and of the one who asks; on the machine where the holder ran, its death is seen at once.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from datetime import UTC, datetime
from typing import Any

from mmrec.errors import MMRecError, Reason, RemoteError
from mmrec.remote import objects
from mmrec.remote.urls import Url

LEASE_SECONDS, RENEW_SECONDS, SAFE_SECONDS = 120.0, 15.0, 60.0
"""How long a lease counts, how often it is renewed, and for how long after that its holder may begin a write."""


class LeaseHeld(MMRecError):
    """Another process holds the lease."""


class Lease:
    """A lease on an object; one that holds it may take it again, and holds it until it released it as often."""

    def __init__(self, url: Url) -> None:
        self._url, self._depth, self._etag, self._renewed = url, 0, "", 0.0
        self._token = ""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Raises `LeaseHeld` at once where another process has it."""
        if self._depth == 0:
            self._token = uuid.uuid4().hex
            etag = objects.write_if(self._url, self._words(), None) or self._taken_over()
            if etag is None:
                raise LeaseHeld(str(self._url))
            self._etag, self._renewed = etag, time.monotonic()
            self._stop.clear()
            self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
            self._thread.start()
        self._depth += 1

    def release(self) -> None:
        self._depth -= 1
        if self._depth == 0 and self._thread is not None:
            self._stop.set()
            self._thread.join()
            if self.is_safe:
                objects.delete(self._url)

    @property
    def is_safe(self) -> bool:
        """Whether a write that begins now ends before anybody else may have the lease."""
        return time.monotonic() - self._renewed < SAFE_SECONDS

    @property
    def is_held(self) -> bool:
        return self._depth > 0

    def _words(self) -> bytes:
        holder = {"host": socket.gethostname(), "boot": _boot(), "process": os.getpid(), "token": self._token}
        return json.dumps({**holder, "renewed": time.time()}).encode()

    def _taken_over(self) -> str | None:
        """The lease of a holder that is dead; None where it lives, or somebody else was faster."""
        try:
            there, holder = self._there()
        except RemoteError as error:
            if error.reason is Reason.MISSING_FILE:  # released meanwhile
                return objects.write_if(self._url, self._words(), None)
            raise
        if holder.get("token") == self._token:  # written by us, in a try whose answer was lost
            return there.etag
        assert there.modified is not None
        is_old = (datetime.now(UTC) - there.modified).total_seconds() > LEASE_SECONDS
        if is_old or _is_dead(holder):
            return objects.write_if(self._url, self._words(), there.etag)
        return None

    def _there(self) -> tuple[objects.Stat, dict[str, Any]]:
        there = objects.stat(self._url)
        try:
            holder = json.loads(objects.read_whole(self._url))
        except ValueError:
            holder = None
        return there, holder if isinstance(holder, dict) else {}

    def _renew(self) -> None:
        while not self._stop.wait(RENEW_SECONDS):
            before = time.monotonic()
            try:
                etag = objects.write_if(self._url, self._words(), self._etag)
                if etag is None:
                    there, holder = self._there()
                    etag = there.etag if holder.get("token") == self._token else None
            except RemoteError as error:
                if error.reason is not Reason.MISSING_FILE:
                    continue
                etag = None
            if etag is None:  # somebody else has it, or deleted it
                self._renewed = float("-inf")
                return
            self._etag, self._renewed = etag, before


def _boot() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether the process that holds the lease ran here, and does not any more."""
    if not _boot() or (holder.get("host"), holder.get("boot")) != (socket.gethostname(), _boot()):
        return False
    try:
        os.kill(int(holder["process"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, KeyError, ValueError):
        return False
    return False
