"""What a fit costs where there are many items, and what serving costs: a live user, and a filter.

    python scripts/bench_fit.py [--quick] [--out fit.json] [--folder FOLDER]

Makes its own data (seeded): 100,000 items with 8 visual tokens of 512 numbers, 8 of sound of 768 and a text of 384,
and 1,000,000 interactions of 100,000 users with times. The tokens are written straight into the files that a fit reads
a large store into (4.2 GB in FOLDER, by default a temporary one), so reading a store is not part of the figures. Ten
times as many items are measured with as many interactions: they share the tokens of those files, ten items each, read
from the same places of the file by the same code. Each fit, one epoch by the default settings, runs in a process of its
own; `--quick` samples its softmax too, as the default does for catalogs of the full size.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from benching import print_table, write_report
from numpy.typing import NDArray
from recommender_worker import peak_mib

from fusion.config import FusionConfig, Hardware
from fusion.token_table import RaggedPart, RaggedTokens
from mmrec.evaluation import Interactions
from mmrec.recommending.filters import CatalogFilter
from mmrec.recommending.fitting import FitData, RecommenderConfig, fit_towers
from mmrec.recommending.model_files import ModelFiles
from mmrec.recommending.recommender import Recommender

PACKAGES = ("torch", "lightning", "numpy", "scipy")
SHAPES = {"visual": (8, 512), "audio": (8, 768), "text": (1, 384)}
TIMES_AS_MANY = 10
IN_MEMORY = ("text",)
FIRST_DAY = 1_700_000_000.0
BLOCK = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the items and interactions: for CI")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--folder", type=Path, help="where the tokens are written, and found again")
    parser.add_argument("--fit", type=int, nargs=4, metavar=("STORED", "ITEMS", "USERS", "INTERACTIONS"),
                        help="one fit, in this process")  # fmt: skip
    arguments = parser.parse_args()
    if arguments.fit:
        print(json.dumps(fit_once(arguments.folder, *arguments.fit)))
        return
    part = 50 if arguments.quick else 1
    items, users, interactions = 100_000 // part, 100_000 // part, 1_000_000 // part
    with nullcontext(arguments.folder) if arguments.folder else tempfile.TemporaryDirectory() as folder:
        write_tokens(Path(folder), items)
        fits = []
        for number in (items, TIMES_AS_MANY * items):
            fits.append(fit_apart(Path(folder), items, number, users, interactions))
            print(json.dumps(fits[-1]), file=sys.stderr, flush=True)
        serving = [*measure_users(Path(folder), items), measure_filter(200_000 // part)]
    print_table("One epoch of a fit", fits)
    figures = [*bars_of(*fits), *serving]
    print_table("Bars", [{**row, "met": "met" if row["met"] else "MISSED"} for row in figures])
    write_report(arguments.out, PACKAGES, {"fits": fits, "bars": figures})


def bars_of(few: Mapping[str, Any], many: Mapping[str, Any]) -> list[dict[str, Any]]:
    size = f"{few['items']:,} items, {few['interactions']:,} interactions"
    ratios = {name: many[name] / few[name] for name in ("epoch s", "peak MiB")}
    return [
        bar(f"an epoch, {size}", few["epoch s"] / 60, 15, "min"),
        bar(f"peak memory, {size}", few["peak MiB"] * 2**20 / 1e9, 4, "GB"),
        *(bar(f"{name}: {TIMES_AS_MANY} times the items", ratio, 1.5, "times") for name, ratio in ratios.items()),
    ]


def bar(name: str, figure: float, most: float, unit: str) -> dict[str, Any]:
    return {"bar": name, "figure": f"{figure:.3f} {unit}", "at most": f"{most:g} {unit}", "met": bool(figure <= most)}


# --- data -------------------------------------------------------------------------------------------------------------


def write_tokens(folder: Path, num_items: int) -> None:
    """The tokens of each modality, one file each; those that are there already are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (modality, (count, width)) in enumerate(SHAPES.items()):
        path = folder / f"{modality}.{num_items}"
        if path.exists() and path.stat().st_size == 4 * num_items * count * width:
            continue
        random = np.random.default_rng(number)
        with path.open("wb") as file:
            for start in range(0, num_items, BLOCK):
                size = min(BLOCK, num_items - start)
                file.write(random.standard_normal((size * count, width), dtype=np.float32).data)


def open_tokens(folder: Path, stored: int, num_items: int) -> RaggedTokens:
    """As `read_tokens` leaves them: large modalities in files; items beyond the stored ones share their tokens."""
    parts = {}
    for modality, (count, width) in SHAPES.items():
        path = folder / f"{modality}.{stored}"
        starts_I = np.arange(num_items, dtype=np.int64) % stored * count
        seconds_N = np.tile(np.arange(count, dtype=np.float32), stored)
        is_small = modality in IN_MEMORY
        values: Any = np.fromfile(path, np.float32).reshape(-1, width) if is_small else path.open("rb")
        parts[modality] = RaggedPart(width, starts_I, np.full(num_items, count, np.int64), seconds_N, values)
    return RaggedTokens(parts)


