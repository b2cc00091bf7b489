"""What LanceDB searches: beside the items, a table of words and one of vectors for each modality.

Their columns: what filters ask for; `words` (title, description, tags, what is heard, seen and shown), with a full-text
index whose tokenizer finds the words of Chinese, Japanese and Thai as well; `vector` (the mean of the tokens) and
`tokens`, both L2-normalised, their `starts` and `ends` in seconds; `state`, a hash of what the row was made from.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmrec.remote import text_if_there, write_text
from mmrec.store.classes import ClassVectors, class_mark, shown
from mmrec.store.feature_store import FeatureStore
from mmrec.store.features import MODALITIES, Modality
from mmrec.store.findings import Findings, TimedText
from mmrec.store.keys import digest
from mmrec.store.rows import token_matrix
from mmrec.store.search_columns import READ, SearchColumns
from mmrec.store.search_vectors import vector_rows, vector_schema
from mmrec.store.tables import LONGEST_READ, Tables, drop_old_versions, text_literal

ROWS_AT_ONCE = 1024
INDEXED_ROWS = 20_000
"""From so many rows on vectors have an index; below, every search is exact."""
EXACT_ROWS = 10_000
"""A filter that leaves no more rows than these is searched without the index, exactly."""
SUB_VECTOR = 8
"""How many numbers of a vector one byte of the index stands for, at most."""
NUM_PROBES, REFINE_FACTOR = 64, 10
WORDS = "words"
_MADE_FROM = ("key", "fingerprint", "reason", "stale_since")

Hits = list[tuple[str, float]]
"""Item ids with their scores, the best first; equal scores in the order of the ids."""


@dataclass(frozen=True, slots=True)
class SearchMoments:
    """The tokens of an item `(T, D)`, L2-normalised, and their spans `(T, 2)` in seconds."""

    vectors_TD: NDArray[np.float32]
    spans_T2: NDArray[np.float64]


class SearchTables:
    """The tables of a store that are searched; `refresh` makes them, and brings them up to date.

    >>> import mmrec
    >>> from mmrec.store import SearchTables
    >>> tables = SearchTables(mmrec.FeatureStore("store"))
    >>> tables.is_missing, tables.refresh(), tables.is_missing
    (True, 64, False)
    >>> tables.refresh()
    0
    >>> [item_id for item_id, score in tables.matching("piano", limit=2)]
    ['piano-0', 'piano-1']
    """

    def __init__(self, store: FeatureStore) -> None:
        self.store = store
        self._prefix = f"search.{store.encoder_set}." if store.encoder_set else "search."
        self._tables = Tables(store.folder)
        self._path = store.folder / f"{self._prefix}json"
        self._open: dict[str, Any] = {}

    # --- what they are made from --------------------------------------------------------------------------------------

    @property
    def is_missing(self) -> bool:
        return not self._state

    @property
    def is_outdated(self) -> bool:
        """Whether the store was written after they were; only a refresh can tell if that concerns them."""
        return (self._state.get("version"), self._state.get("labels", {})) != self._versions

    @property
    def columns(self) -> SearchColumns:
        return SearchColumns(self._state["columns"])

    @property
    def fingerprints(self) -> dict[Modality, str]:
        """The encoders of the tokens that can be searched."""
        return cast("dict[Modality, str]", self._state["fingerprints"])

    @property
    def timed(self) -> list[Modality]:
        """The modalities whose tokens have times; text where words were heard or seen."""
        return [m for m in MODALITIES if m != "text" or self._state.get("timed_text")]

    @property
    def _state(self) -> dict[str, Any]:
        try:
            return dict(json.loads(text_if_there(self._path) or "{}"))
        except (OSError, ValueError):
            return {}

    @property
    def _versions(self) -> tuple[int, dict[str, int]]:
        return self.store.version, self.store.labels.versions()

    def refresh(self) -> int:
        """Make them what the store is now; returns how many of their rows were written or deleted.

        Rows whose content is what it was stay as they are; those of imported features, which have no key to tell by,
        are written again wherever the store has changed. Raises `StoreError` where tokens of several encoders lie
        mixed, and while another process writes.
        """
        with self._tables.lock(), self._tables.errors():
            if not self.is_outdated:
                return 0
            (version, labels), fingerprints = self._versions, self.store.fingerprints()
            keys = [f"{modality}_{name}" for modality in MODALITIES for name in _MADE_FROM]
            keys.append("visual_class_scores")
            rows = {row["item_id"]: row for row in self.store.to_arrow([*READ, *keys]).to_pylist()}
            labelled = self.store.labels.of_items()
            metadata = {i: labelled.get(i, {}) | json.loads(row["metadata"] or "{}") for i, row in rows.items()}
            columns = SearchColumns.of(list(metadata.values()))
            values = {item_id: columns.of_row(row, metadata[item_id]) for item_id, row in rows.items()}
            heard_and_seen = Findings(self.store).word_digests()
            shown_in = {item_id: shown(row) for item_id, row in rows.items()}
            written = self._refresh_words(columns, values, heard_and_seen, shown_in)
            for modality in MODALITIES:
                of_modality = {item_id: row for item_id, row in rows.items() if row[f"{modality}_fingerprint"]}
                if modality in fingerprints or self._tables.has(self._prefix + modality):
                    written += self._refresh_vectors(modality, columns, of_modality, values)
            state = {
                "version": version,
                "labels": labels,
                "columns": columns.own,
                "fingerprints": fingerprints,
                "timed_text": bool(heard_and_seen),
            }
            write_text(self._path, json.dumps(state, ensure_ascii=False))
            self._open.clear()
            return written

    def _refresh_words(
        self,
        columns: SearchColumns,
        values: Mapping[str, Mapping[str, Any]],
        heard_and_seen: Mapping[str, str],
        shown_in: Mapping[str, Sequence[str]],
    ) -> int:
        from lancedb.index import FTS

        schema = pa.schema([pa.field("state", pa.string()), *columns.fields, pa.field(WORDS, pa.string())])
        table = self._tables.derived(self._prefix + WORDS, schema)
        states = {
            i: digest(*row.values(), *shown_in[i], *filter(None, [heard_and_seen.get(i)])) for i, row in values.items()
        }
        changes = _delete_left(table, states)
        for ids in _blocks(changes.item_ids):
            found = Findings(self.store).words([i for i in ids if i in heard_and_seen])
            made = [
                {**values[i], "state": states[i], WORDS: _words(values[i], found.get(i, ()), shown_in[i])} for i in ids
            ]
            _put(table, pa.Table.from_pylist(made, schema=schema), changes.stored)
        if changes.count and table.count_rows():
            if not table.list_indices():
                table.create_index(WORDS, config=FTS(base_tokenizer="icu", stem=False, remove_stop_words=False))
            drop_old_versions(table, LONGEST_READ)
        return changes.count

    def _refresh_vectors(
        self,
        modality: Modality,
        columns: SearchColumns,
        rows: Mapping[str, Mapping[str, Any]],
        values: Mapping[str, Mapping[str, Any]],
    ) -> int:
        name, parts = self._prefix + modality, [f"{modality}_{part}" for part in ("tokens", "starts", "ends")]
        dims = {e.fingerprint: e.dim for e in self.store.encoders() if e.modality == modality}
        if not rows:
            num_rows = int(self._tables.existing(name).count_rows())
            self._tables.drop(name)
            return num_rows
        schema = vector_schema(columns, dims[next(iter(rows.values()))[f"{modality}_fingerprint"]])
        table = self._tables.derived(name, schema)
        states = {
            item_id: digest(*values[item_id].values(), *(row[f"{modality}_{part}"] for part in _MADE_FROM))
            if row[f"{modality}_key"]
            else ""
            for item_id, row in rows.items()
        }
        changes = _delete_left(table, states)
        wanted = None if len(changes.item_ids) == len(self.store) else changes.item_ids
        for batch in self.store.scan(["item_id", *parts], wanted) if changes.item_ids else ():
            present = batch.filter(batch.column(parts[0]).is_valid())
            if present.num_rows:
                _put(table, vector_rows(present, parts, values, states, schema), changes.stored)
        if changes.count:
            drop_old_versions(table, LONGEST_READ)
            self._index_vectors(table)
        return changes.count

    def _index_vectors(self, table: Any) -> None:
        """Make the indices that many rows want; `optimize` keeps them."""
        from lancedb.index import IvfPq

        if table.count_rows() >= INDEXED_ROWS and not table.list_indices():
            num_parts = _num_sub_vectors(table.schema.field("vector").type.list_size)
            for column in ("vector", "tokens"):
                table.create_index(column, config=IvfPq(distance_type="cosine", num_sub_vectors=num_parts))

    # --- asking -------------------------------------------------------------------------------------------------------

    def nearest(
        self,
        modality: Modality,
        vectors_TD: NDArray[np.float32],
        *,
        column: Literal["vector", "tokens"],
        where: str = "",
        limit: int,
    ) -> Hits:
        """The items nearest to vectors by cosine, among those that the filter `where` (SQL) leaves.

        Of `tokens`, each vector takes the nearest one of an item (MaxSim), and the score is the mean over the vectors.
        """
        table, num_vectors = self._table(modality), len(vectors_TD)
        with self._tables.errors():
            if where and table.count_rows(where) <= EXACT_ROWS:
                return _nearest_of(table.search().where(where), vectors_TD, column)[:limit]
            query = table.search(vectors_TD[0] if num_vectors == 1 else vectors_TD, vector_column_name=column)
            query = query.distance_type("cosine").limit(limit).select(["item_id", "_distance"])
            query = query.nprobes(NUM_PROBES).refine_factor(REFINE_FACTOR)
            if where:
                query = query.where(where, prefilter=True)
            found = query.to_arrow()
        scores = (num_vectors - found["_distance"].to_numpy()) / num_vectors
        return _sorted(found["item_id"].to_pylist(), scores)

    def matching(
        self, words: str, *, shown: Mapping[str, float] = {}, without: Sequence[str] = (), where: str = "", limit: int
    ) -> Hits:
        """The items that have any of these words, or whose pictures show any of these classes, by BM25 and a weight.

        Those that have all words of a text in `without` are left out.
        """
        from lancedb.query import BooleanQuery, FullTextOperator, MatchQuery, Occur

        asked = [(Occur.SHOULD, MatchQuery(words, WORDS))] if words else []
        asked += [(Occur.SHOULD, MatchQuery(class_mark(name), WORDS, boost=boost)) for name, boost in shown.items()]
        asked += [(Occur.MUST_NOT, MatchQuery(text, WORDS, operator=FullTextOperator.AND)) for text in without]
        with self._tables.errors():
            query = self._table(WORDS).search(BooleanQuery(asked), query_type="fts").limit(limit)
            if where:
                query = query.where(where, prefilter=True)
            found = query.select(["item_id", "_score"]).to_arrow()
        return _sorted(found["item_id"].to_pylist(), found["_score"].to_numpy())

    def classes(self) -> list[str]:
        """The names of the classes of what pictures show, likely or not."""
        with self._tables.errors():
            column = self._table(WORDS).search().select(["visual_classes"]).to_arrow()["visual_classes"]
        return sorted(set(pc.list_flatten(column).to_pylist()))

    @property
    def class_vectors(self) -> ClassVectors:
        return ClassVectors(self._tables, self._prefix + "classes")

    def count(self, where: str) -> int:
        with self._tables.errors():
            return int(self._table(WORDS).count_rows(where))

    def filtered(self, where: str) -> list[str]:
        """The items that a filter (SQL) leaves."""
        with self._tables.errors():
            found = self._table(WORDS).search().where(where).select(["item_id"]).to_arrow()
        return list(found["item_id"].to_pylist())

    def titles(self, item_ids: Collection[str]) -> dict[str, str]:
        """Of those that are there."""
        with self._tables.errors():
            found = self._table(WORDS).search().where(_among(item_ids)).select(["item_id", "title"]).to_arrow()
        return dict(zip(found["item_id"].to_pylist(), found["title"].to_pylist(), strict=True))

    def means(self, modality: Modality, item_ids: Collection[str]) -> dict[str, NDArray[np.float32]]:
        """The mean of the tokens of items `(D,)`, L2-normalised; those that have none are left out."""
        if not item_ids:
            return {}
        found = self._of_items(modality, item_ids, ["item_id", "vector"])
        vectors_ID = found["vector"].combine_chunks().flatten().to_numpy().reshape(len(found), -1)
        return dict(zip(found["item_id"].to_pylist(), vectors_ID, strict=True))

    def moments(self, modality: Modality, item_ids: Collection[str]) -> dict[str, SearchMoments]:
        """The tokens of items; those that have none are left out."""
        if not item_ids:
            return {}
        found = self._of_items(modality, item_ids, parts := ["item_id", "tokens", "starts", "ends"])
        return {
            row["item_id"].as_py(): SearchMoments(
                np.array(row["tokens"].as_py(), np.float32),
                np.column_stack([row["starts"].as_py(), row["ends"].as_py()]),
            )
            for row in ({name: found[name][place] for name in parts} for place in range(len(found)))
        }

    def _of_items(self, modality: Modality, item_ids: Collection[str], columns: list[str]) -> pa.Table:
        with self._tables.errors():
            found: pa.Table = self._table(modality).search().where(_among(item_ids)).select(columns).to_arrow()
        return found.combine_chunks()

    def _table(self, name: str) -> Any:
        if name not in self._open:
            with self._tables.errors():
                self._open[name] = self._tables.existing(self._prefix + name)
        return self._open[name]


def _nearest_of(rows: Any, vectors_TD: NDArray[np.float32], column: str) -> Hits:
    """All that a query without vectors finds, by cosine: faster than the engine, which compares before it filters."""
    item_ids: list[str] = []
    cosines = [np.zeros(0, np.float32)]
    for batch in rows.select(["item_id", column]).to_batches(ROWS_AT_ONCE):
        if batch.num_rows:
            item_ids += batch["item_id"].to_pylist()
            cosines.append(_cosines(batch[column], vectors_TD))
    return _sorted(item_ids, np.concatenate(cosines))


def _cosines(column: pa.Array, vectors_TD: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each row `(I,)`: of its vector or its nearest token, the mean over the vectors that are asked for."""
    if isinstance(column, pa.FixedSizeListArray):
        cosines_TI = vectors_TD @ column.flatten().to_numpy().reshape(len(column), -1).T
    else:
        firsts_I, tokens_ND = token_matrix(column)
        cosines_TI = np.maximum.reduceat(vectors_TD @ tokens_ND.T, firsts_I, axis=1)
    return np.asarray(cosines_TI.mean(axis=0), np.float32)


