"""The command as people run it: it starts, stops gracefully, follows new versions, and loses nothing when killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from served import environment

from mmrec import Recommender
from mmrec.cli import main
from mmrec.recommending import rollback
from mmrec.service import ServiceConfig
from mmrec.service.interaction_log import InteractionLog
from mmrec.service.serving import listen

KILLS = 2
pytestmark = pytest.mark.timeout(900)  # each starts processes, which takes long on a busy machine
Run = Callable[..., "Service"]


class Service:
    """A running `mmrec serve`."""

    def __init__(self, folder: Path, state: Path, *options: str) -> None:
        command = [sys.executable, "-m", "mmrec", "serve", "--store", folder / "store", "--model", folder / "model"]
        command += ["--state", state, "--port", "0", "--rate", "0", *options]
        self.process = subprocess.Popen(
            list(map(str, command)), stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = self._wait_for("listening on ").rsplit(" ", 1)[1]
        self.http = httpx.Client(base_url=self.url, timeout=30)
        self.until(lambda: self.http.get("/api/v1/ready").status_code == 200)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)

    def _wait_for(self, words: str) -> str:
        self.until(lambda: any(words in line for line in self.lines))
        return str(next(json.loads(line)["message"] for line in self.lines if words in line))

    def until(self, holds: Callable[[], bool], seconds: float = 200) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if holds():
                    return
            except httpx.TransportError:
                pass
            assert self.process.poll() is None, "".join(self.lines)
            time.sleep(0.02)
        raise AssertionError("".join(self.lines[-20:]))

    def add(self, user: str, item: str) -> bool:
        body = {"interactions": [{"user_id": user, "item_id": item}]}
        return self.http.post("/api/v1/interactions", json=body).status_code == 200

    def version(self) -> int:
        return int(self.http.get("/api/v1/about").json()["models"][0]["version"])

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)

    def kill(self) -> None:
        """It and its workers, as a lost machine would."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)


@pytest.fixture
def run() -> Iterator[Run]:
    started: list[Service] = []

    def start(*arguments: Path | str) -> Service:
        started.append(Service(*arguments))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for service in started:
        if service.process.poll() is None:
            service.kill()


def test_a_stop_finishes_what_began_and_says_so_by_its_exit(run: Run, served: Path, tmp_path: Path) -> None:
    service = run(served, tmp_path / "state.sqlite")
    answers: list[int] = []

    def upload() -> None:
        files = {"file": ("clip.mp4", (served / "media" / "clip.mp4").read_bytes())}
        answers.append(httpx.post(f"{service.url}/api/v1/search/file", files=files, timeout=60).status_code)

    thread = threading.Thread(target=upload)
    thread.start()
    time.sleep(0.3)  # it decodes
    assert service.stop() == 0
    thread.join()
    assert answers == [200]
    for line in service.lines:
        json.loads(line)


def test_what_was_acknowledged_outlives_kills(run: Run, served: Path, tmp_path: Path) -> None:
    acknowledged: set[str] = set()
    for kill in range(KILLS):
        service = run(served, tmp_path / "state.sqlite", *(["--workers", "2"] if kill % 2 else []))

        def work(thread: int, kill: int = kill, service: Service = service) -> None:
            for number in range(10_000):
                user = f"{kill}-{thread}-{number}"
                try:
                    if service.add(user, "jazz-0"):
                        acknowledged.add(user)
                except httpx.TransportError:
                    return

        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        service.until(lambda kill=kill: len(acknowledged) > 30 * (kill + 1))  # type: ignore[misc]
        service.kill()
        for thread in threads:
            thread.join()
    kept = set(InteractionLog(tmp_path / "state.sqlite").users())
    assert len(acknowledged) > 30 * KILLS
    assert acknowledged <= kept


