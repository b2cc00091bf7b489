"""The sample catalog: what it holds, that it is the same every time, and that tastes can be learned from it."""

import csv
import subprocess
import sys
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from mmrec.sample.catalog import make_sample_catalog
from mmrec.sample.items import KINDS
from mmrec.sample.users import NUM_USERS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    assert make_sample_catalog(folder) == folder / "catalog.csv"
    return folder


@pytest.fixture(scope="module")
def items(folder):
    return read_rows(folder / "catalog.csv")


@pytest.fixture(scope="module")
def train(folder):
    return read_rows(folder / "interactions.csv")


@pytest.fixture(scope="module")
def validation(folder):
    return read_rows(folder / "interactions_validation.csv")


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def has_streams(path: Path) -> tuple[bool, bool]:
    """Whether a file's video and audio decode to something."""
    with av.open(str(path)) as container:
        streams = [stream for stream in container.streams if stream.type in ("video", "audio")]
        kinds = {type(frame).__name__ for frame in container.decode(streams)}
    return "VideoFrame" in kinds, "AudioFrame" in kinds


def test_catalog(folder, items):
    assert len(items) == len({item["item_id"] for item in items}) == 61
    assert set(Counter(item["kind"] for item in items).values()) == {6, 7}
    assert len({item["kind"] for item in items}) == len(KINDS) == 10
    assert 0.3 < sum(item["language"] == "zh" for item in items) / len(items) < 0.4
    assert all(any("\u4e00" <= letter <= "\u9fff" for letter in i["title"]) for i in items if i["language"] == "zh")
    assert any("slow piano" in item["title"].lower() and item["kind"] == "slow_piano" for item in items)
    on_disk = {f"media/{path.name}" for path in (folder / "media").iterdir()}
    assert on_disk == {item["media"] for item in items if item["media"]}


def test_every_file_decodes_but_the_damaged_one(folder, items):
    *good, damaged = items
    found = Counter(has_streams(folder / item["media"]) if item["media"] else "text only" for item in good)
    assert found[True, True] > 35
    assert found[True, False] >= 7
    assert found[False, True] >= 5
    assert found["text only"] >= 3
    assert found[False, False] == 0
    assert {Path(item["media"]).suffix for item in good} >= {
        ".mp4",
        ".webm",
        ".wav",
        ".mp3",
        ".ogg",
        ".png",
        ".jpg",
        "",
    }
    with pytest.raises(av.FFmpegError):
        has_streams(folder / damaged["media"])


def test_interactions(items, train, validation):
    pairs = [(row["user_id"], row["item_id"]) for row in train + validation]
    assert len(pairs) == len(set(pairs))
    assert {item for _, item in pairs} <= {item["item_id"] for item in items}
    assert min(Counter(user for user, _ in pairs).values()) == 4
    assert max(Counter(user for user, _ in pairs).values()) <= 20
    assert len(validation) == len({row["user_id"] for row in validation}) == NUM_USERS
    assert all(0 < float(row["weight"]) <= 1 for row in train + validation)
    times = [int(row["timestamp"]) for row in train]
    assert times == sorted(times)
    assert 80 < (times[-1] - times[0]) / 86_400 <= 90
    last_seen = {row["user_id"]: int(row["timestamp"]) for row in train}
    assert all(int(row["timestamp"]) > last_seen[row["user_id"]] for row in validation)


def test_tastes_can_be_learned_and_popularity_is_not_enough(items, train, validation):
    popularity = Counter(row["item_id"] for row in train)
    kind_of = {item["item_id"]: item["kind"] for item in items}
    histories: dict[str, list[str]] = {}
    for row in train:
        histories.setdefault(row["user_id"], []).append(row["item_id"])

    def recall_at_5(score):
        hits = []
        for row in validation:
            history = histories[row["user_id"]]
            unseen = [item for item in kind_of if item not in history]
            hits.append(row["item_id"] in sorted(unseen, key=lambda item: -score(item, history))[:5])
        return np.mean(hits)

    by_popularity = recall_at_5(lambda item, history: popularity[item])
    by_kind = recall_at_5(lambda item, history: Counter(map(kind_of.get, history))[kind_of[item]])
    assert by_kind > 2 * by_popularity
    assert {kind_of[row["item_id"]] for row in validation} == set(kind_of.values())


def test_same_seed_same_bytes_and_untouched_files(folder, tmp_path):
    """Media of a second folder equal the first's; files that are right keep their time, wrong ones are mended."""
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*.*")}
    broken = folder / "media" / "item000.mp4"
    broken.write_bytes(b"")
    (folder / "interactions.csv").unlink()
    make_sample_catalog(folder)
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*.*")}
    assert {path for path in before if before[path] != after[path]} == {broken, folder / "interactions.csv"}
    assert {path: data for path, (data, _) in before.items()} == {path: data for path, (data, _) in after.items()}


def test_command_and_another_seed(folder, tmp_path):
    script = Path(__file__).parents[2] / "scripts" / "make_sample_catalog.py"
    done = subprocess.run(
        [sys.executable, script, tmp_path / "new" / "sample", "--seed", "1"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(tmp_path / "new" / "sample" / "catalog.csv")
    for name, same in {"catalog.csv": True, "interactions.csv": False, "media/item000.mp4": False}.items():
        assert ((folder / name).read_bytes() == (tmp_path / "new" / "sample" / name).read_bytes()) == same
