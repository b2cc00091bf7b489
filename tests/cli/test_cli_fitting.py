"""How `fit` behaves while it runs: it says how far it is, stops when it is told to, and goes on afterwards."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import item_ids, planted, watched, with_times, write_csv, write_store

from mmrec.cli import main
from mmrec.evaluation.interactions import write_interactions
from mmrec.recommending.recommender import Recommender

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = "{dim: 16, num_heads: 2, batch_size: 64, learning_rate: 0.02, input_dropout: 0.1, max_epochs: %d}"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, interactions with and without times, and settings of a short fit and of one that takes minutes."""
    folder = tmp_path_factory.mktemp("work")
    write_store(folder / "store", planted(item_ids()))
    train, validation = watched()
    write_csv(folder / "train.csv", train)
    write_csv(folder / "validation.csv", validation)
    write_interactions(with_times(train), folder / "log.parquet")
    (folder / "short.yaml").write_text(SETTINGS % 3)
    (folder / "long.yaml").write_text(SETTINGS % 4000)
    return folder


def words_of(work: Path, model: Path, *, settings: str = "short", train: str = "train.csv") -> list[str]:
    words = ["fit", "--store", work / "store", "--interactions", work / train, "--model", model,
             "--config", work / f"{settings}.yaml"]  # fmt: skip
    return [str(word) for word in words]


def start(words: list[str], **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "mmrec", *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options
    )


@pytest.fixture
def running(work: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A long fit that has finished some epochs."""
    process = start([*words_of(work, tmp_path / "model", settings="long"), "--json"])
    limit = time.monotonic() + 200
    while not list(tmp_path.rglob("*.ckpt")) and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.1)
    yield process
    process.kill()
    process.communicate()


def test_progress_is_told_in_lines(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mmrec.cli.progress.SECONDS_BETWEEN_LINES", 0.0)
    words = [*words_of(work, tmp_path / "model"), "--validation", str(work / "validation.csv"), "--json"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    lines = [line.split(maxsplit=3)[3] for line in err.splitlines() if " fitting: " in line]
    total = json.loads(out)["epochs"] * 5
    assert len(lines) == total
    pattern = r"fitting: step (\d+) of (\d+), epoch (\d), \d+ s, at most \d+ s left(, validation Recall@20 \d\.\d{4})?"
    found = [re.fullmatch(pattern, line) for line in lines]
    assert [match and match.group(1) for match in found] == [str(step) for step in range(1, total + 1)]
    assert {match and match.group(2) for match in found} == {str(total)}
    assert found[0] and not found[0].group(4) and found[-1] and found[-1].group(4) and found[-1].group(3) == "3"


def test_a_short_fit_says_nothing_of_its_progress(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words_of(work, tmp_path / "model", train="log.parquet")) == 0
    out, err = capsys.readouterr()
    assert "fitting" not in err and "40 items, 80 users, 3 epochs" in out
    assert re.search(r"order +by time", out) and re.search(r"softmax +over the whole catalog", out)


def test_signals_are_those_of_before_afterwards(work: Path, tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert main(words_of(work, tmp_path / "model")) == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_fit_which_then_goes_on(
    running: subprocess.Popen[str], work: Path, tmp_path: Path, number: signal.Signals
) -> None:
    started = time.monotonic()
    running.send_signal(number)
    out, err = running.communicate(timeout=60)
    assert time.monotonic() - started < 30
    assert running.returncode == 1 and out == ""
    last = [line for line in err.splitlines() if " fitting: " not in line]
    stopped = re.fullmatch(r"mmrec: error: the fit was stopped in epoch (\d+).*", "\n".join(last))
    assert stopped, err
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    assert not (tmp_path / "model" / "current").exists()
    if number == signal.SIGINT:
        return
    again = start(words_of(work, tmp_path / "model", settings="long"))
    written, limit = checkpoint.stat().st_mtime_ns, time.monotonic() + 200
    while checkpoint.stat().st_mtime_ns == written and again.poll() is None and time.monotonic() < limit:
        time.sleep(0.1)
    again.terminate()
    _, err = again.communicate(timeout=60)
    later = re.search(r"stopped in epoch (\d+)", err)
    assert again.returncode == 1 and later and int(later.group(1)) >= int(stopped.group(1)), err


@pytest.mark.timeout(900)  # two processes start
def test_two_processes_share_a_fit_and_stop_together(work: Path, tmp_path: Path) -> None:
    """As of a terminal, which tells all processes of a command at once."""
    words = [*words_of(work, tmp_path / "model", settings="long"), "--devices", "2"]
    process = start(words, start_new_session=True)
    limit = time.monotonic() + 500
    while not list(tmp_path.rglob("*.ckpt")) and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    others = [child for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    assert others
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    said = [line for line in err.splitlines() if " fitting: " not in line]
    assert re.fullmatch(r"mmrec: error: the fit was stopped in epoch \d+.*", "\n".join(said)), err
    assert list(tmp_path.rglob("*.ckpt"))
    assert not any(Path(f"/proc/{child}").exists() for child in others)


def test_a_fit_that_goes_on_ends_as_one_that_was_not_stopped(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a user sees it: the same command again."""
    assert main([*words_of(work, tmp_path / "whole"), "--json"]) == 0
    monkeypatch.setattr("mmrec.cli.progress.SECONDS_BETWEEN_LINES", 0.0)

    def stop_in_second_epoch(_: str, words: str) -> None:
        if words.startswith("fitting: step 6 "):
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr("mmrec.cli.progress.logger.info", stop_in_second_epoch)
        assert main([*words_of(work, tmp_path / "stopped"), "--json"]) == 1
    capsys.readouterr()
    assert list(tmp_path.rglob("*.ckpt"))
    assert main([*words_of(work, tmp_path / "stopped"), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["epochs"] == 3 and " fitting: step 6 of 15, epoch 2" in err.splitlines()[0]
    vectors = [Recommender.load(tmp_path / name).item_vectors[1] for name in ("whole", "stopped")]
    assert np.allclose(vectors[0], vectors[1], atol=1e-5) and not list(tmp_path.rglob("*.ckpt"))


def test_a_process_prints_its_answer_alone_and_exits(work: Path, tmp_path: Path) -> None:
    process = start([*words_of(work, tmp_path / "model"), "--json"])
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0 and json.loads(out)["epochs"] == 3
    assert err == ""