def test_a_new_version_answers_without_a_dropped_request_and_so_does_the_one_before(
    run: Run, copied: Path, tmp_path: Path
) -> None:
    service = run(copied, tmp_path / "state.sqlite", "--workers", "2")
    statuses: list[int] = []
    done = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=service.url, timeout=30) as http:
            while not done.is_set():
                statuses.append(http.post("/api/v1/recommend", json={"users": ["user00"], "k": 3}).status_code)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    smaller = Recommender.load(copied / "model")
    smaller.remove_items(["jazz-7"])
    assert smaller.save(copied / "model") == 2
    service.until(lambda: [service.version() for _ in range(8)] == [2] * 8)
    rollback(copied / "model", 1)
    service.until(lambda: [service.version() for _ in range(8)] == [1] * 8)
    shutil.rmtree(copied / "model" / "versions" / "2")
    (copied / "model" / "current").write_text("2\n")  # a version that is not there: the last one goes on
    time.sleep(1.5)
    assert service.version() == 1
    done.set()
    for thread in threads:
        thread.join()
    assert len(statuses) > 20
    assert set(statuses) == {200}
    assert service.stop() == 0


def test_workers_share_users_and_are_started_again(run: Run, served: Path, tmp_path: Path) -> None:
    service = run(served, tmp_path / "state.sqlite", "--workers", "2")
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children")
    if not children.exists():
        pytest.skip("this system does not tell the children of a process")
    first = {int(pid) for pid in children.read_text().split()}
    assert len(first) == 2
    assert service.add("shared", "jazz-0")

    def histories() -> list[int]:
        found = []
        for _ in range(8):  # connections of their own, which either worker may take
            answer = httpx.get(f"{service.url}/api/v1/user", params={"user_id": "shared"})
            found.append(len(answer.json()["history"]))
        return found

    assert histories() == [1] * 8
    os.kill(min(first), signal.SIGKILL)
    service.until(lambda: len({int(pid) for pid in children.read_text().split()} - first) == 1)
    assert histories() == [1] * 8
    figures = service.http.get("/api/v1/metrics").text
    assert 'route="/user"' in figures
    assert service.stop() == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--store", "nothing"], "there is no store at nothing"),
        (["--store", "STORE", "--model", "nothing"], "there is no model at nothing"),
        (["--store", "STORE", "--host", "0.0.0.0"], "set a token"),
        (["--store", "STORE", "--token-file", "nothing"], "cannot be read as a token"),
        (["--store", "STORE", "--state", "/dev/null/state"], "live interactions cannot be kept"),
    ],
)
def test_what_cannot_be_served_is_one_line(
    served: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    options = [str(served / "store") if option == "STORE" else option for option in options]
    options += [] if "--state" in options else ["--state", str(tmp_path / "state.sqlite")]
    assert main(["serve", "--port", "0", *options]) == 1
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_workers_that_cannot_start_end_the_service(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mmrec", "serve", "--store", "nothing", "--port", "0", "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment(), timeout=120)
    assert done.returncode == 1
    assert "there is no store at nothing" in done.stderr
    assert "cannot start" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_small_answers_are_sent_at_once() -> None:
    """asyncio turns Nagle's algorithm off for sockets that say that they are TCP, and for no others."""
    with listen(ServiceConfig(store="store", port=0)) as listening:
        assert listening.proto == socket.IPPROTO_TCP


def test_a_port_that_is_taken_is_named(served: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--store", str(served / "store"), "--port", port]) == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--token", "secret-of-the-house"], ["--token=secret-of-the-house"]])
def test_no_log_holds_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    log = tmp_path / "log.txt"
    command = ["serve", "--store", "nothing", "--state", str(tmp_path / "s"), "--port", "0", "--log-file", str(log)]
    monkeypatch.setattr(sys, "argv", ["mmrec", *command, *words])
    assert main([*command, *words]) == 1
    assert "mmrec serve" in log.read_text() and "--token" in log.read_text()
    assert "secret" not in log.read_text()
