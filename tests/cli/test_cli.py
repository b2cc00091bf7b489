"""The commands that make and read stores, as a shell runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from media_files import write_image, write_video

from mmrec.cli import main

PRESET = "visual: {kind: descriptors}\ntext: {kind: hashed-ngrams}\nframes: {count: 2}\n"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mmrec", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog of four rows, one of them without a file, embedded into `store`."""
    folder = tmp_path_factory.mktemp("cli")
    write_video(folder / "a.mp4", frames=12)
    write_image(folder / "b.png")
    (folder / "preset.yaml").write_text(PRESET)
    (folder / "catalog.csv").write_text("item_id,media,title\na,a.mp4,A clip\nb,b.png,\nc,c.mp4,\nd,,仅文字\n", "utf-8")
    return folder


@pytest.fixture(scope="module")
def embedded(folder: Path) -> subprocess.CompletedProcess[str]:
    options = ("--preset", folder / "preset.yaml", "--max-failures", "0.3", "--json")
    return run("embed", folder / "catalog.csv", "--store", folder / "store", *options)


def test_embed_prints_one_object_and_nothing_else(embedded: subprocess.CompletedProcess[str]) -> None:
    assert embedded.returncode == 0, embedded.stderr
    assert len(embedded.stdout.splitlines()) == 1
    report = json.loads(embedded.stdout)
    assert (report["items"], report["ok"], report["failed"], report["skipped"]) == (4, 3, 1, 0)
    assert set(report["stage_seconds"]) == {"start", "decode", "visual", "audio", "text", "write", "wait"}
    assert report["encoders"]["visual"].keys() == {"name", "dim", "fingerprint"}
    assert report["reasons"]["missing_file"] == 1


def test_too_many_failures_are_an_error_after_everything_is_stored(folder: Path, tmp_path: Path) -> None:
    done = run("embed", folder / "catalog.csv", "--store", tmp_path / "s", "--preset", folder / "preset.yaml")
    assert done.returncode == 1
    assert "1 of 4 items failed" in done.stderr.splitlines()[-1]
    assert json.loads(run("status", "--store", tmp_path / "s", "--json").stdout)["items"] == 4


def test_status(folder: Path, embedded: subprocess.CompletedProcess[str]) -> None:
    status = json.loads(run("status", "--store", folder / "store", "--json").stdout)
    assert status["statuses"] == {"ok": 3, "partial": 0, "failed": 1, "stale": 0}
    assert status["reasons"]["visual"] == {"missing_file": 1, "no_media": 1}
    shown = run("status", "--store", folder / "store").stdout
    assert "4 items: 3 ok, 0 partial, 1 failed" in shown and "descriptors" in shown


def test_export(folder: Path, embedded: subprocess.CompletedProcess[str], tmp_path: Path) -> None:
    done = run("export", "--store", folder / "store", "--out", tmp_path, "--format", "parquet", "--json")
    (path,) = json.loads(done.stdout)["files"]
    assert sorted(pq.read_table(path)["item_id"].to_pylist()) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["embed", "nowhere.csv", "--store", "s"], "there is no catalog at nowhere.csv"),
        (["embed", ".", "--store", "s", "--preset", "heavy"], "there is no preset 'heavy'"),
        (["status", "--store", "nowhere"], "there is no store at nowhere"),
        (["export", "--store", "nowhere", "--out", "o", "--format", "npy"], "there is no store at nowhere"),
        (["recommend", "--model", "nowhere", "--all"], "there is no model at nowhere"),
        (["embed", "hdfs://host/c.csv", "--store", "s"], "hdfs://host/c.csv cannot be reached: expected a local path"),
        (["embed", ".", "--store", "http://host/s"], "or one of s3://, gs://, az://, https://"),
        (["export", "--store", "s", "--out", "ftp://host/o", "--format", "npy"], "ftp://host/o cannot be reached"),
        (["recommend", "--model", "hdfs://host/m", "--all"], "hdfs://host/m cannot be reached"),
        (["recommend", "--model", "s3://bucket/m", "--all"], "s3://bucket/m is a URL: only local paths"),
    ],
)
def test_failure_is_one_line_and_exit_status_one(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("mmrec: error: ") and len(shown.err.splitlines()) == 1
    assert words in shown.err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["embed"],
        ["embed", "catalog.csv"],
        ["embed", "c", "--store", "s", "--timeout", "nan"],
        ["embed", "c", "--store", "s", "--max-failures", "2"],
        ["export", "--store", "s", "--out", "o", "--format", "csv"],
        ["fly"],
    ],
)
def test_wrong_usage_is_exit_status_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: mmrec" in capsys.readouterr().err


def test_presets_are_listed_with_sizes_and_licences(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets"]) == 0
    shown = capsys.readouterr().out
    assert "hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K (605 MB, MIT)" in shown
    assert main(["presets", "--json"]) == 0
    presets = json.loads(capsys.readouterr().out)
    assert set(presets) == {"base", "descriptors", "large", "light"}
    revisions = [spec["options"]["revision"] for name in ("base", "large") for spec in presets[name].values()
                 if isinstance(spec, dict) and "kind" in spec]  # fmt: skip
    assert len(revisions) == 6 and all(len(revision) == 40 for revision in revisions)


def test_fetch_without_a_network_says_both_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    write_image(tmp_path / "a.png")
    for command in (["fetch"], ["embed", str(tmp_path), "--store", str(tmp_path / "store")]):
        done = run(*command)
        assert done.returncode == 1
        assert "laion/CLIP-ViT-B-32" in done.stderr
        assert "mmrec fetch --preset base" in done.stderr and "--preset light" in done.stderr
    assert not (tmp_path / "store").exists()
