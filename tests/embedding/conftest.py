"""A folder of media with its catalog, what a job made of it, and a catalog of words."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from embedding_jobs import (
    MEDIA_ROWS,
    PRESET,
    Children,
    run,
    words_only,
    write_catalog,
    write_preset,
)
from media_files import write_image, write_sound, write_video

from mmrec.embedding.job import EmbedReport


@pytest.fixture
def own_children() -> Children:
    """The processes that this test started and that live: other modules may have left some."""
    others = set(multiprocessing.active_children())
    return lambda: [child for child in multiprocessing.active_children() if child not in others]


@pytest.fixture(scope="session")
def media_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("catalog")
    write_video(folder / "clip.mp4", sound_seconds=2.0)
    write_video(folder / "silent.mkv", frames=12)
    write_sound(folder / "tone.wav", seconds=3.0)
    write_image(folder / "photo.png")
    (folder / "damaged.mp4").write_bytes(b"no film at all")
    write_catalog(folder / "catalog.csv", MEDIA_ROWS)
    write_preset(folder / "small.yaml", PRESET)
    return folder


@pytest.fixture(scope="session")
def embedded(media_folder: Path) -> tuple[EmbedReport, Path]:
    """A report and a store of the catalog; the store is to be read only."""
    return run(media_folder), media_folder / "store"


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A folder with a catalog of 40 items that have words only, and a preset for words only."""
    return words_only(tmp_path, 40)
