"""Small stores with planted kinds, so that the right answers are known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from encoders.base import load_encoder
from fusion.config import FusionConfig, Hardware
from mmrec.catalog.manifest import Item, read_catalog
from mmrec.evaluation.interactions import Interactions, InteractionSource, make_interactions
from mmrec.recommending.fitting import RecommenderConfig
from mmrec.recommending.recommender import Recommender
from mmrec.sample import items as sample_items
from mmrec.sample.catalog import make_sample_catalog
from mmrec.store.feature_store import EncoderRecord, FeatureStore
from mmrec.store.features import Features, Modality, Tokens

KINDS = ("jazz", "sport", "rain", "chess")
WIDTHS: dict[Modality, int] = {"visual": 12, "audio": 8}
NUM_ITEMS, NUM_USERS = 40, 80
COLD = [f"{kind}-09" for kind in KINDS]
MUTE, EMPTY = "rain-05", "chess-05"
DAY = 86_400.0
QUIET = Hardware()
SMALL = FusionConfig(
    dim=16, num_heads=2, max_epochs=6, batch_size=64, input_dropout=0.1, learning_rate=0.02, warmup_steps=0
)
CONFIG = RecommenderConfig(fusion=SMALL)


def quick(store: FeatureStore, interactions: InteractionSource | None, **options: Any) -> Recommender:
    """A fit of one epoch."""
    config = options.pop("config", replace(CONFIG, fusion=replace(SMALL, max_epochs=1)))
    return Recommender.fit(store, interactions, config=config, hardware=QUIET, **options)


def kind_of(item_id: str) -> str:
    return item_id.split("-")[0]


def item_ids(count: int = NUM_ITEMS) -> list[str]:
    """`jazz-00`, `sport-00`, and so on: the kinds in turn."""
    return [f"{KINDS[k % len(KINDS)]}-{k // len(KINDS):02}" for k in range(count)]


def planted(names: Iterable[str], *, without: Sequence[Modality] = (), seed: int = 0) -> list[Features]:
    """Items whose tokens lie near the centre of their kind; a modality's centres are the same in every call."""
    rng = np.random.default_rng(seed)
    centres = {m: np.random.default_rng(7).normal(size=(len(KINDS), width)) * 3 for m, width in WIDTHS.items()}
    made = []
    for name in names:
        kind = kind_of(name)
        language = "en" if int(name.split("-")[1]) % 2 else "zh"
        item = Item(
            item_id=name,
            title=f"{kind} clip {name}",
            tags=(kind, "clip"),
            language=language,
            metadata={"kind": kind, "age_limit": "12"},
        )
        features = Features(item)
        for modality in WIDTHS:
            noise = rng.normal(size=(2, WIDTHS[modality]))
            if modality not in without:
                vectors = (centres[modality][KINDS.index(kind)] + noise).astype(np.float32)
                features.tokens[modality] = Tokens(vectors, np.array([[0.0, 1.0], [1.0, 2.0]]))
        made.append(features)
    return made


def write_store(
    folder: Path,
    items: Sequence[Features],
    *,
    encoder: str = "planted",
    specs: Mapping[str, Mapping[str, str]] | None = None,
) -> FeatureStore:
    """A store whose encoders are told apart by name alone; `specs` say how to load them."""
    store = FeatureStore(folder, create=True)
    found = {modality for features in items for modality in features.tokens}
    for features in items:
        features.fingerprints = {modality: f"{encoder}-{modality}" for modality in features.tokens}
        features.catalog_key = "0" * 16
    store.add_encoders(
        EncoderRecord(
            fingerprint=f"{encoder}-{modality}",
            modality=modality,
            name=encoder,
            dim=next(f.tokens[modality].vectors_TD.shape[1] for f in items if modality in f.tokens),
            spec=(specs or {}).get(modality, {"kind": "imported"}),
        )
        for modality in sorted(found)
    )
    store.write(items)
    return store


def watched(cold: Sequence[str] = (), *, num_users: int = NUM_USERS) -> tuple[Interactions, Interactions]:
    """Training and validation: each user takes four items of one kind and later a fifth; nobody takes the cold ones."""
    rng = np.random.default_rng(1)
    warm = [name for name in item_ids() if name not in cold]
    train, held = [], []
    for user in range(num_users):
        own = rng.permutation([name for name in warm if kind_of(name) == KINDS[user % len(KINDS)]])
        train += [(f"user{user:02}", name) for name in own[:4]]
        held.append((f"user{user:02}", own[4]))
    return to_interactions(train), to_interactions(held)


