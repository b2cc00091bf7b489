"""Media that are read whole, in a folder of bounded size."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from object_stores import BUCKET, Watched

from mmrec.errors import RemoteError
from mmrec.remote import Access, RangedFile, Url, fetched, objects


@pytest.fixture
def access(bucket: Watched, tmp_path: Path) -> Access:
    return Access(cache=tmp_path / "cache", cache_bytes=2500)


def fetch(name: str, access: Access) -> bytes:
    with fetched(RangedFile(Url("s3", BUCKET, name), access), access) as file:
        return file.read()


def put(name: str, content: bytes) -> None:
    objects.write(Url("s3", BUCKET, name), content)


def contents(access: Access) -> set[bytes]:
    return {entry.read_bytes() for entry in access.cache.iterdir() if entry.suffix == ".bin"}


def test_what_was_used_last_stays(access: Access) -> None:
    a, b, c = (letter * 1000 for letter in (b"a", b"b", b"c"))
    for name, content in (("a.bin", a), ("b.bin", b), ("c.bin", c)):
        put(name, content)
    assert (fetch("a.bin", access), fetch("b.bin", access)) == (a, b)
    for entry in access.cache.iterdir():
        os.utime(entry, (1, 1))
    assert fetch("a.bin", access) == a, "and is the latest from now on"
    assert fetch("c.bin", access) == c
    assert contents(access) == {a, c}


def test_a_file_of_another_content_is_another_file(access: Access) -> None:
    put("a.bin", b"before")
    assert fetch("a.bin", access) == b"before"
    put("a.bin", b"behind")
    assert fetch("a.bin", access) == b"behind"


def test_what_is_larger_than_the_cache_is_refused(access: Access) -> None:
    put("large.bin", bytes(3000))
    with pytest.raises(RemoteError, match="has 3000 bytes, more than the cache of 2500 holds"):
        fetch("large.bin", access)


def test_several_at_once_get_whole_files_and_leave_nothing_half(access: Access) -> None:
    wanted = {f"{number}.bin": bytes([number]) * 700 for number in range(3)}
    for name, content in wanted.items():
        put(name, content)
    names = [*wanted] * 4
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda name: fetch(name, access), names))
    assert found == [wanted[name] for name in names]
    assert all(entry.suffix in (".bin", ".lock") for entry in access.cache.iterdir())


def test_a_cache_that_cannot_be_written_is_one_line(access: Access) -> None:
    access.cache.write_text("a file, not a folder")
    put("a.bin", b"a")
    with pytest.raises(RemoteError, match=r"the cache .* cannot be used: .*: name another by --cache"):
        fetch("a.bin", access)
