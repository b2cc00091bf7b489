"""The stages on Ray give what they give on this machine, whatever of the cluster dies."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from embedding_jobs import by_id, copied, run, word_rows, words_only, write_catalog, write_preset
from media_files import write_sound

from mmrec.embedding.job import EmbedReport
from mmrec.errors import EncoderError, MMRecError, StoreError
from mmrec.store.feature_store import FeatureStore

pytest.importorskip("ray")
psutil = pytest.importorskip("psutil")

from mmrec.cluster import connected  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Two processors, and some processes on each, for all tests of this file: a start takes seconds."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_worker_niceness", "0")  # else whatever else runs goes before them
        with connected(workers=2):
            yield


def assert_same_rows(one: Path, other: Path) -> None:
    ones, others = by_id(one), by_id(other)
    assert ones.keys() == others.keys()
    assert len(FeatureStore(other)) == len(others), "no row stands twice"
    for item_id, row in ones.items():
        same = others[item_id]
        assert (row.item, row.status, row.problems, row.keys) == (same.item, same.status, same.problems, same.keys)
        assert (row.fingerprints, row.facts, row.language) == (same.fingerprints, same.facts, same.language)
        assert row.tokens.keys() == same.tokens.keys()
        for modality, tokens in row.tokens.items():
            np.testing.assert_allclose(tokens.vectors_TD, same.tokens[modality].vectors_TD, atol=1e-5)
            np.testing.assert_array_equal(tokens.spans_T2, same.tokens[modality].spans_T2)


def test_both_engines_make_the_same_store_and_report(
    media_folder: Path, embedded: tuple[EmbedReport, Path], tmp_path: Path
) -> None:
    folder = copied(media_folder, tmp_path)
    local, here = run(folder, "local"), run(folder, "ray", engine="ray")
    assert_same_rows(folder / "local", folder / "ray")
    assert here.counts() == local.counts() == embedded[0].counts()
    assert here.reasons == local.reasons
    assert here.media_seconds == pytest.approx(local.media_seconds)
    assert here.encoders == local.encoders
    assert here.stage_seconds["decode"] > 0 < here.stage_seconds["write"]

    again = run(folder, "ray", engine="ray")
    assert again.skipped == local.items
    write_sound(folder / "tone.wav", seconds=2.0)
    assert run(folder, "ray", engine="ray").counts() == run(folder, "local").counts()
    assert_same_rows(folder / "local", folder / "ray")
    (folder / "tone.wav").unlink()
    lost = run(folder, "ray", engine="ray")
    assert lost.counts() == run(folder, "local").counts()
    assert lost.stale == 1
    assert {i: r.status for i, r in by_id(folder / "ray").items()} == {
        i: r.status for i, r in by_id(folder / "local").items()
    }


def test_metadata_and_items_that_left_are_treated_alike(tmp_path: Path) -> None:
    words_only(tmp_path, 40)
    run(tmp_path, engine="ray")
    rows = word_rows(30)
    rows[3]["year"], rows[4]["title"] = "1999", "another title"
    write_catalog(tmp_path / "catalog.csv", rows)
    with pytest.raises(StoreError, match=r"would delete 10 of the 40 items"):
        run(tmp_path, engine="ray", prune=True)
    report = run(tmp_path, engine="ray", prune=True, max_pruned=0.25)
    assert (report.ok, report.skipped, report.pruned) == (1, 29, 10)
    found = by_id(tmp_path / "store")
    assert found["3"].item.metadata == {"year": "1999"}
    assert found["4"].item.title == "another title"
    assert len(found) == 30


def test_what_cannot_be_is_refused_as_on_one_machine(tmp_path: Path) -> None:
    words_only(tmp_path, 4)
    run(tmp_path, engine="ray")
    write_preset(tmp_path / "small.yaml", "text: {kind: hashed-ngrams}\ntext_template: '$title!'\n")
    with pytest.raises(StoreError, match=r"--replace .* --as NAME"):
        run(tmp_path, engine="ray")
    write_preset(tmp_path / "small.yaml", "text: {kind: unknown}\n")
    with pytest.raises(EncoderError, match=r"^unknown encoder kind 'unknown'; known are"):
        run(tmp_path, engine="ray")
    with FeatureStore(tmp_path / "store").lock():
        write_preset(tmp_path / "small.yaml", "text: {kind: hashed-ngrams}\n")
        with pytest.raises(StoreError, match="another job"):
            run(tmp_path, engine="ray")
    with pytest.raises(MMRecError, match="expected 'local' or 'ray'"):
        run(tmp_path, engine="spark")
    with pytest.raises(MMRecError, match="only the engine 'ray' takes address"):
        run(tmp_path, address="auto")


def kill_workers(stage: str) -> int:
    """Kill the processes of the cluster of this file that run a stage; returns how many."""
    killed = 0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if stage in " ".join(process.cmdline()):
                process.kill()
                killed += 1
    return killed


def test_killed_tasks_and_actors_are_made_good_in_the_same_job(tmp_path: Path) -> None:
    words_only(tmp_path, 600)
    run(tmp_path, "local")
    left = ["_Encode", "_Caretaker", "_decode", "_commit"]
    killed = dict.fromkeys(left, 0)

    def kill(report: EmbedReport) -> None:
        if report.done and left and (count := kill_workers(left[0])):
            killed[left.pop(0)] = count

    report = run(tmp_path, "ray", engine="ray", progress=kill)
    assert killed["_Encode"] >= 1 <= killed["_Caretaker"]
    assert (report.ok, report.skipped, report.failed) == (600, 0, 0)
    assert_same_rows(tmp_path / "local", tmp_path / "ray")


@pytest.mark.timeout(900)  # two clusters start
def test_a_killed_job_goes_on_where_it_was(tmp_path: Path) -> None:
    words_only(tmp_path, 2000)
    run(tmp_path, "local")
    store = tmp_path / "ray"
    command = [sys.executable, "-m", "mmrec", "embed", str(tmp_path / "catalog.csv"), "--store", str(store)]
    command += ["--preset", str(tmp_path / "small.yaml"), "--engine", "ray", "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 200
    while len(list((store / "items.lance" / "_versions").glob("*.manifest"))) < 3:
        assert process.poll() is None, "it was done before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.02)
    process.kill()
    process.wait()
    stored = len(FeatureStore(store))
    report = run(tmp_path, "ray", engine="ray")
    assert report.skipped >= stored > 0, "what was committed is not done again"
    assert report.skipped + report.ok == 2000
    assert_same_rows(tmp_path / "local", store)


FROM_A_HEAD = """
import sys
import mmrec, ray
from ray.cluster_utils import Cluster
if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.add_node(num_cpus=6)  # as many as no job shares with its own machine
    ray.init(address=cluster.address, log_to_driver=False)
    catalog, store, preset = sys.argv[1:]
    mmrec.embed(catalog, store, preset=preset, engine="ray", prune=True)
    ray.shutdown()
    cluster.shutdown()
"""


@pytest.mark.timeout(600)  # two machines of a cluster start
def test_a_job_runs_from_a_machine_that_is_to_run_nothing(tmp_path: Path) -> None:
    words_only(tmp_path, 20)
    (tmp_path / "job.py").write_text(FROM_A_HEAD, encoding="utf-8")
    places = [tmp_path / name for name in ("job.py", "catalog.csv", "store", "small.yaml")]
    subprocess.run([sys.executable, *places], check=True, stdout=subprocess.DEVNULL)
    assert len(by_id(tmp_path / "store")) == 20
