"""The same content again is found, with where it lies and what differs; what is another is not."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import store_rows
from numpy.typing import NDArray
from store_rows import filled, make

import mmrec
from mmrec.cli import main
from mmrec.errors import StoreError
from mmrec.searching import Duplicate, find_duplicates, group_duplicates
from mmrec.searching.alignment import Timeline, align
from mmrec.searching.candidates import alike_pairs

RATE, SIZE = 8, 96
THRESHOLDS = {"clips": 0.95, "pictures": 0.95, "sounds": 0.95}


def scene(seed: int, seconds: int) -> Iterator[NDArray[np.uint8]]:
    """Coloured squares that change every second."""
    for second in range(seconds):
        rng = np.random.default_rng([seed, second])
        image_HWC = rng.integers(0, 255, (3, 3, 3), np.uint8).repeat(SIZE // 3, 0).repeat(SIZE // 3, 1)
        yield from [image_HWC] * RATE


def write(path: Path, images: list[NDArray[np.uint8]], *, crf: int = 12, sound: str = "") -> Path:
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=RATE, options={"crf": str(crf)})
        video.height, video.width = images[0].shape[:2]
        video.pix_fmt, video.codec_context.time_base = "yuv420p", Fraction(1, RATE)
        audio = container.add_stream("aac", rate=16_000, layout="mono") if sound else None
        for number, image_HWC in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image_HWC), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            times_S = np.arange(len(images) * 16_000 // RATE) / 16_000
            buzz_S, noise_S = np.sign(np.sin(400 * np.pi * times_S)), np.random.default_rng(0).normal(size=len(times_S))
            wave_S = 0.2 * (buzz_S if sound == "buzz" else noise_S)
            samples = av.AudioFrame.from_ndarray(wave_S[None].astype(np.float32), format="fltp", layout="mono")
            samples.sample_rate, samples.pts = 16_000, 0
            container.mux(audio.encode(samples))
            container.mux(audio.encode(None))
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> mmrec.FeatureStore:
    folder = tmp_path_factory.mktemp("duplicates")
    whole, other = list(scene(0, 8)), list(scene(1, 8))
    files = {
        "whole": write(folder / "whole.mp4", whole, sound="buzz"),
        "coarse": write(folder / "coarse.mp4", whole, crf=38, sound="buzz"),
        "small": write(folder / "small.mp4", [image_HWC[::2, ::2] for image_HWC in whole], sound="buzz"),
        "cut": write(folder / "cut.mp4", whole[3 * RATE :], sound="buzz"),
        "other sound": write(folder / "sound.mp4", whole, sound="noise"),
        "silent": write(folder / "silent.mp4", whole),
        "another": write(folder / "another.mp4", other, sound="buzz"),
        "copy": Path(shutil.copy(folder / "another.mp4", folder / "copy.mp4")),
    }
    with (folder / "catalog.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("item_id", "media"), *((name, str(path)) for name, path in files.items())])
    mmrec.embed(folder / "catalog.csv", folder / "store", preset="descriptors", workers=1, device="cpu")
    return mmrec.FeatureStore(folder / "store")


@pytest.fixture(scope="module")
def pairs(store: mmrec.FeatureStore) -> dict[frozenset[str], Duplicate]:
    return {frozenset((p.first, p.second)): p for p in find_duplicates(store, thresholds=THRESHOLDS)}


def test_variants_are_found_and_another_scene_is_not(pairs: dict[frozenset[str], Duplicate]) -> None:
    variants = {"coarse", "small", "cut", "other sound", "silent"}
    assert {next(iter(pair - {"whole"})) for pair in pairs if "whole" in pair} == variants
    assert {pair for pair in pairs if "another" in pair} == {frozenset(("another", "copy"))}


def test_a_pair_says_where_it_lies_and_what_differs(pairs: dict[frozenset[str], Duplicate]) -> None:
    cut = pairs[frozenset(("whole", "cut"))]
    assert (cut.first, cut.second, cut.differs["seconds"]) == ("whole", "cut", (8.0, 5.0))
    assert cut.offset_seconds == pytest.approx(3, abs=0.5)
    assert pairs[frozenset(("whole", "small"))].differs == {"size": ("96x96", "48x48")}
    assert pairs[frozenset(("whole", "other sound"))].differs["sound"] == ("its own", "another")
    assert pairs[frozenset(("whole", "silent"))].differs["sound"] == ("some", "none")
    assert pairs[frozenset(("whole", "coarse"))].differs == {}
    copy = pairs[frozenset(("another", "copy"))]
    assert (copy.same_file, copy.score, copy.differs) == (True, 1.0, {})


def test_alignment_needs_the_order_and_half_of_the_shorter() -> None:
    rng = np.random.default_rng(0)
    units_TD = np.linalg.qr(rng.normal(size=(16, 16)))[0].astype(np.float32)
    times_T = np.arange(8) + 0.5
    first = Timeline(units_TD[:8], times_T, 8.0, 0.5)
    assert align(first, Timeline(units_TD[:8][::-1], times_T, 8.0, 0.5), 0.8) is None
    late = align(first, Timeline(units_TD[4:12], times_T, 8.0, 0.5), 0.8)
    assert late is not None
    assert (late.offset, late.score) == (4.0, pytest.approx(1.0))
    assert align(first, Timeline(units_TD[6:14], times_T, 8.0, 0.5), 0.8) is None
    fast = align(first, Timeline(units_TD[:8], times_T / 1.08, 8 / 1.08, 0.5 / 1.08), 0.8)
    assert fast is not None
    assert fast.score == pytest.approx(1.0)


def test_projected_candidates_are_those_of_all_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against every pair of items compared without projection or blocks."""
    monkeypatch.setitem(store_rows.DIMS, "visual", 600)
    monkeypatch.setattr("mmrec.searching.candidates.BLOCK_NUMBERS", 500)
    rows = [make(f"i{n}", seed=n % 20, visual=4) for n in range(30)]
    rng = np.random.default_rng(0)
    for row in rows[20:]:
        row.tokens["visual"].vectors_TD += 0.3 * rng.normal(size=(4, 600)).astype(np.float32)
    ids = {row.item.item_id for row in rows}
    found = alike_pairs(filled(tmp_path / "s", rows), "visual", ids, 0.75)
    assert found == {tuple(sorted((f"i{n}", f"i{n + 20}"))) for n in range(10)}


