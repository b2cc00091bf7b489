"""Many nights of a scheduled job over a mount that vanishes, catalogs that shrink and kills, while others read.

    python scripts/soak_nights.py --nights 60 --out /tmp/nights

Each night something happens (or nothing), the job runs, and what the store holds is compared with what it must hold.
Beside it one process keeps a store open and reads it, and one keeps loading the model while that is saved and killed.
Prints each night to standard error and the figures as one JSON object; exits with 1 where anything was lost or hidden.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from media_files import write_image, write_sound

from mmrec.errors import MMRecError
from mmrec.recommending import Recommender
from mmrec.store import FeatureStore

NUM_ITEMS = 40
PRESET = "visual: {kind: descriptors}\naudio: {kind: log-mel}\ntext: {kind: hashed-ngrams}\n"
OTHER_PRESET = PRESET + "text_template: '$title!'\n"
Rows = dict[str, dict[str, NDArray[np.float32]]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="a folder for the catalog, the store and the model")
    parser.add_argument("--nights", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    soak = Soak(arguments.out, random.Random(arguments.seed))
    soak.embed()
    soak.expected = tokens_of(soak.store)
    subprocess.run(soak.fit_command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    context = multiprocessing.get_context("spawn")
    reads, loads, faults = (context.Value("i", 0) for _ in range(3))
    others = [
        context.Process(target=keep_reading, args=(soak.store, reads, faults), daemon=True),
        context.Process(target=keep_loading, args=(soak.model, loads, faults), daemon=True),
    ]
    for process in others:
        process.start()
    for night in range(arguments.nights):
        event = soak.rng.choice(soak.events())
        event()
        soak.counts[event.__name__] += 1
        say(f"night {night + 1}: {event.__name__}; {soak.faults}")
    alive = all(process.is_alive() for process in others)
    for process in others:
        process.kill()
    soak.faults["other processes"] = faults.value + (not alive)
    result = {"nights": arguments.nights, "events": soak.counts, "reads": reads.value, "loads": loads.value}
    print(json.dumps({**result, "faults": soak.faults}))
    return int(any(soak.faults.values()))


def say(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


def keep_reading(folder: Path, reads: Synchronized[int], faults: Synchronized[int]) -> None:
    """One open store, read again and again."""
    store = FeatureStore(folder)
    while True:
        try:
            store.vectors("text")
            len(store)
            reads.value += 1
        except MMRecError as error:
            say(f"FAULT of the reader: {error}")
            faults.value += 1
        time.sleep(0.3)


def keep_loading(folder: Path, loads: Synchronized[int], faults: Synchronized[int]) -> None:
    while True:
        try:
            Recommender.load(folder).similar_items("item 0", k=3)
            loads.value += 1
        except MMRecError as error:
            say(f"FAULT of a model: {error}")
            faults.value += 1
        time.sleep(0.3)


def tokens_of(folder: Path, encoder_set: str = "") -> Rows:
    store = FeatureStore(folder, encoder_set=encoder_set)
    return {row.item.item_id: {m: t.vectors_TD for m, t in row.tokens.items()} for row in store.features()}


class Soak:
    """The world: a mount, a catalog, a store and a model; and what must be true of them."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder, self.rng = folder, rng
        self.mount, self.away = folder / "mount", folder / "away"
        self.store, self.model, self.catalog = folder / "store", folder / "model", folder / "catalog.csv"
        self.faults = dict.fromkeys(["lost", "hidden", "refused", "not pruned", "lost in a set"], 0)
        self.counts: Counter[str] = Counter()
        self.expected: Rows = {}
        self.titles = {f"item {n}": f"title of {n}" for n in range(NUM_ITEMS)}
        self.mount.mkdir(parents=True)
        for n in range(NUM_ITEMS):
            (write_sound if n % 4 == 0 else write_image)(self.mount / name_of(n))
        (folder / "small.yaml").write_text(PRESET)
        (folder / "other.yaml").write_text(OTHER_PRESET)
        (folder / "config.yaml").write_text("fusion: {max_epochs: 1, dim: 16}\n")
        self.fit_command = [*command("fit"), "--store", str(self.store), "--model", str(self.model)]
        self.write_catalog(NUM_ITEMS)

    def events(self) -> list[Callable[[], None]]:
        return [
            self.nothing, self.mount_is_away, self.half_the_mount_is_away, self.catalog_is_cut, self.titles_change,
            self.a_few_items_leave_and_return, self.job_is_killed, self.another_preset, self.another_set,
            self.fit_is_killed, self.files_are_copied_anew,
        ]  # fmt: skip

    # --- what happens -------------------------------------------------------------------------------------------------

    def nothing(self) -> None:
        self.check(self.embed(), succeeds=True)

    def mount_is_away(self) -> None:
        self.mount.rename(self.away)
        self.check(self.embed(), succeeds=False)
        self.away.rename(self.mount)
        self.check(self.embed(), succeeds=True)

    def half_the_mount_is_away(self) -> None:
        self.away.mkdir()
        for n in range(0, NUM_ITEMS, 2):
            (self.mount / name_of(n)).rename(self.away / name_of(n))
        self.check(self.embed(), succeeds=False)
        for path in self.away.iterdir():
            path.rename(self.mount / path.name)
        self.away.rmdir()
        self.check(self.embed(), succeeds=True)

    def catalog_is_cut(self) -> None:
        self.write_catalog(NUM_ITEMS // 2)
        self.check(self.embed("--prune"), succeeds=False)
        self.write_catalog(0)
        self.check(self.embed("--prune"), succeeds=False)
        self.write_catalog(NUM_ITEMS)

    def a_few_items_leave_and_return(self) -> None:
        left = NUM_ITEMS - NUM_ITEMS // 20
        self.write_catalog(left)
        for n in range(left, NUM_ITEMS):
            self.expected.pop(f"item {n}")
        self.check(self.embed("--prune"), succeeds=True)
        self.faults["not pruned"] += len(self.expected) != left
        self.write_catalog(NUM_ITEMS)
        self.check(self.embed(), succeeds=True)

    def titles_change(self) -> None:
        changed = self.rng.sample(sorted(self.titles), 5)
        self.titles |= {item_id: f"title {self.rng.random()}" for item_id in changed}
        self.write_catalog(NUM_ITEMS)
        self.check(self.embed(), succeeds=True, changed=changed)

    def job_is_killed(self) -> None:
        changed = self.rng.sample(sorted(self.titles), 30)
        self.titles |= {item_id: f"title {self.rng.random()}" for item_id in changed}
        self.write_catalog(NUM_ITEMS)
        self.kill(self.embed_command(), self.rng.uniform(0.5, 8.0))
        self.check(self.embed(), succeeds=True, changed=changed)

    def another_preset(self) -> None:
        self.check(self.embed(preset="other.yaml"), succeeds=False)

    def another_set(self) -> None:
        self.check(self.embed("--as", "other", preset="other.yaml"), succeeds=True)
        other = tokens_of(self.store, "other")
        self.faults["lost in a set"] += sum(other.get(i, {}).keys() < row.keys() for i, row in self.expected.items())

    def fit_is_killed(self) -> None:
        self.kill([*self.fit_command, "--config", str(self.folder / "config.yaml")], self.rng.uniform(4.0, 15.0))
        self.check(0, succeeds=True)

    def files_are_copied_anew(self) -> None:
        for path in list(self.mount.iterdir()):
            copy = path.with_suffix(".copy")
            copy.write_bytes(path.read_bytes())
            copy.replace(path)
        self.check(self.embed(), succeeds=True)

    # --- doing and checking -------------------------------------------------------------------------------------------

    def write_catalog(self, num_items: int) -> None:
        with self.catalog.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["item_id", "media", "title"])
            for n, (item_id, title) in enumerate(list(self.titles.items())[:num_items]):
                writer.writerow([item_id, f"mount/{name_of(n)}", title])

    def embed_command(self, *options: str, preset: str = "small.yaml") -> list[str]:
        named = [
            "--store",
            str(self.store),
            "--preset",
            str(self.folder / preset),
            "--workers",
            "1",
            "--keep-days",
            "0",
        ]
        return [*command("embed"), str(self.catalog), *named, *options]

    def embed(self, *options: str, preset: str = "small.yaml") -> int:
        done = subprocess.run(self.embed_command(*options, preset=preset), capture_output=True, text=True, check=False)
        return done.returncode

    def kill(self, command: list[str], seconds: float) -> None:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def check(self, status: int, *, succeeds: bool, changed: Any = ()) -> None:
        """Compare the store with what is expected; the words of `changed` items may be new, nothing may be gone."""
        self.faults["hidden" if status == 0 else "refused"] += (status == 0) != succeeds
        found = tokens_of(self.store)
        for item_id, row in self.expected.items():
            there = found.get(item_id, {})
            for modality, vectors_TD in row.items():
                may_differ = modality == "text" and item_id in changed
                kept = modality in there and (may_differ or np.array_equal(there[modality], vectors_TD))
                self.faults["lost"] += not kept
        self.expected = found


def name_of(number: int) -> str:
    return f"{number}.wav" if number % 4 == 0 else f"{number}.png"


def command(name: str) -> list[str]:
    return [sys.executable, "-m", "mmrec", name]


if __name__ == "__main__":
    sys.exit(main())
