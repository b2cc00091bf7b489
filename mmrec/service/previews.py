"""Small pictures and waveforms of media files, decoded by workers that may be killed, the latest kept in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from mmrec.embedding import DecodeLimits, DecodePool
from mmrec.errors import MediaError
from mmrec.remote import Access, Place
from mmrec.reporting import thumbnail, waveform
from mmrec.service.problems import not_found
from mmrec.service.remote_media import remote_state

LIMITS = DecodeLimits(workers=1, timeout_seconds=20, memory_bytes=2 * 2**30)
MOST_KEPT = 2000
WIDTH_STEP = 64
T = TypeVar("T")
Key = tuple[object, ...]


class Previews:
    """Decodes with one worker process for all requests, started by the first of them."""

    def __init__(self, access: Access) -> None:
        self._access, self._pool = access, DecodePool(replace(LIMITS, access=access))
        self._kept: OrderedDict[Key, object] = OrderedDict()
        self._lock = threading.Lock()

    def thumbnail(self, item_id: str, media: Place, seconds: float | None, width: int) -> bytes:
        """A JPEG, at most `width` pixels wide and at least as wide as the next smaller multiple of 64."""
        width = max(width - width % WIDTH_STEP, WIDTH_STEP)
        key = ("thumbnail", *_state(item_id, media, self._access), seconds, width)
        return self._made(key, item_id, lambda: thumbnail(media, seconds, width, pool=self._pool))

    def waveform(self, item_id: str, media: Place, points: int) -> list[float]:
        key = ("waveform", *_state(item_id, media, self._access), points)
        return self._made(key, item_id, lambda: waveform(media, points, pool=self._pool))

    def close(self) -> None:
        self._pool.close()

    def _made(self, key: Key, item_id: str, make: Callable[[], T]) -> T:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]  # type: ignore[return-value]
        try:
            made = make()
        except MediaError as error:
            what = "picture" if key[0] == "thumbnail" else "sound"
            words = f"item {item_id!r} gives no {what}: {error.problem.reason}, {error.problem.detail}"
            raise not_found(words) from None
        with self._lock:
            self._kept[key] = made
            if len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return made


def _state(item_id: str, media: Place, access: Access) -> Key:
    """Tells a file from what it was before."""
    if not isinstance(media, Path):
        return str(media), remote_state(item_id, media, access).etag
    try:
        stat = media.stat()
    except OSError:
        raise not_found(f"the media file of item {item_id!r} is not there") from None
    return str(media), stat.st_mtime_ns, stat.st_size
