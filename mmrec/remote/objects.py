"""Object stores, by obstore: what is there, ranges of it, whole objects, and writing under a condition.

Credentials and endpoints are those of the environment, by the names that LanceDB knows as well: `AWS_*`, `GOOGLE_*`,
`AZURE_*`. What fails on the way is tried again, with growing pauses, before it is an error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmrec.errors import MMRecError, Reason, RemoteError
from mmrec.remote.urls import OBJECT_STORES, Url, expected_places

MAX_RETRIES, RETRY_SECONDS = 6, 60
FIRST_PAUSE, LONGEST_PAUSE = timedelta(milliseconds=200), timedelta(seconds=10)
_VARIABLES = ("AWS_", "GOOGLE_", "AZURE_")
_SCHEME_VARIABLES = {"s3": "AWS_*", "gs": "GOOGLE_*", "az": "AZURE_*"}


@dataclass(frozen=True, slots=True)
class Stat:
    """How large an object is, and the `etag` that changes with its content; when it was written, if that is known."""

    size: int
    etag: str
    modified: datetime | None = None


def _obstore() -> Any:
    try:
        import obstore
        import obstore.store
    except ImportError as error:
        told = f"object stores need the extra `objects`: pip install 'mmrec[objects]' ({error})"
        raise MMRecError(told) from None
    return obstore


def stat(url: Url) -> Stat:
    obstore = _obstore()
    from obstore.exceptions import BaseError

    store = _store(url)
    try:
        return _stat(obstore.head(store, url.key))
    except (BaseError, OSError):  # its answer has no words: those of a GET say what is wrong
        with _told(url):
            return _stat(obstore.get(store, url.key, options={"range": (0, 1)}).meta)


def read_range(url: Url, start: int, end: int, etag: str = "") -> tuple[bytes, Stat]:
    """The bytes from `start` to `end`, or to the last one, and what they are of. With an `etag`, of that alone."""
    obstore, options = _obstore(), {"range": (start, end), **({"if_match": etag} if etag else {})}
    with _told(url):
        found = obstore.get(_store(url), url.key, options=options)
        return found.bytes().to_bytes(), _stat(found.meta)


def read_whole(url: Url) -> bytes:
    obstore = _obstore()
    with _told(url):
        return bytes(obstore.get(_store(url), url.key).bytes())


def write(url: Url, content: bytes | Path) -> None:
    obstore = _obstore()
    with _told(url):
        obstore.put(_store(url), url.key, content)


def write_if(url: Url, content: bytes, etag: str | None) -> str | None:
    """Write where the object has this `etag` still, or with None where there is none; returns the new one.

    None where another was faster: of two that write at once, one alone succeeds.
    """
    obstore = _obstore()
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    with _told(url):
        try:
            done = obstore.put(_store(url), url.key, content, mode="create" if etag is None else {"e_tag": etag})
        except (AlreadyExistsError, PreconditionError):
            return None
        except FileNotFoundError:
            if etag is None:
                raise
            return None
        return done["e_tag"] or ""


def delete(url: Url) -> None:
    obstore = _obstore()
    with _told(url):
        try:
            obstore.delete(_store(url), url.key)
        except FileNotFoundError:
            return


def listed(prefix: Url) -> Iterator[tuple[Url, Stat]]:
    """The objects below a prefix, in the order of their keys; those that stand for folders are left out."""
    obstore = _obstore()
    with _told(prefix):
        for chunk in obstore.list(_store(prefix), prefix.key.strip("/") or None, chunk_size=1000):
            for meta in chunk:
                if not meta["path"].endswith("/"):
                    yield Url(prefix.scheme, prefix.root, meta["path"]), _stat(meta)


def folders(prefix: Url) -> list[str]:
    """The names of what has objects below it, directly below a prefix."""
    obstore = _obstore()
    with _told(prefix):
        found = obstore.list_with_delimiter(_store(prefix), prefix.key.strip("/") or None)
    return [folder.rstrip("/").rpartition("/")[2] for folder in found["common_prefixes"]]


def _stat(meta: Any) -> Stat:
    return Stat(meta["size"], meta["e_tag"] or meta["last_modified"].isoformat(), meta["last_modified"])


def _store(url: Url) -> Any:
    if not url.is_writable:
        raise RemoteError(f"{url} can only be read: {expected_places(OBJECT_STORES)}", Reason.FORBIDDEN_PATH)
    environment = frozenset((name, value) for name, value in os.environ.items() if name.startswith(_VARIABLES))
    return _opened(url.scheme, url.root, environment)


@lru_cache(maxsize=64)
def _opened(scheme: str, bucket: str, environment: frozenset[tuple[str, str]]) -> Any:
    kinds = _obstore().store
    kind = {"s3": kinds.S3Store, "gs": kinds.GCSStore, "az": kinds.AzureStore}[scheme]
    try:
        return kind(
            bucket,
            retry_config={
                "max_retries": MAX_RETRIES,
                "retry_timeout": timedelta(seconds=RETRY_SECONDS),
                "backoff": {"init_backoff": FIRST_PAUSE, "max_backoff": LONGEST_PAUSE, "base": 2},
            },
        )
    except Exception as error:  # noqa: BLE001 - a base class of its own for each kind of store
        words = str(error).splitlines()[0]
        raise RemoteError(
            f"{scheme}://{bucket} cannot be opened: {words}; check the variables {_SCHEME_VARIABLES[scheme]}",
            Reason.NOT_READABLE,
        ) from None


@contextmanager
def _told(url: Url) -> Iterator[None]:
    """Whatever an object store answers is a `RemoteError` that says what to do."""
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, OSError) as error:
        raise explained(url, error) from error


_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|bucket does not exist", re.IGNORECASE)
_EXPIRED = re.compile(
    r"ExpiredToken|TokenRefreshRequired|token (?:has |is )?expired|RequestTimeTooSkewed", re.IGNORECASE
)
_DENIED = re.compile(
    r"PermissionDenied|Unauthenticated|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|status code: 40[13]",
    re.IGNORECASE,
)
_NO_CREDENTIALS = re.compile(
    r"169\.254\.169\.254|metadata\.google|MissingCredentials|missing credentials", re.IGNORECASE
)
_BUSY = re.compile(r"SlowDown|TooManyRequests|status code: (429|5\d\d)|ServerBusy", re.IGNORECASE)
_NO_RANGE = re.compile(r"status code: 416|InvalidRange", re.IGNORECASE)
_SLOW = re.compile(r"timed out|operation timeout|TimedOut", re.IGNORECASE)
_AWAY = re.compile(r"error sending request|connect|dns error|connection (?:closed|reset)|decoding response body", re.I)


def explained(url: Url, error: Exception) -> RemoteError:
    """What an object store said, in one line that says what to do; also what LanceDB repeats of it."""
    words, variables = str(error), _SCHEME_VARIABLES[url.scheme]
    bucket = f"{url.scheme}://{url.root}"
    if _NO_BUCKET.search(words):
        return RemoteError(f"{url}: there is no bucket {bucket}", Reason.MISSING_FILE)
    if isinstance(error, FileNotFoundError):
        return RemoteError(f"there is no object at {url}", Reason.MISSING_FILE)
    if _EXPIRED.search(words):
        return RemoteError(f"{url}: the credentials have expired: renew them ({variables})", Reason.NOT_READABLE)
    if _NO_CREDENTIALS.search(words):
        return RemoteError(f"{url}: no credentials are set: set {variables}", Reason.NOT_READABLE)
    if _DENIED.search(words):
        told = f"{url}: access denied: check the credentials ({variables}), and what they may do in {bucket}"
        return RemoteError(told, Reason.NOT_READABLE)
    if type(error).__name__ == "PreconditionError":
        return RemoteError(f"{url} was written anew while it was read: run the same command again", Reason.NOT_READABLE)
    if _NO_RANGE.search(words):
        return RemoteError(f"{url} is empty", Reason.NOT_MEDIA)
    if busy := _BUSY.search(words):
        told = f"{url}: {bucket} is busy ({busy[1] or busy[0]}), after {MAX_RETRIES} tries: run the same command later"
        return RemoteError(told, Reason.NOT_READABLE)
    if _SLOW.search(words):
        return RemoteError(f"{url}: {bucket} answers too slowly: run the same command later", Reason.NOT_READABLE)
    if _AWAY.search(words):
        told = f"{url} cannot be reached: check the network, and the endpoint ({variables})"
        return RemoteError(told, Reason.NOT_READABLE)
    return RemoteError(f"{url}: {words.strip().splitlines()[0][:300]}", Reason.NOT_READABLE)
