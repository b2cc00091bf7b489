"""Fitting: towers that rank what users interact with, or, without any interaction, a fusion of modalities that agree.

    >>> towers, report = fit_ranking(tokens, histories, validation_UI=held_out_UI)      # doctest: +SKIP
    >>> items = towers.embed_catalog(tokens)                                            # doctest: +SKIP
    >>> fusion, report = fit_alignment(tokens)                                          # doctest: +SKIP

Where the catalog is large, a step touches the items of its batch and some sampled negatives: the cost of an epoch grows
with the interactions, not with the items.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import lightning as L
import numpy as np
import scipy.sparse as sp
import torch

from fusion.attention import FUSIONS
from fusion.base import Fusion
from fusion.config import FitReport, FusionConfig, Hardware, TrainingError
from fusion.histories import Histories
from fusion.item_tower import ItemTower
from fusion.neighbours import EXACT_ITEMS, ContentNeighbours, Search
from fusion.projections import TokenProjection
from fusion.runs import run
from fusion.tasks import AlignmentTask, RankingTask, TwoViewsTask, target_counts, uses_full_softmax
from fusion.token_table import RaggedPart, RaggedTokens, Tokens, TokenTable
from fusion.tower import Towers
from fusion.user_tower import UserTower
from fusion.validation import Holdout

logger = logging.getLogger(__name__)

CALIBRATION_VALUES = 2**24
LARGEST_NEIGHBOURHOOD = 0.05  # of the catalog: the average over half of a tiny one would say nothing


def fit_ranking(
    tokens: Tokens,
    histories: Histories,
    *,
    validation_UI: sp.csr_array | None = None,
    config: FusionConfig | None = None,
    hardware: Hardware | None = None,
    search: Search | None = None,
) -> tuple[Towers, FitReport]:
    """Fits item and user vectors so that held-out items rank high.

    Args:
        tokens: of all I items; items without interactions are ranked by their content.
        histories: the interactions of U users; `histories.ordered` says whether their order counts.
        validation_UI: held-out interactions of the same users and items, disjoint from the histories. They choose the
            epoch, the bias of cold items and whether a linear autoencoder's factors (`fusion.linear`) stand beside the
            learned vectors. Without them the fit runs for `max_epochs`, and there are no factors.
        search: finds neighbours by content where there are more than `EXACT_ITEMS` items to compare with; without it
            such a catalog goes without neighbours.

    Returns:
        The towers in evaluation mode, on the CPU, and a report.

    Raises:
        TrainingError: for shapes that do not fit, weights that are not finite, nothing to learn from, validation that
            is empty or present in training, or a loss that is not finite.
        FitStopped: where `hardware.should_stop` said so.
    """
    config, hardware = config or FusionConfig(), hardware or Hardware()
    _check_interactions(tokens, histories, validation_UI)
    L.seed_everything(config.seed, verbose=False)
    fusion = _make_fusion(tokens, config)
    is_full = uses_full_softmax(tokens, config)
    counts_I = torch.from_numpy(target_counts(histories, len(tokens), config.user_weight))
    if not counts_I.any():
        raise TrainingError("no interaction has a positive weight: there is nothing to learn from")
    neighbours = _make_neighbours(tokens, counts_I.nonzero().flatten(), config, search)
    items = ItemTower(
        fusion,
        counts_I,
        id_dropout=config.id_dropout,
        use_ids=config.use_ids,
        neighbours=neighbours,
        smoothing=config.smoothing,
        sparse=not is_full,
    )
    items.connect(tokens, search)
    half_lives = config.half_lives if histories.ordered else ()
    towers = Towers(fusion, items, UserTower(config.dim, half_lives, shortening=config.shortening))
    holdout = None
    if validation_UI is not None:
        holdout = Holdout(histories, validation_UI, config.validation_users, config.seed)
    learned = _whitened(tokens, fusion)
    task = RankingTask(towers, tokens, learned, histories, config, holdout, hardware.num_devices)
    report = run(task, config, hardware)
    towers.eval()
    if validation_UI is not None:
        report.metrics.update(task.choose_cold_bias())
        if config.use_ids:
            report.metrics.update(task.choose_factors())
    else:
        towers.embed_catalog(tokens)  # remembers the content of neighbours as it is now
    num_factors = towers.width - config.dim
    report.rules.update(
        order="by time" if histories.ordered else "none",
        softmax="over the whole catalog" if is_full else "over sampled candidates",
        factors=f"{num_factors} of a linear autoencoder" if num_factors else "none",
        neighbours="none" if neighbours is None else f"{neighbours.count} by content in each modality",
    )
    return towers, report


def fit_alignment(
    tokens: Tokens, *, config: FusionConfig | None = None, hardware: Hardware | None = None
) -> tuple[Towers, FitReport]:
    """Fits a fusion from content alone: the modalities of an item are trained to agree (contrastively).

    `config.modality_dropout` does not apply: alignment alone makes modalities stand for each other, and hiding them
    would only weaken it. Where no two items have two modalities, two views of an item are trained to agree, each with
    other features dropped (SimCSE, Gao et al. 2021).

    Raises:
        TrainingError: where fewer than two items have any token, and for more than one device: items are told apart
            from those of their batch, which cannot be shared out.
        FitStopped: where `hardware.should_stop` said so.
    """
    config, hardware = config or FusionConfig(), hardware or Hardware()
    if hardware.num_devices > 1:
        raise TrainingError(f"a fit without interactions takes one device, not {hardware.num_devices}")
    L.seed_everything(config.seed, verbose=False)
    counts_I = tokens.num_modalities_I
    fusion = _make_fusion(tokens, replace(config, modality_dropout=0.0))
    both, any_ = (counts_I > 1).nonzero().flatten(), counts_I.nonzero().flatten()
    if len(any_) < 2:
        raise TrainingError(f"{len(any_)} of {len(tokens)} items have content: a fit needs at least two")
    task = TwoViewsTask(fusion, tokens, any_, config) if len(both) < 2 else AlignmentTask(fusion, tokens, both, config)
    report = run(task, config, hardware)
    return Towers(fusion, None, UserTower(config.dim, (), power=1.0, learned=False)).eval(), report


def _make_neighbours(
    tokens: Tokens, key_rows_K: torch.Tensor, config: FusionConfig, search: Search | None
) -> ContentNeighbours | None:
    if not config.smoothing:
        return None
    if len(key_rows_K) > EXACT_ITEMS and search is None:
        logger.warning(
            "%d items are too many to find neighbours among by comparing all: there are none", len(key_rows_K)
        )
        return None
    count = max(1, min(config.neighbours, int(LARGEST_NEIGHBOURHOOD * len(key_rows_K))))
    return ContentNeighbours.of(tokens, key_rows_K, _sample(tokens, config), count)


def _make_fusion(tokens: Tokens, config: FusionConfig) -> Fusion:
    fusion = FUSIONS[config.fusion](
        tokens.widths,
        dim=config.dim,
        num_heads=config.num_heads,
        input_dropout=config.input_dropout,
        dropout=config.attention_dropout,
        modality_dropout=config.modality_dropout,
    )
    sample = _sample(tokens, config)
    fusion.calibrate(sample.tokens, sample.masks)
    return fusion


def _whitened(tokens: Tokens, fusion: Fusion) -> Tokens:
    """The same tokens; those in memory that a fusion would whiten in every step are whitened once."""
    if not isinstance(tokens, RaggedTokens):
        return tokens
    parts: dict[str, RaggedPart] = {}
    for modality, part in tokens.parts.items():
        projection = fusion.projections[modality]
        assert isinstance(projection, TokenProjection)
        if isinstance(part.values, np.ndarray) and not projection.is_diagonal:
            parts[modality] = replace(part, values=projection.standardise(torch.from_numpy(part.values)).numpy())
    return RaggedTokens({**tokens.parts, **parts}, standard=frozenset(parts))


def _sample(tokens: Tokens, config: FusionConfig) -> TokenTable:
    """Some of the items that have tokens, to measure features by."""
    there = tokens.there_I.nonzero().flatten().numpy()
    count = max(1, CALIBRATION_VALUES * len(tokens) // max(1, tokens.num_values))
    if len(there) > count:
        there = np.sort(np.random.default_rng(config.seed).choice(there, count, replace=False))
    return tokens.select(torch.from_numpy(there))


def _check_interactions(tokens: Tokens, histories: Histories, validation_UI: sp.csr_array | None) -> None:
    if len(histories.items_N) and not 0 <= histories.items_N.min() <= histories.items_N.max() < len(tokens):
        raise TrainingError(f"interactions name items outside 0 to {len(tokens) - 1}")
    if not np.isfinite(histories.weights_N).all():
        raise TrainingError("the weights of interactions must be finite")
    if validation_UI is None:
        return
    expected = (len(histories), len(tokens))
    if validation_UI.shape != expected:
        raise TrainingError(f"validation of shape {validation_UI.shape}, training of shape {expected}")
    if not validation_UI.nnz:
        raise TrainingError("validation is empty: leave it out to train for a fixed number of epochs")
    held_out = validation_UI.tocoo()
    keys = held_out.row.astype(np.int64) * len(tokens) + held_out.col
    if leaked := int(np.isin(keys, histories.users_N * len(tokens) + histories.items_N).sum()):
        raise TrainingError(f"{leaked} of {len(keys)} validation interactions are present in training")
