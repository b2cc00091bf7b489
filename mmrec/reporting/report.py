"""The report: all that a page shows of a store and of a model fitted to it, gathered."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from fusion.config import FitReport
from mmrec.errors import MMRecError, ModelError
from mmrec.evaluation import InteractionSource
from mmrec.recommending import Recommender
from mmrec.remote import Place, to_place, written
from mmrec.reporting.items import Column, StoreItems, read_items
from mmrec.reporting.neighbours import MAX_POINTS, ItemMap, Neighbourhood, item_map, neighbourhoods, spaces_of
from mmrec.reporting.overview import Faults, Overview, RunRow, failures, overview, run_rows
from mmrec.reporting.pictures import Preview, previews
from mmrec.reporting.ranked_lists import Bias, Training, UserList, bias_of_lists, user_lists
from mmrec.reporting.scores import Evaluation, evaluate
from mmrec.store import FeatureStore

logger = logging.getLogger(__name__)

NUM_SAMPLES, NUM_SHEETS, NUM_USERS = 6, 12, 6
SHEET_PICTURES, SHEET_HEIGHT, SHEET_POINTS = 5, 72, 160
THUMBNAILS, THUMBNAIL_HEIGHT = 300, 64
DECODING_SECONDS = 20.0
COLUMNS_OF_SLICES = 4


@dataclass(frozen=True)
class ModelPart:
    """What a report says of a model; the parts are None where there were no interactions, or nothing was held out."""

    about: str
    report: FitReport
    settings: dict[str, Any]
    num_items: int
    num_users: int
    num_interactions: int
    lists: list[UserList]
    bias: Bias | None
    evaluation: Evaluation | None


@dataclass(frozen=True)
class Report:
    """Everything that the page shows; `thumbnails` are JPEGs by item, `sheets` previews by item."""

    store: str
    encoder_set: str
    made: datetime
    version: str
    items: StoreItems
    overview: Overview
    faults: Faults
    runs: list[RunRow]
    num_runs: int
    sheets: list[tuple[str, Preview]]
    unreachable: int
    map: ItemMap | None
    neighbours: list[Neighbourhood]
    troubles: list[str]
    model: ModelPart | None
    thumbnails: dict[str, bytes] = field(default_factory=dict)


def write_report(
    path: str | os.PathLike[str],
    store: FeatureStore,
    model: Recommender | None = None,
    held_out: InteractionSource | None = None,
    *,
    seed: int = 0,
) -> Report:
    """Write the report on a store, and on a model fitted to it, as one HTML file that needs no other and no network.

    `held_out` interactions, which the model was not fitted to, evaluate it. Samples are drawn by `seed`: at most 20,000
    items on the map, 12 in contact sheets, 6 users, and those whose lists are measured; the page says how many.

    Raises `MMRecError` where the file cannot be written, and as `Recommender.evaluate` for `held_out`.

    >>> from mmrec import FeatureStore
    >>> from mmrec.reporting import write_report
    >>> report = write_report("report.html", FeatureStore("store"))
    >>> len(report.items), report.map.places_P2.shape, sorted(report.neighbours[0].spaces)
    (16, (16, 2), ['fused', 'pictures', 'sound', 'words'])
    """
    from mmrec.reporting.page import render

    target = to_place(path, MMRecError)
    if isinstance(target, Path) and not target.absolute().parent.is_dir():
        raise MMRecError(f"{target}: there is no folder {target.parent} to write the report into")
    if held_out is not None and model is None:
        raise ModelError("held-out interactions evaluate a model, and none was given")
    try:
        with written(target) as file:
            report = make_report(store, model, held_out, seed=seed)
            file.write_text(render(report), encoding="utf-8")
    except OSError as error:
        raise MMRecError(f"{target} cannot be written: {error.strerror or error}") from None
    return report


def make_report(
    store: FeatureStore,
    model: Recommender | None = None,
    held_out: InteractionSource | None = None,
    *,
    seed: int = 0,
) -> Report:
    """What `write_report` shows; arguments and errors as there."""
    from mmrec import __version__

    items = read_items(store)
    order = np.random.default_rng(seed).permutation(len(items))
    shown_P, sampled = np.sort(order[:MAX_POINTS]), [items.ids[row] for row in order]
    part = None if model is None else _model_part(model, store, items, held_out, seed)
    logger.info("comparing items, and drawing their map")
    samples = sampled[:NUM_SAMPLES]
    spaces, troubles = spaces_of(store, model, items, shown_P, samples)
    near = neighbourhoods(spaces, samples)
    columns = items.columns if model is None else [*items.columns, *_training_columns(model, items)]
    drawn = item_map(spaces, columns, seed)
    logger.info("looking at media")
    sheets, unreachable = _sheets(items, sampled)
    named = [*samples, *(n.item_id for found in near for space in found.spaces.values() for n in space)]
    if part is not None:
        named += [name for user in part.lists for name in (*user.latest, *(item.item_id for item in user.items))]
    runs, num_runs = run_rows(store)
    return Report(
        store=str(store.folder),
        encoder_set=store.encoder_set,
        made=datetime.now(UTC),
        version=__version__,
        items=items,
        overview=overview(store, items),
        faults=failures(store),
        runs=runs,
        num_runs=num_runs,
        sheets=sheets,
        unreachable=unreachable,
        map=drawn,
        neighbours=near,
        troubles=troubles,
        model=part,
        thumbnails=_thumbnails(items, [*named, *sampled]),
    )


def _model_part(
    model: Recommender, store: FeatureStore, items: StoreItems, held_out: InteractionSource | None, seed: int
) -> ModelPart:
    training = None if model.interactions is None else Training(model.interactions)
    rows_I = np.array([items.rows.get(item_id, -1) for item_id in model.item_ids], np.int64)
    grouping = [column for column in items.columns if not column.ordered and column.name != "status"]
    columns = [column.aligned(rows_I) for column in grouping[:COLUMNS_OF_SLICES]]
    lists, bias, evaluation = [], None, None
    if training is not None:
        logger.info("evaluating the model, and looking at its lists")
        evaluation = None if held_out is None else evaluate(model, training, held_out, columns, seed)
        lists = user_lists(model, store, training, NUM_USERS)
        bias = bias_of_lists(model, training, columns, seed)
    elif held_out is not None:
        raise ModelError("the model was fitted without interactions: held-out ones cannot evaluate it")
    return ModelPart(
        about=repr(model).removeprefix("Recommender(").removesuffix(")"),
        report=model.report,
        settings=model.config.to_mapping(),
        num_items=len(model.item_ids),
        num_users=len(model.user_ids),
        num_interactions=0 if training is None else len(training.interactions),
        lists=lists,
        bias=bias,
        evaluation=evaluation,
    )


def _training_columns(model: Recommender, items: StoreItems) -> list[Column]:
    """How many users have an item of the store in their history: in ranges."""
    if model.interactions is None:
        return []
    popularity_I = Training(model.interactions).popularity_I
    counts = dict(zip(model.item_ids, popularity_I.tolist(), strict=True))
    values_I = np.array([counts.get(item_id, np.nan) for item_id in items.ids], np.float64)
    return [Column.of_numbers("interactions", values_I)] if np.isfinite(values_I).any() else []


# --- media ------------------------------------------------------------------------------------------------------------


def _sheets(items: StoreItems, sampled: Iterable[str]) -> tuple[list[tuple[str, Preview]], int]:
    """The first sampled items whose files are there, with previews; and how many files were found to be away."""
    files, away = _files(items, sampled, NUM_SHEETS)
    found = {
        preview.media: preview
        for preview in _for_a_while(
            previews(files.values(), pictures=SHEET_PICTURES, height=SHEET_HEIGHT, points=SHEET_POINTS)
        )
    }
    return [(item_id, found[path]) for item_id, path in files.items() if path in found], away


def _thumbnails(items: StoreItems, wanted: Iterable[str]) -> dict[str, bytes]:
    """Small pictures of the first wanted items that have one, as many as can be had in `DECODING_SECONDS`."""
    files, _ = _files(items, wanted, THUMBNAILS)
    names: dict[Place, list[str]] = {}
    for item_id, path in files.items():
        names.setdefault(path, []).append(item_id)
    found = _for_a_while(previews(names, pictures=1, height=THUMBNAIL_HEIGHT, points=0))
    return {item_id: preview.strip for preview in found if preview.strip for item_id in names[preview.media]}


def _files(items: StoreItems, wanted: Iterable[str], count: int) -> tuple[dict[str, Place], int]:
    files: dict[str, Place] = {}
    away = 0
    for item_id in dict.fromkeys(wanted):
        if len(files) == count or away > 20 * count:
            break
        path = items.file(item_id)
        if path is None:
            continue
        if not isinstance(path, Path) or path.is_file():  # of URLs, the preview tells
            files[item_id] = path
        else:
            away += 1
    return files, away


def _for_a_while(found: Generator[Preview, None, None]) -> Iterator[Preview]:
    deadline = time.monotonic() + DECODING_SECONDS
    with closing(found):
        for preview in found:
            yield preview
            if time.monotonic() > deadline:
                logger.info("no more pictures after %.0f s", DECODING_SECONDS)
                return
