"""Features as rows of an Arrow table, and back.

Columns, for each modality `m` of visual, audio and text:
    item_id, status, title, description, tags, language, metadata (JSON), media, duration_seconds, facts (JSON),
    m_tokens (T lists of D floats), m_starts, m_ends (seconds), m_reason, m_detail, m_fingerprint,
    content_key (what the tokens were made from), catalog_key (the row of the catalog)
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmrec.catalog import Item
from mmrec.errors import Problem, Reason
from mmrec.store.features import MODALITIES, Features, Tokens

_TOKENS = pa.list_(pa.list_(pa.float32()))
_CATALOG_FIELDS = [
    pa.field("title", pa.string()),
    pa.field("description", pa.string()),
    pa.field("tags", pa.list_(pa.string())),
    pa.field("language", pa.string()),
    pa.field("metadata", pa.string()),
    pa.field("catalog_key", pa.string()),
]
SCHEMA = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("status", pa.string()),
        *_CATALOG_FIELDS,
        pa.field("media", pa.string()),
        pa.field("duration_seconds", pa.float64()),
        pa.field("facts", pa.string()),
        pa.field("content_key", pa.string()),
        *(
            pa.field(f"{modality}_{name}", kind)
            for modality in MODALITIES
            for name, kind in [
                ("tokens", _TOKENS),
                ("starts", pa.list_(pa.float64())),
                ("ends", pa.list_(pa.float64())),
                ("reason", pa.string()),
                ("detail", pa.string()),
                ("fingerprint", pa.string()),
            ]
        ),
    ]
)
CATALOG_SCHEMA = pa.schema([SCHEMA.field("item_id"), *_CATALOG_FIELDS])
TOKEN_COUNTS_SCHEMA = pa.schema(
    [
        pa.field("item_id", pa.string()),
        pa.field("status", pa.string()),
        *(pa.field(f"{modality}_count", pa.int32()) for modality in MODALITIES),
    ]
)


def catalog_row(item: Item, catalog_key: str) -> dict[str, Any]:
    return {
        "item_id": item.item_id,
        "title": item.title,
        "description": item.description,
        "tags": list(item.tags),
        "language": item.language,
        "metadata": json.dumps(dict(item.metadata), ensure_ascii=False),
        "catalog_key": catalog_key,
    }


def to_table(rows: Sequence[Features]) -> pa.Table:
    columns: dict[str, Any] = pa.Table.from_pylist(
        [catalog_row(row.item, row.catalog_key) for row in rows], schema=CATALOG_SCHEMA
    ).to_pydict()
    columns |= {
        "status": [row.status for row in rows],
        "media": [
            None if row.item.media is None else os.fsencode(row.item.media).decode("utf-8", "replace") for row in rows
        ],
        "duration_seconds": [row.duration_seconds for row in rows],
        "facts": [json.dumps(row.facts, ensure_ascii=False) for row in rows],
        "content_key": [row.content_key for row in rows],
    }
    for modality in MODALITIES:
        tokens = [row.tokens.get(modality) for row in rows]
        problems = [row.problems.get(modality) for row in rows]
        columns |= {
            f"{modality}_tokens": _token_column([None if t is None else t.vectors_TD for t in tokens]),
            f"{modality}_starts": [None if t is None else t.spans_T2[:, 0] for t in tokens],
            f"{modality}_ends": [None if t is None else t.spans_T2[:, 1] for t in tokens],
            f"{modality}_reason": [None if p is None else p.reason for p in problems],
            f"{modality}_detail": [None if p is None else p.detail for p in problems],
            f"{modality}_fingerprint": [row.fingerprints.get(modality) for row in rows],
        }
    return pa.table({name: pa.array(columns[name], SCHEMA.field(name).type) for name in SCHEMA.names}, schema=SCHEMA)


def _token_column(matrices: Sequence[NDArray[np.float32] | None]) -> pa.Array:
    present = [matrix for matrix in matrices if matrix is not None]
    flat = np.concatenate([matrix.ravel() for matrix in present]) if present else np.zeros(0, np.float32)
    widths = [matrix.shape[1] for matrix in present for _ in range(len(matrix))]
    inner = pa.ListArray.from_arrays(pa.array(np.cumsum([0, *widths]), pa.int32()), pa.array(flat, pa.float32()))
    ends = np.cumsum([0, *(0 if matrix is None else len(matrix) for matrix in matrices)])
    missing = pa.array([*(matrix is None for matrix in matrices)], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), inner, mask=missing)


def token_matrix(column: pa.ListArray) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """`starts_I` of each item's tokens, and `tokens_TD` of them all; no item may be null."""
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    tokens = column.flatten()
    starts = np.concatenate([[0], np.cumsum(lengths)])[:-1]
    return starts, tokens.flatten().to_numpy(zero_copy_only=False).reshape(len(tokens), -1)


def mean_tokens(column: pa.ListArray) -> NDArray[np.float32]:
    starts_I, tokens_TD = token_matrix(column)
    return _normalised(np.add.reduceat(_normalised(tokens_TD), starts_I, axis=0))


def _normalised(vectors_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    normalised: NDArray[np.float32] = (vectors_ND / np.maximum(norms, 1e-12)).astype(np.float32)
    return normalised


def token_counts(batch: pa.RecordBatch) -> pa.RecordBatch:
    counts = [batch.column(f"{modality}_tokens").value_lengths().fill_null(0) for modality in MODALITIES]
    return pa.RecordBatch.from_arrays(
        [batch.column("item_id"), batch.column("status"), *counts], schema=TOKEN_COUNTS_SCHEMA
    )


def to_features(row: Mapping[str, pa.Scalar]) -> Features:
    media = row["media"].as_py()
    features = Features(
        item=Item(
            item_id=row["item_id"].as_py(),
            media=None if media is None else Path(media),
            title=row["title"].as_py(),
            description=row["description"].as_py(),
            tags=tuple(row["tags"].as_py()),
            language=row["language"].as_py(),
            metadata=json.loads(row["metadata"].as_py()),
        ),
        duration_seconds=row["duration_seconds"].as_py(),
        facts=json.loads(row["facts"].as_py()),
        content_key=row["content_key"].as_py(),
        catalog_key=row["catalog_key"].as_py(),
    )
    for modality in MODALITIES:
        if row[f"{modality}_tokens"].is_valid:
            _, vectors = token_matrix(pa.array([row[f"{modality}_tokens"]], _TOKENS))
            spans = np.column_stack([row[f"{modality}_starts"].as_py(), row[f"{modality}_ends"].as_py()])
            features.tokens[modality] = Tokens(vectors, spans)
        if (reason := row[f"{modality}_reason"].as_py()) is not None:
            features.problems[modality] = Problem(Reason(reason), row[f"{modality}_detail"].as_py())
        if (fingerprint := row[f"{modality}_fingerprint"].as_py()) is not None:
            features.fingerprints[modality] = fingerprint
    return features
