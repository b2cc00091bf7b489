"""By what a media file is recognised: its content, wherever it lies and whenever it was copied."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mmrec.catalog import Item
from mmrec.errors import RemoteError
from mmrec.remote import Access, Url
from mmrec.remote import stat as stat_url
from mmrec.store import HASH_CHARACTERS, StoredKeys, digest

WHOLE_BYTES = 16 * 2**20  # files up to this size are hashed whole
PART_BYTES = 4 * 2**20  # of larger ones the head, the middle and the tail
_THREADS, _LOOKAHEAD = 8, 64


@dataclass(frozen=True, slots=True)
class MediaIdentity:
    """`content` is a hash of the file, `state` one of its path, size and time of change; both empty where it is away.

    Of what lies at a URL, ETag and size say what it is: nothing of it is fetched to tell.

    While the state is the same, so is the content: the file is not read again.
    """

    content: str = ""
    state: str = ""


ABSENT = MediaIdentity()


def identified(items: Iterable[Item], keys: StoredKeys, access: Access) -> Iterator[tuple[Item, MediaIdentity]]:
    """The items in their order, with the identities of their media; several files are read at once."""
    waiting: deque[tuple[Item, Future[MediaIdentity]]] = deque()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="identity") as threads:
        for item in items:
            if item.media is None and not waiting:
                yield item, ABSENT
                continue
            waiting.append((item, threads.submit(_identify, item, keys, access)))
            if len(waiting) >= _LOOKAHEAD:
                earlier, identity = waiting.popleft()
                yield earlier, identity.result()
        for earlier, identity in waiting:
            yield earlier, identity.result()


def _identify(item: Item, keys: StoredKeys, access: Access) -> MediaIdentity:
    if item.media is None or item.problem is not None:
        return ABSENT
    if isinstance(item.media, Url):
        return _of_url(item.media, access)
    try:
        status = item.media.stat()
        if not stat.S_ISREG(status.st_mode):
            return ABSENT
        stored = keys.row(item.item_id)
        state = _state(item.media, status)
        if stored is not None and stored.media_hash and stored.media_state == state:
            return MediaIdentity(stored.media_hash, state)
        return MediaIdentity(content_hash(item.media, status.st_size), state)
    except (OSError, ValueError):
        return ABSENT


def _of_url(url: Url, access: Access) -> MediaIdentity:
    try:
        there = stat_url(url, access)
    except RemoteError:
        return ABSENT
    of_url = [str(url)] if url.scheme == "https" else []  # a web server's ETags tell the states of one file alone
    return MediaIdentity(digest(there.etag, there.size, *of_url), digest(str(url), there.etag, there.size))


def _state(path: Path, status: os.stat_result) -> str:
    parts = [os.fsencode(path), b"%d %d" % (status.st_size, status.st_mtime_ns)]
    return hashlib.blake2b(b"\0".join(parts), digest_size=HASH_CHARACTERS // 2).hexdigest()


def content_hash(path: Path, size: int) -> str:
    """BLAKE2b of the size and the content: the whole file up to `WHOLE_BYTES`, of larger ones three parts."""
    hashed = hashlib.blake2b(b"%d" % size, digest_size=HASH_CHARACTERS // 2)
    with path.open("rb") as file:
        if size <= WHOLE_BYTES:
            hashed.update(file.read(WHOLE_BYTES))
        else:
            for start in (0, (size - PART_BYTES) // 2, size - PART_BYTES):
                file.seek(start)
                hashed.update(file.read(PART_BYTES))
    return hashed.hexdigest()
