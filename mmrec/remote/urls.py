"""URLs of objects: what `pathlib` is for local files."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TypeAlias
from urllib.parse import quote, unquote

from mmrec.errors import MMRecError, Reason, RemoteError

OBJECT_STORES = ("s3", "gs", "az")
SCHEMES = (*OBJECT_STORES, "https")

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)  # of two slashes, pathlib leaves one
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,221}")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Url:
    """Where an object lies, or a prefix of objects: `root` is its bucket, container, or host with port.

    The `key` is as it was written: of an object store the object's own name, of a web server percent-encoded, with what
    follows a question mark.

    >>> from mmrec.remote import Url
    >>> url = Url.parse("s3://bucket/clips/rain.mp4")
    >>> url.root, url.key, url.name, url.suffix
    ('bucket', 'clips/rain.mp4', 'rain.mp4', '.mp4')
    >>> str(url.parent / "wind.mp4")
    's3://bucket/clips/wind.mp4'
    """

    scheme: str
    root: str
    key: str

    @classmethod
    def parse(cls, text: str) -> Url:
        """Raises `RemoteError` for a scheme that is not known, and for what is no URL of its scheme."""
        found = re.fullmatch(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", text, re.DOTALL)
        scheme = found[1].lower() if found else ""
        if found is None or scheme not in SCHEMES:
            raise RemoteError(f"{text} cannot be reached: {expected_places()}", Reason.FORBIDDEN_PATH)
        root, _, key = found[2].partition("/")
        if "@" in root:
            raise RemoteError(
                f"a {scheme}:// URL of {root.rpartition('@')[2]} holds a name or password: credentials belong into the "
                "environment",
                Reason.FORBIDDEN_PATH,
            )
        what, pattern = ("host", _HOST) if scheme == "https" else ("bucket", _BUCKET)
        if not pattern.fullmatch(root):
            raise RemoteError(f"{text} names no {what}: expected {scheme}://{what.upper()}/...", Reason.FORBIDDEN_PATH)
        if any(ord(letter) < 32 or letter == "\x7f" for letter in key) or (scheme == "https" and " " in key):
            raise RemoteError(f"{text!r} holds a character that no URL has", Reason.FORBIDDEN_PATH)
        return cls(
            scheme, root.lower() if scheme == "https" else root, key.partition("#")[0] if what == "host" else key
        )

    def __str__(self) -> str:
        return f"{self.scheme}://{self.root}/{self.key}"

    def __fspath__(self) -> str:
        return str(self)

    def __truediv__(self, name: str) -> Url:
        below = quote(name) if self.scheme == "https" else name
        folder = self._path.rstrip("/")
        return replace(self, key=f"{folder}/{below}" if folder else below)

    @property
    def _path(self) -> str:
        return self.key.partition("?")[0] if self.scheme == "https" else self.key

    @property
    def name(self) -> str:
        last = posixpath.basename(self._path.rstrip("/"))
        return unquote(last) if self.scheme == "https" else last

    @property
    def suffix(self) -> str:
        return posixpath.splitext(self.name)[1]

    @property
    def stem(self) -> str:
        return posixpath.splitext(self.name)[0]

    @property
    def parent(self) -> Url:
        return replace(self, key=posixpath.dirname(self._path.rstrip("/")))

    def absolute(self) -> Url:
        return self

    @property
    def is_writable(self) -> bool:
        return self.scheme in OBJECT_STORES

    def relative_to(self, other: Url) -> PurePosixPath:
        """The path from a folder that it lies in."""
        folder = other._path.rstrip("/")
        return PurePosixPath(self.key[len(folder) + 1 :] if folder else self.key)

    def is_relative_to(self, other: Url) -> bool:
        folder = other._path.rstrip("/")
        steps = unquote(self._path).split("/") if self.scheme == "https" else self.key.split("/")
        is_below = not folder or self.key.startswith(f"{folder}/")
        return (self.scheme, self.root) == (other.scheme, other.root) and is_below and ".." not in steps


Place: TypeAlias = Path | Url


def expected_places(schemes: Iterable[str] = SCHEMES) -> str:
    return f"expected a local path, or one of {', '.join(f'{scheme}://' for scheme in schemes)}"


def find_url(path: str | os.PathLike[str]) -> str | None:
    """The URL that was given in place of a path; None for a path.

    >>> from pathlib import Path, PurePosixPath
    >>> from mmrec.remote import find_url
    >>> find_url(Path("s3://bucket/catalog.csv"))
    's3://bucket/catalog.csv'
    >>> find_url("videos/catalog.csv") is None
    True
    """
    found = _URL.fullmatch(os.fspath(path))
    return f"{found[1]}://{found[2]}" if found else None


def to_place(path: str | os.PathLike[str], error: type[MMRecError]) -> Place:
    """The path or the URL that was given; raises `error` for a URL that cannot be reached.

    >>> from mmrec.errors import StoreError
    >>> from mmrec.remote import to_place
    >>> to_place("s3://bucket/store", StoreError)
    Url(scheme='s3', root='bucket', key='store')
    """
    if isinstance(path, Url):
        return path
    url = find_url(path)
    if url is None:
        return Path(path)
    try:
        return Url.parse(url)
    except RemoteError as cause:
        raise error(str(cause)) from None
