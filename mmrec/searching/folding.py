"""One of several items that are the same stands for all of them in a list."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from mmrec.errors import SearchError


class Copies:
    """Which items are the same as which, by pairs. Two copies of one item need not be copies of each other.

    >>> from mmrec.searching import Copies
    >>> copies = Copies([("film", "trailer"), ("film", "clip")])
    >>> copies.folded(["trailer", "film", "clip", "other"])
    ['trailer', 'clip', 'other']
    >>> copies.folded(["film", "trailer", "clip", "other"])
    ['film', 'other']
    """

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        same: dict[str, set[str]] = defaultdict(set)
        for first, second in pairs:
            if first != second:
                same[first].add(second)
                same[second].add(first)
        self.same: Mapping[str, set[str]] = dict(same)

    def __repr__(self) -> str:
        return f"Copies({sum(map(len, self.same.values())) // 2} pairs of {len(self.same)} items)"

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Copies:
        """The `pairs` of what `mmrec duplicates --json` printed. Raises `SearchError` for what is no such file."""
        expected = "expected what `mmrec duplicates --json` prints"
        try:
            pairs = json.loads(Path(path).read_text(encoding="utf-8"))["pairs"]
        except OSError as error:
            raise SearchError(f"{path} cannot be read: {error.strerror or error}; {expected}") from None
        except (ValueError, KeyError, TypeError):
            raise SearchError(f"{path} is no JSON object with pairs: {expected}") from None
        for pair in pairs if isinstance(pairs, list) else [pairs]:
            if not (isinstance(pair, list) and [type(item_id) for item_id in pair] == [str, str]):
                raise SearchError(f"{path} has {pair!r} among its pairs: {expected}, with two ids in each") from None
        return cls(map(tuple, pairs))

    def folded(self, item_ids: Iterable[str]) -> list[str]:
        """The items of a list, without those of which a copy stands before them."""
        kept: list[str] = []
        hidden: set[str] = set()
        for item_id in item_ids:
            if item_id not in hidden:
                kept.append(item_id)
                hidden |= self.same.get(item_id, set())
        return kept

    def most_hidden(self, k: int) -> int:
        """How many items k items can hide: so many more than k are enough for k that are left."""
        return sum(sorted(map(len, self.same.values()), reverse=True)[: max(0, k)])
