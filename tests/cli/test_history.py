"""What ran on a store, what failed in it, and how it is undone, from the command line."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
from embedding_jobs import TEXT_PRESET, word_rows, words_only, write_catalog, write_preset

from mmrec.cli import main
from mmrec.store import FeatureStore


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalog of twenty items in words, and a preset for them, in the current folder."""
    monkeypatch.chdir(tmp_path)
    return words_only(tmp_path, 20)


def embed(*options: str, monkeypatch: pytest.MonkeyPatch) -> int:
    command = ["embed", "catalog.csv", "--store", "store", "--preset", "small.yaml", "--workers", "1", *options]
    monkeypatch.setattr(sys, "argv", ["mmrec", *command])
    return main(command)


def test_runs_versions_and_restore(
    words: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed(monkeypatch=monkeypatch) == 0
    write_catalog(words / "catalog.csv", [{**row, "title": "overwritten"} for row in word_rows(20)])
    assert embed(monkeypatch=monkeypatch) == 0
    capsys.readouterr()
    assert main(["runs", "--store", "store", "--json"]) == 0
    second, first = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["command"].startswith("mmrec embed catalog.csv --store store")
    assert (first["exit"], first["counts"]["ok"], second["counts"]["ok"]) == (0, 20, 20)
    assert main(["runs", "--store", "store"]) == 0
    assert "exit 0" in capsys.readouterr().out
    assert main(["versions", "--store", "store", "--json"]) == 0
    versions = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    before = next(version["number"] for version in versions if version["tag"] == second["run_id"])
    assert main(["restore", "--store", "store", "--version", str(before)]) == 0
    assert {row.item.title for row in FeatureStore("store").features()} == {f"title number {n}" for n in range(20)}
    assert main(["restore", "--store", "store", "--version", "99"]) == 1
    assert "keeps no version 99" in capsys.readouterr().err
    assert main(["versions", "--store", "store"]) == 0
    assert "before: mmrec restore" in capsys.readouterr().out


def test_status_names_what_failed(
    words: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_preset(words / "small.yaml", TEXT_PRESET + "visual: {kind: descriptors}\n")
    rows = [*word_rows(3), {"item_id": "away", "media": "none.mp4", "title": "away"}, {"item_id": "empty"}]
    write_catalog(words / "catalog.csv", rows)
    assert embed(monkeypatch=monkeypatch) == 1
    assert "`mmrec status --failed --store store` names the items" in capsys.readouterr().err
    assert main(["status", "--failed", "--store", "store", "--json"]) == 0
    found = {(p["item_id"], p["modality"], p["reason"]) for p in map(json.loads, capsys.readouterr().out.splitlines())}
    assert ("away", "visual", "missing_file") in found and ("empty", "visual", "no_content") in found
    assert not {item_id for item_id, *_ in found} & {"0", "1", "2"}
    assert main(["status", "--failed", "--store", "store", "--out", "failures.csv"]) == 0
    with open("failures.csv", encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert {(row["item_id"], row["modality"], row["reason"]) for row in written} == found
    assert next(row for row in written if row["item_id"] == "away")["media"] == str(words / "none.mp4")


def test_counts_for_prometheus(words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    assert embed("--metrics-file", "mmrec.prom", monkeypatch=monkeypatch) == 0
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in parser.text_string_to_metric_families((words / "mmrec.prom").read_text())
        for sample in family.samples
    }
    assert samples["mmrec_embed_items", "all"] == samples["mmrec_embed_items", "ok"] == 20
    assert samples["mmrec_embed_failed",] == 0


def test_two_sets_side_by_side(
    words: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed(monkeypatch=monkeypatch) == 0
    write_preset(words / "small.yaml", TEXT_PRESET + "text_template: '$title!'\n")
    assert embed(monkeypatch=monkeypatch) == 1
    assert embed("--as", "loud", monkeypatch=monkeypatch) == 0
    capsys.readouterr()
    assert main(["status", "--store", "store", "--set", "loud"]) == 0
    assert "sets: (the first), loud" in capsys.readouterr().out
    assert main(["status", "--store", "store", "--set", "quiet"]) == 1
    assert "it has the one without a name, loud" in capsys.readouterr().err
