"""The feature store: one row per item."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmrec.errors import StoreError
from mmrec.remote import Place, subfolders, to_place, written
from mmrec.store.exporting import export_npy, export_parquet
from mmrec.store.features import MODALITIES, Features, Modality
from mmrec.store.findings import Findings
from mmrec.store.folders import has_table, table_names
from mmrec.store.keys import KEY_COLUMNS, StoredKeys
from mmrec.store.labels import StoredLabels
from mmrec.store.rows import ADDED_COLUMNS, SCHEMA, changed_columns, mean_tokens, to_features, to_table
from mmrec.store.runs import Run, RunLog
from mmrec.store.status import StoreStatus, counted
from mmrec.store.tables import Tables, Version, drop_old_versions, versions

TABLE = "items"
ENCODERS_TABLE = "encoders"
SCAN_ROWS, NARROW_SCAN_ROWS = 1024, 8192
COMMITS_BETWEEN_COMPACTIONS = 64
MAX_FRAGMENTS = 1024
KEEP_VERSIONS = timedelta(days=7)

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


_SET_NAME = re.compile(r"[A-Za-z0-9_-]*")


class FeatureStore:
    """A folder that holds the features of a catalog's items, on this machine or in an object store (`s3://...`).

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
    writes, and see what it has committed; writers take `lock()`. It keeps no file open, so it needs no closing; a copy
    or a pickle opens the same folder again.

    A store may hold several sets of features of the same catalog side by side, made by different encoders:
    `encoder_set` names the one to open, "" the first one.
    """

    def __init__(self, folder: str | os.PathLike[str], *, create: bool = False, encoder_set: str = "") -> None:
        self.folder, self.encoder_set = to_place(folder, StoreError), encoder_set
        if not _SET_NAME.fullmatch(encoder_set):
            raise StoreError(f"encoder set {encoder_set!r}: a name has letters, digits, - and _ only")
        self._name = f"{TABLE}.{encoder_set}" if encoder_set else TABLE
        known = [] if create else self.sets()
        if not create and not known:
            if "versions" in subfolders(self.folder):
                raise StoreError(f"{self.folder} is a fitted model, not a store: name the store that it was fitted to")
            raise StoreError(
                f"there is no store at {self.folder}: make one with `mmrec embed CATALOG --store {self.folder}`"
            )
        if not create and encoder_set not in known:
            named = ", ".join(name or "the one without a name" for name in known)
            raise StoreError(f"store {self.folder} has no encoder set {encoder_set!r}: it has {named}")
        self._tables = Tables(self.folder)
        self._items = self._tables.open(self._name, SCHEMA, create=create, added=ADDED_COLUMNS)
        self._encoders = self._tables.open(ENCODERS_TABLE, _ENCODERS_SCHEMA, create=create)
        self._commits = 0
        self._replaced_rows = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(FeatureStore, encoder_set=self.encoder_set), (self.folder.absolute(),)

    def __repr__(self) -> str:
        of_set = f", encoder set {self.encoder_set!r}" if self.encoder_set else ""
        return f"FeatureStore({str(self.folder)!r}{of_set}, {self._contents()})"

    def _contents(self) -> str:
        """How many items there are, and the widths of the encoders that it was written by."""
        try:
            if not has_table(self.folder, self._name):
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
        with self._tables.errors():
            return int(self._items.count_rows())

    def lock(self) -> AbstractContextManager[None]:
        """Hold the right to write; `StoreError` at once where another process holds it."""
        return self._tables.lock()

    def sets(self) -> list[str]:
        """The names of the encoder sets in this folder; "" is the first one."""
        names = (name for name in table_names(self.folder) if name == TABLE or name.startswith(f"{TABLE}."))
        return [name.removeprefix(TABLE).removeprefix(".") for name in names]

    @property
    def labels(self) -> StoredLabels:
        """The sets of labels that its items have."""
        return StoredLabels(self, self._tables)

    # --- runs and versions --------------------------------------------------------------------------------------------

    @contextmanager
    def run(self, command: str) -> Iterator[Run]:
        """Record a run, and keep the version from which it starts, so that it can be undone."""
        with RunLog(self._tables).record(command) as run, self._tables.errors():
            self._items.tags.create(run.run_id, self._items.version)
            yield run

    def runs(self) -> list[Run]:
        """What ran on this folder, the newest first."""
        return RunLog(self._tables).all()

    @property
    def version(self) -> int:
        """The number of the state that the rows are in; every write makes a new one."""
        with self._tables.errors():
            return int(self._items.version)

    def versions(self) -> list[Version]:
        """The states of this set that are still kept, the newest first; `tag` is the run that started from one.

        >>> import mmrec
        >>> mmrec.FeatureStore("store").versions()[0].rows
        16
        """
        with self._tables.errors():
            return versions(self._items)

    def restore(self, version: int) -> None:
        """Make the rows what they were in an earlier version. This makes a new version, so it can be undone as well.

        Raises `StoreError` where that version is not kept any more.
        """
        known = [v.number for v in self.versions()]
        if version not in known:
            raise StoreError(f"store {self.folder} keeps no version {version}: it has {known[-1]} to {known[0]}")
        with self._tables.errors():
            self._items.restore(version)
            self._items.checkout_latest()

    # --- writing ------------------------------------------------------------------------------------------------------

    def add_encoders(self, encoders: Iterable[EncoderRecord]) -> None:
        rows = [{**asdict(encoder), "spec": json.dumps(dict(encoder.spec), sort_keys=True)} for encoder in encoders]
        if rows:
            with self._tables.errors():
                insert = self._encoders.merge_insert("fingerprint").when_not_matched_insert_all()
                insert.execute(pa.Table.from_pylist(rows, schema=self._encoders.schema))  # older stores have fewer

    def write(self, new: Sequence[Features], changed: Sequence[Features] = ()) -> None:
        """Add the rows of `new` items and replace those of `changed` ones, but for what each of them keeps.

        The new ones are added at once or not at all; so are those of the changed ones that keep the same.
        """
        groups: dict[tuple[str, ...], list[Features]] = {}
        for row in changed:
            groups.setdefault(changed_columns(row), []).append(row)
        with self._tables.errors():
            self._tables.check_lock()
            if new:
                self._items.add(to_table(new))
            for columns, rows in groups.items():
                self._items.merge_insert("item_id").when_matched_update_all().execute(to_table(rows, columns))
        self.note_commit(len(changed))

    def note_commit(self, num_replaced: int) -> None:
        """Count a commit, by this object or by another process of its job; many bring about a compaction."""
        self._replaced_rows += num_replaced
        self._commits += 1
        if self._commits % COMMITS_BETWEEN_COMPACTIONS == 0:
            self.compact()

    def put(self, rows: Sequence[Features]) -> int:
        """Write rows, whichever of them are new; the same ones again change nothing. Returns how many were there.

        >>> import mmrec
        >>> store = mmrec.FeatureStore("store")
        >>> rows = list(store.features(["rain-0", "rain-1"]))
        >>> store.put(rows), len(store)
        (2, 16)
        """
        by_id = {row.item.item_id: row for row in rows}
        wanted = pa.array(by_id, pa.string())
        with self._tables.errors():
            batches = (batch["item_id"] for batch in self._narrow_batches(["item_id"]))
            held = {found for ids in batches for found in ids.filter(pc.is_in(ids, wanted)).to_pylist()}
        self.write([by_id[name] for name in by_id if name not in held], [by_id[name] for name in by_id if name in held])
        return len(held)

    def copy_from(self, other: FeatureStore, modalities: Collection[Modality]) -> None:
        """Take over the rows of another set, with the tokens of these modalities alone."""
        left_out = [
            name for name in SCHEMA.names if name.startswith(tuple(f"{m}_" for m in MODALITIES if m not in modalities))
        ]
        columns = [name for name in SCHEMA.names if name not in left_out]
        with self._tables.errors():
            for batch in other.scan(columns):
                missing = {name: pa.nulls(batch.num_rows, SCHEMA.field(name).type) for name in left_out}
                values = {**dict(zip(batch.schema.names, batch.columns, strict=True)), **missing}
                self._items.add(pa.table({name: values[name] for name in SCHEMA.names}, schema=SCHEMA))

    def prune(self, keep: Iterable[str]) -> int:
        """Delete the rows of all other items, their labels and findings; returns how many rows."""
        ids = pa.table({"item_id": pa.array(keep, pa.string())})
        with self._tables.errors():
            result = self._items.merge_insert("item_id").when_not_matched_by_source_delete().execute(ids)
            self._replaced_rows += result.num_deleted_rows
            self.labels.prune(ids)
            Findings(self).prune(ids)
            return int(result.num_deleted_rows)

    def compact(self, keep_versions: timedelta = KEEP_VERSIONS) -> None:
        """Merge small fragments and drop old versions, where that is worth rewriting the rows.

        It is where this object replaced or deleted half of the rows, and where at least half of them lie outside the
        largest of many fragments: so a row is rewritten as many times as the store doubled.
        """
        with self._tables.errors():
            rows, fragments = len(self), self._items.stats()["fragment_stats"]
            are_many = fragments["num_fragments"] >= COMMITS_BETWEEN_COMPACTIONS
            is_scattered = are_many and rows >= 2 * fragments["lengths"]["max"]
            if is_scattered or fragments["num_fragments"] >= MAX_FRAGMENTS or 2 * self._replaced_rows >= max(1, rows):
                drop_old_versions(self._items, keep_versions)
                self._replaced_rows = 0

    # --- reading ------------------------------------------------------------------------------------------------------

    def keys(self) -> StoredKeys:
        with self._tables.errors():
            return StoredKeys(self._narrow_batches(KEY_COLUMNS))

    def scan(
        self, columns: Sequence[str] | None = None, item_ids: Collection[str] | None = None
    ) -> pa.RecordBatchReader:
        """Rows as Arrow record batches, read as they are asked for.

        `columns` None is all of them, `item_ids` None all items; of the named ones, those that are there.
        """
        columns = list(columns or SCHEMA.names)
        with self._tables.errors():
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

    def _narrow_batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows, in batches for columns of a few bytes."""
        yield from self._items.search().select(list(columns)).to_batches(batch_size=NARROW_SCAN_ROWS)

    def _batches(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        with self._tables.errors():
            yield from reader

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows as one Arrow table, in memory."""
        with self._tables.errors():
            return self.scan(columns).read_all()

    def features(self, item_ids: Collection[str] | None = None) -> Iterator[Features]:
        """The items one after the other, with all that is stored of them; of `item_ids`, those that are there."""
        for batch in self.scan(item_ids=item_ids):
            columns = {name: batch.column(name) for name in SCHEMA.names}
            for row in range(batch.num_rows):
                yield to_features({name: column[row] for name, column in columns.items()})

    def encoders(self) -> list[EncoderRecord]:
        with self._tables.errors():
            rows = self._encoders.to_arrow().to_pylist()
        return [EncoderRecord(**{**row, "spec": json.loads(row["spec"])}) for row in rows]

    def used_fingerprints(self) -> dict[Modality, set[str]]:
        """Of the encoders that made the tokens, by modality; modalities without any token are left out."""
        found: dict[Modality, set[str]] = {modality: set() for modality in MODALITIES}
        with self._tables.errors():
            for batch in self._narrow_batches([f"{modality}_fingerprint" for modality in MODALITIES]):
                for modality, names in found.items():
                    names |= set(batch[f"{modality}_fingerprint"].unique().to_pylist())
        return {modality: names - {None} for modality, names in found.items() if names - {None}}

    def fingerprints(self) -> dict[Modality, str]:
        """As `used_fingerprints`, one each. Raises `StoreError` where tokens of several encoders lie mixed."""
        used = self.used_fingerprints()
        for modality, names in used.items():
            self.check_one_encoder(modality, names)
        return {modality: names.pop() for modality, names in used.items()}

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
                "compared: run `mmrec embed --replace` over the whole catalog again (with --prune if items left it, "
                "and --accept-missing if files did)"
            )

    def status(self) -> StoreStatus:
        return counted(self)

    def export(self, out: str | os.PathLike[str], file_format: Literal["parquet", "npy"]) -> list[Place]:
        """Write the store into the folder `out`, which may be a URL; returns the files.

        `parquet`: `items.parquet`, all columns, and `labels.NAME.parquet` of each set of labels. `npy`:
        `token_counts.parquet` with item_id, status and the number of tokens per modality, and for each modality a
        float32 `<modality>.npy` (tokens, D), the items' tokens in that order.

        >>> import mmrec
        >>> [path.name for path in mmrec.FeatureStore("store").export("exported", "npy")]
        ['token_counts.parquet', 'visual.npy', 'audio.npy', 'text.npy']
        """
        target, export = to_place(out, StoreError), export_parquet if file_format == "parquet" else export_npy
        with self._tables.errors(), written(target) as folder:
            folder.mkdir(parents=True, exist_ok=True)
            return [target / path.name for path in export(self, folder)]