def files_of(folder: Path) -> Path:
    """Where the files of a model's current version lie."""
    return folder / "versions" / (folder / "current").read_text().strip()


def seal(path: Path) -> None:
    """Let the manifest of a version say that its files, which a test has changed, are those that were saved."""
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"] = {
        file.name: hashlib.blake2b(file.read_bytes()).hexdigest()[:32]
        for file in path.iterdir()
        if file.name != "manifest.json"
    }
    (path / "manifest.json").write_text(json.dumps(manifest))


def taken_by(interactions: Interactions, user: str) -> list[str]:
    rows = interactions.item_rows[interactions.user_rows == interactions.user_index[user]]
    return [interactions.item_ids[row] for row in rows]


def with_times(interactions: Interactions, start_day: float = 0.0) -> Interactions:
    """The rows as a log, a quarter of a day apart."""
    days = start_day + np.arange(len(interactions)) / 4
    return replace(interactions, timestamps=days * DAY)


def to_interactions(pairs: Sequence[tuple[str, str]]) -> Interactions:
    users, items = zip(*pairs, strict=True)
    return make_interactions([*users], [str(item) for item in items])


def random_interactions(seed: int = 0, num_users: int = 60, num_items: int = 40, size: int = 500) -> Interactions:
    rng = np.random.default_rng(seed)
    users = [f"u{k}" for k in rng.integers(num_users, size=size)]
    items = [f"i{k}" for k in rng.integers(num_items, size=size)]
    return make_interactions(users, items, timestamps=rng.integers(1000, size=size).astype(float))


def pairs(interactions: Interactions) -> set[tuple[str, str]]:
    return {
        (interactions.user_ids[u], interactions.item_ids[i])
        for u, i in zip(interactions.user_rows, interactions.item_rows, strict=True)
    }


def write_csv(path: Path, interactions: Interactions) -> Path:
    """The interactions as a file."""
    rows = zip(interactions.user_rows, interactions.item_rows, interactions.weights, strict=True)
    lines = [f"{interactions.user_ids[user]},{interactions.item_ids[item]},{weight}" for user, item, weight in rows]
    path.write_text("\n".join(["user_id,item_id,weight", *lines]) + "\n", encoding="utf-8")
    return path


def write_sample_store(folder: Path, *, without: Sequence[Modality] = (), seed: int = 0) -> tuple[FeatureStore, Path]:
    """The sample catalog with tokens in the place of its media: kinds share looks and sounds, as their clips do.

    Returns the store, and the folder of the catalog and its interactions.
    """
    with patch("mmrec.sample.catalog.make_media", return_value=b""):
        manifest = make_sample_catalog(folder / "catalog")
    rng = np.random.default_rng(seed)
    kinds = {kind.name: kind for kind in sample_items.KINDS}
    words = load_encoder("hashed-ngrams", device="cpu")
    centres: dict[str, NDArray[np.float64]] = {}
    made = []
    for item in read_catalog(manifest).items():
        kind = kinds[item.metadata["kind"]]
        suffix = "" if item.media is None else item.media.suffix
        shown = {"visual": kind.look.__name__} if suffix in (".mp4", ".webm", ".png", ".jpg") else {}
        heard = {"audio": kind.sound.__name__} if suffix not in ("", ".png", ".jpg") else {}
        features = Features(item)
        for modality, name in (shown | heard).items():
            centre = centres.setdefault(name, rng.normal(size=16) * 3)
            tokens = (centre + rng.normal(size=(3, 16)) * 2).astype(np.float32)
            features.tokens[modality] = Tokens(tokens, np.zeros((3, 2)))
        if text := f"{item.title}\n{item.description}\n{' '.join(item.tags)}".strip():
            features.tokens["text"] = Tokens(words.encode([text]).numpy(), np.zeros((1, 2)))
        features.tokens = {m: tokens for m, tokens in features.tokens.items() if m not in without}
        made.append(features)
    return write_store(folder / "store", made, specs={"text": {"kind": "hashed-ngrams"}}), manifest.parent
