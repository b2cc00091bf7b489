"""Approximate top-k of users against items, for catalogs that take too long to score whole.

It is a `Ranker` in all else. Its index keeps items by cells (FAISS's inverted file), and looks into as many of those
nearest to a user as the wanted recall takes. `scripts/bench_rank.py` measures what that gains, and what it costs.
"""

from __future__ import annotations

import json
import os
import sys
import zlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmrec.errors import RankingError
from mmrec.ranking.ranker import Floats, Ranker, Rows

if TYPE_CHECKING:
    import scipy.sparse as sp

ITEMS_PER_CELL = 40  # at least, for its centre to be well placed
MOST_FETCHED = 2048
SPARE = 16
CELLS_PROBED = 8


class ApproximateRanker(Ranker):
    """Ranks by looking into some cells of items; until `build` or `load` it has none, and ranks exactly.

    Lists are as long as exact ones: a user in whose cells too few items may be listed is ranked exactly.

    >>> import numpy as np
    >>> from mmrec.ranking import ApproximateRanker
    >>> vectors_ID = np.random.default_rng(0).normal(size=(2000, 16)).astype(np.float32)
    >>> ranker = ApproximateRanker(vectors_ID)
    >>> ranker.build(vectors_ID[:100], recall=0.9)    # as measured on this sample of users
    >>> ranker
    ApproximateRanker(2000 items x 16, index of recall 0.9...)
    >>> rows_UK, scores_UK = ranker.top_k(vectors_ID[:3], 20)    # the scores of the items found are exact
    >>> rows_UK.shape
    (3, 20)
    >>> ranker.save("items.index")
    """

    def __init__(self, vectors_ID: Floats, bias_I: Floats | None = None) -> None:
        super().__init__(vectors_ID, bias_I)
        self._index: Any = None
        self._recall = 1.0

    def _kind(self) -> str:
        return "without an index" if self._index is None else f"index of recall {self._recall:.3f}"

    @property
    def recall(self) -> float:
        """The share of the exact top k that was found when the index was built, a mean over users."""
        return self._recall

    def build(self, users_UD: Floats, *, k: int = 20, recall: float = 0.95, seed: int = 0) -> None:
        """Make an index that finds the wanted share of the exact top k of users like these.

        Raises `RankingError` where faiss is not installed, there is no item or user, or recall is not within 0 and 1.
        """
        if not 0 < recall <= 1:
            raise RankingError(f"recall must be above 0 and at most 1, got {recall}")
        if not self.num_items or not len(users_UD):
            raise RankingError(f"an index needs items and users, got {self.num_items} and {len(users_UD)}")
        self._index = None
        exact_UK, _ = self.top_k(users_UD, k)
        self._index = _make_index(self._points(), seed)
        self._index.nprobe = 1
        while (found := self._share_found(users_UD, exact_UK)) < recall and self._index.nprobe < self._index.nlist:
            self._index.nprobe = min(2 * self._index.nprobe, self._index.nlist)
        self._recall = found

    def extended(self, vectors_BD: Floats, bias_B: Floats) -> ApproximateRanker:
        """A ranker of these items and, in the rows after them, of more, whose cells take them up.

        The index is shared: the ranker that is extended ranks exactly from then on. It is made anew where one of the
        new items is longer than all before.
        """
        more = ApproximateRanker(*self._joined(vectors_BD, bias_B))
        more._index, more._recall, self._index = self._index, self._recall, None
        if more._index is not None and more._longest > self._longest:  # too long for the sphere of the others
            num_probed = more._index.nprobe
            more._index = _make_index(more._points(), 0)
            more._index.nprobe = min(num_probed, more._index.nlist)
        elif more._index is not None:
            more._index.add(more._points()[self.num_items :])
        return more

    def replaced(self, vectors_ID: Floats, bias_I: Floats) -> ApproximateRanker:
        """A ranker of these items alone; they are put into the cells that were made for those before.

        The cells are made anew where one of the items is longer than all before.
        """
        others = ApproximateRanker(vectors_ID, bias_I)
        others._recall = self._recall
        if self._index is not None and others._longest > self._longest:
            others._index = _make_index(others._points(), 0)
            others._index.nprobe = min(self._index.nprobe, others._index.nlist)
        elif self._index is not None:
            others._index = _faiss().clone_index(self._index)
            others._index.reset()
            others._index.add(others._points())
        return others

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write the index, and beside it what it was built for; the vectors are the caller's to keep."""
        if self._index is None:
            raise RankingError("there is no index to save: build one first")
        _faiss().write_index(self._index, os.fspath(file))
        record = {"recall": self._recall, "checksum": self._checksum()}
        _record_file(file).write_text(json.dumps(record), encoding="utf-8")

    def load(self, file: str | os.PathLike[str]) -> None:
        """Take an index that was saved; raises `RankingError` where it is missing, damaged or of other items."""
        try:
            record = json.loads(_record_file(file).read_text(encoding="utf-8"))
            index = _faiss().read_index(os.fspath(file))
        except (OSError, ValueError, RuntimeError) as error:
            raise RankingError(f"no index can be read from {os.fspath(file)}: {error}") from error
        if record["checksum"] != self._checksum():
            raise RankingError(f"the index {os.fspath(file)} was built from other items or biases: build it anew")
        self._index, self._recall = index, record["recall"]

    def _rank_block(
        self, users_UE: Floats, k: int, exclude_UI: sp.csr_array | None, disallowed_I: NDArray[np.bool_]
    ) -> tuple[Rows, Floats]:
        if self._index is None:
            return super()._rank_block(users_UE, k, exclude_UI, disallowed_I)
        rows_UC = self._find(users_UE, k, exclude_UI, disallowed_I)
        rows_UK, scores_UK = self._sort_exactly(users_UE, rows_UC, k)
        short_N = np.flatnonzero(rows_UK[:, -1] < 0)
        if len(short_N):
            hidden_NI = None if exclude_UI is None else exclude_UI[short_N]
            rows_UK[short_N], scores_UK[short_N] = super()._rank_block(users_UE[short_N], k, hidden_NI, disallowed_I)
        return rows_UK, scores_UK

    def _find(self, users_UE: Floats, k: int, exclude_UI: sp.csr_array | None, disallowed_I: NDArray[np.bool_]) -> Rows:
        """The items nearest to each user that may be listed, `SPARE` more than asked for; -1 for none."""
        few = k + SPARE
        most_hidden = 0 if exclude_UI is None else int(np.diff(exclude_UI.indptr).max(initial=0))
        fetched = min(max(few, min(few + most_hidden, MOST_FETCHED)), self.num_items)
        _, rows_UC = self._index.search(self._directions(users_UE), fetched, params=self._options(disallowed_I))
        if exclude_UI is not None:
            rows_UC[self._are_hidden(rows_UC, exclude_UI)] = -1
        order_UC = np.argsort(rows_UC < 0, axis=1, kind="stable")[:, :few]
        found_UC: Rows = np.take_along_axis(rows_UC, order_UC, 1)
        return found_UC

    def _share_found(self, users_UD: Floats, exact_UK: Rows) -> float:
        """By the index alone: lists that it leaves short count as they are."""
        users_UE = self._extend(users_UD)
        rows_UC = self._find(users_UE, exact_UK.shape[1], None, np.zeros(len(self.vectors_IE), np.bool_))
        rows_UK, _ = self._sort_exactly(users_UE, rows_UC, exact_UK.shape[1])
        return float((exact_UK[:, :, None] == rows_UK[:, None, :]).any(2).mean())

    def _options(self, disallowed_I: NDArray[np.bool_]) -> Any:
        options = {"nprobe": self._index.nprobe}
        if disallowed_I[: self.num_items].any():
            options["sel"] = _faiss().IDSelectorBitmap(np.packbits(~disallowed_I, bitorder="little"))
        return _faiss().SearchParametersIVF(**options)

    def _are_hidden(self, rows_UC: Rows, exclude_UI: sp.csr_array) -> NDArray[np.bool_]:
        import torch

        from mmrec.ranking.pruning import Exclusions

        users_P = torch.arange(len(rows_UC)).repeat_interleave(rows_UC.shape[1])
        hidden_P = Exclusions(exclude_UI, "cpu").holds(users_P, torch.from_numpy(rows_UC.ravel()))
        hidden_UC: NDArray[np.bool_] = hidden_P.numpy().reshape(rows_UC.shape)
        return hidden_UC

    # On a sphere, one dimension up, the items of the best scores are the nearest: Bachrach et al. 2014, "Speeding up
    # the Xbox recommender system using a Euclidean transformation for inner-product spaces".

    def _points(self) -> Floats:
        return np.column_stack(
            [self.vectors_IE, np.sqrt(np.maximum(self._longest**2 - _lengths(self.vectors_IE) ** 2, 0))]
        )[: self.num_items]

    @cached_property
    def _longest(self) -> np.float32:
        longest: np.float32 = _lengths(self.vectors_IE).max()
        return longest

    def _directions(self, users_UE: Floats) -> Floats:
        on_sphere_UE = users_UE * (self._longest / _lengths(users_UE))[:, None]
        return np.column_stack([on_sphere_UE, np.zeros(len(users_UE), np.float32)])

    def _checksum(self) -> int:
        return zlib.crc32(self.vectors_IE.data)


