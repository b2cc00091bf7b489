"""What is said where: warnings, progress with times, and a log file that has it all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from embedding_jobs import words_only

from mmrec.cli import main

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return words_only(tmp_path, 20)


@pytest.mark.usefixtures("words")
def test_progress_off_a_terminal_has_times_a_rate_and_what_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mmrec.cli.progress.SECONDS_BETWEEN_LINES", 0.0)
    assert main(["embed", "catalog.csv", "--store", "s", "--preset", "small.yaml", "--log-file", "logs/mmrec.log"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(rf"mmrec: {TIME} embedding: 10 of 20, [\d.]+ a second, \d+ s left, 0 failed", lines[10])
    assert main(["recommend", "--model", "nowhere", "--all", "--log-file", "logs/mmrec.log"]) == 1
    written = Path("logs/mmrec.log").read_text(encoding="utf-8").splitlines()
    assert all(re.match(rf"{TIME} (INFO|ERROR|WARNING) ", line) for line in written)
    assert any("embedding: 10 of 20" in line for line in written)
    assert any("EmbedReport(20 items: 20 ok" in line for line in written)
    assert "error: " in written[-1] and "nowhere" in written[-1]


def test_a_log_file_that_cannot_be_written_is_said_at_once(words: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", "catalog.csv", "--store", "s", "--log-file", str(words / "catalog.csv" / "x.log")]) == 1
    assert re.fullmatch(r"mmrec: error: the log file .*x.log cannot be written: .*", capsys.readouterr().err.strip())
    assert not (words / "s").exists()
