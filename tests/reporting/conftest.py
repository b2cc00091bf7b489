"""A store of forty items of four kinds, of which a few have media and faults, and a model fitted to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from media_files import write_image, write_sound, write_video
from planted import COLD, CONFIG, QUIET, item_ids, planted, watched, write_store
from reported import DAMAGED, FAILED, GONE, HOSTILE

from mmrec.errors import Problem, Reason
from mmrec.evaluation import Interactions
from mmrec.recommending import Recommender
from mmrec.reporting import Report
from mmrec.reporting.report import make_report
from mmrec.store import FeatureStore


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("media")
    (folder / "damaged.mp4").write_bytes(b"no film at all")
    return {
        "jazz-00": write_video(folder / "clip.mp4", sound_seconds=2.0),
        "sport-00": write_sound(folder / "tone.wav", seconds=1.0),
        "rain-00": write_image(folder / "photo.png"),
        DAMAGED: folder / "damaged.mp4",
        GONE: folder / "gone.mp4",
    }


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, media: dict[str, Path]) -> FeatureStore:
    items = planted(item_ids())
    for features in items:
        item = features.item
        features.item = replace(
            item,
            media=media.get(item.item_id),
            title=HOSTILE if item.item_id == "jazz-00" else item.title,
            metadata={**item.metadata, "year": str(1980 + int(item.item_id[-2:]) * 3), "link": f"x:{item.item_id}"},
        )
        if item.item_id == FAILED:
            features.tokens = {}
            features.problems = {"visual": Problem(Reason.CORRUPT, "it ends in the middle of <b>a frame</b>")}
    store = write_store(tmp_path_factory.mktemp("reported") / "store", items)
    with store.lock(), store.run("mmrec embed 'a catalog & more.csv'") as run:
        run.counts = {"items": 40, "ok": 39, "failed": 1}
    return store


@pytest.fixture(scope="session")
def pairs() -> tuple[Interactions, Interactions]:
    return watched(COLD)


@pytest.fixture(scope="session")
def model(store: FeatureStore, pairs: tuple[Interactions, Interactions]) -> Recommender:
    return Recommender.fit(store, pairs[0], validation=pairs[1], config=CONFIG, hardware=QUIET)


@pytest.fixture(scope="session")
def content(store: FeatureStore) -> Recommender:
    """Fitted without interactions."""
    short = replace(CONFIG, fusion=replace(CONFIG.fusion, max_epochs=1))
    return Recommender.fit(store, config=short, hardware=QUIET)


@pytest.fixture(scope="session")
def report(store: FeatureStore, model: Recommender, pairs: tuple[Interactions, Interactions]) -> Report:
    return make_report(store, model, pairs[1])
