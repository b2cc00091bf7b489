"""Features as rows of an Arrow table, and back.

Columns, for each modality `m` of visual, audio and text:
    item_id, status, title, description, tags, language, metadata (JSON), catalog_key (hash of the row of the catalog),
    media, media_hash (of the file's content), media_state (hash of its path, size and time of change),
    duration_seconds, facts (JSON),
    m_tokens (T lists of D floats), m_starts, m_ends (seconds), m_fingerprint, m_key (hash of what the tokens were made
    from), m_reason, m_detail, m_stale_since (when the tokens of another day were first kept; null where they are not),
    visual_classes, visual_class_scores (what pictures show, best first), text_language (ISO 639)
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmrec.catalog import Item
from mmrec.errors import Problem, Reason, StoreError
from mmrec.remote import to_place
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
        pa.field("media_hash", pa.string()),
        pa.field("media_state", pa.string()),
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
                ("key", pa.string()),
                ("stale_since", pa.timestamp("us", "UTC")),
            ]
        ),
        pa.field("visual_classes", pa.list_(pa.string())),
        pa.field("visual_class_scores", pa.list_(pa.float32())),
        pa.field("text_language", pa.string()),
    ]
)
ADDED_COLUMNS = frozenset(
    {"media_hash", "media_state", "visual_classes", "visual_class_scores", "text_language"}
    | {f"{m}_{name}" for m in MODALITIES for name in ("key", "stale_since")}
)
"""Those that stores of earlier versions lack; null there, so that everything is embedded anew."""
_MARKS = ("reason", "detail", "stale_since")
TOKEN_COUNTS_SCHEMA = pa.schema(
    [
        pa.field("item_id", pa.string()),
        pa.field("status", pa.string()),
        *(pa.field(f"{modality}_count", pa.int32()) for modality in MODALITIES),
    ]
)


def to_table(rows: Sequence[Features], columns: Sequence[str] = SCHEMA.names) -> pa.Table:
    values: dict[str, Any] = {
        "item_id": [row.item.item_id for row in rows],
        "status": [row.status for row in rows],
        "title": [row.item.title for row in rows],
        "description": [row.item.description for row in rows],
        "tags": [list(row.item.tags) for row in rows],
        "language": [row.item.language for row in rows],
        "metadata": [json.dumps(dict(row.item.metadata), ensure_ascii=False) for row in rows],
        "catalog_key": [row.catalog_key for row in rows],
        "media": [
            None if row.item.media is None else os.fsencode(row.item.media).decode("utf-8", "replace") for row in rows
        ],
        "duration_seconds": [row.duration_seconds for row in rows],
        "facts": [json.dumps(row.facts, ensure_ascii=False) for row in rows],
        "media_hash": [row.media_hash for row in rows],
        "media_state": [row.media_state for row in rows],
        "visual_classes": [[name for name, _ in row.classes] for row in rows],
        "visual_class_scores": [[score for _, score in row.classes] for row in rows],
        "text_language": [row.language for row in rows],
    }
    for modality in MODALITIES:
        tokens = [row.tokens.get(modality) for row in rows]
        problems = [row.problems.get(modality) for row in rows]
        values |= {
            f"{modality}_tokens": _token_column([None if t is None else t.vectors_TD for t in tokens]),
            f"{modality}_starts": [None if t is None else t.spans_T2[:, 0] for t in tokens],
            f"{modality}_ends": [None if t is None else t.spans_T2[:, 1] for t in tokens],
            f"{modality}_reason": [None if p is None else p.reason for p in problems],
            f"{modality}_detail": [None if p is None else p.detail for p in problems],
            f"{modality}_fingerprint": [row.fingerprints.get(modality) for row in rows],
            f"{modality}_key": [row.keys.get(modality, "") for row in rows],
            f"{modality}_stale_since": [row.stale_since.get(modality) for row in rows],
        }
    schema = pa.schema([SCHEMA.field(name) for name in columns])
    return pa.table({field.name: pa.array(values[field.name], field.type) for field in schema}, schema=schema)


def changed_columns(row: Features) -> tuple[str, ...]:
    """The columns that a write of this row replaces, in their order: without those of what is kept."""
    left: set[str] = set()
    for modality, kept in row.kept.items():
        marks = _MARKS if kept != "as it is" else ()
        names = (name.removeprefix(f"{modality}_") for name in SCHEMA.names if name.startswith(f"{modality}_"))
        left |= {f"{modality}_{name}" for name in names if name not in marks}
    if {"visual", "audio"} <= row.kept.keys():
        left |= {"duration_seconds", "facts"}
        if not row.media_hash:  # the file is away: what it was stays known
            left |= {"media_hash", "media_state"}
    if "text" in row.kept and not (row.item.title or row.item.description or row.item.tags):  # the catalog lost them,
        left |= {"title", "description", "tags"}  # or the title is that of the file
    return tuple(name for name in SCHEMA.names if name not in left)


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
            media=None if media is None else to_place(media, StoreError),
            title=row["title"].as_py(),
            description=row["description"].as_py(),
            tags=tuple(row["tags"].as_py()),
            language=row["language"].as_py(),
            metadata=json.loads(row["metadata"].as_py()),
        ),
        duration_seconds=row["duration_seconds"].as_py(),
        facts=json.loads(row["facts"].as_py()),
        catalog_key=row["catalog_key"].as_py(),
        media_hash=row["media_hash"].as_py() or "",
        media_state=row["media_state"].as_py() or "",
        classes=list(zip(row["visual_classes"].as_py() or (), row["visual_class_scores"].as_py() or (), strict=True)),
        language=row["text_language"].as_py() or "",
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
        features.keys[modality] = row[f"{modality}_key"].as_py() or ""
        if (since := row[f"{modality}_stale_since"].as_py()) is not None:
            features.stale_since[modality] = since
    return features
