"""From the store to tensors: the tokens of all items, read in Arrow batches, in the order of the items' ids."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fusion.token_table import RaggedPart, RaggedTokens
from mmrec.errors import ModelError, StoreError
from mmrec.store import MODALITIES, EncoderRecord, FeatureStore, token_matrix

BYTES_IN_MEMORY = 2**29


def read_tokens(
    store: FeatureStore, item_ids: Collection[str] | None = None, widths: Mapping[str, int] | None = None
) -> tuple[list[str], RaggedTokens]:
    """The ids, ascending, and the tokens of all items of a store, or of the named ones.

        >>> ids, tokens = read_tokens(FeatureStore("store"))
        >>> len(ids) == len(tokens), sorted(tokens.widths)
        (True, ['audio', 'text', 'visual'])

    Tokens of a modality that take more than half a GiB lie in a temporary file, which goes with the last reference.
    Items that failed have none. `widths` names the modalities to read; without it, those that the store has.

    Raises `StoreError` where a named item is not in the store, where tokens of several encoders lie mixed, where there
    is no token at all to tell the modalities by, and where there is no space for temporary files.
    """
    widths = widths or store_widths(store)
    modalities = [modality for modality in MODALITIES if modality in widths]
    writers = {modality: _Writer(widths[modality]) for modality in modalities}
    columns = ["item_id", *(f"{m}_{part}" for m in modalities for part in ("tokens", "starts", "ends"))]
    found: list[str] = []
    for batch in store.scan(columns, item_ids):
        found += batch.column("item_id").to_pylist()
        for modality, writer in writers.items():
            writer.write(*(batch.column(f"{modality}_{part}") for part in ("tokens", "starts", "ends")))
    if item_ids is not None and (missing := sorted(set(item_ids) - set(found))):
        more = f", nor {len(missing) - 1} others" if len(missing) > 1 else ""
        raise StoreError(f"store {store.folder} has no item {missing[0]!r}{more}")
    order = np.array(sorted(range(len(found)), key=found.__getitem__), np.int64)
    return [found[row] for row in order], RaggedTokens({m: writer.part(order) for m, writer in writers.items()})


def store_widths(store: FeatureStore) -> dict[str, int]:
    """The width of the tokens of each modality that a store has."""
    dims = {record.fingerprint: record.dim for record in store.encoders()}
    widths: dict[str, int] = {modality: dims[name] for modality, name in store.fingerprints().items()}
    if not widths:
        raise StoreError(f"store {store.folder} holds no tokens: there is nothing to fit")
    return widths


def check_encoders(store: FeatureStore, encoders: Mapping[str, EncoderRecord]) -> None:
    """Raises `ModelError` where a store was made by other encoders than these, those that a model was fitted with."""
    fingerprints = store.fingerprints()
    for modality, record in encoders.items():
        if modality in fingerprints and fingerprints[modality] != record.fingerprint:
            raise ModelError(
                f"store {store.folder} holds {modality} tokens of another encoder than the model was fitted with: "
                "embed with the same preset and precision, or fit anew"
            )


class _Writer:
    """Takes up the tokens of one modality, batch after batch; in a file as soon as they are many."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._counts: list[NDArray[np.int64]] = []
        self._seconds: list[NDArray[np.float32]] = []
        self._values: list[NDArray[np.float32]] = []
        self._file: BinaryIO | None = None

    def write(self, tokens: pa.ListArray, starts: pa.ListArray, ends: pa.ListArray) -> None:
        """A batch of the store's columns; the time of a token is the middle of its span, in seconds."""
        self._counts.append(tokens.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64))
        present = tokens.is_valid()
        if not present.true_count:
            return
        _, values_NW = token_matrix(tokens.filter(present))
        starts_N, ends_N = (x.filter(present).flatten().to_numpy(zero_copy_only=False) for x in (starts, ends))
        self._seconds.append(((starts_N + ends_N) / 2).astype(np.float32))
        try:
            if self._file is not None:
                self._file.write(np.ascontiguousarray(values_NW, np.float32).data)
                return
            self._values.append(values_NW.astype(np.float32))
            if sum(values.nbytes for values in self._values) > BYTES_IN_MEMORY:
                self._spill()
        except OSError as error:
            raise StoreError(
                f"there is no space for the tokens in {tempfile.gettempdir()} ({error.strerror}): name another folder "
                "by the environment variable TMPDIR"
            ) from error

    def _spill(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="mmrec-tokens-")  # noqa: SIM115
        for values_NW in self._values:
            self._file.write(values_NW.data)
        self._values = []

    def part(self, order: NDArray[np.int64]) -> RaggedPart:
        """All that was written, its items in this order."""
        counts_I = np.concatenate([np.zeros(0, np.int64), *self._counts])
        starts_I = np.cumsum(counts_I) - counts_I
        values: NDArray[np.float32] | BinaryIO
        if self._file is not None:
            self._file.flush()
            values = self._file
        else:
            values = np.concatenate([np.zeros((0, self._width), np.float32), *self._values])
        seconds_N = np.concatenate([np.zeros(0, np.float32), *self._seconds])
        return RaggedPart(self._width, starts_I[order], counts_I[order], seconds_N, values)
