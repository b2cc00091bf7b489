"""What changes in a model between two fits: items join, change and leave, and users leave.

The towers stay as they were fitted. Rows of the files may be others afterwards.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from fusion.tower import Towers
from mmrec.errors import ModelError
from mmrec.evaluation import Interactions
from mmrec.recommending.fitting import catalog_rows
from mmrec.recommending.model_files import Floats, ModelFiles
from mmrec.recommending.tokens import check_encoders, read_tokens
from mmrec.store import FeatureStore


def add_items(files: ModelFiles, towers: Towers, store: FeatureStore, item_ids: Sequence[str]) -> tuple[Floats, Floats]:
    """Let items join that training did not see; returns their vectors and biases."""
    check_encoders(store, files.encoders)
    names, tokens = read_tokens(store, item_ids, towers.fusion.widths)
    catalog = catalog_rows(store, names)
    items = towers.embed_new(tokens)
    vectors_BD, bias_B = items.vectors_ID.numpy(), items.bias_I.numpy()
    files.item_ids = [*files.item_ids, *names]
    files.catalog = [*files.catalog, *catalog]
    files.vectors_ID = np.vstack([files.vectors_ID, vectors_BD])
    files.bias_I = np.concatenate([files.bias_I, bias_B])
    files.trained_I = np.concatenate([files.trained_I, np.zeros(len(names), np.bool_)])
    files.tower_rows_I = np.concatenate([files.tower_rows_I, np.full(len(names), -1)])
    return vectors_BD, bias_B


def remake_items(
    files: ModelFiles, towers: Towers, store: FeatureStore, item_rows: Mapping[str, int], item_ids: Sequence[str]
) -> None:
    """Give items the vectors of what the store holds of them now."""
    check_encoders(store, files.encoders)
    names, tokens = read_tokens(store, item_ids, towers.fusion.widths)
    catalog = catalog_rows(store, names)
    rows_B = np.array([item_rows[name] for name in names])
    vectors_ID, bias_I = files.vectors_ID.copy(), files.bias_I.copy()
    tower_rows_B = files.tower_rows_I[rows_B]
    for known in (True, False):
        places = np.flatnonzero((tower_rows_B >= 0) == known)
        if not len(places):
            continue
        part = tokens.select(torch.from_numpy(places))
        items = towers.embed_again(part, torch.from_numpy(tower_rows_B[places])) if known else towers.embed_new(part)
        vectors_ID[rows_B[places]], bias_I[rows_B[places]] = items.vectors_ID.numpy(), items.bias_I.numpy()
    files.vectors_ID, files.bias_I, files.catalog = vectors_ID, bias_I, list(files.catalog)
    for row, about in zip(rows_B.tolist(), catalog, strict=True):
        files.catalog[row] = about


def drop_items(files: ModelFiles, item_ids: Collection[str]) -> None:
    """Let items leave, with all interactions with them."""
    gone = set(item_ids)
    kept_I = np.array([name not in gone for name in files.item_ids], np.bool_)
    if not kept_I.any():
        raise ModelError("these are all items of the model: there would be nothing left to rank")
    rows = np.flatnonzero(kept_I)
    files.item_ids = [files.item_ids[row] for row in rows]
    files.catalog = [files.catalog[row] for row in rows]
    files.vectors_ID, files.bias_I = files.vectors_ID[rows], files.bias_I[rows]
    files.trained_I, files.tower_rows_I = files.trained_I[rows], files.tower_rows_I[rows]
    if files.interactions is not None:
        new_row_I = np.cumsum(kept_I) - 1
        left = files.interactions.select(kept_I[files.interactions.item_rows])
        files.interactions = replace(left, item_ids=tuple(files.item_ids), item_rows=new_row_I[left.item_rows])


def drop_user(interactions: Interactions, user_id: str) -> Interactions:
    """The interactions of all others."""
    row = interactions.user_index[user_id]
    left = interactions.select(interactions.user_rows != row)
    user_ids = interactions.user_ids[:row] + interactions.user_ids[row + 1 :]
    return replace(left, user_ids=user_ids, user_rows=left.user_rows - (left.user_rows > row))
