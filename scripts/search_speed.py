"""How fast a store is searched, how much of the exact answer is found, and what its tables take.

The store is made: tokens around 200 centres, seeded, with titles of which one in a hundred has a word, and a column of
a hundred values to filter by. A query is a token that was moved a little. Recall is the share of the ten best items by
exact MaxSim that are among the ten that were found.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mmrec.catalog import Item
from mmrec.searching import Query, Searcher
from mmrec.store import EncoderRecord, Features, FeatureStore, SearchTables, Tokens

ROWS_AT_ONCE = 4096
NUM_CENTRES, NUM_YEARS, YEAR = 200, 100, 7
DEPTH, BEST = 100, 10
P50_MS, P99_MS, RECALL = 20.0, 50.0, 0.98

Floats = NDArray[np.float32]


def measure_speed(folder: Path, items: int, tokens: int, width: int, queries: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    tokens_ITD = made_tokens(rng, items, tokens, width)
    store = made_store(folder, tokens_ITD) if not folder.exists() else FeatureStore(folder)
    before, start = memory(), time.perf_counter()
    num_rows = SearchTables(store).refresh()
    made = {"what": "tables and indices made", "seconds": time.perf_counter() - start, "MiB more": memory() - before}
    places = rng.integers(items, size=queries)
    queries_QD = tokens_ITD[places, 0] + rng.normal(scale=0.03, size=(queries, width))
    queries_QD = (queries_QD / np.linalg.norm(queries_QD, axis=1, keepdims=True)).astype(np.float32)
    exact_QI = np.stack([(tokens_ITD @ query_D).max(axis=1) for query_D in queries_QD])
    of_year_I = np.arange(items) % NUM_YEARS == YEAR
    searcher, flat = Searcher(store), faiss.IndexFlatIP(width)
    flat.add(tokens_ITD.reshape(-1, width))

    def search(**parts: Any) -> list[str]:
        return searcher.search(Query(**parts), k=DEPTH)[0]

    before = memory()
    rows = [
        timed("by a vector", lambda query_D: search(vectors=[query_D]), queries_QD, exact_QI, RECALL),
        timed("by a vector and words", lambda query_D: search(vectors=[query_D], words=["rain"]), queries_QD),
        timed(
            "by a vector, filtered to 1 %",
            lambda query_D: search(vectors=[query_D], where=f"year = {YEAR}"),
            queries_QD,
            np.where(of_year_I, exact_QI, -np.inf),
            1.0,
        ),
        timed("by words", lambda _: search(words=["rain"]), queries_QD),
    ]
    rows.append({"what": "all of these", "MiB more": memory() - before})
    peers = {
        "brute force in numpy": lambda query_D: np.argpartition(-(tokens_ITD @ query_D).max(axis=1), BEST)[:BEST],
        "FAISS, flat": lambda query_D: flat.search(query_D[None], DEPTH),
    }
    rows += [{"what": name, **percentiles(ask, queries_QD)} for name, ask in peers.items()]
    return [made, *rows] if num_rows else rows


def timed(
    what: str,
    ask: Callable[[Floats], list[str]],
    queries_QD: Floats,
    exact_QI: Floats | None = None,
    least_recall: float = 0.0,
) -> dict[str, Any]:
    """Milliseconds and recall of a way to search, and whether its bars are met."""
    figures: dict[str, Any] = percentiles(ask, queries_QD)
    is_met = figures["p50 ms"] < P50_MS and figures["p99 ms"] < P99_MS
    if exact_QI is not None:
        found_QK = [ask(query_D)[:BEST] for query_D in queries_QD]
        best_QK = [{str(place) for place in np.argsort(-exact_I)[:BEST]} for exact_I in exact_QI]
        shares = [len(best & set(found)) / BEST for best, found in zip(best_QK, found_QK, strict=True)]
        figures["recall@10"] = float(np.mean(shares))
        is_met = is_met and figures["recall@10"] >= least_recall
    return {"what": what, **figures, "bars": "met" if is_met else "missed"}


def percentiles(ask: Callable[[Floats], Any], queries_QD: Floats) -> dict[str, float]:
    """Of the milliseconds of a query, after three to warm up, and the mean of what all threads took of processors."""
    for query_D in queries_QD[:3]:
        ask(query_D)
    seconds, begin = [], time.process_time()
    for query_D in queries_QD:
        start = time.perf_counter()
        ask(query_D)
        seconds.append(time.perf_counter() - start)
    p50, p99 = np.quantile(seconds, [0.5, 0.99])
    processor = (time.process_time() - begin) / len(seconds)
    return {"p50 ms": 1e3 * float(p50), "p99 ms": 1e3 * float(p99), "processor ms": 1e3 * processor}


def memory() -> float:
    """The most that this process has held so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def made_tokens(rng: np.random.Generator, items: int, tokens: int, width: int) -> Floats:
    centres_CD = rng.normal(size=(NUM_CENTRES, width))
    tokens_ITD = rng.normal(size=(items, tokens, width)).astype(np.float32)
    tokens_ITD += centres_CD[np.arange(items) % NUM_CENTRES, None].astype(np.float32)
    return tokens_ITD / np.linalg.norm(tokens_ITD, axis=2, keepdims=True)


def made_store(folder: Path, tokens_ITD: Floats) -> FeatureStore:
    store = FeatureStore(folder, create=True)
    width = tokens_ITD.shape[2]
    store.add_encoders(
        [EncoderRecord(fingerprint="v", modality="visual", name="made", dim=width, spec={"kind": "imported"})]
    )
    for start in range(0, len(tokens_ITD), ROWS_AT_ONCE):
        store.write(list(made_rows(tokens_ITD[start : start + ROWS_AT_ONCE], start)))
    return store


def made_rows(tokens_BTD: Floats, start: int) -> Iterator[Features]:
    starts_T = np.arange(tokens_BTD.shape[1], dtype=np.float64)
    spans_T2 = np.column_stack([starts_T, starts_T + 1])
    for number, tokens_TD in enumerate(tokens_BTD, start=start):
        title = f"title {number} {'rain' if number % 100 == 0 else 'sun'}"
        item = Item(item_id=str(number), title=title, metadata={"year": str(number % NUM_YEARS)})
        key = f"{number + 1:016x}"
        yield Features(
            item, {"visual": Tokens(tokens_TD, spans_T2)}, fingerprints={"visual": "v"}, keys={"visual": key}
        )
