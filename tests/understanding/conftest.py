"""A small catalog of words, and a model of users who like one topic each."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from planted import QUIET, SMALL, to_interactions

import mmrec

WORDS = {
    "piano": ("Slow piano music", "Calm piano sonata", "Piano and rain", "Quiet piano evening", "Piano nocturne"),
    "football": ("Football match report", "Football goals", "Football training", "Football final", "Football fans"),
    "baking": ("Baking sourdough bread", "Baking a cake", "Baking rolls", "Baking with rye", "Baking at home"),
}
TOPICS = list(WORDS)


@pytest.fixture(scope="session")
def catalog_of_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the store and the model of `spoken`."""
    folder = tmp_path_factory.mktemp("spoken")
    rows = [f"{topic}-{k},{title},{topic}" for topic, titles in WORDS.items() for k, title in enumerate(titles)]
    (folder / "catalog.csv").write_text("\n".join(["item_id,title,tags", *rows]) + "\n", encoding="utf-8")
    (folder / "words.yaml").write_text("text: {kind: hashed-ngrams}\n")
    mmrec.embed(folder / "catalog.csv", folder / "store", preset=folder / "words.yaml", workers=1)
    pairs = [(f"u{user}", f"{TOPICS[user % 3]}-{(user + k) % 5}") for user in range(30) for k in range(3)]
    config = mmrec.RecommenderConfig(fusion=replace(SMALL, learning_rate=0.005, max_epochs=12))
    model = mmrec.Recommender.fit(
        mmrec.FeatureStore(folder / "store"), to_interactions(pairs), config=config, hardware=QUIET
    )
    model.save(folder / "model")
    return folder


@pytest.fixture
def spoken(catalog_of_words: Path, tmp_path: Path) -> Path:
    """A copy of a folder with `store` and `model`: `piano-0` to `baking-4`; u0 likes piano, u1 football, u2 baking."""
    return Path(shutil.copytree(catalog_of_words, tmp_path / "spoken"))
