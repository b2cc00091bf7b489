"""A fitted recommender on disk: weights and vectors as safetensors, tables as Parquet, the rest as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays

from fusion.config import FitReport
from fusion.tower import Towers, load_towers
from mmrec.errors import MMRecError, ModelError
from mmrec.evaluation import Interactions
from mmrec.store import EncoderRecord

FORMAT = 5
Floats = NDArray[np.float32]


@dataclass(slots=True)
class ModelFiles:
    """What a recommender knows beside its tower, row by row of its items.

    `trained_I`: the items with positive interactions in training. `interactions` None: fitted to content alone.
    """

    item_ids: list[str]
    catalog: list[dict[str, Any]]
    vectors_ID: Floats
    bias_I: Floats
    trained_I: NDArray[np.bool_]
    interactions: Interactions | None
    encoders: dict[str, EncoderRecord]
    report: FitReport

    def append(
        self, item_ids: Sequence[str], catalog: Sequence[dict[str, Any]], vectors_ID: Floats, bias_I: Floats
    ) -> None:
        """Let items join that training did not see."""
        self.item_ids = [*self.item_ids, *item_ids]
        self.catalog = [*self.catalog, *catalog]
        self.vectors_ID = np.vstack([self.vectors_ID, vectors_ID])
        self.bias_I = np.concatenate([self.bias_I, bias_I])
        self.trained_I = np.concatenate([self.trained_I, np.zeros(len(item_ids), np.bool_)])


def save_model(folder: str | os.PathLike[str], files: ModelFiles, towers: Towers, config: Mapping[str, Any]) -> None:
    """Write everything; `model.json` comes last, so that a folder with one is complete."""
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / "model.json").unlink(missing_ok=True)
        towers.save(path)
        arrays = {"vectors": files.vectors_ID, "bias": files.bias_I}
        save_arrays({name: np.ascontiguousarray(x) for name, x in arrays.items()}, path / "items.safetensors")
        rows = {
            "item_id": files.item_ids,
            "trained": files.trained_I.tolist(),
            "catalog": [json.dumps(row, ensure_ascii=False) for row in files.catalog],
        }
        pq.write_table(pa.table(rows), path / "items.parquet")
        if files.interactions is not None:
            pq.write_table(_interactions_table(files.interactions), path / "interactions.parquet")
        about = {
            "format": FORMAT,
            "config": dict(config),
            "encoders": {modality: asdict(record) for modality, record in files.encoders.items()},
            "report": asdict(files.report),
            "hybrid": files.interactions is not None,
        }
        (path / "model.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
    except OSError as error:
        raise ModelError(f"model {path} cannot be written: {error.strerror or error}") from error


def load_model(folder: str | os.PathLike[str]) -> tuple[ModelFiles, Towers, dict[str, Any]]:
    """What `save_model` wrote: the files, the towers and the configuration."""
    path = Path(folder)
    if not (path / "model.json").is_file():
        raise ModelError(f"there is no model at {path}: make one with `mmrec fit --store STORE --model {path}`")
    try:
        about = json.loads((path / "model.json").read_text(encoding="utf-8"))
        if about["format"] != FORMAT:
            raise ModelError(f"model {path} has format {about['format']}; this version reads {FORMAT}: fit it anew")
        arrays = load_arrays(path / "items.safetensors")
        rows = pq.read_table(path / "items.parquet")
        files = ModelFiles(
            item_ids=rows["item_id"].to_pylist(),
            catalog=[json.loads(row) for row in rows["catalog"].to_pylist()],
            vectors_ID=arrays["vectors"],
            bias_I=arrays["bias"],
            trained_I=rows["trained"].to_numpy(zero_copy_only=False) if rows.num_rows else np.zeros(0, np.bool_),
            interactions=_read_interactions(path, rows["item_id"].to_pylist()) if about["hybrid"] else None,
            encoders={modality: EncoderRecord(**record) for modality, record in about["encoders"].items()},
            report=FitReport(**about["report"]),
        )
        towers = load_towers(path)
        _check_rows(files, towers)
        return files, towers, dict(about["config"])
    except MMRecError:
        raise
    except (OSError, KeyError, TypeError, ValueError, SafetensorError, pa.ArrowException) as error:
        raise ModelError(f"model {path} is damaged ({error}): fit it anew") from error


def _check_rows(files: ModelFiles, towers: Towers) -> None:
    count, train = len(files.item_ids), files.interactions
    fitted = count if towers.items is None else len(towers.items.trained_I)
    strange = train is not None and len(train) and train.item_rows.max() >= fitted
    shapes = [files.vectors_ID.shape, files.bias_I.shape]
    if strange or count < fitted or shapes != [(count, towers.fusion.dim), (count,)]:
        raise ValueError("its files are not of one model")


def _interactions_table(interactions: Interactions) -> pa.Table:
    """The interactions by row; the users' ids, in their order, stand in the metadata."""
    columns: dict[str, Any] = {
        "user": interactions.user_rows,
        "item": interactions.item_rows,
        "weight": interactions.weights,
    }
    if interactions.timestamps is not None:
        columns["timestamp"] = interactions.timestamps
    return pa.table(columns).replace_schema_metadata({"users": json.dumps(interactions.user_ids)})


def _read_interactions(path: Path, item_ids: list[str]) -> Interactions:
    table = pq.read_table(path / "interactions.parquet")
    users = json.loads((table.schema.metadata or {})[b"users"])
    timestamps = table["timestamp"].to_numpy() if "timestamp" in table.column_names else None
    return Interactions(
        user_ids=tuple(users),
        item_ids=tuple(item_ids),
        user_rows=table["user"].to_numpy(),
        item_rows=table["item"].to_numpy(),
        weights=table["weight"].to_numpy(),
        timestamps=timestamps,
    )
