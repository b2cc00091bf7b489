"""Files that are read by ranges, as if they were local: only what is asked for is fetched, and a little beyond."""

from __future__ import annotations

import io
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, cast

from mmrec.remote import objects, web
from mmrec.remote.access import Access, host_of
from mmrec.remote.objects import Stat
from mmrec.remote.urls import Place, Url

BLOCK_BYTES = 256 * 2**10
FIRST_BLOCKS, MOST_BLOCKS = 4, 32
"""At once: of the head of a file, and where it is read on and on."""
KEPT_BYTES = 16 * 2**20
WHOLE_BYTES = 4 * 2**20
"""Of smaller files, all that is left comes with the second request."""


def stat(url: Url, access: Access) -> Stat:
    """How large an object is, and what changes with its content; nothing of it is fetched."""
    access.check(url)
    return web.stat(url, access) if url.scheme == "https" else objects.stat(url)


def open_file(place: Place, access: Access | None = None) -> BinaryIO:
    """A file to read from, wherever it lies. Raises `OSError` for a local one, `RemoteError` for a URL.

    >>> from pathlib import Path
    >>> from mmrec.remote import open_file
    >>> with open_file(Path("catalog.csv")) as file:
    ...     file.read(7)
    b'item_id'
    """
    if isinstance(place, Path):
        return place.open("rb")
    return cast(BinaryIO, io.BufferedReader(RangedFile(place, access or Access()), BLOCK_BYTES))


def open_named(place: Place) -> BinaryIO:
    """As `open_file`, for a file that the user named: by that, its host is allowed, though none that it leads to."""
    return open_file(place, None if isinstance(place, Path) else Access(hosts=(host_of(place),)))


class RangedFile(io.RawIOBase):
    """An object of one content, from its first read on: where it is written anew meanwhile, reading fails.

    Blocks are fetched as they are read, more at once where they are read one after the other, and the latest are kept.
    """

    def __init__(self, url: Url, access: Access) -> None:
        access.check(url)
        self.url, self._access = url, access
        self._position = self._next = 0
        self._num_blocks = 1
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        head, self.stat = self._fetch(0, FIRST_BLOCKS * BLOCK_BYTES, "")
        self._keep(0, head)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.stat.size}[whence]
        if start + offset < 0:
            raise OSError(f"{self.url}: no place before its start")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        if self._position >= self.stat.size:
            return 0
        number, offset = divmod(self._position, BLOCK_BYTES)
        part = memoryview(self._block(number))[offset : offset + len(buffer)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            self._num_blocks = min(2 * self._num_blocks, MOST_BLOCKS) if number == self._next else 1
            start, end = number * BLOCK_BYTES, (number + self._num_blocks) * BLOCK_BYTES
            if self.stat.size <= WHOLE_BYTES:
                end = self.stat.size
            content, _ = self._fetch(start, min(end, self.stat.size), self.stat.etag)
            self._keep(number, content)
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def _fetch(self, start: int, end: int, etag: str) -> tuple[bytes, Stat]:
        if self.url.scheme == "https":
            return web.read_range(self.url, start, end, self._access, etag)
        return objects.read_range(self.url, start, end, etag)

    def _keep(self, number: int, content: bytes) -> None:
        for start in range(0, len(content), BLOCK_BYTES):
            self._blocks[number + start // BLOCK_BYTES] = content[start : start + BLOCK_BYTES]
        self._next = number + -(-len(content) // BLOCK_BYTES)
        while len(self._blocks) * BLOCK_BYTES > KEPT_BYTES:
            self._blocks.popitem(last=False)
