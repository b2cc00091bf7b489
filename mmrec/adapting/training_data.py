"""What adapting learns from: the decoded parts of a small catalog, kept in memory, and batches of its items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.base import TextEncoder
from mmrec.catalog import Item
from mmrec.embedding import DecodeLimits, PresetEncoders, decode_items
from mmrec.errors import MMRecError
from mmrec.media import DecodedMedia
from mmrec.store import MODALITIES, Modality


@dataclass(slots=True)
class Parts:
    """What one item gives an encoder: frames, windows or passages, and the time of each in seconds."""

    data: list[Any]
    times_T: NDArray[np.float32]


@dataclass(slots=True)
class CatalogMedia:
    """All items, in the order of the catalog; `parts[modality][row]` where an item has that modality.

    `reasons` counts why modalities are missing or incomplete.
    """

    item_ids: list[str]
    parts: dict[Modality, dict[int, Parts]]
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def modalities(self) -> list[Modality]:
        """Those that any item has."""
        return [modality for modality, parts in self.parts.items() if parts]

    @property
    def num_modalities_I(self) -> NDArray[np.int64]:
        """How many each item has."""
        rows = range(len(self.item_ids))
        return np.array([sum(row in parts for parts in self.parts.values()) for row in rows], np.int64)


@dataclass(slots=True)
class _Task:
    item: Item
    row: int
    todo: frozenset[Modality] = frozenset(MODALITIES)


def decode_catalog(
    items: Iterable[Item], loaded: PresetEncoders, limits: DecodeLimits, memory_bytes: int
) -> CatalogMedia:
    """Decode all media once. Raises `MMRecError` where frames and windows take more than `memory_bytes`."""
    tasks = [_Task(item, row) for row, item in enumerate(items)]
    media = CatalogMedia([task.item.item_id for task in tasks], {modality: {} for modality in loaded.encoders})
    used_bytes = 0
    with closing(decode_items(tasks, loaded.frames, loaded.sound, limits)) as finished:
        for done, (task, decoded) in enumerate(finished, start=1):
            for modality, parts in _parts_of(task.item, decoded, loaded):
                media.parts[modality][task.row] = parts
                used_bytes += sum(part.nbytes for part in parts.data if isinstance(part, np.ndarray))
            problems = {"visual": decoded.visual_problem, "audio": decoded.audio_problem}
            media.reasons.update(p.reason.value for m, p in problems.items() if p is not None and m in loaded.encoders)
            if used_bytes > memory_bytes:
                raise MMRecError(
                    f"the media of {done} of {len(tasks)} items take more than {memory_bytes / 2**30:.3g} GiB: "
                    "adapt to a part of the catalog, take fewer frames and windows in the preset, or allow more memory"
                )
    return media


def _parts_of(item: Item, media: DecodedMedia, loaded: PresetEncoders) -> Iterator[tuple[Modality, Parts]]:
    if media.frames_TFHWC is not None:
        yield "visual", Parts(list(media.frames_TFHWC), _middles(media.frame_spans))
    if media.windows:
        yield "audio", Parts(media.windows, _middles(media.window_spans))
    if "text" in loaded.encoders and (text := loaded.preset.text_of(item)):
        passages = cast("TextEncoder", loaded.encoders["text"]).passages(text)
        yield "text", Parts(passages, np.zeros(len(passages), np.float32))


def _middles(spans: Sequence[tuple[float, float]]) -> NDArray[np.float32]:
    middles_T: NDArray[np.float32] = np.array(spans, np.float32).mean(axis=1)
    return middles_T


@dataclass(frozen=True, slots=True)
class Batch:
    """B items of a step, as `rows` of the media.

    `anchors_Q` are places in the batch of items of a user's history, `positives_Q` places of other items of the same
    history. `excluded` are pairs `(query, anchor)` `(N, 2)` in Q of that history as well, which are no negatives.
    """

    rows: NDArray[np.int64]
    anchors_Q: Tensor
    positives_Q: Tensor
    excluded: Tensor


class TrainingBatches:
    """The batches of an epoch: each item that there is something to learn from, once, in another order every time.

    These are the items with two modalities, and those that share a user with another one, by the interactions
    `interactions_UI`. A batch has `batch_size` items or some more, and as many positives at most.

    Raises `MMRecError` where there is nothing to learn from.
    """

    def __init__(self, media: CatalogMedia, interactions_UI: sp.csr_array | None, batch_size: int, seed: int) -> None:
        count_I = media.num_modalities_I
        self._interactions_UI = _together(interactions_UI, count_I > 0)
        self._users_IU = sp.csr_array(self._interactions_UI.T)
        self._batch_size = batch_size
        self._random = np.random.default_rng(seed)
        shared_I = np.diff(self._users_IU.indptr) > 0
        self.rows = np.flatnonzero((count_I > 1) | shared_I)
        if interactions_UI is not None and not shared_I.any():
            raise MMRecError("no user interacted with two items that have any content: leave the interactions out")
        if interactions_UI is None and len(self.rows) < 2:
            raise MMRecError(
                f"{len(self.rows)} of {len(count_I)} items have content in two of {', '.join(media.parts)}: "
                "without interactions, two such items at least are needed to learn from"
            )

    def batches(self) -> Iterator[Batch]:
        order = self._random.permutation(self.rows)
        for rows in np.array_split(order, max(1, len(order) // self._batch_size)):
            yield self._with_positives(rows)

    def _with_positives(self, rows: NDArray[np.int64]) -> Batch:
        targets = [place for place, row in enumerate(rows) if len(_of(self._users_IU, row))]
        taken = [_of(self._interactions_UI, self._random.choice(_of(self._users_IU, rows[place]))) for place in targets]
        positives = [self._random.choice(own[own != rows[place]]) for place, own in zip(targets, taken, strict=True)]
        excluded = [
            (query, other)
            for query, own in enumerate(taken)
            for other in np.flatnonzero(np.isin(rows[targets], own))
            if other != query
        ]
        rows = np.concatenate([rows, np.setdiff1d(np.array(positives, np.int64), rows)])
        places = {int(row): place for place, row in enumerate(rows)}
        return Batch(
            rows=rows,
            anchors_Q=torch.tensor(targets, dtype=torch.long),
            positives_Q=torch.tensor([places[int(row)] for row in positives], dtype=torch.long),
            excluded=torch.tensor(excluded, dtype=torch.long).reshape(-1, 2),
        )


def _together(interactions_UI: sp.csr_array | None, there_I: NDArray[np.bool_]) -> sp.csr_array:
    """Interactions with items that have content, of users with two of them."""
    if interactions_UI is None:
        return sp.csr_array((0, len(there_I)), dtype=np.float32)
    there_UI = sp.csr_array(interactions_UI @ sp.diags_array(there_I.astype(np.float32)))
    there_UI.eliminate_zeros()
    return sp.csr_array(there_UI[np.diff(there_UI.indptr) > 1])


def _of(matrix: sp.csr_array, row: int) -> NDArray[np.integer]:
    columns: NDArray[np.integer] = matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]]
    return columns
