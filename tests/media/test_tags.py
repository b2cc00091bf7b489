"""The tags of containers: clean, short text in the facts, whatever their encoding."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream
from decode_plans import SOUND
from media_files import write_video

from mmrec.media import decode_media

RATE = 48_000
CODECS = {".mp3": "mp3", ".m4a": "aac", ".flac": "flac", ".opus": "libopus", ".mka": "flac", ".wav": "pcm_s16le"}


def write_tagged(path: Path, tags: dict[str, str]) -> Path:
    with av.open(str(path), "w") as container:
        container.metadata.update(tags)
        stream = container.add_stream(CODECS[path.suffix], rate=RATE, layout="mono")
        assert isinstance(stream, AudioStream)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, RATE), np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        for converted in av.AudioResampler(format=stream.format).resample(frame):
            container.mux(stream.encode(converted))
        container.mux(stream.encode(None))
    return path


def facts_of_file(path: Path) -> dict[str, object]:
    decoded = decode_media(path, None, SOUND)
    assert decoded.audio_problem is None
    assert json.loads(json.dumps(decoded.facts, ensure_ascii=False).encode()) == decoded.facts
    return decoded.facts


@pytest.mark.parametrize("suffix", CODECS)
def test_title_artist_and_album(tmp_path: Path, suffix: str) -> None:
    tags = {"title": "Дождь & 雨", "artist": "Björk", "album": "Été", "genre": "Ambient"}
    facts = facts_of_file(write_tagged(tmp_path / f"a{suffix}", tags))
    assert {name: facts.get(name) for name in tags} == tags


def test_a_file_without_tags_has_none(tmp_path: Path) -> None:
    facts = decode_media(write_video(tmp_path / "a.mp4"), None, None).facts
    assert not {"title", "artist", "album", "genre", "description"} & facts.keys()


def test_the_name_of_a_track_is_no_title(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", rate=RATE, layout="mono")
        assert isinstance(stream, AudioStream)
        stream.metadata["title"] = "Director's commentary"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, RATE), np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert "title" not in facts_of_file(path)


def test_space_and_control_characters_are_cleaned(tmp_path: Path) -> None:
    facts = facts_of_file(
        write_tagged(tmp_path / "a.flac", {"title": "  One\r\n\ttwo\x07 \x1b[31mthree ", "artist": " \n "})
    )
    assert facts["title"] == "One two [31mthree"
    assert "artist" not in facts


def test_long_tags_are_cut(tmp_path: Path) -> None:
    facts = facts_of_file(write_tagged(tmp_path / "a.mka", {"title": "x" * 100_000}))
    assert facts["title"] == "x" * 500


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("Señor Ünal".encode("cp1252"), "Señor Ünal"),
        ("Señor Ünal".encode(), "Señor Ünal"),
        (b"\x81\x8d odd", "\ufffd\ufffd odd"),
        (b"\xed\xa0\x80 lone", "í\xa0€ lone".replace("\xa0", " ")),
    ],
)
def test_any_encoding(tmp_path: Path, raw: bytes, expected: str) -> None:
    path = write_tagged(tmp_path / "a.wav", {"title": "?" * len(raw)})
    data = path.read_bytes()
    assert data.count(b"?" * len(raw)) == 1
    path.write_bytes(data.replace(b"?" * len(raw), raw))
    assert facts_of_file(path)["title"] == expected
