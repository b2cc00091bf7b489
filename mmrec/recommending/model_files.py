"""A fitted recommender on disk: weights and vectors as safetensors, tables as Parquet, the rest as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save_file as save_arrays

from fusion.config import FitReport
from fusion.tower import Towers, load_towers
from mmrec.errors import MMRecError
from mmrec.evaluation import Interactions
from mmrec.ranking import ApproximateRanker, Ranker
from mmrec.recommending.model_versions import Folder, check_files, damaged, read_current
from mmrec.store import EncoderRecord

INDEX = "items.index"
_DTYPES = {"F32": np.float32}

Floats = NDArray[np.float32]


@dataclass(slots=True)
class ModelFiles:
    """What a recommender knows beside its tower, row by row of its items.

    `trained_I`: the items with positive interactions in training. `tower_rows_I`: rows in the towers, -1 for items that
    joined later. `interactions` None: fitted to content alone.
    """

    item_ids: list[str]
    catalog: list[dict[str, Any]]
    vectors_ID: Floats
    bias_I: Floats
    trained_I: NDArray[np.bool_]
    tower_rows_I: NDArray[np.int64]
    interactions: Interactions | None
    encoders: dict[str, EncoderRecord]
    report: FitReport


def write_model(path: Path, files: ModelFiles, towers: Towers, config: Mapping[str, Any], ranker: Ranker) -> None:
    """Write everything into a folder."""
    towers.save(path)
    arrays = {"vectors": files.vectors_ID, "bias": files.bias_I}
    save_arrays({name: np.ascontiguousarray(x) for name, x in arrays.items()}, path / "items.safetensors")
    rows = {
        "item_id": files.item_ids,
        "trained": files.trained_I.tolist(),
        "tower_row": files.tower_rows_I,
        "catalog": [json.dumps(row, ensure_ascii=False) for row in files.catalog],
    }
    pq.write_table(pa.table(rows), path / "items.parquet")
    if files.interactions is not None:
        pq.write_table(_interactions_table(files.interactions), path / "interactions.parquet")
    about = {
        "config": dict(config),
        "encoders": {modality: asdict(record) for modality, record in files.encoders.items()},
        "report": asdict(files.report),
        "hybrid": files.interactions is not None,
    }
    (path / "model.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
    if isinstance(ranker, ApproximateRanker):
        ranker.save(path / INDEX)


def read_encoders(folder: Folder) -> dict[str, EncoderRecord]:
    """The encoders of the current version of a model, by modality, without the rest of it."""

    def read(path: Path) -> dict[str, EncoderRecord]:
        try:
            about = json.loads((path / "model.json").read_text(encoding="utf-8"))
            return {modality: EncoderRecord(**record) for modality, record in about["encoders"].items()}
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise damaged(path, error) from error

    return read_current(folder, read)


def read_model(path: Path) -> tuple[ModelFiles, Towers, dict[str, Any], Ranker]:
    """What `write_model` wrote; raises `ModelError` where it is damaged."""
    check_files(path)
    try:
        about = json.loads((path / "model.json").read_text(encoding="utf-8"))
        arrays = _map_arrays(path / "items.safetensors")
        rows = pq.read_table(path / "items.parquet")
        files = ModelFiles(
            item_ids=rows["item_id"].to_pylist(),
            catalog=json.loads(f"[{','.join(rows['catalog'].to_pylist())}]"),
            vectors_ID=arrays["vectors"],
            bias_I=arrays["bias"],
            trained_I=rows["trained"].to_numpy(zero_copy_only=False) if rows.num_rows else np.zeros(0, np.bool_),
            tower_rows_I=rows["tower_row"].to_numpy(),
            interactions=_read_interactions(path, rows["item_id"].to_pylist()) if about["hybrid"] else None,
            encoders={modality: EncoderRecord(**record) for modality, record in about["encoders"].items()},
            report=FitReport(**about["report"]),
        )
        towers = load_towers(path)
        _check_rows(files, towers)
        return files, towers, dict(about["config"]), _read_ranker(path, files)
    except MMRecError:
        raise
    except (OSError, KeyError, TypeError, ValueError, SafetensorError, pa.ArrowException) as error:
        raise damaged(path, error) from error


def _map_arrays(path: Path) -> dict[str, Floats]:
    """The arrays of a file, mapped into memory: processes that read the same file share it, and what they change is
    their own.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    arrays = {}
    for name, about in header.items():
        first, last = about["data_offsets"]
        dtype, shape = _DTYPES[about["dtype"]], tuple(about["shape"])
        mapped = np.memmap(path, dtype, mode="c", offset=8 + size + first, shape=shape) if last > first else None
        arrays[name] = np.zeros(shape, dtype) if mapped is None else mapped.view(np.ndarray)
    return arrays


def _read_ranker(path: Path, files: ModelFiles) -> Ranker:
    if not (path / INDEX).exists():
        return Ranker(files.vectors_ID, files.bias_I)
    ranker = ApproximateRanker(files.vectors_ID, files.bias_I)
    ranker.load(path / INDEX)
    return ranker


def _check_rows(files: ModelFiles, towers: Towers) -> None:
    count, train = len(files.item_ids), files.interactions
    fitted = count if towers.items is None else len(towers.items.trained_I)
    strange = train is not None and len(train) and train.item_rows.max() >= count
    strange = strange or files.tower_rows_I.max(initial=-1) >= fitted
    shapes = [files.vectors_ID.shape, files.bias_I.shape]
    if strange or shapes != [(count, towers.width), (count,)]:
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
