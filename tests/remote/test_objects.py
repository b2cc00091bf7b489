from __future__ import annotations

import io
import random
from datetime import timedelta
from pathlib import Path

import pytest
from object_stores import BUCKET, Watched, times

from mmrec.errors import Reason, RemoteError
from mmrec.remote import (
    Access,
    RangedFile,
    Url,
    has_files,
    listed,
    objects,
    open_file,
    read_text,
    remove_folder,
    stat,
    subfolders,
    total_bytes,
    write_text,
    written,
)


def at(key: str) -> Url:
    return Url("s3", BUCKET, key)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less patience, so that what stays broken is found out soon."""
    monkeypatch.setattr(objects, "MAX_RETRIES", 3)
    monkeypatch.setattr(objects, "FIRST_PAUSE", timedelta(milliseconds=20))
    monkeypatch.setenv("AWS_TIMEOUT", "1s")
    objects._opened.cache_clear()


def test_what_is_written_is_read_and_listed(bucket: Watched, tmp_path: Path) -> None:
    write_text(at("w/雨 %41+.txt"), "rain")
    assert read_text(at("w/雨 %41+.txt")) == "rain"
    (tmp_path / "large").write_bytes(b"x" * 12_000_000)
    objects.write(at("w/sub/large"), tmp_path / "large")
    assert [(url.key, there.size) for url, there in listed(at("w"))] == [
        ("w/sub/large", 12_000_000),
        ("w/雨 %41+.txt", 4),
    ]
    assert subfolders(at("w")) == ["sub"] and total_bytes(at("w")) == 12_000_004 and has_files(at("w"))
    assert not has_files(at("wx"))
    first = stat(at("w/雨 %41+.txt"), Access())
    write_text(at("w/雨 %41+.txt"), "snow")
    assert stat(at("w/雨 %41+.txt"), Access()).etag != first.etag
    remove_folder(at("w"))
    assert not has_files(at("w"))


@pytest.mark.parametrize("size", [1, 1000, 1_200_000, 9_000_000])
def test_a_ranged_file_is_as_a_local_one(bucket: Watched, size: int) -> None:
    content = random.Random(size).randbytes(size)
    objects.write(at("ranged"), content)
    local, remote = io.BytesIO(content), RangedFile(at("ranged"), Access())
    rng = random.Random(0)
    for _ in range(60):
        place, length = rng.randrange(size + 10), rng.choice([1, 10, 70_000])
        assert remote.seek(place) == local.seek(place)
        while length > 0:
            part = remote.read(length)
            assert part == local.read(len(part))
            length -= len(part) or length
    assert remote.seek(-1, io.SEEK_END) == size - 1 and remote.read(10) == content[-1:]
    with open_file(at("ranged")) as file:
        assert file.read() == content
    with pytest.raises(OSError, match="no place before"):
        remote.seek(-1)


def test_only_what_is_read_is_fetched(bucket: Watched) -> None:
    objects.write(at("long"), bytes(20_000_000))
    bucket.clear()
    file = RangedFile(at("long"), Access())
    file.seek(-100, io.SEEK_END)
    assert len(file.read(100)) == 100
    assert bucket.num_bytes[f"/{BUCKET}/long"] < 1_500_000
    bucket.clear()
    file.seek(2_000_000)
    while file.read(2**20):
        pass
    assert bucket.requests.total() < 15, "what is read on and on comes in large parts"


def test_small_files_come_with_one_request(bucket: Watched) -> None:
    objects.write(at("small"), bytes(900_000))
    bucket.clear()
    with open_file(at("small")) as file:
        file.seek(800_000)
        assert len(file.read()) == 100_000
    assert bucket.requests.total() == 1


def test_what_is_written_anew_while_it_is_read_is_not_mixed(bucket: Watched) -> None:
    objects.write(at("changing"), bytes(8_000_000))
    file = RangedFile(at("changing"), Access())
    objects.write(at("changing"), bytes(8_000_001))
    file.seek(6_000_000)
    with pytest.raises(RemoteError, match="written anew while it was read") as caught:
        file.read(10)
    assert caught.value.reason is Reason.NOT_READABLE


@pytest.mark.parametrize("fault", ["busy", "cut"])
def test_what_fails_on_the_way_is_tried_again(bucket: Watched, fault: str) -> None:
    content = random.Random(1).randbytes(3_000_000)
    objects.write(at("shaky"), content)
    bucket.fault = times(2, fault, of="shaky")
    with open_file(at("shaky")) as file:
        assert file.read() == content
    assert bucket.requests[f"GET /{BUCKET}/shaky"] >= 3


def test_what_is_slow_is_tried_again(bucket: Watched, quick: None) -> None:
    objects.write(at("slow"), b"x")
    bucket.fault = times(1, "slow", of="slow")
    assert objects.read_whole(at("slow")) == b"x"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("busy", r"s3://bucket is busy \(503\)"),
        ("denied", r"access denied: check the credentials \(AWS_\*\), and what they may do in s3://bucket"),
        ("expired", r"the credentials have expired: renew them \(AWS_\*\)"),
        ("slow", "answers too slowly"),
    ],
)
def test_what_stays_broken_is_said_in_one_line(bucket: Watched, quick: None, fault: str, words: str) -> None:
    objects.write(at("broken"), bytes(1000))
    bucket.fault = lambda environ: fault
    for ask in (lambda: stat(at("broken"), Access()), lambda: open_file(at("broken"))):
        with pytest.raises(RemoteError, match=words) as caught:
            ask()
        assert caught.value.reason is Reason.NOT_READABLE and "\n" not in str(caught.value)


def test_what_is_not_there_is_told_apart(bucket: Watched, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Url("s3", "no-such-bucket", "a")
    for ask in (lambda: stat(other, Access()), lambda: list(listed(other)), lambda: write_text(other, "x")):
        with pytest.raises(RemoteError, match="there is no bucket s3://no-such-bucket") as caught:
            ask()
        assert caught.value.reason is Reason.MISSING_FILE
    with pytest.raises(RemoteError, match="there is no object at s3://bucket/none"):
        stat(at("none"), Access())
    objects.write(at("empty"), b"")
    with pytest.raises(RemoteError, match="is empty"):
        open_file(at("empty"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(RemoteError, match="cannot be reached: check the network, and the endpoint"):
        stat(at("a"), Access())


def test_a_folder_is_written_when_all_is_well(bucket: Watched) -> None:
    with written(at("out/list.csv")) as path:
        path.write_text("a", encoding="utf-8")
    with written(at("out/more")) as path:
        (path / "sub").mkdir(parents=True)
        (path / "sub" / "b").write_text("b", encoding="utf-8")
    with pytest.raises(ZeroDivisionError), written(at("out/never")) as path:
        path.write_text("half", encoding="utf-8")
        raise ZeroDivisionError
    assert [url.key for url, _ in listed(at("out"))] == ["out/list.csv", "out/more/sub/b"]
    for place, words in (
        (Url("https", "example.org", "a"), "can only be read"),
        (Url("s3", "nobody", "a"), "no bucket"),
    ):
        with pytest.raises(RemoteError, match=words), written(place) as path:
            raise AssertionError("nothing is to be written")
