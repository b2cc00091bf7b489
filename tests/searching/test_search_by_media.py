"""Search by files that are in no catalog, and the command, on a store that a job made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedding_jobs import PRESET, run, write_catalog, write_preset
from media_files import write_image, write_sound, write_video

from mmrec.cli import main
from mmrec.store import FeatureStore, SearchTables


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of a clip whose brightness rises, three tones and a text, and files that are not in it."""
    folder = tmp_path_factory.mktemp("search")
    write_video(folder / "clip.mp4", frames=48, sound_seconds=4.0)
    for frequency in (220, 880, 3520):
        write_sound(folder / f"tone{frequency}.wav", frequency=frequency)
    write_catalog(
        folder / "catalog.csv",
        [
            {"item_id": "clip", "media": "clip.mp4", "title": "Rain on the roof", "year": "2001"},
            *({"item_id": f"tone{f}", "media": f"tone{f}.wav", "title": "A tone"} for f in (220, 880, 3520)),
            {"item_id": "words", "title": "雨の音", "year": "1999"},
        ],
    )
    write_preset(folder / "small.yaml", PRESET)
    assert not run(folder).problem
    write_image(folder / "new.png")
    write_sound(folder / "new.wav", seconds=1.0, frequency=900)
    (folder / "damaged.mp4").write_bytes(b"no film at all")
    np.save(folder / "vector.npy", np.ones(3))
    return folder


@pytest.fixture
def ask(made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.chdir(made)

    def ask(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["search", "--store", "store", *words])
        return status, *capsys.readouterr()

    return ask


def test_a_sound_finds_its_like_and_a_picture_its_moment(ask: Any) -> None:
    status, out, _ = ask("--media", "new.wav", "--k", "1", "--json")
    assert (status, [found["item_id"] for found in json.loads(out)]) == (0, ["tone880"])
    status, out, _ = ask("--media", "new.png", "--moments", "--json")
    (moment,) = json.loads(out)
    assert (status, moment["item_id"], moment["modality"], moment["title"]) == (0, "clip", "visual", "Rain on the roof")
    assert 0 <= moment["start"] < moment["end"] <= 4.1
    status, out, _ = ask("--media", "new.png", "--moments")
    assert "00:0" in out and "clip  Rain on the roof" in out


def test_words_filters_and_examples_are_one_query(ask: Any) -> None:
    status, out, err = ask("雨", "--json")
    assert (status, json.loads(out)[0]["item_id"]) == (0, "words")
    assert err.count("words are not compared with visual tokens") == 1
    status, out, _ = ask("rain", "--item", "tone880", "--not", "clouds", "--where", "year = 2001", "--json")
    assert (status, [found["item_id"] for found in json.loads(out)]) == (0, ["clip"])
    status, out, _ = ask("rain", "--weight", "text=0", "--k", "3")
    assert (status, out.split()[:3]) == (0, ["1", f"{1 / 61:.4f}", "clip"])


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "the search is empty"),
        (["--media", "damaged.mp4"], "damaged.mp4 has nothing to compare (visual: not_media"),
        (["--media", "away.mp4"], "there is no file away.mp4"),
        (["--vector", "vector.npy"], "vector 1 has 3 numbers, but the store has visual"),
        (["--vector", "small.yaml"], "small.yaml cannot be read as a .npy file"),
        (["rain", "--where", "yaer = 1"], "did you mean 'year'?"),
        (["rain", "--weight", "text"], "expected NAME=NUMBER"),
        (["rain", "--modalities", "visual"], "words cannot be compared with visual"),
        (["rain", "--offset", "99"], "nothing was found after the first 99"),
        (["rain", "--offset", "-1"], "the offset -1"),
    ],
)
def test_what_cannot_be_answered_is_one_line(ask: Any, words: list[str], complaint: str) -> None:
    status, out, err = ask(*words)
    (line,) = (line for line in err.splitlines() if "error:" in line)
    assert (status, out) == (1, "") and complaint in line


def test_the_command_spreads_what_is_alike(ask: Any, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = ask("a tone", "--k", "3", "--json")
    plain = json.loads(out)
    assert json.loads(ask("a tone", "--k", "3", "--diversity", "0", "--json")[1]) == plain
    spread = json.loads(ask("a tone", "--k", "3", "--diversity", "1", "--json")[1])
    assert (status, spread[0]) == (0, plain[0])
    assert {found["item_id"] for found in spread} & {"clip", "words"}
    with pytest.raises(SystemExit, match="2"):
        ask("a tone", "--diversity", "2")
    assert "2 is not a share: expected 0 to 1" in capsys.readouterr().err


def test_the_index_is_made_by_its_command(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made / "store", tmp_path / "store", ignore=shutil.ignore_patterns("search.*"))
    monkeypatch.chdir(tmp_path)
    assert main(["index", "--store", "store", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"rows": 5 + 1 + 4 + 5, "items": 5}
    assert main(["index", "--store", "store"]) == 0
    assert "5 items can be searched; 0 rows were written" in capsys.readouterr().out
    assert not SearchTables(FeatureStore("store")).is_outdated
    with pytest.raises(SystemExit) as stop:
        main(["index"])
    assert stop.value.code == 2
