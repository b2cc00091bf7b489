"""Fitting: from the tokens of a store and interactions to what a recommender holds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from fusion.config import FitReport, FusionConfig, Hardware, TrainingError
from fusion.projections import FusionError
from fusion.token_table import TokenTable
from fusion.tower import ContentTower, Tower
from mmrec.errors import ModelError
from mmrec.evaluation import Interactions, InteractionSource, align, check_no_leak, read_catalog_interactions
from mmrec.recommending.model_files import ModelFiles
from mmrec.recommending.tokens import read_tokens
from mmrec.recommending.users import recency_weights
from mmrec.store import EncoderRecord, FeatureStore


@dataclass(frozen=True, kw_only=True)
class RecommenderConfig:
    """How to fit: the fusion and its training, and how a user's history is weighted.

    `half_life_days` halves the weight of an interaction for every so many days before the user's latest; 0 for never.
    """

    fusion: FusionConfig = field(default_factory=FusionConfig)
    half_life_days: float = 0.0

    def __post_init__(self) -> None:
        days = self.half_life_days
        if not isinstance(days, int | float) or isinstance(days, bool) or not 0 <= days < math.inf:
            raise ModelError(f"half_life_days is {days!r}: expected a number of days, or 0")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> RecommenderConfig:
        """From the keys of a YAML file: `half_life_days`, and those of `FusionConfig`. Unknown ones raise."""
        rest = dict(values)
        half_life_days = rest.pop("half_life_days", 0.0)
        try:
            return cls(fusion=FusionConfig.from_mapping(rest), half_life_days=half_life_days)
        except TrainingError as error:
            raise ModelError(f"configuration: {error}") from error

    def to_mapping(self) -> dict[str, Any]:
        return {"half_life_days": self.half_life_days, **self.fusion.to_mapping()}


@dataclass(frozen=True)
class FitData:
    """What a fit reads: the tokens of all items of a store, in the order of `item_ids`, and who interacted with what.

    `train` and `held_out` index `item_ids`; the users of `train` come first in both.
    """

    item_ids: list[str]
    table: TokenTable
    train: Interactions | None
    held_out: Interactions | None


def read_fit_data(
    store: FeatureStore, interactions: InteractionSource | None, validation: InteractionSource | None
) -> FitData:
    """Arguments and errors as `Recommender.fit`."""
    item_ids, table = read_tokens(store)
    train = None if interactions is None else read_catalog_interactions(interactions, item_ids)
    held_out = None if validation is None else read_catalog_interactions(validation, item_ids)
    if train is None and held_out is not None:
        raise ModelError("validation was given without interactions to fit")
    if train is not None and held_out is not None:
        check_no_leak(train, held_out)
        held_out = align(held_out, user_ids=train.user_ids, item_ids=train.item_ids)
    return FitData(item_ids, table, train, held_out)


def fit_tower(data: FitData, config: RecommenderConfig, hardware: Hardware | None) -> tuple[Tower, FitReport]:
    """Fit to interactions, or to content alone where there are none; `ModelError` where that cannot be done."""
    from fusion.training import fit_alignment, fit_ranking  # Lightning takes seconds to import

    train = data.train
    try:
        if train is None:
            fusion, report = fit_alignment(data.table, config=config.fusion, hardware=hardware)
            return ContentTower(fusion).eval(), report
        place_N = np.lexsort((train.item_rows, train.user_rows))  # of the matrix's entries among the interactions
        train_UI = train.matrix()
        train_UI.data = recency_weights(train, config.half_life_days)[place_N]
        validation_UI = None
        if data.held_out is not None:
            validation_UI = sp.csr_array(data.held_out.matrix()[: len(train.user_ids)])
        return fit_ranking(
            data.table,
            train_UI,
            order_N=train.order()[place_N],
            validation_UI=validation_UI,
            config=config.fusion,
            hardware=hardware,
        )
    except (TrainingError, FusionError) as error:
        raise ModelError(str(error)) from error


def fit_files(
    store: FeatureStore,
    interactions: InteractionSource | None,
    validation: InteractionSource | None,
    config: RecommenderConfig,
    hardware: Hardware | None,
) -> tuple[ModelFiles, Tower]:
    """Fit, and give every item of the store its vector; arguments and errors as `Recommender.fit`."""
    data = read_fit_data(store, interactions, validation)
    tower, report = fit_tower(data, config, hardware)
    with torch.no_grad():
        items = tower(data.table)
    files = ModelFiles(
        item_ids=data.item_ids,
        catalog=catalog_rows(store, data.item_ids),
        vectors_ID=items.vectors_ID.numpy().astype(np.float32),
        bias_I=items.bias_I.numpy().astype(np.float32),
        base_ID=items.base_ID.numpy().astype(np.float32),
        trained_I=_offered(data.train, len(data.item_ids)),
        interactions=data.train,
        encoders=_encoders(store),
        report=report,
    )
    return files, tower


def _offered(train: Interactions | None, num_items: int) -> NDArray[np.bool_]:
    """Which items stand in training; all of them where there were no interactions."""
    if train is None:
        return np.ones(num_items, np.bool_)
    return np.bincount(train.item_rows, minlength=num_items) > 0


def catalog_rows(store: FeatureStore, item_ids: Sequence[str]) -> list[dict[str, Any]]:
    """What the catalog says of items, its own columns and the metadata, in the order of the ids."""
    columns = ["item_id", "title", "description", "tags", "language", "metadata"]
    found = store.scan(columns, item_ids if len(item_ids) < len(store) else None).read_all().to_pylist()
    rows = {row["item_id"]: {**json.loads(row.pop("metadata")), **row} for row in found}
    return [rows[item_id] for item_id in item_ids]


def _encoders(store: FeatureStore) -> dict[str, EncoderRecord]:
    """The encoders that made the tokens of a store, by modality."""
    known = {record.fingerprint: record for record in store.encoders()}
    return {modality: known[name] for modality, name in store.fingerprints().items()}
