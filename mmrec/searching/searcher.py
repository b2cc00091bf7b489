"""Search: a ranking for each part of a query in each modality and in full text, joined into one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrec.errors import SearchError, StoreError
from mmrec.ranking import diversify
from mmrec.searching.filters import to_sql
from mmrec.searching.joining import RANK_CONSTANT, Found, Ranking, join
from mmrec.searching.moments import Moment, best_moment
from mmrec.searching.query import Query
from mmrec.searching.recorded_encoders import RecordedEncoders
from mmrec.searching.vectors import Part, QueryVectors
from mmrec.store import MODALITIES, FeatureStore, Modality, SearchColumns, SearchTables

logger = logging.getLogger(__name__)
DEPTH = 100
"""How far each ranking is read, at least."""
MOST_VECTORS = 16
"""Of a part that has more, so many, evenly spread, find the items in which its moments are sought."""
SPREAD_OVER = 2
"""So many times as many items as are shown are those that diversity chooses from, at least."""
AWAY = 0.5
"""How much of the mean of what is not wanted is taken from what is."""
REFRESHED_ROWS = 10_000
"""The tables of a store that has no more rows are brought up to date by the search itself."""


class Searcher:
    """Answers queries on a store; encoders, once loaded, stay for the next one.

    Tables that are missing or out of date are made from a store of up to 10,000 items. For a larger one, `mmrec index
    --store` makes them: without them a search raises `SearchError`, and warns where the store was written since.

    Args:
        encoders: where some are loaded already.

    >>> import mmrec
    >>> searcher = mmrec.Searcher(mmrec.FeatureStore("store"))
    >>> ids, scores = searcher.search(mmrec.Query(words=["quiet piano"], where="language = 'en'"), k=2)
    >>> sorted(ids)
    ['piano-1', 'piano-2']
    >>> searcher.moments(mmrec.Query(items=["rain-0"]), k=1)[0].when
    '00:00-00:01'
    """

    def __init__(self, store: FeatureStore, encoders: RecordedEncoders | None = None) -> None:
        self.tables = SearchTables(store)
        self._vectors = QueryVectors(self.tables, RecordedEncoders() if encoders is None else encoders)
        self._refreshing = threading.Lock()

    def search(self, query: Query, *, k: int = 10, offset: int = 0) -> tuple[list[str], NDArray[np.float64]]:
        """The ids of the best items after the first `offset`, at most `k`, and their scores by rank fusion.

        Raises `SearchError` where the store cannot answer, and where the filter leaves nothing.
        """
        rankings = self._rankings(query, _depth(query, k, offset), with_full_text=True)
        kept = self._page(query, join(query, rankings), k, offset)
        return [item_id for item_id, _ in kept], np.array([score for _, score in kept], np.float64)

    def moments(self, query: Query, *, k: int = 10, offset: int = 0) -> list[Moment]:
        """The best stretch of each of the best items, by pictures, sound, and words that are heard or seen."""
        rankings = list(self._rankings(query, _depth(query, k, offset), with_full_text=False))
        item_ids = [item_id for item_id, _ in self._page(query, join(query, rankings), k, offset)]
        best: dict[str, tuple[float, Moment]] = {}
        for ranking in rankings:
            modality: Any = ranking.name
            tokens = self.tables.moments(modality, [i for i in item_ids if i in set(ranking.item_ids)])
            places = {item_id: place for place, item_id in enumerate(ranking.item_ids)}
            for item_id, of_item in tokens.items():
                assert ranking.wanted_TD is not None
                moment = best_moment(item_id, modality, of_item, ranking.wanted_TD)
                worth = query.weight(ranking.name) / (RANK_CONSTANT + places[item_id])
                if moment is not None and (item_id not in best or worth > best[item_id][0]):
                    best[item_id] = worth, moment
        return [best[item_id][1] for item_id in item_ids if item_id in best]

    def _rankings(self, query: Query, depth: int, *, with_full_text: bool) -> Iterator[Ranking]:
        self._make_ready()
        where = to_sql(query.where, self.tables.columns) if query.where.strip() else ""
        if where and not self.tables.count(where):
            raise SearchError(f"no item has {query.where}: nothing can be found there")
        usable = list(MODALITIES) if with_full_text else self.tables.timed
        modalities = self._modalities(query, usable)
        parts = list(self._vectors.parts(query, modalities))
        unwanted = [self._vectors.words(text, modalities) for text in query.without]
        asked = MODALITIES if query.modalities is None else query.modalities
        texts = query.words if with_full_text else ()
        shown = {text: self._vectors.shown(text) if "visual" in asked else {} for text in texts}
        matched = {text: text if "text" in asked else "" for text in texts if "text" in asked or shown[text]}
        if not matched and not any(parts):
            if "visual" in asked and texts and self.tables.classes():
                named = " or ".join(map(repr, texts))
                raise SearchError(f"the pictures of {self.tables.store.folder} show nothing that is named by {named}")
            able = ", ".join(m for m in self._vectors.with_words() if m in usable) or "none of them"
            no_times = "" if "text" in usable else " (its texts have no times, so there are no moments in them)"
            raise SearchError(
                f"words cannot be compared with {' or '.join(modalities)}: of what {self.tables.store.folder} has, "
                f"{able} can{no_times}; search by a file or an item instead"
            )
        left_out = set(query.items)
        for part in parts:
            for modality, vectors_TD in part.items():
                wanted_TD = _away_from(vectors_TD, modality, unwanted)
                by_mean = with_full_text and len(wanted_TD) > 1
                step = -(-len(wanted_TD) // MOST_VECTORS)
                hits = self.tables.nearest(
                    modality,
                    _mean(wanted_TD) if by_mean else wanted_TD[::step],
                    column="vector" if by_mean else "tokens",
                    where=where,
                    limit=depth + len(left_out),
                )
                yield Ranking(modality, [item_id for item_id, _ in hits if item_id not in left_out], wanted_TD)
        for text, words in matched.items():
            limit = depth + len(left_out)
            hits = self.tables.matching(words, shown=shown[text], without=query.without, where=where, limit=limit)
            yield Ranking("words", [item_id for item_id, _ in hits if item_id not in left_out])

    def _make_ready(self) -> None:
        if self.tables.is_outdated:
            with self._refreshing:
                self._refresh()

    def _refresh(self) -> None:
        store = self.tables.store
        if not self.tables.is_outdated:
            return
        named = f" --set {store.encoder_set}" if store.encoder_set else ""
        command = f"`mmrec index --store {store.folder}{named}`"
        is_missing = self.tables.is_missing
        try:
            if len(store) <= REFRESHED_ROWS:
                self.tables.refresh()
                return
        except StoreError:  # it is being written, or may not be
            if is_missing:
                raise
        if is_missing:
            raise SearchError(f"store {store.folder} cannot be searched yet: run {command} once")
        logger.warning("store %s was written since: run %s to find what is new", store.folder, command)

    def _page(self, query: Query, joined: Sequence[Found], k: int, offset: int) -> Sequence[Found]:
        """What is shown of the items that were found, in the order in which it is."""
        if query.fold is not None:
            scores = dict(joined)
            joined = [(item_id, scores[item_id]) for item_id in query.fold.folded(scores)]
        return (self._spread(query, joined, k, offset) if query.diversity else joined)[offset : offset + k]

    def _spread(self, query: Query, joined: Sequence[Found], k: int, offset: int) -> Sequence[Found]:
        candidates = joined[: _depth(query, k, offset)]
        item_ids = [item_id for item_id, _ in candidates]
        scores_1C = np.array([[score for _, score in candidates]], np.float32)
        compared = [m for m in query.modalities or MODALITIES if m in self.tables.fingerprints]
        means = filter(None, (self.tables.means(modality, item_ids) for modality in compared))
        vectors_CD = np.hstack([np.zeros((len(candidates), 1), np.float32), *(_rows(m, item_ids) for m in means)])
        rows_1C = np.arange(len(candidates))[None]
        rows_1K, _ = diversify(rows_1C, scores_1C, vectors_CD, offset + k, diversity=query.diversity)
        return [candidates[row] for row in rows_1K[0]]

    def _modalities(self, query: Query, usable: Sequence[Modality]) -> list[Modality]:
        there = [modality for modality in usable if modality in self.tables.fingerprints]
        asked = [modality for modality in query.modalities or there if modality in usable]
        lacking = [modality for modality in asked if modality not in there]
        if lacking:
            raise SearchError(f"store {self.tables.store.folder} has no {' and no '.join(lacking)} tokens")
        if not asked and "text" not in usable:
            raise SearchError(
                "moments are found in pictures and sound: ask for visual or audio, in a store that has them"
            )
        return asked

    # --- what a service asks besides ----------------------------------------------------------------------------------

    def matching(self, where: str) -> list[str]:
        """The ids of the items that a filter leaves, as `Query.where` says it."""
        self._make_ready()
        return self.tables.filtered(to_sql(where, self.tables.columns))

    def similar_items(self, item_id: str, modality: Modality, *, k: int = 10) -> tuple[list[str], NDArray[np.float64]]:
        """The items nearest to one by the means of the tokens of a modality: ids and cosines, at most `k`."""
        self._make_ready()
        query = Query(items=[item_id], modalities=[modality])
        (part,) = self._vectors.parts(query, self._modalities(query, MODALITIES))
        hits = self.tables.nearest(modality, _mean(part[modality]), column="vector", limit=k + 1)
        kept = [hit for hit in hits if hit[0] != item_id][:k]
        return [other for other, _ in kept], np.array([cosine for _, cosine in kept], np.float64)

    def columns(self) -> SearchColumns:
        """What a filter may ask for."""
        self._make_ready()
        return self.tables.columns

    def modalities_with_words(self) -> list[Modality]:
        """Those whose tokens can be compared with words."""
        self._make_ready()
        return self._vectors.with_words()


def search(
    store: FeatureStore, words: str = "", *, k: int = 10, offset: int = 0, **parts: Any
) -> tuple[list[str], NDArray[np.float64]]:
    """The items of a store that are nearest to words, or to the other parts of a `Query`, best first.

    Returns the ids and their scores by rank fusion. For many queries, and for moments, make a `Searcher`.

    >>> import mmrec
    >>> ids, scores = mmrec.search(mmrec.FeatureStore("store"), "noodles", where="kind = 'cooking'", k=3)
    >>> ids
    ['cooking-0', 'cooking-2', 'cooking-1']
    """
    return Searcher(store).search(Query(words=[words] if words else (), **parts), k=k, offset=offset)


def _depth(query: Query, k: int, offset: int) -> int:
    """How far each ranking is read, and how many of the items are spread."""
    if k < 1 or offset < 0:
        raise SearchError(f"k is {k} and the offset {offset}: expected at least 1, and at least 0")
    wanted = (SPREAD_OVER if query.diversity else 1) * (offset + k)
    return max(DEPTH, wanted + (query.fold.most_hidden(wanted) if query.fold is not None else 0))


def _rows(vectors: Mapping[str, NDArray[np.float32]], item_ids: Sequence[str]) -> NDArray[np.float32]:
    """Of each item its vector, or zeros."""
    nothing_D = np.zeros_like(next(iter(vectors.values())))
    return np.stack([vectors.get(item_id, nothing_D) for item_id in item_ids])


def _away_from(vectors_TD: NDArray[np.float32], modality: Modality, unwanted: Sequence[Part]) -> NDArray[np.float32]:
    """Vectors with what is not wanted taken out of each, L2-normalised again."""
    against = [part[modality] for part in unwanted if modality in part]
    if not against:
        return vectors_TD
    moved_TD = vectors_TD - AWAY * _mean(np.concatenate(against))
    return np.asarray(moved_TD / np.maximum(np.linalg.norm(moved_TD, axis=1, keepdims=True), 1e-12), np.float32)


def _mean(vectors_TD: NDArray[np.float32]) -> NDArray[np.float32]:
    mean_1D = vectors_TD.mean(axis=0, keepdims=True)
    return np.asarray(mean_1D / max(float(np.linalg.norm(mean_1D)), 1e-12), np.float32)
