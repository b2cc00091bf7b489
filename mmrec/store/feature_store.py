"""The feature store: one row per item, on LanceDB. The only file that imports lancedb."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import filelock
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmrec.catalog import Item
from mmrec.errors import MMRecError, StoreError
from mmrec.store.exporting import export_npy, export_parquet
from mmrec.store.features import MODALITIES, Features, Modality, Status
from mmrec.store.keys import StoredKeys
from mmrec.store.rows import (
    CATALOG_SCHEMA,
    SCHEMA,
    catalog_row,
    mean_tokens,
    to_features,
    to_table,
)
from mmrec.store.status import StoreStatus

TABLE = "items"
ENCODERS_TABLE = "encoders"
SCAN_ROWS = 1024
COMMITS_BETWEEN_COMPACTIONS = 64
MAX_FRAGMENTS = 1024
OLD_VERSIONS_KEPT = timedelta(hours=1)

_ENCODERS_SCHEMA = pa.schema(
    [
        pa.field("fingerprint", pa.string(), nullable=False),
        pa.field("modality", pa.string()),
        pa.field("name", pa.string()),
        pa.field("dim", pa.int64()),
        pa.field("spec", pa.string()),
        pa.field("encoder_fingerprint", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderRecord:
    """Which encoder made the tokens that carry its fingerprint; `spec` is what loads it again.

    `fingerprint` covers the sampling as well, `encoder_fingerprint` the encoder alone; empty where it is not known.

    >>> import mmrec
    >>> for record in mmrec.FeatureStore("store").encoders():
    ...     print(record.modality, record.dim, record.spec)
    visual 16 {'kind': 'imported'}
    audio 8 {'kind': 'imported'}
    text 1024 {'kind': 'hashed-ngrams'}
    """

    fingerprint: str
    modality: Modality
    name: str
    dim: int
    spec: Mapping[str, Any]
    encoder_fingerprint: str = ""


@contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except MMRecError:
        raise
    except (OSError, RuntimeError, ValueError, pa.ArrowException) as error:
        raise StoreError(f"store {folder}: {error}") from error


class FeatureStore:
    """A folder that holds the features of a catalog's items.

    >>> import mmrec
    >>> store = mmrec.FeatureStore("store")
    >>> store
    FeatureStore('store', 16 items, visual 16, audio 8, text 1024)
    >>> ids, vectors_ID = store.vectors("visual")
    >>> vectors_ID.shape
    (16, 16)
    >>> next(store.features(["rain-0"]))
    Features('rain-0', ok, visual 2 x 16, audio 2 x 8, text 1 x 1024)

    Opening one that is not there raises `StoreError` unless `create` is set. Any number of processes may read while one
    writes; writers take `lock()`. It keeps no file open, so it needs no closing; a copy or a pickle opens the same
    folder again.
    """

    def __init__(self, folder: str | os.PathLike[str], *, create: bool = False) -> None:
        self.folder = Path(folder)
        if not create and not (self.folder / f"{TABLE}.lance").is_dir():
            raise StoreError(
                f"there is no store at {self.folder}: make one with `mmrec embed CATALOG --store {self.folder}`"
            )
        import lancedb

        with _storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._database = lancedb.connect(self.folder)
            self._items = self._open(TABLE, SCHEMA, create)
            self._encoders = self._open(ENCODERS_TABLE, _ENCODERS_SCHEMA, create)
        self._commits = 0
        self._replaced_rows = 0

    def _open(self, name: str, schema: pa.Schema, create: bool) -> Any:
        if create and not self._has_version(name):
            with self.lock():
                if not self._has_version(name):
                    shutil.rmtree(self.folder / f"{name}.lance", ignore_errors=True)
                    self._database.create_table(name, schema=schema)
        table = self._database.open_table(name)
        if not table.schema.equals(schema):
            raise StoreError(f"store {self.folder} was made by another version of mmrec: embed into a new folder")
        return table

    def _has_version(self, name: str) -> bool:
        """Whether a table was made to its end; a kill while it is made leaves a folder without any version."""
        return any((self.folder / f"{name}.lance" / "_versions").glob("*"))

    def __reduce__(self) -> tuple[type[FeatureStore], tuple[Path]]:
        return FeatureStore, (self.folder.absolute(),)

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.folder)!r}, {self._contents()})"

    def _contents(self) -> str:
        """How many items there are, and the widths of the encoders that it was written by."""
        try:
            if not self._has_version(TABLE):
                return "no longer there"
            widths: dict[Modality, list[int]] = {modality: [] for modality in MODALITIES}
            for encoder in self.encoders():
                if encoder.dim not in widths[encoder.modality]:
                    widths[encoder.modality].append(encoder.dim)
            named = [f"{modality} {' or '.join(map(str, dims))}" for modality, dims in widths.items() if dims]
            return ", ".join([f"{len(self)} items", *named])
        except Exception:  # noqa: BLE001 - printing never raises
            return "not readable"

    def __len__(self) -> int:
        with _storage_errors(self.folder):
            return int(self._items.count_rows())

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the right to write; `StoreError` at once where another process holds it."""
        lock = filelock.FileLock(self.folder / "writer.lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise StoreError(
                f"store {self.folder} is being written by another job: wait for it, or use another folder"
            ) from None
        except OSError as error:
            raise StoreError(f"store {self.folder} cannot be written: {error.strerror or error}") from error
        try:
            yield
        finally:
            lock.release()

    # --- writing ------------------------------------------------------------------------------------------------------

    def add_encoders(self, encoders: Iterable[EncoderRecord]) -> None:
        rows = [{**asdict(encoder), "spec": json.dumps(dict(encoder.spec), sort_keys=True)} for encoder in encoders]
        if rows:
            with _storage_errors(self.folder):
                insert = self._encoders.merge_insert("fingerprint").when_not_matched_insert_all()
                insert.execute(
                    pa.Table.from_pylist(rows, schema=self._encoders.schema)
                )  # older stores have fewer columns

    def write(self, new: Sequence[Features], changed: Sequence[Features] = ()) -> None:
        """Add the rows of `new` items and replace those of `changed` ones; each of the two at once or not at all."""
        with _storage_errors(self.folder):
            if new:
                self._items.add(to_table(new))
            if changed:
                self._items.merge_insert("item_id").when_matched_update_all().execute(to_table(changed))
        self._replaced_rows += len(changed)
        self._commits += 1
        if self._commits % COMMITS_BETWEEN_COMPACTIONS == 0:
            self.compact()

    def relabel(self, items: Sequence[tuple[Item, str]]) -> None:
        """Take over what the catalog says of items, each given with its catalog key, whose tokens stay valid."""
        if items:
            table = pa.Table.from_pylist([catalog_row(item, key) for item, key in items], schema=CATALOG_SCHEMA)
            with _storage_errors(self.folder):
                self._items.merge_insert("item_id").when_matched_update_all().execute(table)
            self._replaced_rows += len(items)

    def prune(self, keep: Iterable[str]) -> int:
        """Delete the rows of all other items; returns how many."""
        ids = pa.table({"item_id": pa.array(keep, pa.string())})
        with _storage_errors(self.folder):
            result = self._items.merge_insert("item_id").when_not_matched_by_source_delete().execute(ids)
            self._replaced_rows += result.num_deleted_rows
            return int(result.num_deleted_rows)

    def compact(self) -> None:
        """Merge small fragments and drop versions older than an hour, where that is worth rewriting the rows.

        It is where this object replaced or deleted half of the rows, and where at least half of them lie outside the
        largest of many fragments: so a row is rewritten as many times as the store doubled.
        """
        with _storage_errors(self.folder):
            rows, fragments = len(self), self._items.stats()["fragment_stats"]
            are_many = fragments["num_fragments"] >= COMMITS_BETWEEN_COMPACTIONS
            is_scattered = are_many and rows >= 2 * fragments["lengths"]["max"]
            if is_scattered or fragments["num_fragments"] >= MAX_FRAGMENTS or 2 * self._replaced_rows >= max(1, rows):
                self._items.optimize(cleanup_older_than=OLD_VERSIONS_KEPT)
                self._replaced_rows = 0

    # --- reading ------------------------------------------------------------------------------------------------------

    def keys(self) -> StoredKeys:
        with _storage_errors(self.folder):
            reasons = [f"{modality}_reason" for modality in MODALITIES]
            columns = ["item_id", "status", "content_key", "catalog_key", *reasons]
            return StoredKeys(self._items.search().select(columns).to_arrow())

    def scan(
        self, columns: Sequence[str] | None = None, item_ids: Collection[str] | None = None
    ) -> pa.RecordBatchReader:
        """Rows as Arrow record batches, read as they are asked for.

        `columns` None is all of them, `item_ids` None all items; of the named ones, those that are there.
        """
        columns = list(columns or SCHEMA.names)
        with _storage_errors(self.folder):
            if item_ids is None:
                reader = self._items.search().select(columns).to_batches(batch_size=SCAN_ROWS)
            else:
                reader = self._items.take_row_ids(self._row_ids(item_ids)).select(columns).to_batches()
            return pa.RecordBatchReader.from_batches(reader.schema, self._batches(reader))

    def _row_ids(self, item_ids: Collection[str]) -> list[int]:
        """Where items lie, found by comparing ids: none is put into the text of a query."""
        places = self._items.search().select(["item_id"]).with_row_id(True).to_arrow()
        wanted = pc.is_in(places["item_id"], pa.array(item_ids, pa.string()))
        row_ids: list[int] = places.filter(wanted)["_rowid"].to_pylist()
        return row_ids

    def _batches(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        with _storage_errors(self.folder):
            yield from reader

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows as one Arrow table, in memory."""
        with _storage_errors(self.folder):
            return self.scan(columns).read_all()

    def features(self, item_ids: Collection[str] | None = None) -> Iterator[Features]:
        """The items one after the other, with all that is stored of them; of `item_ids`, those that are there."""
        for batch in self.scan(item_ids=item_ids):
            columns = {name: batch.column(name) for name in SCHEMA.names}
            for row in range(batch.num_rows):
                yield to_features({name: column[row] for name, column in columns.items()})

    def encoders(self) -> list[EncoderRecord]:
        with _storage_errors(self.folder):
            rows = self._encoders.to_arrow().to_pylist()
        return [EncoderRecord(**{**row, "spec": json.loads(row["spec"])}) for row in rows]

    def fingerprints(self) -> dict[Modality, str]:
        """Of the encoder that made the tokens, by modality; modalities without any token are left out.

        Raises `StoreError` where tokens of several encoders lie mixed.
        """
        found: dict[Modality, str] = {}
        used = self.to_arrow([f"{modality}_fingerprint" for modality in MODALITIES])
        for modality in MODALITIES:
            names = {name for name in used[f"{modality}_fingerprint"].unique().to_pylist() if name is not None}
            self.check_one_encoder(modality, names)
            if names:
                found[modality] = names.pop()
        return found

    def vectors(self, modality: Modality) -> tuple[list[str], NDArray[np.float32]]:
        """One vector per item that has the modality: the mean of its L2-normalised tokens, L2-normalised.

        Returns the ids and `vectors_ID` float32. Raises `StoreError` where tokens of several encoders lie mixed.
        """
        if modality not in MODALITIES:
            raise StoreError(f"modality {modality!r}: expected one of {MODALITIES}")
        ids: list[str] = []
        blocks: list[NDArray[np.float32]] = []
        fingerprints: set[str] = set()
        for batch in self.scan(["item_id", f"{modality}_tokens", f"{modality}_fingerprint"]):
            present = batch.filter(batch.column(f"{modality}_tokens").is_valid())
            if present.num_rows:
                ids += present.column("item_id").to_pylist()
                fingerprints |= set(present.column(f"{modality}_fingerprint").to_pylist())
                self.check_one_encoder(modality, fingerprints)
                blocks.append(mean_tokens(present.column(f"{modality}_tokens")))
        return ids, np.concatenate(blocks) if blocks else np.zeros((0, 0), np.float32)

    def check_one_encoder(self, modality: Modality, fingerprints: set[str]) -> None:
        """Raises `StoreError` where tokens of a modality have several fingerprints."""
        if len(fingerprints) > 1:
            raise StoreError(
                f"store {self.folder} holds {modality} tokens of {len(fingerprints)} encoders, which cannot be "
                "compared: run `mmrec embed` over the whole catalog again (with --prune if items left it)"
            )

    def status(self) -> StoreStatus:
        statuses: Counter[str] = Counter()
        reasons: dict[str, Counter[str]] = {modality: Counter() for modality in MODALITIES}
        used: Counter[tuple[str, str]] = Counter()
        columns = [f"{modality}_{name}" for modality in MODALITIES for name in ("reason", "fingerprint")]
        for batch in self.scan(["status", *columns]):
            statuses.update(batch.column("status").to_pylist())
            for modality in MODALITIES:
                reasons[modality].update(r for r in batch.column(f"{modality}_reason").to_pylist() if r is not None)
                prints = batch.column(f"{modality}_fingerprint").to_pylist()
                used.update((modality, fingerprint) for fingerprint in prints if fingerprint is not None)
        known = {(str(e.modality), e.fingerprint): e for e in self.encoders()}
        encoders = [
            {"modality": m, "name": known[m, f].name, "dim": known[m, f].dim, "fingerprint": f, "items": count}
            for (m, f), count in sorted(used.items())
            if (m, f) in known
        ]
        size = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        return StoreStatus(
            items=sum(statuses.values()),
            statuses={status: statuses[status] for status in Status},
            reasons={modality: dict(counts) for modality, counts in reasons.items() if counts},
            encoders=encoders,
            bytes_on_disk=size,
        )

    def export(self, out: str | os.PathLike[str], file_format: Literal["parquet", "npy"]) -> list[Path]:
        """Write the store into the folder `out`; returns the files.

        `parquet`: `items.parquet`, all columns. `npy`: `items.parquet` with item_id, status and the number of tokens
        per modality, and for each modality a float32 `<modality>.npy` (tokens, D), the items' tokens in that order.

        >>> import mmrec
        >>> [path.name for path in mmrec.FeatureStore("store").export("exported", "npy")]
        ['items.parquet', 'visual.npy', 'audio.npy', 'text.npy']
        """
        folder = Path(out)
        with _storage_errors(self.folder):
            folder.mkdir(parents=True, exist_ok=True)
            return (export_parquet if file_format == "parquet" else export_npy)(self, folder)
