"""How long the report on a large store takes, and how large its page becomes.

    python scripts/bench_report.py [--items 100000] [--quick] [--out report.json] [--page report.html]

Makes its own store, seeded: pictures and words of every item around 200 centres, a year, a kind, a language, and media
files, of which few differ; and interactions of a tenth as many users, to which a small model is fitted. The bar: the
page under 15 MB, made in under 60 s.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from benching import print_table, write_report
from numpy.typing import NDArray
from synthetic_catalog import UNIQUE_CLIPS, write_clip

import mmrec.reporting
from mmrec.catalog import Item
from mmrec.evaluation import Interactions, make_interactions, split
from mmrec.recommending import Recommender, RecommenderConfig
from mmrec.store import EncoderRecord, Features, FeatureStore, Modality, Tokens

ROWS_AT_ONCE = 4096
NUM_CENTRES, HISTORY = 200, 12
CONFIG = {"dim": 64, "max_epochs": 1, "smoothing": 0.0, "batch_size": 1024}
WIDTHS: dict[Modality, int] = {"visual": 512, "text": 384}
LANGUAGES = ("en", "zh", "es", "de")
SPAN = np.array([[0.0, 1.0]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--quick", action="store_true", help="2,000 items")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--page", type=Path, help="keep the page of store and model here")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.items = 2_000
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), arguments.items, arguments.page or Path(folder) / "report.html")
    print_table(f"{arguments.items:,} items", figures)
    write_report(arguments.out, ["scikit-learn", "jinja2", "lancedb"], figures)


def measure(folder: Path, num_items: int, page: Path) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    store = made_store(folder, rng, num_items)
    alone = timed("store alone", page, store)
    train, held_out = split(made_interactions(rng, num_items), "last")
    model = Recommender.fit(store, train, config=RecommenderConfig.from_mapping(CONFIG))
    return [alone, timed("store and model", page, store, model, held_out)]


def timed(what: str, page: Path, *report: Any) -> dict[str, Any]:
    start, cpu = time.perf_counter(), time.process_time()
    made = mmrec.reporting.write_report(page, *report)
    print(f"{what}: {time.perf_counter() - start:.1f} s, of which {time.process_time() - cpu:.1f} s of this process")
    return {
        "what": what,
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - cpu,
        "megabytes": page.stat().st_size / 1e6,
        "pictures": len(made.thumbnails),
    }


def made_store(folder: Path, rng: np.random.Generator, num_items: int) -> FeatureStore:
    clips = [write_clip(folder / f"clip{number}.mp4", number, rng) for number in range(UNIQUE_CLIPS)]
    store = FeatureStore(folder / "store", create=True)
    store.add_encoders(
        EncoderRecord(fingerprint=modality, modality=modality, name="made", dim=width, spec={"kind": "imported"})
        for modality, width in WIDTHS.items()
    )
    centres = {modality: rng.normal(size=(NUM_CENTRES, width)) for modality, width in WIDTHS.items()}
    for start in range(0, num_items, ROWS_AT_ONCE):
        store.write(list(made_rows(rng, centres, clips, start, min(num_items, start + ROWS_AT_ONCE))))
    return store


def made_rows(
    rng: np.random.Generator, centres: dict[Modality, NDArray[np.float64]], clips: list[Path], start: int, end: int
) -> Iterator[Features]:
    for number in range(start, end):
        kind = number % NUM_CENTRES
        item = Item(
            item_id=f"item-{number:06}",
            title=f"A title of kind {kind} that is as long as titles are, number {number}",
            media=clips[number % len(clips)],
            language=LANGUAGES[number % len(LANGUAGES)],
            metadata={"year": str(1980 + number % 45), "kind": f"kind {kind % 25}"},
        )
        tokens = {
            modality: Tokens((rows[kind] + rng.normal(size=rows.shape[1]))[None].astype(np.float32), SPAN)
            for modality, rows in centres.items()
        }
        fingerprints = {modality: str(modality) for modality in tokens}
        yield Features(item, tokens, fingerprints=fingerprints, duration_seconds=60.0 + number % 600)


def made_interactions(rng: np.random.Generator, num_items: int) -> Interactions:
    """Users who like two kinds, and take of them the items with small numbers most."""
    num_users = num_items // 10
    users_N = np.repeat(np.arange(num_users), HISTORY)
    kinds_N = rng.integers(NUM_CENTRES, size=(num_users, 2))[users_N, rng.integers(2, size=len(users_N))]
    in_kind_N = (rng.power(0.3, len(users_N)) * (num_items // NUM_CENTRES)).astype(int)
    items_N = kinds_N + NUM_CENTRES * in_kind_N
    return make_interactions([f"user {user}" for user in users_N], [f"item-{item:06}" for item in items_N])


if __name__ == "__main__":
    main()
