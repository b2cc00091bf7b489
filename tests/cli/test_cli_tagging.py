"""The command that labels items."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mmrec.cli import main
from mmrec.store import FeatureStore

LABELS = """label,en
piano,slow piano music|quiet solo piano
cooking,a quick dinner|noodles and vegetables
rain,rain on the roof
"""
KINDS = ("piano", "cooking", "rain")


@pytest.fixture
def work(example_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the examples, with labels, and what people say of the first half and of all of its items."""
    folder = tmp_path / "work"
    shutil.copytree(example_folder, folder)
    monkeypatch.chdir(folder)
    Path("theme.csv").write_text(LABELS, encoding="utf-8")
    said = {f"{kind}-{number}": kind if kind in KINDS else "" for kind in (*KINDS, "football") for number in range(4)}
    rows = {item_id: f"{item_id},{kind}\n" for item_id, kind in said.items()}
    some = [row for item_id, row in rows.items() if item_id.endswith(("0", "1"))]
    Path("some.csv").write_text("item_id,label\n" + "".join(some), encoding="utf-8")
    Path("all.csv").write_text("item_id,label\n" + "".join(rows.values()), encoding="utf-8")
    return folder


def test_tags_are_shown_kept_and_filtered_by(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tag", "--store", "store", "--labels", "theme.csv", "--threshold", "0.6"]) == 0
    first, header, *rows = capsys.readouterr().out.splitlines()
    assert first.startswith("theme: ") and first.endswith("of 16 items have a label; words compared with text")
    assert header.split() == ["label", "items", "method"]
    assert [row.split()[0] for row in rows] == list(KINDS) and all(row.endswith("zero-shot") for row in rows)
    assert main(["search", "--store", "store", "music", "--where", "theme = 'piano'", "--json"]) == 0
    found = {hit["item_id"] for hit in json.loads(capsys.readouterr().out)}
    assert found == {f"piano-{number}" for number in range(4)}
    assert main(["status", "--store", "store"]) == 0
    assert "  labels: theme, 16 items\n" in capsys.readouterr().out
    assert FeatureStore("store").runs()[0].counts["items"] == 16


def test_examples_and_truth_add_columns(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["tag", "--store", "store", "--labels", "theme.csv", "--as", "kind_of", "--examples", "some.csv"]
    assert main([*command, "--evaluate", "all.csv", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["set"] == "kind_of" and report["items"] == 16 and list(report["temperatures"]) == ["text"]
    assert [row["label"] for row in report["labels"]] == list(KINDS)
    for row in report["labels"]:
        assert row["examples"] == 2 and row["positives"] == 2 and row["average_precision"] == 1.0
        losses = row["held_out_log_loss"]
        assert row["method"] == ("probe" if losses["probe"] < losses["zero-shot"] else "zero-shot")
    assert report["mean_average_precision"] == 1.0
    assert main([*command, "--evaluate", "all.csv"]) == 0
    header, *_, last = capsys.readouterr().out.splitlines()[1:]
    assert header.split() == "label items method examples average precision positives".split()
    assert last == "  mean average precision 1.000"


def test_labels_are_removed(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tag", "--store", "store", "--labels", "theme.csv"]) == 0
    assert main(["tag", "--store", "store", "--remove", "theme"]) == 0
    capsys.readouterr()
    assert main(["tag", "--store", "store", "--remove", "theme"]) == 1
    assert capsys.readouterr().err == "mmrec: error: store store has no labels 'theme': it has none\n"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--labels", "topics"], "there is no set of labels 'topics'"),
        (["--labels", "theme.csv", "--as", "kind"], "the catalog has a column 'kind'"),
        (["--labels", "theme.csv", "--examples", "nowhere.csv"], "there is no file nowhere.csv"),
        (["--labels", "theme.csv", "--evaluate", "catalog.csv"], "row 2: there is no column label"),
        (["--labels", "theme.csv", "--examples", "all.csv", "--evaluate", "all.csv"], "all items of the truth were"),
    ],
)
def test_what_is_wrong_is_one_line(
    work: Path, options: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tag", "--store", "store", *options]) == 1
    out, err = capsys.readouterr()
    assert out == "" and complaint in err and err.count("\n") == 1


def test_wrong_usage_is_two(work: Path) -> None:
    for options in ([], ["--labels", "topic", "--remove", "topic"], ["--labels", "topic", "--threshold", "2"]):
        with pytest.raises(SystemExit, match="2"):
            main(["tag", "--store", "store", *options])
