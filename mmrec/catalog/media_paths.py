"""Which file a row of a catalog names, and whether it may be opened."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes

from mmrec.errors import Problem, Reason

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")
_FILE_URL = re.compile(r"^file:(?://(?:localhost)?)?(?=/(?!/))", re.IGNORECASE)


def resolve_media(name: str, folder: Path, media_root: Path | None) -> tuple[Path | None, Problem | None]:
    """The path that `media` names, or what forbids it; neither where it names none.

    Args:
        name: a path, relative to `folder` and below it, or absolute; or a `file://` URL.
        folder: where the catalog lies.
        media_root: where every file must lie after links are resolved, if given.
    """
    if not name.strip():
        return None, None
    path, problem = _to_path(name, folder)
    if path is None or media_root is None:
        return path, problem
    try:
        path = path.resolve()
    except (OSError, RuntimeError) as error:
        return _forbidden(f"{name!r} cannot be resolved: {error}")
    if not path.is_relative_to(media_root):
        return _forbidden(f"{name!r} lies outside the media root")
    return path, None


def _to_path(name: str, folder: Path) -> tuple[Path | None, Problem | None]:
    start = _FILE_URL.match(name)
    local = name if start is None else os.fsdecode(unquote_to_bytes(name[start.end() :]))
    if _URL.match(local):
        return _forbidden(f"{name!r} is a URL; only local files are opened: download it first")
    if "\0" in local:
        return _forbidden(f"{name!r} holds a NUL character")
    path = Path(local)
    if path.is_absolute():
        return path, None
    path = Path(os.path.abspath(folder / path))
    if not path.is_relative_to(os.path.abspath(folder)):
        return _forbidden(f"{name!r} leaves the catalog's folder; use an absolute path")
    return path, None


def _forbidden(detail: str) -> tuple[None, Problem]:
    return None, Problem(Reason.FORBIDDEN_PATH, detail)
