"""Which file or URL a row of a catalog names, and whether it may be opened."""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes

from mmrec.errors import Problem, Reason, RemoteError
from mmrec.remote import Access, Place, Url

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")
_FILE_URL = re.compile(r"^file:(?://(?:localhost)?)?(?=/(?!/))", re.IGNORECASE)


def resolve_media(
    name: str, folder: Place, media_root: Place | None, access: Access
) -> tuple[Place | None, Problem | None]:
    """The path or URL that `media` names, or what forbids it; neither where it names none.

    Args:
        name: a path, relative to `folder` and below it, or absolute; or a URL.
        folder: where the catalog lies.
        media_root: where every file must lie after links are resolved, if given. Without it, a catalog at a URL names
            no files of this machine.
        access: the hosts that `https` may read from.
    """
    if not name.strip():
        return None, None
    try:
        place = _to_url(name, folder, access)
    except RemoteError as error:
        return _forbidden(str(error))
    if place is not None:
        if media_root is not None and not (isinstance(media_root, Url) and place.is_relative_to(media_root)):
            return _forbidden(f"{name!r} lies outside the media root")
        return place, None
    path, problem = _to_path(name, folder)
    if path is None:
        return path, problem
    if media_root is None:
        return (
            (path, None)
            if isinstance(folder, Path)
            else _forbidden(
                f"{name!r} is a file of this machine, which a catalog at a URL may name only with a media root"
            )
        )
    try:
        path = path.resolve()
    except (OSError, RuntimeError) as error:
        return _forbidden(f"{name!r} cannot be resolved: {error}")
    if not (isinstance(media_root, Path) and path.is_relative_to(media_root)):
        return _forbidden(f"{name!r} lies outside the media root")
    return path, None


def _to_url(name: str, folder: Place, access: Access) -> Url | None:
    """The URL that is named, or that a name is relative to; None for a file of this machine."""
    if _URL.match(name) and not _FILE_URL.match(name):
        url = Url.parse(name)
    elif isinstance(folder, Url) and not name.startswith("/") and not _FILE_URL.match(name):
        relative = posixpath.normpath(name)
        if relative.split("/")[0] == ".." or "\0" in name:
            raise RemoteError(f"{name!r} leaves the catalog's folder; use a whole URL", Reason.FORBIDDEN_PATH)
        url = folder / relative
    else:
        return None
    access.check(url)
    return url


def _to_path(name: str, folder: Place) -> tuple[Path | None, Problem | None]:
    start = _FILE_URL.match(name)
    local = name if start is None else os.fsdecode(unquote_to_bytes(name[start.end() :]))
    if "\0" in local:
        return _forbidden(f"{name!r} holds a NUL character")
    path = Path(local)
    if path.is_absolute() or isinstance(folder, Url):
        return path, None
    path = Path(os.path.abspath(folder / path))
    if not path.is_relative_to(os.path.abspath(folder)):
        return _forbidden(f"{name!r} leaves the catalog's folder; use an absolute path")
    return path, None


def _forbidden(detail: str) -> tuple[None, Problem]:
    return None, Problem(Reason.FORBIDDEN_PATH, detail)
