"""What must hold when the job is killed, stopped, crowded out or out of disk: tried on the real command."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from media_files import write_image, write_sound, write_video

from mmrec.store.feature_store import FeatureStore
from mmrec.store.features import Features

PRESET = "visual: {kind: descriptors}\ntext: {kind: hashed-ngrams}\nframes: {count: 4}\n"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough rows for several commits, few enough files for a quick run."""
    folder = tmp_path_factory.mktemp("catalog")
    for number in range(6):
        write_video(folder / f"{number}.mp4", frames=24 + number)
    (folder / "broken.mp4").write_bytes((folder / "0.mp4").read_bytes()[:500])
    (folder / "preset.yaml").write_text(PRESET)
    with open(folder / "catalog.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["item_id", "media", "title"])
        for number in range(6000):
            writer.writerow(
                [f"item '{number}'", f"{number % 6}.mp4" if number % 400 == 0 else "", f"title {number} 标题"]
            )
        writer.writerow(["broken", "broken.mp4", ""])
        writer.writerow(["missing", "missing.mp4", "a title"])
    return folder / "catalog.csv"


def command(catalog: Path, store: Path, *options: str) -> list[str]:
    preset = str(catalog.parent / "preset.yaml")
    return [sys.executable, "-m", "mmrec", "embed", str(catalog), "--store", str(store), "--preset", preset, *options]


def run(catalog: Path, store: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(catalog, store, *options), capture_output=True, text=True, timeout=120, check=False)


def rows(store: Path) -> dict[str, Features]:
    found = FeatureStore(store)
    features = {f.item.item_id: f for f in found.features()}
    assert len(features) == len(found), "no row stands twice"
    return features


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def has_committed(store: Path) -> bool:
    """Whether there is a version of the rows besides the empty one."""
    return len(list((store / "items.lance" / "_versions").glob("*.manifest"))) > 1


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def is_alive(pid: int) -> bool:
    """A process that died, but whose parent has not asked for it yet, is not alive."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


def test_killed_at_any_moment_then_run_again_ends_as_if_undisturbed(catalog: Path, tmp_path: Path) -> None:
    assert run(catalog, tmp_path / "calm").returncode == 0
    killed = tmp_path / "killed"
    for early in (True, False):
        process = subprocess.Popen(command(catalog, killed), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_until(lambda early=early: killed.exists() if early else has_committed(killed))  # type: ignore[misc]
        children = children_of(process.pid)
        process.kill()
        process.wait()
        wait_until(lambda children=children: not any(map(is_alive, children)), 60.0)  # type: ignore[misc]
    report = json.loads(run(catalog, killed, "--json").stdout)
    assert report["items"] == 6002
    assert report["skipped"] >= 2048, "what was committed before the kill is not done again"
    calm, again = rows(tmp_path / "calm"), rows(killed)
    assert calm.keys() == again.keys()
    for item_id, features in calm.items():
        assert features.status == again[item_id].status
        assert features.problems == again[item_id].problems
        assert features.tokens.keys() == again[item_id].tokens.keys()
        for modality, tokens in features.tokens.items():
            np.testing.assert_allclose(tokens.vectors_TD, again[item_id].tokens[modality].vectors_TD, atol=1e-5)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_job_keeps_what_is_done_and_says_how_to_go_on(
    catalog: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    process = subprocess.Popen(
        command(catalog, tmp_path / "store"), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    wait_until(lambda: has_committed(tmp_path / "store"))
    children = children_of(process.pid)
    process.send_signal(stop)
    start = time.monotonic()
    _, errors = process.communicate(timeout=90)
    assert time.monotonic() - start < 30
    wait_until(lambda: not any(map(is_alive, children)), 60.0)
    if process.returncode != 0:  # a quick machine may have been done
        assert process.returncode == 1
        assert "run the same command again to go on" in errors.splitlines()[-1]
        assert "Traceback" not in errors
    assert len(FeatureStore(tmp_path / "store")) >= 2048


def test_ctrl_c_while_the_workers_start_says_one_line(catalog: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(catalog, tmp_path / "store"),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    wait_until(lambda: len(children_of(process.pid)) > 1)  # a worker beside multiprocessing's own tracker
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 1
    assert [line for line in errors.splitlines() if not line.startswith("mmrec:")] == []
    assert errors.splitlines()[-1].endswith(
        "interrupted; what was embedded is stored: run the same command again to go on"
    )


def test_a_second_job_on_the_same_store_is_refused_in_one_line(catalog: Path, tmp_path: Path) -> None:
    with FeatureStore(tmp_path / "store", create=True).lock():
        second = run(catalog, tmp_path / "store")
    assert second.returncode == 1
    assert second.stderr.splitlines()[-1].startswith("mmrec: error:")
    assert "another job" in second.stderr
    assert len(FeatureStore(tmp_path / "store")) == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_error_and_the_store_still_opens(catalog: Path, small_disk: Path) -> None:
    full = run(catalog, small_disk / "store")
    assert full.returncode == 1
    assert "Traceback" not in full.stderr
    assert "No space left on device" in full.stderr
    store = FeatureStore(small_disk / "store")
    assert len(store) == len(list(store.features())) < 6002


def test_a_read_only_folder_is_one_error(catalog: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    refused = run(catalog, small_disk / "store")
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith("mmrec: error: store")
    assert "Traceback" not in refused.stderr


def test_media_without_permission_is_the_items_own_failure(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (write_image(tmp_path / "a.png")).chmod(0)
    (tmp_path / "preset.yaml").write_text(PRESET)
    (tmp_path / "catalog.csv").write_text("item_id,media\na,a.png\n")
    run(tmp_path / "catalog.csv", tmp_path / "store")
    assert rows(tmp_path / "store")["a"].problems["visual"].reason == "not_readable"


def test_black_silent_and_tiny_inputs_give_finite_vectors(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "black.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    write_sound(tmp_path / "silent.wav", seconds=3.0, frequency=0.0)
    write_image(tmp_path / "dot.png", size=(1, 1))
    (tmp_path / "catalog.csv").write_text("item_id,media,title\nb,black.mp4,\ns,silent.wav,\nd,dot.png,\nt,,.\n")
    command = [sys.executable, "-m", "mmrec", "embed", "catalog.csv", "--store", "store", "--preset", "light", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=True)
    assert json.loads(done.stdout)["ok"] == 4
    for features in rows(tmp_path / "store").values():
        for tokens in features.tokens.values():
            assert np.isfinite(tokens.vectors_TD).all()
