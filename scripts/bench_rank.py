"""How fast users are ranked against many items, beside FAISS and beside what the machine allows.

    python scripts/bench_rank.py [--quick] [--out rank.json]

Makes its own items (normal random numbers, seeded) and checks before timing that the lists are those of a float64 sort
and of FAISS's flat index. Contenders take turns in one process; times are medians. Where a figure has a bar it stands
beside it. Needs `faiss-cpu`. With a CUDA device, ranking on it is timed beside the bare matrix product.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from mmrec.ranker import Ranker
from mmrec.scan import fast_types

K = 20
SEEN = 100
Floats = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a twentieth of the items, fewer users: for CI")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--seconds", type=float, default=20, help="repeat each comparison for about so long")
    arguments = parser.parse_args()
    num_items, seconds = (50_000, 2.0) if arguments.quick else (1_000_000, arguments.seconds)
    faiss.omp_set_num_threads(torch.get_num_threads())

    figures = compare_exact(num_items, 256, (1, 64) if arguments.quick else (1, 64, 1024), seconds)
    figures += rank_everyone(*((2_000, 10_000) if arguments.quick else (20_000, 100_000)), 64)
    if torch.cuda.is_available():
        figures.append(compare_cuda(*((2_000, 50_000) if arguments.quick else (100_000, 1_000_000)), 256))
    print_table(figures)
    if arguments.out:
        report = {"machine": describe_machine(), "figures": figures}
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

    figures = []
    for size in batches:
        users, exclude, seen = users_UD[:size], exclude_UI[:size], seen_US[:size]
        times = take_turns(
            {
                "FAISS flat": lambda: flat.search(users, K),
                "mmrec": lambda: ranker.top_k(users, K),
                "FAISS flat, seen": lambda: search_unseen(flat, users, seen),
                "mmrec, seen": lambda: ranker.top_k(users, K, exclude_UI=exclude),
                "bare product": lambda: multiply(ranker, users),
            },
            seconds,
        )
        bar = {1: 1.0, 64: 4.0}.get(size)
        for ours, theirs in (("mmrec", "FAISS flat"), ("mmrec, seen", "FAISS flat, seen")):
            figures += [
                figure(theirs, size, num_items, dim, times[theirs]),
                figure(ours, size, num_items, dim, times[ours], against=theirs, others=times[theirs], bar=bar),
            ]
        name = f"bare product, {fast_types('cpu')[0]}".replace("torch.", "")
        figures.append(figure(name, size, num_items, dim, times["bare product"]))
    items = torch.from_numpy(items_ID)
    reading = take_turns({"read": lambda: items.view(torch.int32).amax()}, seconds / 4)["read"]
    return [*figures, figure("reading float32 items once", 1, num_items, dim, reading)]


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
    scan = next(ranker._each_scan())
    users_EU = torch.from_numpy(np.column_stack([users_UD, np.ones(len(users_UD), np.float32)])).to(scan.dtype).T
    for items_BE in torch.split(scan.items_IE, max(1, 2**22 // len(users_UD))):
        items_BE @ users_EU


# --- everyone ---------------------------------------------------------------------------------------------------------


def rank_everyone(num_users: int, num_items: int, dim: int) -> list[dict[str, Any]]:
    """Users a second, and memory, of ranking many users with exclusions."""
    rng = np.random.default_rng(1)
    ranker = Ranker(rng.standard_normal((num_items, dim), dtype=np.float32))
    users_UD = rng.standard_normal((num_users, dim), dtype=np.float32)
    exclude_UI = as_matrix(rng.integers(0, num_items, (num_users, SEEN)), num_items)
    ranker.top_k(users_UD[:1], K)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    ranker.top_k(users_UD, K, exclude_UI=exclude_UI)
    seconds = time.perf_counter() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    result = figure("mmrec, seen, everyone", num_users, num_items, dim, [seconds])
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
    return figure(
        f"mmrec on {torch.cuda.get_device_name()}", num_users, num_items, dim, times["ranker"],
        against="its matrix product", others=times["product"], bar=0.8,
    )  # fmt: skip


# --- measuring and telling --------------------------------------------------------------------------------------------


def as_matrix(seen_US: NDArray[np.int64], num_items: int) -> sp.csr_array:
    users_N = np.repeat(np.arange(len(seen_US)), seen_US.shape[1])
    return sp.csr_array((np.ones(seen_US.size, np.float32), (users_N, seen_US.ravel())), (len(seen_US), num_items))


def take_turns(contenders: dict[str, Callable[[], Any]], seconds: float) -> dict[str, list[float]]:
    """Seconds of each run; the contenders run one after another, after one run of each to warm up, three times or more."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        run()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < 3:
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return times


def figure(
    name: str,
    users: int,
    items: int,
    dim: int,
    times: list[float],
    *,
    against: str | None = None,
    others: list[float] | None = None,
    bar: float | None = None,
) -> dict[str, Any]:
    row: dict[str, Any] = {"what": name, "users": users, "items": items, "dim": dim, "runs": len(times)}
    row |= {"median_ms": 1e3 * statistics.median(times), "best_ms": 1e3 * min(times)}
    if others is not None:
        row |= {"against": against, "times_as_fast": statistics.median(others) / statistics.median(times)}
    if bar is not None:
        row |= {"bar": bar, "met": row["times_as_fast"] >= bar}
    return row


def print_table(figures: list[dict[str, Any]]) -> None:
    table = Table(title=f"Top {K} by inner product, {torch.get_num_threads()} threads")
    for heading in ("", "users", "items x width", "median ms", "best ms", "runs", "times as fast as", "bar"):
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
        times = f"{row['median_ms']:,.1f}", f"{row['best_ms']:,.1f}", str(row["runs"])
        table.add_row(row["what"], f"{row['users']:,}", size, *times, ratio, bar)
    Console(width=150).print(table)


def describe_machine() -> dict[str, Any]:
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "fast_types": [str(dtype) for dtype in fast_types("cpu")],
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load_average": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy", "scipy", "faiss-cpu")},
    }


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
