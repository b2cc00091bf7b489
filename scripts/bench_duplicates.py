"""How many duplicates are found, and how many that are found are none: real recordings and the variants made of them.

    python scripts/bench_duplicates.py --media MEDIA --pictures FOLDER --speech FOLDER

Clips and sounds get every kind of variant, so do the first pictures; the others stand beside them, each alone.
Sounds are also measured in two halves, every other recording: what is chosen on the first is judged by the second.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from benching import print_table, write_report
from duplicate_variants import duration, write_picture_variants, write_sound_variants, write_video_variants

import mmrec
from mmrec.searching import find_duplicates

CLIPS = (".mp4",)
SOUNDS = (".ogg", ".wav")
LEAST_SECONDS = 8.0
"""Of a clip: shorter ones cannot be cut by 5 seconds."""
PICTURES_WITH_VARIANTS = 40
Row = tuple[str, str, str, str, str]  # item_id, media, source, kind, everything that it holds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path, required=True, metavar="FOLDER", help="clips and sounds")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER")
    parser.add_argument("--speech", type=Path, metavar="FOLDER", help="short sounds")
    parser.add_argument("--preset", default="light")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep variants and stores here, and use what is there")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        catalog, store = work / "catalog.csv", work / arguments.preset
        if not catalog.exists():
            write_catalog(catalog, arguments.media, arguments.pictures, arguments.speech)
        mmrec.embed(catalog, store, preset=arguments.preset, workers=arguments.workers, max_failures=1.0)
        figures = measure(catalog, store)
    print_table(f"duplicates, preset {arguments.preset}", figures)
    write_report(arguments.out, ["mmrec", "torch", "numpy", "av"], figures)


def write_catalog(catalog: Path, media: Path, pictures: Path | None, speech: Path | None) -> None:
    folder = catalog.parent / "variants"
    folder.mkdir(parents=True, exist_ok=True)
    rows = list(variants(media, pictures, folder))
    rows += list(sound_variants(sorted(speech.iterdir()), folder)) if speech else []
    with catalog.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["item_id", "media", "source", "kind", "holds"])
        writer.writerows(rows)


def variants(media: Path, pictures: Path | None, folder: Path) -> Iterator[Row]:
    paths = sorted(media.iterdir())
    clips = [path for path in paths if path.suffix in CLIPS and path.stem != "corrupted"]
    clips = [path for path in clips if duration(path) > LEAST_SECONDS]
    sounds = [path for path in paths if path.suffix in SOUNDS]
    for place, clip in enumerate(clips):
        others = [clips[(place + step) % len(clips)] for step in (1, 2)]
        yield original(clip)
        for kind, path in write_video_variants(clip, others, sounds[0], folder):
            yield variant(path, clip, kind, others)
    yield from sound_variants(sounds, folder)
    for place, picture in enumerate(sorted(pictures.iterdir()) if pictures else []):
        yield original(picture)
        if place < PICTURES_WITH_VARIANTS:
            for kind, path in write_picture_variants(picture, folder):
                yield variant(path, picture, kind, [])


def sound_variants(sounds: list[Path], folder: Path) -> Iterator[Row]:
    for place, sound in enumerate(sounds):
        others = [sounds[(place + step) % len(sounds)] for step in (1, 2)]
        yield original(sound)
        for kind, path in write_sound_variants(sound, others, folder):
            yield variant(path, sound, kind, others)


def original(path: Path) -> Row:
    return path.name, str(path.absolute()), path.name, "original", path.name


def variant(path: Path, source: Path, kind: str, others: list[Path]) -> Row:
    holds = [source, *(others if kind == "inside a longer one" else [])]
    return path.name, str(path.absolute()), source.name, kind, "|".join(file.name for file in holds)


def measure(catalog: Path, store: Path) -> list[dict[str, object]]:
    """Recall: variants found as their original's. Precision: of all pairs found, those that share a recording."""
    with catalog.open(encoding="utf-8", newline="") as file:
        rows = {row["item_id"]: row for row in csv.DictReader(file)}
    start = time.perf_counter()
    found = find_duplicates(mmrec.FeatureStore(store))
    seconds = time.perf_counter() - start
    pairs = {frozenset((pair.first, pair.second)) for pair in found}
    of_kind: dict[tuple[str, str], list[bool]] = defaultdict(list)
    right: dict[str, list[bool]] = defaultdict(list)
    groups = groups_of({row["source"] for row in rows.values()})
    for item_id, row in rows.items():
        if row["kind"] != "original":
            is_found = frozenset((item_id, row["source"])) in pairs
            for group, kind in product(groups[row["source"]], (row["kind"], "all")):
                of_kind[group, kind].append(is_found)
    for pair in found:
        first, second = rows[pair.first], rows[pair.second]
        for group in groups[first["source"]]:
            right[group].append(shares(first["holds"], second["holds"]))
    table: list[dict[str, object]] = []
    for (group, kind), is_found in sorted(of_kind.items()):
        table.append({"of": group, "kind": kind, "variants": len(is_found), "recall": sum(is_found) / len(is_found)})
        if kind == "all":
            table[-1] |= {"pairs": len(right[group]), "precision": sum(right[group]) / max(1, len(right[group]))}
    print(f"{len(rows)} items, {seconds:.1f} s")
    return table


def groups_of(sources: set[str]) -> dict[str, tuple[str, ...]]:
    """What each recording is measured among."""
    groups: dict[str, tuple[str, ...]] = {name: ("everything", medium(name)) for name in sources}
    sounds = sorted(name for name in sources if medium(name) == "sounds")
    return groups | {name: (*groups[name], f"sounds, half {1 + place % 2}") for place, name in enumerate(sounds)}


def medium(name: str) -> str:
    suffix = Path(name).suffix
    return "clips" if suffix in CLIPS else "sounds" if suffix in SOUNDS else "pictures"


def shares(first: str, second: str) -> bool:
    return not set(first.split("|")).isdisjoint(second.split("|"))


if __name__ == "__main__":
    main()
