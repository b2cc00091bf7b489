"""Media of the catalog that lie elsewhere, handed on by the service: browsers need no credentials of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from mmrec.errors import Reason, RemoteError
from mmrec.remote import Access, Place, RangedFile, Stat, Url, stat
from mmrec.service.problems import RequestProblem
from mmrec.store import digest

CHUNK_BYTES = 256 * 2**10
_ONE_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)")
_STATUSES = {Reason.FORBIDDEN_PATH: HTTPStatus.FORBIDDEN, Reason.MISSING_FILE: HTTPStatus.NOT_FOUND}


def servable_url(item_id: str, name: str, root: Place | None, access: Access) -> Url:
    """The URL of an item's media; a problem where it may not be read, or does not lie below a root that is set."""
    with told(item_id):
        url = Url.parse(name)
        access.check(url)
    if root is not None and not (isinstance(root, Url) and url.is_relative_to(root)):
        raise RequestProblem(HTTPStatus.FORBIDDEN, f"the media file of item {item_id!r} lies outside the media root")
    return url


def remote_state(item_id: str, url: Url, access: Access) -> Stat:
    """Tells what lies at a URL from what lay there before."""
    with told(item_id):
        return stat(url, access)


def handed_on(
    item_id: str, url: Url, kind: str, access: Access, request: Request, headers: Mapping[str, str]
) -> Response:
    """What lies at a URL, or the one range of it that a request asks for, as it arrives."""
    with told(item_id):
        file = RangedFile(url, access)
    size, etag, asked = file.stat.size, f'"{digest(file.stat.etag)}"', request.headers
    part = _range(asked.get("range", ""), size) if asked.get("if-range", etag) == etag else None
    own, status = {**headers, "accept-ranges": "bytes", "etag": etag}, HTTPStatus.OK
    if part is not None and not part:
        own["content-range"] = f"bytes */{size}"
        return Response(status_code=HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers=own)
    if part is not None:
        own["content-range"], status = f"bytes {part.start}-{part.stop - 1}/{size}", HTTPStatus.PARTIAL_CONTENT
    part = range(size) if part is None else part
    own["content-length"] = str(len(part))
    if request.method == "HEAD":
        return Response(status_code=status, headers=own, media_type=kind)
    return StreamingResponse(_chunks(file, part), status_code=status, headers=own, media_type=kind)


def _range(asked: str, size: int) -> range | None:
    """The bytes that are asked for, none where there are no such; None where all are, or several ranges."""
    found = _ONE_RANGE.fullmatch(asked.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        return range(max(0, size - int(found[2])), size)
    return range(int(found[1]), min(int(found[2] or size) + 1, size))


def _chunks(file: RangedFile, part: range) -> Iterator[bytes]:
    with file:
        file.seek(part.start)
        while left := part.stop - file.tell():
            yield file.read(min(CHUNK_BYTES, left))


@contextmanager
def told(item_id: str) -> Iterator[None]:
    """What another server does not give is a problem of the request."""
    try:
        yield
    except RemoteError as error:
        status = _STATUSES.get(error.reason, HTTPStatus.BAD_GATEWAY)
        raise RequestProblem(status, f"the media file of item {item_id!r} cannot be had: {error}") from None
