"""A store is understood item by item: nothing is asked twice, nothing that is known is lost, words become text."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import about, asked_about, chat_server
from media_files import write_sound, write_video

import mmrec
from mmrec.cli import main
from mmrec.errors import ChatError, Reason
from mmrec.store import Finding, Findings
from mmrec.understanding import Budget, ServerChat, estimate, understand
from mmrec.understanding.asking import PUT_SECONDS
from mmrec.understanding.weights import weights_digest

PRESET = """
visual: {kind: descriptors}
text: {kind: hashed-ngrams}
frames: {mode: uniform, count: 2}
"""


@pytest.fixture
def store(tmp_path: Path) -> mmrec.FeatureStore:
    (tmp_path / "preset.yaml").write_text(PRESET)
    rows = "".join(f"i{n},Title {n}\n" for n in range(12))
    (tmp_path / "catalog.csv").write_text("item_id,title\n" + rows)
    return embedded(tmp_path)


def embedded(folder: Path) -> mmrec.FeatureStore:
    mmrec.embed(folder / "catalog.csv", folder / "store", preset=folder / "preset.yaml", workers=1)
    return mmrec.FeatureStore(folder / "store")


def by_title(body: dict[str, Any], number: int) -> str:
    return about(asked_about(body)["title"])


def test_each_item_is_asked_about_once_however_often_it_is_run(store: mmrec.FeatureStore) -> None:
    with chat_server(by_title) as server:
        model = ServerChat("fake", url=server.url)
        first, second = understand(store, model=model), understand(store, model=model)
        assert (first.found["about"], first.tokens_read, second.known["about"]) == (12, 1200, 12)
        assert len(server.requests) == 12
        understand(store, model=model, language="de")
        assert len(server.requests) == 24
    found = Findings(store).of(["i3"])["i3"]["about"]
    assert found.value["topic"] == "Title 3"
    assert found.made_by == "fake"


def test_a_run_that_ends_early_goes_on_without_asking_again(store: mmrec.FeatureStore) -> None:
    def fails_later(body: dict[str, Any], number: int) -> Any:
        return by_title(body, number) if number <= 5 else (401, {"error": {"message": "x"}})

    with chat_server(fails_later) as server, pytest.raises(ChatError):
        understand(store, model=ServerChat("fake", url=server.url, concurrency=1))
    with chat_server(by_title) as server:
        report = understand(store, model=ServerChat("fake", url=server.url))
        assert (report.known["about"], report.found["about"], len(server.requests)) == (5, 7, 7)


def test_a_killed_run_goes_on_without_asking_twice(store: mmrec.FeatureStore) -> None:
    running: list[subprocess.Popen[bytes]] = []

    def slow_then_kills(body: dict[str, Any], number: int) -> Any:
        if len(Findings(store).keys("about")) >= 2:
            running[0].kill()
            return "drop"
        time.sleep(PUT_SECONDS)
        return by_title(body, number)

    with chat_server(slow_then_kills) as server:
        words = ["understand", "--store", str(store.folder), "--tasks", "about", "--model", "fake"]
        command = [sys.executable, "-m", "mmrec", *words, "--server", server.url, "--concurrency", "1"]
        running.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        assert running[0].wait() == -signal.SIGKILL
    answered = Findings(store).keys("about").keys()
    with chat_server(by_title) as server:
        report = understand(store, model=ServerChat("fake", url=server.url))
        again = [asked_about(body)["title"] for body in server.requests]
    assert len(answered) >= 2
    assert (report.known["about"], report.found["about"]) == (len(answered), 12 - len(answered))
    assert sorted(again) == sorted(f"Title {n}" for n in range(12) if f"i{n}" not in answered)


def test_what_a_model_cannot_do_is_a_reason_and_is_tried_again_only_when_asked(store: mmrec.FeatureStore) -> None:
    def reply(body: dict[str, Any], number: int) -> Any:
        return "no" if asked_about(body)["title"] == "Title 7" else by_title(body, number)

    with chat_server(reply) as server:
        model = ServerChat("fake", url=server.url)
        report = understand(store, model=model)
        assert report.reasons == {Reason.INVALID_ANSWER: 1}
        assert understand(store, model=model).known["about"] == 12
        assert understand(store, model=model, retry_failed=True).failed["about"] == 1
    assert Findings(store).problems("about")["i7"].reason == Reason.INVALID_ANSWER


def test_a_budget_ends_the_asking_and_the_rest_is_counted(store: mmrec.FeatureStore) -> None:
    with chat_server(by_title) as server:
        model = ServerChat("fake", url=server.url, concurrency=1)
        report = understand(store, model=model, budget=Budget(money=0.0004, price_read=1.0, price_written=0.0))
        assert report.left["about"] == 12 - report.found["about"] > 0
        assert 4 <= len(server.requests) <= 4 + 2  # those that were on their way
        assert report.cost == pytest.approx(1e-4 * len(server.requests))
        assert understand(store, model=model).found["about"] == report.left["about"]
    with pytest.raises(ChatError, match="price"):
        Budget(money=1.0)


def test_a_dry_run_asks_nothing(store: mmrec.FeatureStore) -> None:
    with chat_server(by_title) as server:
        asked = estimate(store, ServerChat("fake", url=server.url), budget=Budget(price_read=1.0))
    assert asked.questions == 12
    assert asked.tokens_read > 1000
    assert not server.requests


def test_words_become_text_with_times_and_only_the_text_is_encoded_again(tmp_path: Path) -> None:
    (tmp_path / "preset.yaml").write_text(PRESET)
    write_video(tmp_path / "a.mp4", frames=48)
    (tmp_path / "catalog.csv").write_text("item_id,media,title\na,a.mp4,A clip\nb,,Nothing else\n")
    store = embedded(tmp_path)
    before = {row.item.item_id: row for row in store.features()}
    findings = Findings(store)
    heard = Finding(item_id="a", task="heard", key="1", value={"passages": [[1.0, 2.5, "It rains."]]})
    with findings.lock():
        findings.put([heard])
    report = mmrec.embed(tmp_path / "catalog.csv", tmp_path / "store", preset=tmp_path / "preset.yaml", workers=1)
    assert report.skipped == 1
    assert report.media_seconds == 0
    after = {row.item.item_id: row for row in store.features()}
    assert after["a"].tokens["text"].spans_T2.tolist() == [[0.0, 0.0], [1.0, 2.5]]
    np.testing.assert_array_equal(after["a"].tokens["visual"].vectors_TD, before["a"].tokens["visual"].vectors_TD)
    assert mmrec.embed(tmp_path / "catalog.csv", tmp_path / "store", preset=tmp_path / "preset.yaml").skipped == 2


def test_words_that_are_heard_are_found_with_their_times(tmp_path: Path) -> None:
    (tmp_path / "preset.yaml").write_text(PRESET)
    write_video(tmp_path / "a.mp4", frames=48)
    (tmp_path / "catalog.csv").write_text("item_id,media,title\na,a.mp4,A clip\nb,,Rain on the roof\n")
    store, query = embedded(tmp_path), mmrec.Query(words=["umbrella"], modalities=["text"])
    with pytest.raises(mmrec.SearchError, match="moments are found in"):
        mmrec.Searcher(store).moments(query)
    findings = Findings(store)
    passages = [[0.5, 1.0, "Good evening."], [60.0, 61.0, "Take an umbrella."]]
    with findings.lock():
        findings.put([Finding(item_id="a", task="heard", key="1", value={"passages": passages})])
    searcher = mmrec.Searcher(embedded(tmp_path))
    assert searcher.tables.is_outdated
    assert searcher.search(query)[0][0] == "a"
    assert searcher.tables.matching("umbrella", limit=5)[0][0] == "a"
    moment = searcher.moments(query)[0]
    assert (moment.item_id, moment.modality, moment.when) == ("a", "text", "01:00-01:01")


def test_a_file_that_is_away_takes_nothing_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmrec.understanding import ScreenReader

    monkeypatch.setattr(ScreenReader, "__init__", lambda self: None)
    monkeypatch.setattr(ScreenReader, "read", lambda self, frames, spans: {"passages": [[0.0, 1.0, "NEWS"]]})
    reader = ScreenReader()
    reader.name, reader.fingerprint = "screen", "1"
    (tmp_path / "preset.yaml").write_text(PRESET)
    write_video(tmp_path / "a.mp4")
    write_sound(tmp_path / "b.wav", seconds=1)
    (tmp_path / "catalog.csv").write_text("item_id,media\na,a.mp4\nb,b.wav\n")
    store = embedded(tmp_path)
    report = understand(store, screen=reader)
    assert (report.found["seen"], report.empty["seen"], report.failed["seen"]) == (1, 1, 0)
    (tmp_path / "a.mp4").rename(tmp_path / "away.mp4")
    reader.fingerprint = "2"
    assert understand(store, screen=reader).reasons == {Reason.MISSING_FILE: 1}
    assert Findings(store).of(["a"])["a"]["seen"].text == "NEWS"


@pytest.mark.parametrize("installed", [True, False])
def test_what_is_possible_is_done_and_a_line_says_what_the_rest_needs(
    store: mmrec.FeatureStore, installed: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mmrec import understanding
    from mmrec.cli import understanding as command

    class Reader:
        name = fingerprint = "reader"

    monkeypatch.setattr(command, "find_spec", lambda name: object() if installed else None)
    monkeypatch.setattr(understanding, "ScreenReader", Reader)
    with chat_server(by_title) as server:
        asked = ["understand", "--store", str(store.folder), "--model", "fake", "--server", server.url, "--json"]
        assert main(asked) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["found"] == {"about": 12}
    assert "heard (--speech-model)" in printed.err
    assert ("seen (pip install 'mmrec[ocr]')" in printed.err) is not installed
    if not installed:
        assert main(["understand", "--store", str(store.folder)]) == 1


def test_what_was_found_out_leaves_with_its_item(store: mmrec.FeatureStore) -> None:
    with chat_server(by_title) as server:
        understand(store, model=ServerChat("fake", url=server.url))
    store.prune(["i1", "i2"])
    assert sorted(Findings(store).keys("about")) == ["i1", "i2"]


def test_other_weights_under_the_same_name_are_another_model(tmp_path: Path) -> None:
    models = [tmp_path / name / "whisper" for name in "ab"]
    for number, folder in enumerate(models):
        folder.mkdir(parents=True)
        (folder / "model.bin").write_bytes(bytes([number]) * 4_000_000)
    assert weights_digest(str(models[0])) != weights_digest(str(models[1]))
    assert weights_digest("small") == "hub:small"


def test_a_second_run_at_the_same_time_is_refused(store: mmrec.FeatureStore) -> None:
    refused = pytest.raises(mmrec.StoreError, match="by another process")
    with Findings(store).lock(), chat_server(by_title) as server, refused:
        understand(store, model=ServerChat("fake", url=server.url))


def test_without_a_model_there_is_nothing_to_do(store: mmrec.FeatureStore) -> None:
    with pytest.raises(ChatError, match="nothing to find out by"):
        understand(store)


def test_the_command_says_what_it_found_and_what_it_cost(
    store: mmrec.FeatureStore, capsys: pytest.CaptureFixture[str]
) -> None:
    with chat_server(by_title) as server:
        asked = ["understand", "--store", str(store.folder), "--model", "fake", "--server", server.url]
        options = ["--tasks", "about", "--price-read", "1"]
        assert main([*asked, *options, "--dry-run"]) == 0
        assert "12 questions" in capsys.readouterr().out
        assert main([*asked, *options]) == 0
        assert "1200 tokens read, 240 written, 0.0012 in money" in capsys.readouterr().out
        assert main([*asked, *options, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["known"] == {"about": 12}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tasks", "herd"], "expected some of heard, seen, about"),
        (["--tasks", "heard"], "--speech-model"),
        (["--tasks", "about"], "--model"),
        (["--tasks", "about", "--model", "no/such/model"], "cannot be loaded"),
        (["--tasks", "heard", "--speech-model", "no/such/model"], "speech"),  # cannot be loaded, or has no package
        (["--tasks", "about", "--model", "m", "--server", "ftp://x"], "expected http"),
        (["--tasks", "seen", "--dry-run"], "name one by --model"),
    ],
)
def test_wrong_options_are_one_clear_line(
    store: mmrec.FeatureStore, options: list[str], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["understand", "--store", str(store.folder), *options]) == 1
    assert words in caplog.text
