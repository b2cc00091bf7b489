"""What jobs publish is taken up, each part by itself; what cannot be is seen in the figures, and asked for again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import BASE, config_of
from starlette.testclient import TestClient

from mmrec import Recommender
from mmrec.service import app as application
from mmrec.service import create_app, model_users
from mmrec.service import resources as opened
from mmrec.service.resources import Resources


@pytest.fixture
def folder(served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("store", "model"):
        shutil.copytree(served / name, tmp_path / name)
    monkeypatch.setattr(application, "REFRESH_SECONDS", 0.05)
    for module in (application, model_users, opened):
        monkeypatch.setattr(module, "RETRY_SECONDS", 0.1)
    return tmp_path


@pytest.fixture
def resources(folder: Path) -> Iterator[Resources]:
    made = Resources(config_of(folder, folder / "interactions.sqlite"))
    yield made
    made.previews.close()


def not_taken_up(client: TestClient) -> float:
    text = client.get("/api/v1/metrics").text
    return float(next(line for line in text.splitlines() if line.startswith("mmrec_not_taken_up")).split()[-1])


def until(client: TestClient, value: float) -> None:
    end = time.monotonic() + 60
    while not_taken_up(client) != value:
        assert time.monotonic() < end, f"it never became {value}"
        time.sleep(0.05)


def break_store(folder: Path) -> None:
    (folder / "store" / "items.lance").rename(folder / "away.lance")


def test_a_store_that_cannot_be_read_keeps_no_model_from_being_taken_up(folder: Path, resources: Resources) -> None:
    break_store(folder)
    published = Recommender.load(folder / "model").save(folder / "model")
    resources._next_read = 0.0
    assert resources.refresh() == 1
    assert resources.model(None).version == published
    assert "clip" in resources.items
    (folder / "away.lance").rename(folder / "store" / "items.lance")
    time.sleep(0.2)
    assert resources.refresh() == 0


def test_figures_say_what_is_not_taken_up_until_it_is(folder: Path) -> None:
    app = create_app(config_of(folder, folder / "interactions.sqlite"))
    with TestClient(app, base_url=BASE) as client:
        until(client, 0)
        app.state.resources._next_read = 0.0
        break_store(folder)
        until(client, 1)
        assert client.get("/api/v1/items").status_code == 200
        assert client.post("/api/v1/recommend", json={"users": ["user00"]}).status_code == 200
        (folder / "away.lance").rename(folder / "store" / "items.lance")
        until(client, 0)


def test_a_fault_of_its_own_is_seen_and_does_not_end_the_following(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(self: Resources) -> int:
        raise ZeroDivisionError("a fault")

    with TestClient(create_app(config_of(folder, folder / "i.sqlite")), base_url=BASE) as client:
        with monkeypatch.context() as patch:
            patch.setattr(Resources, "refresh", fails)
            until(client, 2)
        until(client, 0)
    assert "a fault" in caplog.text


def test_a_first_search_that_fails_is_told_and_ends_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(self: Resources) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(Resources, "search_once", fails)
    with TestClient(create_app(config_of(folder, folder / "i.sqlite")), base_url=BASE) as client:
        until(client, 0)
        assert client.get("/api/v1/ready").status_code == 200
    assert "the first search failed" in caplog.text and "a fault" in caplog.text


def test_a_request_that_fails_is_a_problem_with_its_id_in_the_log(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(self: Resources, name: str | None) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(Resources, "model", fails)
    with TestClient(create_app(config_of(folder, folder / "i.sqlite")), base_url=BASE) as client:
        answer = client.post("/api/v1/recommend", json={"users": ["u"]}, headers={"x-request-id": "mine"})
        assert 'status="500"' in client.get("/api/v1/metrics").text
    assert answer.status_code == 500
    assert answer.json()["request_id"] == "mine"
    assert "a fault" not in answer.text
    assert "a fault" in caplog.text and any(getattr(r, "request_id", "") == "mine" for r in caplog.records)
