"""The commands that list, take back and change models, and the picture of an evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from planted import item_ids, planted, watched, write_csv, write_store

from mmrec.cli import main
from mmrec.recommending.recommender import Recommender

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    write_store(folder / "store", planted([*item_ids(), "jazz-50"]))
    train, validation = watched()
    write_csv(folder / "train.csv", train)
    write_csv(folder / "validation.csv", validation)
    (folder / "fit.yaml").write_text("{dim: 16, num_heads: 2, batch_size: 64, learning_rate: 0.02, max_epochs: 1}")
    return folder


def test_the_life_of_a_model(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: object) -> str:
        capsys.readouterr()
        assert main([str(word) for word in words]) == 0
        return capsys.readouterr().out

    def fails(*words: object) -> str:
        capsys.readouterr()
        assert main([str(word) for word in words]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        return err

    model, store = tmp_path / "model", work / "store"
    fit = ["fit", "--store", store, "--interactions", work / "train.csv", "--model", model, "--config",
           work / "fit.yaml"]  # fmt: skip
    run(*fit, "--validation", work / "validation.csv")
    assert json.loads(run(*fit, "--keep", 5, "--json"))["version"] == 2
    first, second = json.loads(run("models", "--model", model, "--json"))
    assert first["validation"]["val_recall@20"] > 0 and second["validation"] == {} and second["is_current"]
    listed = run("models", "--model", model).splitlines()
    assert listed[0].startswith("     1  ") and "41 items, 80 users  val_recall@20" in listed[0]
    assert listed[1].startswith("*    2  ")
    assert "version 1 is the current one" in run("rollback", "--model", model)
    assert "no version before 1" in fails("rollback", "--model", model)
    assert "no version 7" in fails("rollback", "--model", model, "--version", 7)

    (tmp_path / "items.txt").write_text("jazz-50\nrain-00\n")
    assert "2 items removed" in run("remove-items", "--model", model, "--items", tmp_path / "items.txt")
    assert len(Recommender.load(model).item_ids) == 39
    answer = run("update-items", "--model", model, "--store", store, "--items", "jazz-50", "rain-00", "jazz-00")
    assert "1 items made anew, 2 joined; in" in answer and answer.endswith("as version 4\n")
    assert "no item 'nix'" in fails("remove-items", "--model", model, "--items", "nix")
    assert len(json.loads(run("models", "--model", model, "--json"))) == 3
    assert "all earlier versions deleted" in run("forget-user", "--model", model, "--user", "user03")
    assert [version["users"] for version in json.loads(run("models", "--model", model, "--json"))] == [79]
    assert "no user 'user03'" in fails("forget-user", "--model", model, "--user", "user03")


def test_a_store_is_no_model_and_a_model_no_store(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = ["fit", "--store", work / "store", "--model", tmp_path / "model", "--config", work / "fit.yaml"]
    assert main([str(word) for word in fit]) == 0
    for words, complaint in (
        (["models", "--model", work / "store"], "is a feature store, not a model"),
        (["remove-items", "--items", "x", "--model", work / "store"], "is a feature store, not a model"),
        (["status", "--store", tmp_path / "model"], "is a fitted model, not a store"),
        (["recommend", "--all", "--model", tmp_path / "model"], "fitted without interactions: it knows no users"),
    ):
        capsys.readouterr()
        assert main([str(word) for word in words]) == 1
        assert complaint in capsys.readouterr().err
    assert not list((work / "store").glob("*lock*.lock"))


@pytest.fixture
def evaluate(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> list[Any]:
    """The words that evaluate a model, which is fitted."""
    fit = ["fit", "--store", work / "store", "--interactions", work / "train.csv", "--model", tmp_path / "model",
           "--config", work / "fit.yaml"]  # fmt: skip
    assert main([str(word) for word in fit]) == 0
    capsys.readouterr()
    return ["evaluate", "--model", tmp_path / "model", "--interactions", work / "validation.csv",
            "--baselines", "popularity"]  # fmt: skip


def test_an_evaluation_is_printed(evaluate: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(word) for word in evaluate]) == 0
    out = capsys.readouterr().out
    assert "cold items, without any interaction in training:" in out and "its own" in out
    recall = out.partition("its own")[2].splitlines()[1].split()
    assert recall[0] == "recall@20" and 0 < float(recall[1]) < 1 and recall[2][0] in "+-"


def test_an_evaluation_is_drawn(evaluate: list[Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name, start in (("plot.png", b"\x89PNG"), ("plot.svg", b"<?xml")):
        assert main([str(word) for word in [*evaluate, "--plot", tmp_path / name]]) == 0
        assert (tmp_path / name).read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("plot.gif", "end in .png or .svg"), ("no/plot.png", "there is no folder"), ("plot.png", "[plots]")],
)
def test_a_plot_that_cannot_be_is_refused_before_the_work(
    name: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mmrec.cli.evaluating.find_spec", lambda _: None)
    words = ["evaluate", "--model", "nowhere", "--interactions", "none.csv", "--plot", str(tmp_path / name)]
    assert main(words) == 1
    assert complaint in capsys.readouterr().err
