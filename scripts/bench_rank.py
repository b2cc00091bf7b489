"""How fast users are ranked against many items, beside FAISS and beside what the machine allows.

    python scripts/bench_rank.py [--quick] [--out rank.json]

Makes its own items (normal random numbers, seeded) and checks before timing that the lists are those of a float64 sort
and of FAISS's flat index. Contenders take turns in one process; times are medians, and beside them stands the processor
time of all threads, which other work on the machine moves less. Where a figure has a bar it stands beside it. FAISS
runs with one thread and with all, and is judged by the better. Needs `faiss-cpu`. With a CUDA device, ranking on it is
timed beside the bare matrix product.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import scipy.sparse as sp
import torch
from benching import describe_machine
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from mmrec.ranking import ApproximateRanker, Ranker, fast_types

PACKAGES = ("torch", "numpy", "scipy", "faiss-cpu")
K = 20
SEEN = 100
Floats = NDArray[np.float32]
Times = tuple[float, float]  # seconds: by the clock, and of the processor in all threads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a twentieth of the items, fewer users: for CI")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--seconds", type=float, default=20, help="repeat each comparison for about so long")
    arguments = parser.parse_args()
    num_items, seconds = (50_000, 2.0) if arguments.quick else (1_000_000, arguments.seconds)
    figures = compare_exact(num_items, 256, (1, 64) if arguments.quick else (1, 64, 1024), seconds)
    for size in (20_000,) if arguments.quick else (10_000, 100_000):
        figures += compare_approximate(size, 256, seconds / 4)
    figures += rank_everyone(*((2_000, 10_000) if arguments.quick else (20_000, 100_000)), 64)
    if torch.cuda.is_available():
        figures.append(compare_cuda(*((2_000, 50_000) if arguments.quick else (100_000, 1_000_000)), 256))
    print_table(figures)
    if arguments.out:
        report = {
            "machine": describe_machine(PACKAGES, fast_types=[str(dtype) for dtype in fast_types("cpu")]),
            "figures": figures,
        }
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


# --- exact ranking beside FAISS ---------------------------------------------------------------------------------------


def compare_exact(num_items: int, dim: int, batches: tuple[int, ...], seconds: float) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    items_ID = rng.standard_normal((num_items, dim), dtype=np.float32)
    users_UD = rng.standard_normal((max(batches), dim), dtype=np.float32)
    seen_US = rng.integers(0, num_items, (len(users_UD), SEEN))
    exclude_UI = as_matrix(seen_US, num_items)
    ranker, flat = Ranker(items_ID), faiss.IndexFlatIP(dim)
    flat.add(items_ID)
    check(ranker, flat, items_ID, users_UD[:64], exclude_UI[:64], seen_US[:64])

    figures = [
        row
        for size in batches
        for row in compare_batch(ranker, flat, users_UD[:size], exclude_UI[:size], seen_US[:size], seconds)
    ]
    items = torch.from_numpy(items_ID)
    reading = take_turns({"read": lambda: items.view(torch.int32).amax()}, seconds / 4)["read"]
    return [*figures, figure("reading float32 items once", 1, num_items, dim, reading)]


def compare_batch(
    ranker: Ranker,
    flat: faiss.IndexFlatIP,
    users_UD: Floats,
    exclude_UI: sp.csr_array,
    seen_US: NDArray[np.int64],
    seconds: float,
) -> list[dict[str, Any]]:
    all_threads, is_large = torch.get_num_threads(), len(users_UD) > 64
    contenders: dict[str, Callable[[], Any]] = {}
    for threads in sorted({all_threads} if is_large else {1, all_threads}):
        name = f"FAISS flat, {threads} thread{'s' * (threads > 1)}"
        contenders[name] = with_threads(threads, lambda: flat.search(users_UD, K))
        contenders[f"{name}, seen dropped"] = with_threads(threads, lambda: search_unseen(flat, users_UD, seen_US))
    contenders["mmrec"] = lambda: ranker.top_k(users_UD, K)
    contenders["mmrec, seen excluded"] = lambda: ranker.top_k(users_UD, K, exclude_UI=exclude_UI)
    contenders[f"bare product, {fast_types('cpu')[0]}"] = lambda: multiply(ranker, users_UD)
    times = take_turns(contenders, seconds, least=1 if is_large else 3)
    sizes = len(users_UD), flat.ntotal, flat.d
    bar = {1: 1.0, 64: 4.0}.get(len(users_UD)) if flat.ntotal >= 1_000_000 else None
    figures = []
    for name in times:
        figures.append(figure(name, *sizes, times[name]))
        if name.startswith("mmrec"):
            rivals = [other for other in times if "FAISS" in other and ("seen" in other) == ("seen" in name)]
            best = min(rivals, key=lambda rival: statistics.median(wall for wall, _ in times[rival]))
            figures[-1] |= beside(times[name], best, times[best], bar)
    return figures


def with_threads(threads: int, run: Callable[[], Any]) -> Callable[[], Any]:
    def run_with_threads() -> None:
        faiss.omp_set_num_threads(threads)
        run()

    return run_with_threads


def check(
    ranker: Ranker,
    flat: faiss.IndexFlatIP,
    items_ID: Floats,
    users_UD: Floats,
    exclude_UI: sp.csr_array,
    seen_US: NDArray[np.int64],
) -> None:
    """The lists are those of a float64 sort, and those of FAISS as far as float32 tells items apart."""
    scores_UI = np.concatenate(
        [users_UD.astype(np.float64) @ block.T.astype(np.float64) for block in np.array_split(items_ID, 64)], axis=1
    )
    for hidden_UI, theirs_UK in (
        (None, flat.search(users_UD, K)[1]),
        (exclude_UI, search_unseen(flat, users_UD, seen_US)),
    ):
        rows_UK, _ = ranker.top_k(users_UD, K, exclude_UI=hidden_UI)
        if hidden_UI is not None:
            scores_UI[hidden_UI.nonzero()] = -np.inf
        assert (np.argsort(-scores_UI, axis=1, kind="stable")[:, :K] == rows_UK).all(), "differs from a float64 sort"
        ours, theirs = (np.take_along_axis(scores_UI, rows, 1) for rows in (rows_UK, theirs_UK))
        assert np.allclose(ours, theirs, rtol=1e-5), "differs from FAISS"


def search_unseen(flat: faiss.IndexFlatIP, users_UD: Floats, seen_US: NDArray[np.int64]) -> NDArray[np.int64]:
    """FAISS knows no exclusions by user: as many items more are fetched, and the seen ones dropped."""
    rows_UC = flat.search(users_UD, K + seen_US.shape[1])[1]
    num_items = flat.ntotal
    offsets_U1 = np.arange(len(rows_UC))[:, None] * num_items
    seen_UC = np.isin(rows_UC + offsets_U1, seen_US + offsets_U1)
    order_UK = np.argsort(seen_UC, axis=1, kind="stable")[:, :K]
    return np.take_along_axis(rows_UC, order_UK, 1)


def multiply(ranker: Ranker, users_UD: Floats) -> None:
    """Every score, in the type that the ranker passes over the items in, and nothing made of them."""
    ranking_pass = next(ranker._each_pass())
    users_EU = torch.ones(ranking_pass.items_IE.shape[1], len(users_UD), dtype=ranking_pass.dtype)
    users_EU[: users_UD.shape[1]] = torch.from_numpy(users_UD.T)
    for items_BE in torch.split(ranking_pass.items_IE, max(1, 2**22 // len(users_UD))):
        items_BE @ users_EU


# --- approximate ranking beside exact ---------------------------------------------------------------------------------


def compare_approximate(num_items: int, dim: int, seconds: float) -> list[dict[str, Any]]:
    """Items in clusters, as fitted ones are, and users near some of them; recall is that of users not built with."""
    rng = np.random.default_rng(3)
    centres_CD = rng.standard_normal((max(1, num_items // 500), dim), dtype=np.float32)
    items_ID = centres_CD[rng.integers(0, len(centres_CD), num_items)]
    items_ID += rng.standard_normal((num_items, dim), dtype=np.float32)
    bias_I = rng.exponential(dim**0.5, num_items).astype(np.float32)
    users_UD = items_ID[rng.integers(0, num_items, (1_128, 4))].sum(1) / 2
    built_with, users_UD = users_UD[:1_000], users_UD[1_000:]
    exact, ranker = Ranker(items_ID, bias_I), ApproximateRanker(items_ID, bias_I)
    start, spent = time.perf_counter(), time.process_time()
    ranker.build(built_with, k=K, recall=0.95)
    building = time.perf_counter() - start, time.process_time() - spent
    exact_UK, rows_UK = exact.top_k(users_UD, K)[0], ranker.top_k(users_UD, K)[0]
    recall = float((exact_UK[:, :, None] == rows_UK[:, None, :]).any(2).mean())
    figures = [figure("building an index for recall 0.95", len(built_with), num_items, dim, [building])]
    for size in (1, 64):
        users = users_UD[:size]
        times = take_turns(
            {
                "mmrec, items in clusters": partial(exact.top_k, users, K),
                "mmrec, approximate": partial(ranker.top_k, users, K),
            },
            seconds,
        )
        figures += [figure(name, size, num_items, dim, times[name]) for name in times]
        figures[-1] |= beside(times["mmrec, approximate"], "exact", times["mmrec, items in clusters"], None)
        figures[-1] |= {"recall": recall}
    return figures


# --- everyone ---------------------------------------------------------------------------------------------------------


def rank_everyone(num_users: int, num_items: int, dim: int) -> list[dict[str, Any]]:
    """Users a second, and memory, of ranking many users with exclusions."""
    rng = np.random.default_rng(1)
    ranker = Ranker(rng.standard_normal((num_items, dim), dtype=np.float32))
    users_UD = rng.standard_normal((num_users, dim), dtype=np.float32)
    exclude_UI = as_matrix(rng.integers(0, num_items, (num_users, SEEN)), num_items)
    ranker.top_k(users_UD[:1], K)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, spent = time.perf_counter(), time.process_time()
    ranker.top_k(users_UD, K, exclude_UI=exclude_UI)
    seconds, spent = time.perf_counter() - start, time.process_time() - spent
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    result = figure("mmrec, seen excluded, everyone", num_users, num_items, dim, [(seconds, spent)])
    return [result | {"users_per_second": num_users / seconds, "peak_memory_growth_mib": grown}]


# --- CUDA -------------------------------------------------------------------------------------------------------------


def compare_cuda(num_users: int, num_items: int, dim: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(2)
    items_ID, users_UD = (torch.randn(n, dim, generator=generator) for n in (num_items, num_users))
    ranker = Ranker(items_ID.numpy(), device="cuda")
    ranker.top_k(users_UD.numpy()[:4096], K)
    items, users = (tensor.to("cuda", fast_types("cuda")[0]) for tensor in (items_ID, users_UD))

    def product() -> None:
        for users_BD in torch.split(users, 2048):
            users_BD @ items.T
        torch.cuda.synchronize()

    times = take_turns({"product": product, "ranker": lambda: ranker.top_k(users_UD.numpy(), K)}, 30)
    result = figure(f"mmrec on {torch.cuda.get_device_name()}", num_users, num_items, dim, times["ranker"])
    return result | beside(
        times["ranker"], "its matrix product", times["product"], 0.8 if num_items >= 1_000_000 else None
    )


# --- measuring and telling --------------------------------------------------------------------------------------------


def as_matrix(seen_US: NDArray[np.int64], num_items: int) -> sp.csr_array:
    users_N = np.repeat(np.arange(len(seen_US)), seen_US.shape[1])
    return sp.csr_array((np.ones(seen_US.size, np.float32), (users_N, seen_US.ravel())), (len(seen_US), num_items))


def take_turns(contenders: dict[str, Callable[[], Any]], seconds: float, least: int = 3) -> dict[str, list[Times]]:
    """Runs the contenders one after another for a time, or so often; more than once is after a run to warm up."""
    times: dict[str, list[Times]] = {name: [] for name in contenders}
    for run in contenders.values() if least > 1 else ():
        run()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < least:
        for name, run in contenders.items():
            start, spent = time.perf_counter(), time.process_time()
            run()
            times[name].append((time.perf_counter() - start, time.process_time() - spent))
    return times


def figure(name: str, users: int, items: int, dim: int, times: list[Times]) -> dict[str, Any]:
    wall, spent = zip(*times, strict=True)
    row = {"what": name.replace("torch.", ""), "users": users, "items": items, "dim": dim, "runs": len(times)}
    return row | {
        "median_ms": 1e3 * statistics.median(wall),
        "best_ms": 1e3 * min(wall),
        "processor_ms": 1e3 * statistics.median(spent),
    }


def beside(times: list[Times], name: str, others: list[Times], bar: float | None) -> dict[str, Any]:
    ours, theirs = (statistics.median(wall for wall, _ in measured) for measured in (times, others))
    row: dict[str, Any] = {"against": name, "times_as_fast": theirs / ours}
    return row if bar is None else row | {"bar": bar, "met": theirs / ours >= bar}


def print_table(figures: list[dict[str, Any]]) -> None:
    table = Table(title=f"Top {K} by inner product, {torch.get_num_threads()} threads")
    for heading in ("", "users", "items x width", "median ms", "best", "processor", "runs", "times as fast as", "bar"):
        table.add_column(heading, justify="left" if heading in {"", "times as fast as"} else "right")
    for row in figures:
        ratio = f"{row['times_as_fast']:.2f} x {row['against']}" if "against" in row else ""
        if "users_per_second" in row:
            growth = row["peak_memory_growth_mib"]
            ratio = f"{row['users_per_second']:,.0f} users/s, memory +{growth:.0f} MiB"
        if "recall" in row:
            ratio += f", recall {row['recall']:.3f}"
        bar = f"{row['bar']:g} {'met' if row['met'] else 'NOT MET'}" if "bar" in row else ""
        size = f"{row['items']:,} x {row['dim']}"
        times = *(f"{row[name]:,.1f}" for name in ("median_ms", "best_ms", "processor_ms")), str(row["runs"])
        table.add_row(row["what"], f"{row['users']:,}", size, *times, ratio, bar)
    Console(width=170).print(table)


if __name__ == "__main__":
    main()
