"""A store as files that other tools read: Parquet tables and NumPy arrays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmrec.store.features import MODALITIES, Modality
from mmrec.store.rows import SCHEMA, TOKEN_COUNTS_SCHEMA, token_counts, token_matrix

if TYPE_CHECKING:
    from mmrec.store.feature_store import FeatureStore


def export_parquet(store: FeatureStore, folder: Path) -> list[Path]:
    """Write `items.parquet` with all columns, and the labels of the items, set by set."""
    path = folder / "items.parquet"
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for batch in store.scan():
            writer.write_batch(batch.select(SCHEMA.names))
    labels = {folder / f"labels.{name}.parquet": store.labels.read(name) for name in store.labels.names()}
    for of_set, table in labels.items():
        pq.write_table(table, of_set)
    return [path, *labels]


def export_npy(store: FeatureStore, folder: Path) -> list[Path]:
    """Write `token_counts.parquet` with the numbers of tokens, and the tokens of each modality as an array."""
    columns = ["item_id", "status", *(f"{modality}_tokens" for modality in MODALITIES)]
    counts = pa.Table.from_batches(map(token_counts, store.scan(columns)), schema=TOKEN_COUNTS_SCHEMA)
    paths = [folder / "token_counts.parquet"]
    pq.write_table(counts, paths[0])
    for modality in MODALITIES:
        total = int(np.sum(counts[f"{modality}_count"].to_numpy()))
        if total:
            paths.append(folder / f"{modality}.npy")
            _export_tokens(store, paths[-1], modality, total)
    return paths


def _export_tokens(store: FeatureStore, path: Path, modality: Modality, total: int) -> None:
    out: NDArray[np.float32] | None = None
    row = 0
    fingerprints: set[str] = set()
    for batch in store.scan(["item_id", f"{modality}_tokens", f"{modality}_fingerprint"]):
        present = batch.filter(batch.column(f"{modality}_tokens").is_valid())
        if not present.num_rows:
            continue
        fingerprints |= set(present.column(f"{modality}_fingerprint").to_pylist())
        store.check_one_encoder(modality, fingerprints)
        _, tokens_TD = token_matrix(present.column(f"{modality}_tokens"))
        if out is None:
            out = np.lib.format.open_memmap(path, "w+", np.float32, (total, tokens_TD.shape[1]))
        out[row : row + len(tokens_TD)] = tokens_TD
        row += len(tokens_TD)
