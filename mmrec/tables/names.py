"""The names of columns: which are taken for which, and which cannot be told apart."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from mmrec.errors import MMRecError

UNNAMED = frozenset({"", "__index_level_0__"})
"""What the row numbers of a data frame are called in a file."""


class ColumnNames:
    """Knows the columns of a table by names that are only almost theirs: `Media`, ` media`, `Item ID`.

    Args:
        known: the names that mean something.
        required: those that must be there.
        others: whether columns of other names are kept, or passed over.
        error: what is raised for a column that is missing or there more than once.

    `renamed` holds the names that were found in place of known ones.
    """

    def __init__(self, known: Sequence[str], *, required: Sequence[str], others: bool, error: type[MMRecError]) -> None:
        self._known = {name: name for name in known}
        self._required = required
        self._others = others
        self._error = error
        self.renamed: dict[str, str] = {}

    def resolve(self, found: Sequence[str], place: str) -> list[str]:
        """What each column is taken for; empty where it is passed over."""
        names = [self._resolve_one(name) for name in found]
        there = {name for name in names if name}
        if len(there) < len(names) - names.count(""):
            self._refuse_repeated(found, names, place)
        if missing := [name for name in self._required if name not in there]:
            hint = ": cells are separated by commas" if len(found) == 1 and re.search("[;\t|]", found[0]) else ""
            raise self._error(
                f"{place}: there is no column {' and '.join(missing)}; found {', '.join(map(repr, found))}{hint}"
            )
        return names

    def _resolve_one(self, found: str) -> str:
        if found in self._known:
            return found
        name = self._known.get(_plain(found), "")
        if name:
            self.renamed[found] = name
            return name
        return found.strip() if self._others and found not in UNNAMED else ""

    def _refuse_repeated(self, found: Sequence[str], names: Sequence[str], place: str) -> None:
        for name in names:
            alike = [other for other, taken in zip(found, names, strict=True) if name and taken == name]
            if len(set(alike)) > 1:
                listed = " and ".join(map(repr, alike))
                raise self._error(f"{place}: {listed} are both taken for the column {name}: rename or drop one")
            if len(alike) > 1:
                raise self._error(f"{place}: the header names {name!r} more than once")


@lru_cache(maxsize=1024)
def _plain(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip()).casefold()
