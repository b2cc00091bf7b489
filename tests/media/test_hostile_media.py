"""The whole job on a corpus of odd, damaged and malicious files: every row ends with a status and a reason."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time

import numpy as np
import pytest
from hostile import write_hostile_corpus

from mmrec.store.feature_store import FeatureStore
from mmrec.store.features import Features

PRESET = (
    "visual: {kind: descriptors}\naudio: {kind: log-mel}\nframes: {count: 4}\nsound: {window_seconds: 1, count: 3}\n"
)
WHOLE = [
    "plain.mp4", "matroska.mkv", "webm.webm", "transport.ts", "avi.avi", "flash.flv", "program.mpg", "one frame.mp4",
    "one pixel.png", "odd size.mkv", "ten bits.mp4", "quarter turn.mp4", "variable rate.mkv", "interlaced.mpg",
    "animated.gif", "alpha.png", "palette.png", "photo.jpg", "eight kilohertz.wav", "studio.wav", "surround.wav",
    "seven one.wav", "song.mp3", "song.opus", "alaw.wav", "silent.wav", "many streams.mkv", "wrong suffix.txt",
]  # fmt: skip
REFUSED = [
    "empty.mp4", "zeros.mp4", "noise.mp4", "text.mp4", "page.mp4", "zip.mp4", "playlist.m3u8", "playlist.mp4",
    "script.ffconcat", "drawing.svg", "session.sdp", "manifest.mpd", "subfile.mp4", "data.mp4", "bomb 50000.png",
    "bomb wide.png", "gif of death.gif",
]  # fmt: skip


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Features]:
    """Kind -> its row, after one run of the command over all of them."""
    folder = tmp_path_factory.mktemp("hostile")
    paths = write_hostile_corpus(folder)
    assert len(paths) >= 60
    (folder / "preset.yaml").write_text(PRESET)
    with open(folder / "catalog.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["item_id", "media"])
        writer.writerows([kind, path.name] for kind, path in paths.items())
    options = ["--preset", "preset.yaml", "--timeout", "30", "--worker-memory", "1.5", "--max-failures", "1", "--json"]
    command = [sys.executable, "-m", "mmrec", "embed", "catalog.csv", "--store", "store", *options]
    start = time.monotonic()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280, check=True)
    report = json.loads(done.stdout)
    assert report["items"] == report["ok"] + report["partial"] + report["failed"] == len(paths)
    assert report["reasons"].get("crashed", 0) == 0, "no decoder died"
    assert time.monotonic() - start < 240
    rows = {f.item.item_id: f for f in FeatureStore(folder / "store").features()}
    assert rows.keys() == paths.keys()
    return rows


def test_every_row_is_whole_or_says_why(ended: dict[str, Features]) -> None:
    for kind, features in ended.items():
        for modality in ("visual", "audio", "text"):
            assert modality in features.tokens or features.problems[modality].detail, kind
        for tokens in features.tokens.values():
            assert np.isfinite(tokens.vectors_TD).all(), kind


def test_odd_but_whole_files_are_embedded(ended: dict[str, Features]) -> None:
    assert {kind: ended[kind].status for kind in WHOLE if kind in ended} == {
        kind: "ok" for kind in WHOLE if kind in ended
    }


def test_what_is_no_media_is_refused(ended: dict[str, Features]) -> None:
    assert {kind: ended[kind].status for kind in REFUSED} == dict.fromkeys(REFUSED, "failed")


def test_damaged_files_yield_what_they_have(ended: dict[str, Features]) -> None:
    for kind in ("cut at 25.mkv", "cut at 50.mkv", "flipped 500.ts"):
        assert ended[kind].status == "partial", kind
        assert "visual" in ended[kind].tokens, kind
        assert any(problem.reason == "corrupt" for problem in ended[kind].problems.values()), kind
