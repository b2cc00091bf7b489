"""Users shared out among the processes of a cluster get the lists that they get here, in the same order."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from planted import quick, watched, with_times

from mmrec.cli import main
from mmrec.cluster import uses_ray
from mmrec.errors import ModelError
from mmrec.recommending import Recommender, recommend_in_blocks, write_recommendations
from mmrec.store.feature_store import FeatureStore

ray = pytest.importorskip("ray")

from mmrec.cluster import connected, run_in_order  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def cluster(one_thread: None) -> Iterator[None]:
    """Two processors for all tests of this file: a start takes seconds."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_worker_niceness", "0")  # else whatever else runs goes before them
        with connected(workers=2):
            yield


@pytest.fixture(scope="module")
def model(planted_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fitted") / "model"
    quick(planted_store, with_times(watched([])[0])).save(path)
    return path


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmrec.recommending.recommendations.USERS_AT_ONCE", 7)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_the_files_are_those_of_this_machine(model: Path, tmp_path: Path, suffix: str) -> None:
    for engine in ("local", "ray"):
        options = [
            "--k",
            "5",
            "--diversity",
            "0.2",
            "--explore-share",
            "0.2",
            "--where",
            "kind=rain",
            "--where",
            "kind=jazz",
        ]
        out = tmp_path / f"{engine}.{suffix}"
        assert main(["recommend", "--model", str(model), "--all", "--engine", engine, "--out", str(out), *options]) == 0
    assert (tmp_path / f"ray.{suffix}").read_bytes() == (tmp_path / f"local.{suffix}").read_bytes()
    assert len((tmp_path / f"ray.{suffix}").read_bytes()) > 1000


def test_the_lines_and_warnings_are_those_of_this_machine(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    users = [*Recommender.load(model).user_ids[::-3], "a stranger"]
    (tmp_path / "users.txt").write_text("\n".join(users), encoding="utf-8")
    said = []
    for engine in ("local", "ray"):
        capsys.readouterr()
        caplog.clear()
        command = ["recommend", "--model", str(model), "--users", str(tmp_path / "users.txt"), "--engine", engine]
        assert main([*command, "--k", "4", "--json"]) == 0
        said.append((capsys.readouterr().out, [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]))
    assert said[0] == said[1]
    assert len(said[1][0].splitlines()) == len(users)
    assert "a stranger" in "".join(said[1][1])


def test_what_is_refused_there_is_refused_here(model: Path, tmp_path: Path) -> None:
    fitted = Recommender.load(model)
    with pytest.raises(ModelError, match="the catalog has no column 'colour'"):
        write_recommendations(fitted, fitted.user_ids, tmp_path / "a.csv", engine="ray", where={"colour": "red"})
    assert not list(tmp_path.iterdir())
    assert list(recommend_in_blocks(fitted, [], engine="ray")) == []


def test_a_part_whose_process_dies_is_run_again_and_none_is_taken_early(tmp_path: Path) -> None:
    assert uses_ray("ray")
    taken: list[int] = []

    def parts() -> Iterator[int]:
        for number in range(40):
            taken.append(number)
            yield number

    def square(number: int) -> int:
        if number == 3 and not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number**2

    found = run_in_order(square, parts())
    assert next(found) == 0
    assert len(taken) == 4, "twice as many as there are processors"
    assert list(found) == [number**2 for number in range(1, 40)]
    assert (tmp_path / "died").exists()
