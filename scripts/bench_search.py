"""How fast a store is searched, and how much of the exact answer is found, beside brute force in numpy.

    python scripts/bench_search.py [--items 100000] [--tokens 8] [--width 64] [--quick] [--out search.json]

Makes its own store: tokens around 200 centres, seeded, with titles of which one in a hundred has a word, and a column
of a hundred values to filter by. A query is a token that was moved a little. Recall is the share of the ten best items
by exact MaxSim that are among the ten that were found.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from benching import print_table, write_report
from numpy.typing import NDArray

from mmrec.catalog import Item
from mmrec.store import EncoderRecord, Features, FeatureStore, SearchTables, Tokens

ROWS_AT_ONCE = 4096
NUM_CENTRES, NUM_YEARS, YEAR = 200, 100, 7
DEPTH, BEST = 100, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--tokens", type=int, default=8, help="of each item (default: 8)")
    parser.add_argument("--width", type=int, default=64, help="of a token (default: 64)")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="2,000 items and 10 queries")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.items, arguments.queries = 2_000, 10
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), arguments)
    title = f"{arguments.items:,} items of {arguments.tokens} tokens of {arguments.width} numbers"
    print_table(title, figures)
    write_report(arguments.out, ["lancedb", "numpy"], figures)


def measure(folder: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    tokens_ITD = made_tokens(rng, arguments.items, arguments.tokens, arguments.width)
    store = made_store(folder / "store", tokens_ITD)
    tables = SearchTables(store)
    start = time.perf_counter()
    tables.refresh()
    seconds = time.perf_counter() - start
    places = rng.integers(arguments.items, size=arguments.queries)
    queries_QD = tokens_ITD[places, 0] + rng.normal(scale=0.03, size=(arguments.queries, arguments.width))
    queries_QD = (queries_QD / np.linalg.norm(queries_QD, axis=1, keepdims=True)).astype(np.float32)
    where = f"{tables.columns['year'].place} = {YEAR}"
    of_year_I = np.arange(arguments.items) % NUM_YEARS == YEAR

    def nearest(query_D: NDArray[np.float32], where: str = "") -> list[str]:
        return [i for i, _ in tables.nearest("visual", query_D[None], column="tokens", where=where, limit=DEPTH)]

    def exact(query_D: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray((tokens_ITD @ query_D).max(axis=1))

    exact_QI = [exact(query_D) for query_D in queries_QD]
    filtered_QI = [np.where(of_year_I, scores_I, -np.inf) for scores_I in exact_QI]
    return [
        {"what": "tables made", "seconds": seconds},
        {"what": "tokens", **times(nearest, queries_QD, exact_QI)},
        {"what": "filtered to 1%", **times(lambda query_D: nearest(query_D, where), queries_QD, filtered_QI)},
        {"what": "full text", **times(lambda _: tables.matching("rain", limit=DEPTH), queries_QD)},
        {"what": "brute force in numpy", **times(exact, queries_QD)},
    ]


def made_tokens(rng: np.random.Generator, items: int, tokens: int, width: int) -> NDArray[np.float32]:
    centres_CD = rng.normal(size=(NUM_CENTRES, width))
    tokens_ITD = rng.normal(size=(items, tokens, width)).astype(np.float32)
    tokens_ITD += centres_CD[np.arange(items) % NUM_CENTRES, None].astype(np.float32)
    return tokens_ITD / np.linalg.norm(tokens_ITD, axis=2, keepdims=True)


def made_store(folder: Path, tokens_ITD: NDArray[np.float32]) -> FeatureStore:
    store = FeatureStore(folder, create=True)
    width = tokens_ITD.shape[2]
    store.add_encoders(
        [EncoderRecord(fingerprint="v", modality="visual", name="made", dim=width, spec={"kind": "imported"})]
    )
    for start in range(0, len(tokens_ITD), ROWS_AT_ONCE):
        store.write(list(made_rows(tokens_ITD[start : start + ROWS_AT_ONCE], start)))
    return store


def made_rows(tokens_BTD: NDArray[np.float32], start: int) -> Iterator[Features]:
    starts_T = np.arange(tokens_BTD.shape[1], dtype=np.float64)
    spans_T2 = np.column_stack([starts_T, starts_T + 1])
    for number, tokens_TD in enumerate(tokens_BTD, start=start):
        title = f"title {number} {'rain' if number % 100 == 0 else 'sun'}"
        item = Item(item_id=str(number), title=title, metadata={"year": str(number % NUM_YEARS)})
        key = f"{number + 1:016x}"
        yield Features(
            item, {"visual": Tokens(tokens_TD, spans_T2)}, fingerprints={"visual": "v"}, keys={"visual": key}
        )


def times(
    ask: Callable[[NDArray[np.float32]], Any],
    queries_QD: NDArray[np.float32],
    exact_QI: list[NDArray[np.float32]] | None = None,
) -> dict[str, float]:
    """Milliseconds of a query, after one to warm up, and the recall where the exact scores are given."""
    ask(queries_QD[0])
    seconds, recalls = [], []
    for number, query_D in enumerate(queries_QD):
        start = time.perf_counter()
        found = ask(query_D)
        seconds.append(time.perf_counter() - start)
        if exact_QI is not None:
            best = {str(place) for place in np.argsort(-exact_QI[number])[:BEST]}
            recalls.append(len(best & set(found[:BEST])) / BEST)
    figures = {"p50_ms": 1e3 * float(np.median(seconds)), "p99_ms": 1e3 * float(np.quantile(seconds, 0.99))}
    return figures | ({"recall": float(np.mean(recalls))} if recalls else {})


if __name__ == "__main__":
    main()
