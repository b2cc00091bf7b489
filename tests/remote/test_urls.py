from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmrec.errors import CatalogError, RemoteError
from mmrec.remote import Url, find_url, to_place


@pytest.mark.parametrize(
    ("text", "name", "stem", "suffix", "parent"),
    [
        ("s3://bucket/a/雨 1.tar.gz", "雨 1.tar.gz", "雨 1.tar", ".gz", "s3://bucket/a"),
        ("gs://bucket/a", "a", "a", "", "gs://bucket/"),
        ("az://container/a/b/", "b", "b", "", "az://container/a"),
        ("https://Example.org:8443/a%20b.mp4?token=x/y.png", "a b.mp4", "a b", ".mp4", "https://example.org:8443/"),
        ("s3://bucket/a?b#c.mp4", "a?b#c.mp4", "a?b#c", ".mp4", "s3://bucket/"),
    ],
)
def test_the_parts_of_a_url(text: str, name: str, stem: str, suffix: str, parent: str) -> None:
    url = Url.parse(text)
    assert (url.name, url.stem, url.suffix, str(url.parent)) == (name, stem, suffix, parent)
    assert Url.parse(str(url)) == url == to_place(os.fspath(url), CatalogError) == to_place(url, CatalogError)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http://example.org/a", "expected a local path, or one of s3://, gs://, az://, https://"),
        ("ftp://example.org/a", "expected a local path, or one of"),
        ("s3:///a", "names no bucket"),
        ("s3://evil.org#/a", "names no bucket"),
        ("s3://evil.org?x=/a", "names no bucket"),
        ("https://user:secret@example.org/a", "example.org holds a name or password"),
        ("https://exa mple.org/a", "names no host"),
        ("https://example.org/a\r\nHost: evil", "character that no URL has"),
        ("https://example.org/a b", "character that no URL has"),
        ("https:///a", "names no host"),
    ],
)
def test_what_is_no_url_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(RemoteError, match=words) as caught:
        Url.parse(text)
    assert "secret" not in str(caught.value)


def test_a_place_that_cannot_be_is_the_caller_s_error() -> None:
    with pytest.raises(CatalogError, match="expected a local path, or one of"):
        to_place("hdfs://host/a", CatalogError)


def test_names_join_as_their_schemes_write_them() -> None:
    assert str(Url.parse("s3://bucket/a/") / "b c%.mp4") == "s3://bucket/a/b c%.mp4"
    assert str(Url.parse("https://h/a?sig=1") / "b c%/雨.mp4") == "https://h/a/b%20c%25/%E9%9B%A8.mp4"
    assert str(Url.parse("s3://bucket/") / "x") == "s3://bucket/x"


def test_what_lies_below_what() -> None:
    folder = Url.parse("https://h/a")
    assert Url.parse("https://h/a/b").is_relative_to(folder)
    for other in ("https://h/ab", "https://h/a/../b", "https://h/a/%2e%2E/b", "https://i/a/b", "s3://hhh/a/b"):
        assert not Url.parse(other).is_relative_to(folder)


def test_paths_that_pathlib_squeezed_are_found_again() -> None:
    assert find_url(Path("s3://bucket/a")) == "s3://bucket/a"
    assert to_place(Path("s3://bucket/a"), CatalogError) == Url("s3", "bucket", "a")
    assert to_place("a/b.csv", CatalogError) == Path("a/b.csv")
