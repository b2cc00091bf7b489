"""Words to sentences and pictures that have labels: by full text alone, by vectors alone, and joined.

A sentence is sought by another that says the same (score 4 or more) among those of its language, and by its
translation among those of another. Pictures are sought by their labels, where the preset has an encoder of pictures
with words, and by copies of themselves.
"""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from duplicate_variants import write_picture_variants

import mmrec
from mmrec.errors import SearchError
from mmrec.searching import Query, Searcher

SAME_MEANING = 4.0
MOST_QUERIES, MOST_PICTURES = 40, 20
BEST = 10
WAYS: Mapping[str, Mapping[str, float]] = {"full text": {"text": 0.0}, "vectors": {"words": 0.0}, "joined": {}}
Sought = tuple[Query, str]
"""What is asked, and the item that answers it."""


def measure_words(data: Path, work: Path, preset: str) -> list[dict[str, Any]]:
    figures = list(_sentences(data / "sentence_pairs.csv", work, preset))
    return figures + list(_pictures(data / "images.csv", data / "images", work, preset))


def _sentences(path: Path, work: Path, preset: str) -> Iterator[dict[str, Any]]:
    pairs: dict[str, list[dict[str, str]]] = {}
    for row in _rows(path):
        pairs.setdefault(row["language"], []).append(row)
    ids = {(language, row["a"]): f"{language}-{n}" for language, rows in pairs.items() for n, row in enumerate(rows)}
    catalog = [(item_id, text, language) for (language, text), item_id in ids.items()]
    searcher = _searcher(work / "sentences", ["item_id", "description", "language"], catalog, preset)
    for language, rows in pairs.items():
        same = [row for row in rows if float(row["score"]) >= SAME_MEANING and row["a"] != row["b"]]
        sought = [(row["b"], ids[language, row["a"]]) for row in same[:MOST_QUERIES]]
        yield from _in_each_way(searcher, f"{language}, said otherwise", sought, f"language = '{language}'")
    first, *others = pairs
    for language in others:
        translations = zip(pairs[language], pairs[first], strict=True)
        sought = [(row["a"], ids[first, translated["a"]]) for row, translated in translations][:MOST_QUERIES]
        yield from _in_each_way(searcher, f"{first} by {language}", sought, f"language = '{first}'")


def _pictures(path: Path, folder: Path, work: Path, preset: str) -> Iterator[dict[str, Any]]:
    rows = _rows(path)
    catalog = [(row["file"], str(copied)) for row, copied in zip(rows, _renamed(rows, folder, work), strict=True)]
    searcher = _searcher(work / "pictures", ["item_id", "media"], catalog, preset)
    by_label = [(Query(words=[row["label"]], modalities=["visual"]), row["file"]) for row in rows]
    yield {"what": "pictures by their labels", "way": "pictures alone", **measured(searcher, by_label)}
    with tempfile.TemporaryDirectory() as temporary:
        by_copy: dict[str, list[Sought]] = {}
        for row in rows[:MOST_PICTURES]:
            for kind, copy in write_picture_variants(folder / row["file"], Path(temporary)):
                by_copy.setdefault(kind, []).append((Query(media=[copy]), row["file"]))
        for kind, sought in by_copy.items():
            yield {"what": f"pictures by a copy: {kind}", "way": "vectors", **measured(searcher, sought)}


def _renamed(rows: Sequence[Mapping[str, str]], folder: Path, work: Path) -> Iterator[Path]:
    """The pictures under names that say nothing."""
    (work / "renamed").mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(rows):
        copy = work / "renamed" / f"{number}{Path(row['file']).suffix}"
        shutil.copyfile(folder / row["file"], copy)
        yield copy.absolute()


def _in_each_way(
    searcher: Searcher, what: str, sought: Sequence[tuple[str, str]], where: str
) -> Iterator[dict[str, Any]]:
    for way, weights in WAYS.items():
        queries = [(Query(words=[text], where=where, weights=weights), item_id) for text, item_id in sought]
        yield {"what": what, "way": way, **measured(searcher, queries)}


def measured(searcher: Searcher, sought: Sequence[Sought]) -> dict[str, Any]:
    """Of the one item that answers each query: whether it is among the first ten, and its discounted gain there."""
    places = []
    for query, item_id in sought:
        try:
            ids, _ = searcher.search(query, k=BEST)
        except SearchError:  # what the words name is nothing that pictures can be told to show
            ids = []
        places.append(ids.index(item_id) + 1 if item_id in ids else np.inf)
    places_Q = np.array(places)
    gains_Q = np.where(np.isfinite(places_Q), 1 / np.log2(1 + places_Q), 0.0)
    return {"queries": len(places), "recall@10": float(np.isfinite(places_Q).mean()), "nDCG@10": float(gains_Q.mean())}


def _searcher(folder: Path, columns: Sequence[str], rows: Sequence[Sequence[str]], preset: str) -> Searcher:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "catalog.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    mmrec.embed(folder / "catalog.csv", folder / preset, preset=preset, max_failures=1.0)
    return Searcher(mmrec.FeatureStore(folder / preset))


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