def _num_sub_vectors(dim: int) -> int:
    """Of as many numbers each as divide the width, at most `SUB_VECTOR`; the engine's choice for odd widths is one."""
    return dim // max(width for width in range(1, SUB_VECTOR + 1) if dim % width == 0)


def _among(item_ids: Collection[str]) -> str:
    return f"item_id IN ({', '.join(map(text_literal, item_ids))})"


def _sorted(item_ids: Sequence[str], scores: NDArray[Any]) -> Hits:
    hits = zip(item_ids, map(float, scores), strict=True)
    return sorted(hits, key=lambda hit: (-hit[1], hit[0]))


@dataclass(frozen=True, slots=True)
class _Changes:
    """The items whose rows are to be written, those of which `stored` has one; how many rows were deleted."""

    item_ids: Sequence[str]
    stored: frozenset[str]
    num_deleted: int

    @property
    def count(self) -> int:
        return len(self.item_ids) + self.num_deleted


def _delete_left(table: Any, states: Mapping[str, str]) -> _Changes:
    """Delete the rows of items that left, and find what is to be written of the others."""
    rows = table.search().select(["item_id", "state"]).to_arrow()
    stored = dict(zip(rows["item_id"].to_pylist(), rows["state"].to_pylist(), strict=True))
    left = [item_id for item_id in stored if item_id not in states]
    for ids in _blocks(left):
        table.delete(_among(ids))
    changed = [item_id for item_id, state in states.items() if not state or stored.get(item_id) != state]
    return _Changes(changed, frozenset(stored), len(left))


def _blocks(item_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (item_ids[start : start + ROWS_AT_ONCE] for start in range(0, len(item_ids), ROWS_AT_ONCE))


def _put(table: Any, rows: pa.Table, stored: Collection[str]) -> None:
    is_stored = np.array([item_id in stored for item_id in rows["item_id"].to_pylist()], np.bool_)
    if not is_stored.all():
        table.add(rows.filter(pa.array(~is_stored)))
    if is_stored.any():
        table.merge_insert("item_id").when_matched_update_all().execute(rows.filter(pa.array(is_stored)))


def _words(values: Mapping[str, Any], heard_and_seen: Iterable[TimedText], classes: Sequence[str]) -> str:
    of_catalog = [values["title"], values["description"], ", ".join(values["tags"] or ())]
    of_pictures = [f"{name} {class_mark(name)}" for name in classes]
    return "\n".join(filter(None, [*of_catalog, *(words.text for words in heard_and_seen), *of_pictures]))
