"""The classes of what pictures show: as words of the full text, and as vectors by an encoder of text."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmrec.errors import StoreError
from mmrec.store.tables import Tables, text_literal

logger = logging.getLogger(__name__)
SHOWN_FROM = 0.2
"""The probability from which on a picture shows something of a class."""
Encode = Callable[[Sequence[str]], NDArray[np.float32]]


def shown(row: Mapping[str, Any]) -> list[str]:
    """The classes that the pictures of a row of the items show."""
    pairs = zip(row["visual_classes"] or (), row["visual_class_scores"] or (), strict=True)
    return [name for name, score in pairs if score >= SHOWN_FROM]


def class_mark(name: str) -> str:
    """One word to an index, and a word of no language: by it a class is found, and not its name in a title.

    >>> from mmrec.store.classes import class_mark
    >>> class_mark("jack-o'-lantern")
    'shown_jack_o_lantern'
    """
    return "shown_" + re.sub(r"\W+", "_", name)


class ClassVectors:
    """The vectors of classes by encoders of text, kept in a table; where it may not be written, they are made again."""

    def __init__(self, tables: Tables, table: str) -> None:
        self._tables, self._table = tables, table

    def of(self, names: Sequence[str], fingerprint: str, encode: Encode) -> NDArray[np.float32]:
        """`(C, D)`, as an encoder makes them; those that it has not made yet are encoded."""
        kept = self._kept(fingerprint)
        if lacking := [name for name in names if name not in kept]:
            kept |= dict(zip(lacking, encode(lacking), strict=True))
            self._keep(fingerprint, kept)
        return np.array([kept[name] for name in names], np.float32)

    def _kept(self, fingerprint: str) -> dict[str, NDArray[np.float32]]:
        if not self._tables.has(self._table):
            return {}
        with self._tables.errors():
            query = self._tables.existing(self._table).search()
            rows = query.where(f"fingerprint = {text_literal(fingerprint)}").to_arrow()
        vectors = (np.array(vector, np.float32) for vector in rows["vector"].to_pylist())
        return dict(zip(rows["name"].to_pylist(), vectors, strict=True))

    def _keep(self, fingerprint: str, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        dim = len(next(iter(vectors.values())))
        vector = pa.field("vector", pa.list_(pa.float32(), dim))
        schema = pa.schema([pa.field("name", pa.string()), pa.field("fingerprint", pa.string()), vector])
        rows = [{"name": n, "fingerprint": fingerprint, "vector": v.tolist()} for n, v in vectors.items()]
        try:
            with self._tables.lock(), self._tables.errors():
                table = self._tables.derived(self._table, schema)
                table.add(pa.Table.from_pylist(rows, schema=schema), mode="overwrite")
        except StoreError as error:
            logger.debug("the vectors of classes are not kept: %s", error)
