"""One of several copies in what is found, and files that say which they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from planted_search import TITLES, axis

from mmrec import Query, Searcher, search
from mmrec.cli import main
from mmrec.errors import SearchError
from mmrec.searching import Copies
from mmrec.store import FeatureStore


def test_the_best_of_copies_is_shown_and_pages_are_full(store: FeatureStore) -> None:
    wanted = np.arange(8, 0, -1, dtype=np.float32)
    plain, plain_scores = search(store, vectors=[wanted])
    score_of = dict(zip(plain, plain_scores.tolist(), strict=True))
    copies = Copies([(plain[2], plain[0]), (plain[0], plain[3]), (plain[1], plain[2])])
    ids, scores = search(store, vectors=[wanted], fold=copies)
    assert ids == [plain[0], plain[1], plain[4]]
    assert scores.tolist() == [score_of[item_id] for item_id in ids]
    assert search(store, vectors=[wanted], fold=copies, k=2, offset=1)[0] == ids[1:]
    assert search(store, vectors=[wanted], fold=Copies([]))[0] == plain
    assert search(store, vectors=[wanted], fold=copies, diversity=1.0, k=3)[0][0] == plain[0]
    moments = Searcher(store).moments(Query(vectors=[axis(0)], fold=Copies([("rain", item) for item in TITLES])))
    assert [moment.item_id for moment in moments] == ["rain"]


def test_so_many_more_are_read_as_may_be_hidden(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmrec.searching.searcher.DEPTH", 1)
    plain, _ = search(store, vectors=[axis(0)], k=5)
    copies = Copies((plain[0], copy) for copy in plain[1:4])
    assert search(store, vectors=[axis(0)], fold=copies, k=2)[0] == [plain[0], plain[4]]


def test_how_many_are_hidden_at_most() -> None:
    copies = Copies([("a", "b"), ("a", "c"), ("c", "d"), ("e", "e")])
    assert repr(copies) == "Copies(3 pairs of 4 items)"
    assert [copies.most_hidden(k) for k in (-1, 0, 1, 2, 9)] == [0, 0, 2, 4, 6]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("no json", "same.json is no JSON object with pairs"),
        ("[]", "same.json is no JSON object with pairs"),
        ('{"groups": []}', "same.json is no JSON object with pairs"),
        ('{"pairs": 3}', "has 3 among its pairs"),
        ('{"pairs": [["a"]]}', r"has \['a'\] among its pairs"),
        ('{"pairs": [["a", 1]]}', r"has \['a', 1\] among its pairs"),
    ],
)
def test_what_names_no_pairs_is_one_line(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "same.json").write_text(text)
    with pytest.raises(SearchError, match=complaint) as found:
        Copies.read(tmp_path / "same.json")
    assert "`mmrec duplicates --json` prints" in str(found.value) and "\n" not in str(found.value)


def test_the_command_folds(store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["search", "rain", "--store", str(store.folder), "--json"]
    (tmp_path / "same.json").write_text(json.dumps({"groups": [], "pairs": [["rain", "calm"]]}))
    assert main(command) == 0
    plain = [row["item_id"] for row in json.loads(capsys.readouterr().out)]
    assert main([*command, "--fold", str(tmp_path / "same.json")]) == 0
    folded = [row["item_id"] for row in json.loads(capsys.readouterr().out)]
    second = max(plain.index("rain"), plain.index("calm"))
    assert folded == plain[:second] + plain[second + 1 :]
    assert main([*command, "--fold", str(tmp_path / "away.json")]) == 1
    assert "away.json cannot be read: No such file" in capsys.readouterr().err
