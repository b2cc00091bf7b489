from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from object_stores import BUCKET, Watched, times

from mmrec.remote import Lease, LeaseHeld, Url, has_files, leases, objects

LOCK = Url("s3", BUCKET, "leases/writer.lock")


def test_of_several_at_once_one_has_it() -> None:
    for _ in range(20):
        leases_of, ready = [Lease(LOCK) for _ in range(6)], threading.Barrier(6)

        def holds(lease: Lease, ready: threading.Barrier = ready) -> bool:
            ready.wait()
            try:
                lease.acquire()
            except LeaseHeld:
                return False
            return True

        with ThreadPoolExecutor(6) as threads:
            assert sum(threads.map(holds, leases_of)) == 1
        next(lease for lease in leases_of if lease.is_held).release()


def held_by(**holder: object) -> None:
    objects.write(LOCK, json.dumps(holder).encode())


@pytest.fixture(autouse=True)
def _free(bucket: Watched) -> None:
    objects.delete(LOCK)


def test_one_alone_has_it_until_it_let_go() -> None:
    first, second = Lease(LOCK), Lease(LOCK)
    first.acquire()
    first.acquire()
    with pytest.raises(LeaseHeld):
        second.acquire()
    first.release()
    with pytest.raises(LeaseHeld):
        second.acquire()
    first.release()
    second.acquire()
    assert second.is_safe and second.is_held
    second.release()
    assert not has_files(LOCK.parent)


def test_of_two_that_ask_at_once_one_has_it() -> None:
    script = (
        "import sys, time\nfrom mmrec.remote import Lease, LeaseHeld, Url\n"
        f"lease = Lease(Url('s3', {BUCKET!r}, {LOCK.key!r}))\n"
        "sys.stdin.readline()\n"
        "try:\n lease.acquire(); print('mine'); time.sleep(2); lease.release()\n"
        "except LeaseHeld: print('theirs')\n"
    )
    asking = [
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in asking:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert sorted(process.communicate()[0].strip() for process in asking) == ["mine", "theirs", "theirs"]


def test_the_dead_give_it_away() -> None:
    done = subprocess.Popen([sys.executable, "-c", "pass"])
    done.wait()
    held_by(host=socket.gethostname(), boot=leases._boot(), process=done.pid)
    lease = Lease(LOCK)
    lease.acquire()
    lease.release()
    for alive in ({"host": "elsewhere", "boot": "x", "process": done.pid}, {"host": socket.gethostname()}):
        held_by(**alive)
        with pytest.raises(LeaseHeld):
            lease.acquire()


def test_what_was_not_renewed_for_long_is_given_away(monkeypatch: pytest.MonkeyPatch) -> None:
    objects.write(LOCK, b"not JSON")
    with pytest.raises(LeaseHeld):
        Lease(LOCK).acquire()
    found = objects.stat(LOCK)
    assert found.modified is not None and datetime.now(UTC) - found.modified < timedelta(minutes=1)
    monkeypatch.setattr(leases, "LEASE_SECONDS", -5.0)
    lease = Lease(LOCK)
    lease.acquire()
    lease.release()


def test_it_is_renewed_and_says_when_it_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.05)
    lease = Lease(LOCK)
    lease.acquire()
    first = objects.stat(LOCK).etag
    until = time.monotonic() + 10
    while objects.stat(LOCK).etag == first and time.monotonic() < until:
        time.sleep(0.05)
    assert objects.stat(LOCK).etag != first and lease.is_safe
    held_by(host="elsewhere")
    while lease.is_safe and time.monotonic() < until:
        time.sleep(0.05)
    assert not lease.is_safe
    lease.release()
    assert json.loads(objects.read_whole(LOCK)) == {"host": "elsewhere"}, "the other one's stays"


def test_an_answer_that_is_lost_does_not_cost_it(bucket: Watched) -> None:
    bucket.fault = times(1, "cut", of="writer.lock", method="PUT")
    lease = Lease(LOCK)
    lease.acquire()
    assert lease.is_safe
    lease.release()
