"""Which media files may leave the machine: those of the catalog, of known kinds, below one folder."""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from mmrec.service.problems import RequestProblem, not_found

_KINDS = ("image/", "audio/", "video/")
_WITH_SCRIPTS = ("image/svg+xml",)
_BY_FORMAT = {
    "mov": "video/mp4",
    "matroska": "video/webm",
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
    "gif": "image/gif",
    "png_pipe": "image/png",
    "jpeg_pipe": "image/jpeg",
    "webp_pipe": "image/webp",
}
"""By what the decoder called the container of a file whose name does not tell."""


def content_type(path: str, facts: Mapping[str, Any]) -> str | None:
    """The kind of a media file; None for what is no picture, sound or video, or may run as a script."""
    kind = mimetypes.guess_type(path)[0] or _BY_FORMAT.get(str(facts.get("format", "")).split(",")[0])
    return kind if kind and kind.startswith(_KINDS) and kind not in _WITH_SCRIPTS else None


def common_root(paths: Sequence[str]) -> Path | None:
    """The deepest folder, links resolved, that files lie in by their names; None where there are none."""
    folders = {os.path.dirname(path) for path in paths if os.path.isabs(path)}
    return Path(os.path.realpath(os.path.commonpath(folders))) if folders else None


def servable(item_id: str, path: str, root: Path | None) -> Path:
    """Where a file of the catalog lies, links resolved; a problem where that is not below `root`, or no file."""
    try:
        real = Path(path).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        raise not_found(f"the media file of item {item_id!r} is not there") from None
    if root is None or not real.is_relative_to(root):
        raise RequestProblem(HTTPStatus.FORBIDDEN, f"the media file of item {item_id!r} lies outside the media root")
    if not real.is_file():
        raise not_found(f"the media file of item {item_id!r} is no file")
    if not os.access(real, os.R_OK):
        raise RequestProblem(HTTPStatus.FORBIDDEN, f"the media file of item {item_id!r} may not be read")
    return real
