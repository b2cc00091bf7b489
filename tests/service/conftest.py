"""A small catalog of clips, pictures, sounds and words, embedded and fitted once, and services of it."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from media_files import write_image, write_sound, write_video
from planted import CONFIG, QUIET, SMALL
from served import BASE, NUM_USERS, PRESET, ROWS, MakeClient, config_of
from starlette.testclient import TestClient

from mmrec import FeatureStore, Recommender, embed
from mmrec.evaluation import make_interactions
from mmrec.service import create_app


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `media/`, `store/` and `model/`; nobody changes it."""
    root = tmp_path_factory.mktemp("served")
    folder = root / "media"
    folder.mkdir()
    write_video(folder / "clip.mp4", frames=24, sound_seconds=2.0)
    write_sound(folder / "tone.wav", seconds=2.0)
    write_image(folder / "photo.png")
    (folder / "damaged.mp4").write_bytes(b"no film at all")
    (folder / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    write_image(root / "elsewhere.png")
    (folder / "outside.png").symlink_to(root / "elsewhere.png")
    lines = ["item_id,media,title,tags,year"]
    lines += [",".join(f'"{cell}"' for cell in row) for row in ROWS]
    (folder / "catalog.csv").write_text("\n".join(lines), encoding="utf-8")
    (root / "preset.yaml").write_text(PRESET)
    embed(folder / "catalog.csv", root / "store", preset=root / "preset.yaml", workers=1, max_failures=1.0)
    users, items = [], []
    for user in range(NUM_USERS):
        kind = ("jazz", "goal")[user % 2]
        for step in range(4):
            users.append(f"user{user:02}")
            items.append(f"{kind}-{(user + step) % 8}")
    times = 1e9 + 86_400.0 * np.arange(len(users))
    config = replace(CONFIG, fusion=replace(SMALL, max_epochs=2))
    interactions = make_interactions(users, items, timestamps=times)
    model = Recommender.fit(FeatureStore(root / "store"), interactions, config=config, hardware=QUIET)
    model.save(root / "model")
    return root


@pytest.fixture(scope="session")
def model(served: Path) -> Recommender:
    return Recommender.load(served / "model")


@pytest.fixture
def copied(served: Path, tmp_path: Path) -> Path:
    """The folder again, which may be changed."""
    return Path(shutil.copytree(served, tmp_path / "copied", symlinks=True))


@pytest.fixture(scope="session")
def api(served: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service that is only asked what changes nothing."""
    app = create_app(config_of(served, tmp_path_factory.mktemp("state") / "interactions.sqlite"))
    with TestClient(app, base_url=BASE, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def start(served: Path, tmp_path: Path) -> Iterator[MakeClient]:
    """Starts services with a state of their own; several of one state where it is named."""
    started: list[TestClient] = []

    def make(folder: Path = served, state: Path = tmp_path / "interactions.sqlite", **options: Any) -> TestClient:
        client = TestClient(create_app(config_of(folder, state, **options)), base_url=BASE)
        started.append(client.__enter__())
        return client

    yield make
    for client in started:
        client.__exit__(None, None, None)


@pytest.fixture
def listening(served: Path, tmp_path: Path) -> Iterator[str]:
    """The URL of a service that listens on a port, in a thread."""
    app = create_app(config_of(served, tmp_path / "interactions.sqlite"))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="on"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert server.started, "the service did not start"
    yield f"{BASE}:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(30)
