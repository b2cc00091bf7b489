"""Web servers, by `https` alone: ranges of a file, from hosts that are allowed, at addresses that were looked at.

The address of a host is looked up once, checked, and connected to: no second look-up may give another one. A redirect
is a new URL, which is checked like the first.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import time
from contextlib import closing, suppress
from functools import lru_cache
from urllib.parse import urljoin

from mmrec.errors import Reason, RemoteError
from mmrec.remote.access import Access, host_of
from mmrec.remote.objects import Stat
from mmrec.remote.urls import Url

MAX_REDIRECTS, MAX_TRIES = 5, 5
MAX_SKIPPED_BYTES = 10**8
SECONDS, FIRST_PAUSE = 30.0, 0.2
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+)")


class _Busy(Exception):
    """The server, or the network, may do better soon."""


class _Connection(http.client.HTTPSConnection):
    """A connection to one address of a host, whatever the host's name leads to now."""

    def __init__(self, url: Url, address: str, port: int) -> None:
        super().__init__(host_of(url), port, timeout=SECONDS, context=_tls())
        self._address, self._name = address, host_of(url)

    def connect(self) -> None:
        plain = socket.create_connection((self._address, self.port), self.timeout)
        self.sock = _tls().wrap_socket(plain, server_hostname=self._name)


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def stat(url: Url, access: Access) -> Stat:
    _, found = read_range(url, 0, 1, access)
    return found


def read_range(url: Url, start: int, end: int, access: Access, etag: str = "") -> tuple[bytes, Stat]:
    """The bytes from `start` to `end`, or to the last one, and what they are of. With an `etag`, of that alone."""
    for attempt in range(1, MAX_TRIES + 1):
        try:
            content, found = _followed(url, start, end, access)
        except (_Busy, OSError, http.client.HTTPException) as error:
            if isinstance(error, ssl.SSLCertVerificationError):
                told = f"{url}: the server's certificate is not valid: {error.verify_message}"
                raise RemoteError(told, Reason.NOT_READABLE) from None
            if attempt == MAX_TRIES:
                told = f"{url} cannot be read, after {MAX_TRIES} tries: {error or type(error).__name__}"
                raise RemoteError(told, Reason.NOT_READABLE) from None
            time.sleep(FIRST_PAUSE * 2 ** (attempt - 1))
            continue
        if etag and found.etag != etag:
            told = f"{url} was written anew while it was read: run the same command again"
            raise RemoteError(told, Reason.NOT_READABLE)
        return content, found
    raise AssertionError("unreachable")


def _followed(url: Url, start: int, end: int, access: Access) -> tuple[bytes, Stat]:
    here = url
    for _ in range(MAX_REDIRECTS + 1):
        access.check(here)
        with closing(_connected(here, access)) as connection:
            connection.request("GET", f"/{here.key}", headers=_headers(start, end))
            response = connection.getresponse()
            if response.status not in _REDIRECTS:
                return _read(url, response, start, end)
            here = _redirected(here, response.getheader("Location", ""))
    raise RemoteError(f"{url} is redirected more than {MAX_REDIRECTS} times", Reason.NOT_READABLE)


def _headers(start: int, end: int) -> dict[str, str]:
    return {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity", "User-Agent": "mmrec"}


def _connected(url: Url, access: Access) -> _Connection:
    port = int(url.root.rpartition(":")[2]) if re.search(r":[0-9]+$", url.root) else 443
    try:
        found = socket.getaddrinfo(host_of(url), port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise _Busy(f"the host {host_of(url)} is not known: {error}") from None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        access.check_address(url, address)
    for address in addresses[:-1]:
        with suppress(OSError):
            return _opened(url, address, port)
    return _opened(url, addresses[-1], port)


def _opened(url: Url, address: str, port: int) -> _Connection:
    connection = _Connection(url, address, port)
    connection.connect()
    return connection


def _redirected(url: Url, location: str) -> Url:
    target = urljoin(str(url), location)
    if not target.lower().startswith("https://"):
        told = f"{url} is redirected to {target[:200]!r}: only https:// is followed"
        raise RemoteError(told, Reason.FORBIDDEN_PATH)
    return Url.parse(target)


def _read(url: Url, response: http.client.HTTPResponse, start: int, end: int) -> tuple[bytes, Stat]:
    if response.status in _BUSY:
        raise _Busy(f"the server answers {response.status} {response.reason}")
    if response.status in (404, 410):
        raise RemoteError(f"there is no file at {url}", Reason.MISSING_FILE)
    if response.status in (401, 403):
        raise RemoteError(f"{url}: access denied ({response.status})", Reason.NOT_READABLE)
    if response.status == 416:
        raise RemoteError(f"{url} is empty, or shorter than it was", Reason.NOT_MEDIA)
    if response.status not in (200, 206):
        told = f"{url}: the server answers {response.status} {response.reason}"
        raise RemoteError(told, Reason.NOT_READABLE)
    if response.status == 206:
        told_range = _RANGE.fullmatch(response.getheader("Content-Range", "").strip())
        if told_range is None or int(told_range[1]) != start:
            raise RemoteError(f"{url}: the server gives another part than it was asked for", Reason.NOT_READABLE)
        size, length = int(told_range[3]), int(told_range[2]) + 1 - start
    else:  # it knows no ranges: what is before is read and left
        if start > MAX_SKIPPED_BYTES:
            told = f"{url}: the server gives no ranges: only the first {MAX_SKIPPED_BYTES // 10**6} MB can be read"
            raise RemoteError(told, Reason.NOT_READABLE)
        size = int(response.getheader("Content-Length") or -1)
        if size < 0:
            raise RemoteError(f"{url}: the server does not say how large the file is", Reason.NOT_READABLE)
        length = min(end, size) - start
        _skip(response, start)
    etag = response.getheader("ETag") or response.getheader("Last-Modified") or ""
    if not etag:
        told = f"{url}: the server names neither ETag nor Last-Modified, by which a change could be told"
        raise RemoteError(told, Reason.NOT_READABLE)
    content = response.read(min(length, end - start))
    if len(content) < min(length, end - start):
        raise _Busy("the connection ended in the middle of the file")
    return content, Stat(size, etag)


def _skip(response: http.client.HTTPResponse, count: int) -> None:
    while count > 0:
        left = len(response.read(min(count, 2**20)))
        if not left:
            raise _Busy("the connection ended in the middle of the file")
        count -= left
