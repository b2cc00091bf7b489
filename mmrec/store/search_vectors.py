"""The rows of the tables of vectors that are searched: all tokens of an item, and their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmrec.store.rows import token_matrix
from mmrec.store.search_columns import SearchColumns


def vector_schema(columns: SearchColumns, dim: int) -> pa.Schema:
    vector = pa.list_(pa.float32(), dim)
    seconds = pa.list_(pa.float64())
    own = {"vector": vector, "tokens": pa.list_(vector), "starts": seconds, "ends": seconds}
    return pa.schema([pa.field("state", pa.string()), *columns.fields, *(pa.field(*pair) for pair in own.items())])


def vector_rows(
    batch: pa.RecordBatch,
    parts: Sequence[str],
    values: Mapping[str, Mapping[str, Any]],
    states: Mapping[str, str],
    schema: pa.Schema,
) -> pa.Table:
    """The rows of a table of vectors; tokens that point nowhere are left out, as no cosine is near them."""
    ids = batch.column("item_id").to_pylist()
    firsts_I, tokens_TD = token_matrix(batch.column(parts[0]))
    item_T = np.repeat(np.arange(len(ids)), np.diff([*firsts_I, len(tokens_TD)]))
    norms_T = np.linalg.norm(tokens_TD, axis=1)
    unit_TD = (tokens_TD / np.where(norms_T, norms_T, 1)[:, None]).astype(np.float32)
    sums_ID = np.zeros((len(ids), tokens_TD.shape[1]), np.float32)
    np.add.at(sums_ID, item_T, unit_TD)
    norms_I = np.linalg.norm(sums_ID, axis=1)
    kept_T = (norms_T > 0) & (norms_I[item_T] > 0)
    counts_I = np.bincount(item_T[kept_T], minlength=len(ids))
    kept_I = counts_I > 0
    offsets = pa.array(np.cumsum([0, *counts_I[kept_I]]), pa.int32())
    vector = schema.field("vector").type
    seconds = [batch.column(part).flatten().to_numpy()[kept_T] for part in parts[1:]]
    columns = {
        "vector": _fixed(sums_ID[kept_I] / norms_I[kept_I, None], vector),
        "tokens": pa.ListArray.from_arrays(offsets, _fixed(unit_TD[kept_T], vector), type=schema.field("tokens").type),
        "starts": pa.ListArray.from_arrays(offsets, pa.array(seconds[0])),
        "ends": pa.ListArray.from_arrays(offsets, pa.array(seconds[1])),
    }
    rows = [{**values[item_id], "state": states[item_id]} for item_id, kept in zip(ids, kept_I, strict=True) if kept]
    made = pa.Table.from_pylist(rows, schema=pa.schema([f for f in schema if f.name not in columns]))
    for name, column in columns.items():
        made = made.append_column(schema.field(name), column)
    return made


def _fixed(vectors_ND: NDArray[Any], kind: pa.DataType) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors_ND.ravel(), pa.float32()), type=kind)