def _make_index(points_IF: Floats, seed: int) -> Any:
    faiss = _faiss()
    num_items, width = points_IF.shape
    num_cells = max(1, min(int(4 * np.sqrt(num_items)), num_items // ITEMS_PER_CELL))
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(width), width, num_cells)
    index.cp.seed = seed
    index.cp.min_points_per_centroid = 1
    index.cp.max_points_per_centroid = ITEMS_PER_CELL
    index.train(points_IF)
    index.add(points_IF)
    return index


def _lengths(vectors_NE: Floats) -> Floats:
    lengths_N: Floats = np.sqrt(np.einsum("ne,ne->n", vectors_NE, vectors_NE))
    return lengths_N


def neighbour_search(keys_KP: Floats) -> Callable[[Floats, int], Rows]:
    """Finds the nearest of many keys by inner product, approximately: `(queries (Q, P), count) -> places (Q, count)`.

    Raises `RankingError` where faiss is not installed.
    """
    faiss = _faiss()
    num_keys, width = keys_KP.shape
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, int(np.sqrt(num_keys)), faiss.METRIC_INNER_PRODUCT)
    index.cp.max_points_per_centroid = ITEMS_PER_CELL
    index.train(keys_KP)
    index.add(keys_KP)
    index.nprobe = CELLS_PROBED

    def find(queries_QP: Floats, count: int) -> Rows:
        places_QN: Rows = index.search(np.ascontiguousarray(queries_QP), count)[1]
        return places_QN

    return find


def _record_file(file: str | os.PathLike[str]) -> Path:
    return Path(file).with_name(Path(file).name + ".json")


def _one_thread() -> None:
    if "faiss" in sys.modules:
        _faiss().omp_set_num_threads(1)


os.register_at_fork(after_in_child=_one_thread)  # a fork has none of its parent's threads


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise RankingError("an approximate index needs faiss: pip install 'mmrec[approximate]'") from error
    return faiss
