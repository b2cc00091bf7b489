"""Fitting: from the tokens of a store and interactions to what a recommender holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from fusion.config import FitReport, FitStopped, FusionConfig, Hardware, TrainingError
from fusion.projections import FusionError
from fusion.token_table import RaggedTokens
from fusion.tower import Towers
from mmrec.errors import FitInterrupted, ModelError
from mmrec.evaluation import (
    Interactions,
    InteractionSource,
    align,
    check_no_leak,
    check_sources,
    read_catalog_interactions,
)
from mmrec.ranking import neighbour_search
from mmrec.recommending.model_files import ModelFiles
from mmrec.recommending.tokens import read_tokens
from mmrec.recommending.users import to_histories
from mmrec.store import EncoderRecord, FeatureStore


@dataclass(frozen=True, kw_only=True)
class RecommenderConfig:
    """How to fit: the fusion, the towers, and their training.

    >>> RecommenderConfig.from_mapping({"order": "rows", "half_lives": [2, 20]}).fusion.half_lives
    (2.0, 20.0)
    """

    fusion: FusionConfig = field(default_factory=FusionConfig)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> RecommenderConfig:
        """From the keys of a YAML file, those of `FusionConfig`. Unknown ones raise `ModelError`."""
        try:
            return cls(fusion=FusionConfig.from_mapping(values))
        except TrainingError as error:
            raise ModelError(f"configuration: {error}") from error

    def to_mapping(self) -> dict[str, Any]:
        return self.fusion.to_mapping()


@dataclass(frozen=True)
class FitData:
    """What a fit reads: the tokens of all items of a store, in the order of `item_ids`, and the interactions.

    `train` and `held_out` index `item_ids`; the users of `train` come first in both.
    """

    item_ids: list[str]
    tokens: RaggedTokens
    train: Interactions | None
    held_out: Interactions | None


def read_fit_data(
    store: FeatureStore, interactions: InteractionSource | None, validation: InteractionSource | None
) -> FitData:
    """Arguments and errors as `Recommender.fit`; what can be refused at once is, before tokens are read."""
    if interactions is None and validation is not None:
        raise ModelError("validation was given without interactions to fit")
    check_sources(interactions, validation)
    item_ids, tokens = read_tokens(store)
    train = None if interactions is None else read_catalog_interactions(interactions, item_ids)
    held_out = None if validation is None else read_catalog_interactions(validation, item_ids)
    if train is not None and held_out is not None:
        check_no_leak(train, held_out)
        held_out = align(held_out, user_ids=train.user_ids, item_ids=train.item_ids)
    return FitData(item_ids, tokens, train, held_out)


def fit_towers(data: FitData, config: RecommenderConfig, hardware: Hardware | None) -> tuple[Towers, FitReport]:
    """Fit to interactions, or to content alone where there are none; `ModelError` where that cannot be done."""
    from fusion.training import fit_alignment, fit_ranking  # Lightning takes seconds to import

    train = data.train
    try:
        if train is None:
            return fit_alignment(data.tokens, config=config.fusion, hardware=hardware)
        validation_UI = None
        if data.held_out is not None:
            known = data.held_out.select(data.held_out.weights > 0).matrix()
            validation_UI = sp.csr_array(known[: len(train.user_ids)])
        return fit_ranking(
            data.tokens,
            to_histories(train, config.fusion.order),
            validation_UI=validation_UI,
            config=config.fusion,
            hardware=hardware,
            search=neighbour_search if find_spec("faiss") else None,
        )
    except FitStopped as error:
        raise FitInterrupted(str(error)) from error
    except (TrainingError, FusionError) as error:
        raise ModelError(str(error)) from error


def fit_files(
    store: FeatureStore,
    interactions: InteractionSource | None,
    validation: InteractionSource | None,
    config: RecommenderConfig,
    hardware: Hardware | None,
) -> tuple[ModelFiles, Towers]:
    """Fit, and give every item of the store its vector; arguments and errors as `Recommender.fit`."""
    data = read_fit_data(store, interactions, validation)
    towers, report = fit_towers(data, config, hardware)
    items = towers.embed_catalog(data.tokens)
    files = ModelFiles(
        item_ids=data.item_ids,
        catalog=catalog_rows(store, data.item_ids),
        vectors_ID=items.vectors_ID.numpy().astype(np.float32),
        bias_I=items.bias_I.numpy().astype(np.float32),
        trained_I=_trained(data.train, len(data.item_ids)),
        tower_rows_I=np.arange(len(data.item_ids)),
        interactions=data.train,
        encoders=_encoders(store),
        report=report,
    )
    return files, towers


def _trained(train: Interactions | None, num_items: int) -> NDArray[np.bool_]:
    """Which items have positive interactions in training; all of them where there were no interactions."""
    if train is None:
        return np.ones(num_items, np.bool_)
    return np.bincount(train.item_rows[train.weights > 0], minlength=num_items) > 0


def catalog_rows(store: FeatureStore, item_ids: Sequence[str]) -> list[dict[str, Any]]:
    """What the catalog says of items, its own columns and the metadata, and their labels, in the order of the ids."""
    columns = ["item_id", "title", "description", "tags", "language", "metadata"]
    found = store.scan(columns, item_ids if len(item_ids) < len(store) else None).read_all().to_pylist()
    labels = store.labels.of_items()
    rows = {
        row["item_id"]: {**labels.get(row["item_id"], {}), **json.loads(row.pop("metadata")), **row} for row in found
    }
    return [rows[item_id] for item_id in item_ids]


def _encoders(store: FeatureStore) -> dict[str, EncoderRecord]:
    """The encoders that made the tokens of a store, by modality."""
    known = {record.fingerprint: record for record in store.encoders()}
    return {modality: known[name] for modality, name in store.fingerprints().items()}