def test_a_group_names_each_pair_once() -> None:
    pairs = [Duplicate(first=a, second=b, medium="clips", score=1.0) for a, b in ("ab", "ac", "bc", "bd")]
    groups = {group.item_id: [pair.second for pair in group.duplicates] for group in group_duplicates(pairs)}
    assert groups == {"a": ["b", "c"], "b": ["d"]} or groups == {"a": ["b", "c"], "b": ["c", "d"]}


def test_an_encoder_without_a_measured_threshold_asks_for_one(store: mmrec.FeatureStore) -> None:
    with pytest.raises(StoreError, match=r"clips .* 'descriptors': .*--threshold clips=0.95"):
        find_duplicates(store)


def test_a_store_of_words_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no item with pictures or sound"):
        find_duplicates(filled(tmp_path / "s", [make("i1", text=1)]))


def test_the_command_prints_groups(store: mmrec.FeatureStore, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["duplicates", "--store", str(store.folder)]
    thresholds = [f"--threshold={kind}={cosine}" for kind, cosine in THRESHOLDS.items()]
    assert main([*command, *thresholds]) == 0
    printed = capsys.readouterr().out
    assert "the same file" in printed
    assert "sound another, not its own" in printed
    assert "from 00:03; seconds 5.0, not 8.0" in printed
    assert main([*command, *thresholds, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {group["item_id"] for group in printed["groups"]} >= {"another"}
    found = find_duplicates(store, thresholds=THRESHOLDS)
    assert printed["pairs"] == [[pair.first, pair.second] for pair in found]
    assert main(command) == 1
    assert "--threshold clips=0.95" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--threshold", "clip=0.9"])
