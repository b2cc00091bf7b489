"""Sounds are listened to: edited copies are found, and other recordings of one voice, melody or tone are not."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from store_rows import filled, make

import mmrec
from mmrec.catalog import Item
from mmrec.cli import main
from mmrec.embedding import DecodeLimits
from mmrec.media import DecodedMedia
from mmrec.searching import Copies, Duplicate, find_duplicates
from mmrec.searching.acoustics import SAMPLE_RATE, SoughtSound, fingerprint
from mmrec.searching.candidates import nearest_pairs
from mmrec.searching.listening import LEAST_AGREEMENT, _joined

Floats = NDArray[np.float32]
LEAST = {"sounds": 0.98}
LIMITS = DecodeLimits(workers=1)


def voice(take: int, seconds: float, speaker: int = 0) -> Floats:
    """Syllables of buzzing and of breath, of which a speaker has ten, in another order and rhythm for each take."""
    rng, speaks = np.random.default_rng([1, take]), np.random.default_rng([2, speaker])
    formants, pitch = speaks.uniform(250, 4000, (10, 3)), speaks.uniform(90, 220)
    parts, total = [], 0
    while total < seconds * SAMPLE_RATE:
        length = int(rng.uniform(0.08, 0.3) * SAMPLE_RATE)
        times_S = np.arange(length) / SAMPLE_RATE
        buzz_S = np.sign(np.sin(2 * np.pi * pitch * rng.uniform(0.9, 1.1) * times_S)) + rng.normal(size=length)
        carriers = np.sin(2 * np.pi * np.outer(formants[rng.integers(10)], times_S)).sum(axis=0)
        parts.append(buzz_S * carriers * np.sin(np.pi * np.linspace(0, 1, length)) * rng.uniform(0, 1))
        total += length
    return (0.1 * np.concatenate(parts)[: int(seconds * SAMPLE_RATE)]).astype(np.float32)


def melody(seed: int, seconds: float, tempo: float = 1.0) -> Floats:
    """Notes of one instrument; another tempo leaves their pitch."""
    rng = np.random.default_rng([3, seed])
    lengths, notes = rng.choice([0.2, 0.3, 0.45], 400), rng.integers(0, 24, 400)
    parts, total = [], 0.0
    for length, note in zip(lengths, notes, strict=True):
        times_S = np.arange(int(length / tempo * SAMPLE_RATE)) / SAMPLE_RATE
        tones = [np.sin(2 * np.pi * 220 * 2 ** (note / 12) * times_S * overtone) / overtone for overtone in (1, 2, 3)]
        parts.append(sum(tones) * np.exp(-4 * times_S))
        total += length / tempo
        if total > seconds:
            break
    return (0.2 * np.concatenate(parts)[: int(seconds * SAMPLE_RATE)]).astype(np.float32)


def faster(samples_S: Floats, speed: float) -> Floats:
    places_S = np.arange(0, len(samples_S) - 1, speed)
    return np.interp(places_S, np.arange(len(samples_S)), samples_S).astype(np.float32)


def laid(first_S: Floats, second_S: Floats) -> tuple[float, float] | None:
    """Offset and speed."""
    found = SoughtSound(fingerprint(second_S)).within(fingerprint(first_S), LEAST_AGREEMENT)
    return found and (found.offset, found.speed)


def write(path: Path, samples_S: Floats, bit_rate: int = 96_000) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(samples_S[None].clip(-1, 1), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("original", [voice(0, 12), melody(0, 12)], ids=["voice", "melody"])
def test_a_sound_is_found_again(original: Floats) -> None:
    noise_S = np.random.default_rng(0).normal(size=len(original)).astype(np.float32)
    around = voice(9, 3, speaker=9), melody(9, 4)
    assert laid(original, 0.1 * original + 0.001 * noise_S) == (0.0, 1.0)
    assert laid(original, original[3 * SAMPLE_RATE :]) == (pytest.approx(3, abs=0.05), 1.0)
    assert laid(np.concatenate([around[0], original, around[1]]), original) == (pytest.approx(3, abs=0.05), 1.0)
    for speed in (0.95, 0.967, 1.013, 1.05):
        assert laid(original, faster(original, speed)) == (
            pytest.approx(0, abs=0.1),
            pytest.approx(speed, abs=0.003),
        )


def test_a_sound_is_found_at_another_tempo_of_the_same_pitch() -> None:
    assert laid(melody(0, 12), melody(0, 12 / 1.05, tempo=1.05)) == (
        pytest.approx(0, abs=0.1),
        pytest.approx(1.05, abs=0.003),
    )


def test_of_long_sounds_parts_are_sought_and_the_speed_is_exact() -> None:
    original = voice(0, 120)
    assert laid(original, faster(original[50 * SAMPLE_RATE :], 1.0314)) == (
        pytest.approx(50, abs=0.1),
        pytest.approx(1.0314, abs=0.0005),
    )
    other = voice(1, 120)
    assert laid(original, other) is None
    last_half = np.concatenate([other[: 30 * SAMPLE_RATE], original[: 45 * SAMPLE_RATE]])
    assert laid(original, last_half) == (pytest.approx(-30, abs=0.05), 1.0)
    less_than_half = np.concatenate([other[: 60 * SAMPLE_RATE], original[: 40 * SAMPLE_RATE]])
    assert laid(original, less_than_half) is None


def test_other_recordings_are_other_sounds() -> None:
    voices = [fingerprint(voice(take, 4)) for take in range(12)]
    melodies = [fingerprint(melody(seed, 4)) for seed in range(12)]
    rng = np.random.default_rng(0)
    noises = [fingerprint(rng.normal(size=4 * SAMPLE_RATE).astype(np.float32)) for _ in range(6)]
    for sounds in (voices, melodies, noises):
        for place, sound in enumerate(sounds):
            sought = SoughtSound(sound)
            assert [sought.within(other, LEAST_AGREEMENT) for other in sounds[:place]] == [None] * place


def test_what_tells_nothing_is_like_nothing() -> None:
    silence = np.zeros(4 * SAMPLE_RATE, np.float32)
    tone = (0.3 * np.sin(np.arange(4 * SAMPLE_RATE) * 2 * np.pi * 440 / SAMPLE_RATE)).astype(np.float32)
    assert laid(silence, silence) is None
    assert laid(voice(0, 4), silence) is None
    assert laid(tone, tone[: 3 * SAMPLE_RATE]) is None


def test_the_last_window_lies_over_the_one_before_it() -> None:
    ramp_S = np.arange(5 * SAMPLE_RATE, dtype=np.float32)
    windows = [ramp_S[: 3 * SAMPLE_RATE], ramp_S[2 * SAMPLE_RATE :]]
    assert np.array_equal(_joined(DecodedMedia(windows=windows, window_spans=[(0, 3), (2, 5)])), ramp_S)


def test_the_nearest_pairs_are_those_of_all_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmrec.searching.candidates.BLOCK_NUMBERS", 300)
    rows = [make(f"i{n:02}", seed=n, audio=1 + n % 3) for n in range(20)]
    store = filled(tmp_path / "s", rows)
    units = {row.item.item_id: row.tokens["audio"].vectors_TD for row in rows}
    units = {name: vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for name, vectors in units.items()}
    score = {(a, b): float((units[a] @ units[b].T).max()) for a in units for b in units if a != b}
    nearest = {a: sorted((b for b in units if b != a), key=lambda b: -score[a, b])[:3] for a in units}
    expected = {tuple(sorted((a, b))) for a in units for b in nearest[a] if score[a, b] >= 0.2}
    assert nearest_pairs(store, "audio", set(units), 0.2, most_each=3, most=100) == expected
    best = sorted(expected, key=lambda pair: -score[pair])[:5]
    assert nearest_pairs(store, "audio", set(units), 0.2, most_each=3, most=5) == set(best)
    assert nearest_pairs(store, "audio", {"i01"}, 0.2, most_each=3, most=5) == set()


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    sounds = {"voice": voice(0, 12), "voice again": voice(1, 12), "melody": melody(0, 12)}
    files = {}
    for name, samples_S in sounds.items():
        files[name] = write(folder / f"{name}.m4a", samples_S)
        files[f"{name}, coarse"] = write(folder / f"{name} coarse.m4a", samples_S, bit_rate=24_000)
        files[f"{name}, cut"] = write(folder / f"{name} cut.m4a", samples_S[5 * SAMPLE_RATE :])
        files[f"{name}, fast"] = write(folder / f"{name} fast.m4a", faster(samples_S, 1.05))
        around = voice(7, 5, speaker=7)
        files[f"{name}, inside"] = write(folder / f"{name} inside.m4a", np.concatenate([around, samples_S]))
    with (folder / "catalog.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("item_id", "media"), *((name, str(path)) for name, path in files.items())])
    mmrec.embed(folder / "catalog.csv", folder / "store", preset="descriptors", workers=1, device="cpu")
    return folder


@pytest.fixture(scope="module")
def pairs(recordings: Path) -> list[Duplicate]:
    return find_duplicates(mmrec.FeatureStore(recordings / "store"), thresholds=LEAST, limits=LIMITS)


def test_all_variants_are_found_and_no_others(pairs: list[Duplicate]) -> None:
    assert all(pair.first.split(",")[0] == pair.second.split(",")[0] for pair in pairs)
    found = {frozenset((pair.first, pair.second)) for pair in pairs}
    kinds = ("coarse", "cut", "fast", "inside")
    variants = {(name, f"{name}, {kind}") for name in ("voice", "voice again", "melody") for kind in kinds}
    assert {frozenset(pair) for pair in variants} <= found


def test_a_pair_says_where_it_lies_and_how_fast_it_is(pairs: list[Duplicate]) -> None:
    of = {(pair.first, pair.second): pair for pair in pairs}
    cut, fast = of["voice", "voice, cut"], of["voice", "voice, fast"]
    assert (cut.offset_seconds, cut.speed) == (pytest.approx(5, abs=0.1), 1.0)
    assert cut.differs["seconds"] == (pytest.approx(12, abs=0.2), pytest.approx(7, abs=0.2))
    assert (fast.offset_seconds, fast.speed) == (pytest.approx(0, abs=0.1), pytest.approx(1.05, abs=0.003))
    assert of["voice, inside", "voice"].offset_seconds == pytest.approx(5, abs=0.1)


def test_the_best_of_confirmed_copies_is_kept(pairs: list[Duplicate]) -> None:
    copies = Copies((pair.first, pair.second) for pair in pairs)
    listed = ["voice", "voice, fast", "melody", "voice, cut", "melody, inside", "voice again"]
    assert copies.folded(listed) == ["voice", "melody", "voice again"]


def test_without_files_tokens_decide_and_a_line_says_so(
    recordings: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = mmrec.FeatureStore(recordings / "store")
    by_tokens = find_duplicates(store, thresholds=LEAST, limits=None)
    hidden = [path.rename(tmp_path / path.name) for path in recordings.glob("*.m4a")]
    try:
        with caplog.at_level(logging.WARNING):
            assert find_duplicates(store, thresholds=LEAST, limits=LIMITS) == by_tokens
    finally:
        for path in hidden:
            path.rename(recordings / path.name)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == (
        "15 of 15 sounds cannot be listened to (15 missing file): their tokens are compared, which misses most edited "
        "copies"
    )


def test_very_short_sounds_are_not_listened_to(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [make(f"i{n}", seed=0, audio=1) for n in range(2)]
    for row in rows:
        row.item = Item(item_id=row.item.item_id, media=write(tmp_path / f"{row.item.item_id}.m4a", voice(0, 0.7)))
    store = filled(tmp_path / "s", rows)
    with caplog.at_level(logging.WARNING):
        assert len(find_duplicates(store, thresholds=LEAST, limits=LIMITS)) == 1
    assert "2 shorter than a second" in caplog.text


def test_very_long_sounds_are_not_listened_to(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [make(f"i{n}", seed=0, audio=2) for n in range(2)]
    for row in rows:
        row.duration_seconds = 5000.0
    store = filled(tmp_path / "s", rows)
    with caplog.at_level(logging.WARNING):
        (pair,) = find_duplicates(store, thresholds=LEAST, limits=LIMITS)
    assert pair.score == 1.0
    assert "2 longer than an hour" in caplog.text


def test_the_command_listens_unless_told_not_to(
    recordings: Path, pairs: list[Duplicate], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["duplicates", "--store", str(recordings / "store"), "--threshold=sounds=0.98", "--json"]
    assert main([*command, "--workers", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["pairs"] == [[pair.first, pair.second] for pair in pairs]
    by_tokens = find_duplicates(mmrec.FeatureStore(recordings / "store"), thresholds=LEAST, limits=None)
    assert main([*command, "--by-tokens"]) == 0
    assert json.loads(capsys.readouterr().out)["pairs"] == [[pair.first, pair.second] for pair in by_tokens]
    assert {frozenset((pair.first, pair.second)) for pair in by_tokens} != {
        frozenset((pair.first, pair.second)) for pair in pairs
    }
    assert main([*command, "--timeout", "0"]) == 1
    assert "the timeout is 0.0 seconds" in capsys.readouterr().err