def make_train(num_items: int, num_users: int, count: int) -> Interactions:
    """Some items are much more popular than others; each pair occurs once, and times go on for a year."""
    random = np.random.default_rng(9)
    popular_I = random.permutation(1 / np.arange(1, num_items + 1) ** 0.7).cumsum()
    drawn = int(1.3 * count)
    users_N = random.integers(0, num_users, drawn)
    items_N = np.searchsorted(popular_I, random.random(drawn) * popular_I[-1]).clip(max=num_items - 1)
    pairs = random.permutation(np.unique(users_N * num_items + items_N))[:count]
    return Interactions(
        tuple(f"u{row}" for row in range(num_users)),
        tuple(f"i{row}" for row in range(num_items)),
        pairs // num_items,
        pairs % num_items,
        np.ones(len(pairs), np.float32),
        FIRST_DAY + random.integers(0, 365 * 86_400, len(pairs)).astype(np.float64),
    )


# --- a fit ------------------------------------------------------------------------------------------------------------


def fit_apart(folder: Path, stored: int, items: int, users: int, interactions: int) -> dict[str, Any]:
    sizes = [str(size) for size in (stored, items, users, interactions)]
    command = [sys.executable, __file__, "--folder", str(folder), "--fit", *sizes]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return figures


def fit_once(folder: Path, stored: int, items: int, users: int, interactions: int) -> dict[str, Any]:
    tokens, train = open_tokens(folder, stored, items), make_train(items, users, interactions)
    before = peak_mib()
    steps: list[float] = []
    hardware = Hardware(on_progress=lambda progress: steps.append(time.perf_counter()))
    config = RecommenderConfig(fusion=FusionConfig(max_epochs=1, full_softmax_items=0))
    start, spent = time.perf_counter(), time.process_time()
    towers, report = fit_towers(FitData(list(train.item_ids), tokens, train, None), config, hardware)
    seconds, spent = time.perf_counter() - start, time.process_time() - spent
    peak = peak_mib()
    start = time.perf_counter()
    towers.embed_catalog(tokens)
    embedding = time.perf_counter() - start
    per_step = (steps[-1] - steps[0]) / max(1, len(steps) - 1)
    return {
        "items": items,
        "users": users,
        "interactions": len(train),
        "steps": len(steps),
        "epoch s": per_step * len(steps),
        "fit s": seconds,
        "processor s": spent,
        "before MiB": before,
        "peak MiB": peak,
        "item vectors s": embedding,
        "softmax": report.rules.get("softmax", ""),
    }


# --- serving ----------------------------------------------------------------------------------------------------------


def measure_users(folder: Path, stored: int) -> list[dict[str, Any]]:
    """A model of 10,000 items: an interaction is added to a live user, who is ranked anew."""
    items = min(10_000, stored)
    tokens, train = open_tokens(folder, stored, items), make_train(items, 500, 5_000)
    config = RecommenderConfig(fusion=FusionConfig(max_epochs=1))
    towers, report = fit_towers(FitData(list(train.item_ids), tokens, train, None), config, None)
    embedded = towers.embed_catalog(tokens)
    names = list(train.item_ids)
    files = ModelFiles(
        item_ids=names,
        catalog=[{"item_id": name} for name in names],
        vectors_ID=embedded.vectors_ID.numpy().astype(np.float32),
        bias_I=embedded.bias_I.numpy().astype(np.float32),
        trained_I=np.bincount(train.item_rows, minlength=items) > 0,
        tower_rows_I=np.arange(items),
        interactions=train,
        encoders={},
        report=report,
    )
    model = Recommender(files, towers, config)
    state, turn = model.user_state("u1"), iter(range(10**9))

    def add() -> None:
        place = next(turn)
        state.add(names[place % 100], FIRST_DAY + 400 * 86_400 + place)

    def add_and_rank() -> None:
        add()
        model.recommend(state, k=20)

    return [
        bar("an interaction added to a live user", median_ms(add, 2000), 1, "ms"),
        bar(f"the same, and {items:,} items ranked", median_ms(add_and_rank, 2000), 1, "ms"),
    ]


def measure_filter(items: int) -> dict[str, Any]:
    kinds: NDArray[np.int64] = np.random.default_rng(0).integers(0, 20, items)
    catalog = CatalogFilter([{"item_id": f"i{row}", "kind": f"kind {kind}"} for row, kind in enumerate(kinds.tolist())])
    return bar(
        f"{items:,} items filtered by a column", median_ms(lambda: catalog.matching({"kind": "kind 3"})), 0.5, "ms"
    )


def median_ms(run: Callable[[], Any], times: int = 500) -> float:
    taken = []
    for _ in range(times + 20):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return 1e3 * statistics.median(taken[20:])


if __name__ == "__main__":
    main()
