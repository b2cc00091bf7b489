"""One of several copies in lists of recommendations."""

from __future__ import annotations

import csv
import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from planted import NUM_ITEMS, kind_of

from mmrec import Recommender
from mmrec.cli import main
from mmrec.evaluation.interactions import Interactions
from mmrec.searching import Copies

pytestmark = pytest.mark.usefixtures("one_thread")
USERS = [f"user{number:02}" for number in range(12)]


def chosen(model: Recommender, pairs: list[tuple[str, str]], ids: list[str], k: int) -> list[str]:
    """By hand: down the list, each that is no copy of one that was taken."""
    same = {frozenset(pair) for pair in pairs}
    taken: list[str] = []
    for item_id in filter(None, ids):
        if not any(frozenset((item_id, other)) in same for other in taken):
            taken.append(item_id)
    return (taken + [""] * k)[:k]


def test_lists_are_those_of_a_walk_down_the_whole_ranking(model: Recommender) -> None:
    rng = np.random.default_rng(0)
    for num_pairs in (3, 30, 200):
        drawn = rng.choice(model.item_ids, (num_pairs, 2))
        pairs = [(str(a), str(b)) for a, b in drawn]
        ids_UK, scores_UK = model.recommend(USERS, k=6, fold=Copies(pairs), exclude_seen=False)
        whole_UI, _ = model.recommend(USERS, k=NUM_ITEMS, exclude_seen=False)
        for user, ids, scores, whole in zip(USERS, ids_UK, scores_UK, whole_UI, strict=True):
            assert ids.tolist() == chosen(model, pairs, whole.tolist(), 6)
            there = [item_id for item_id in ids if item_id]
            assert np.allclose(scores[: len(there)], model.score(user, there))
            assert np.isneginf(scores[len(there) :]).all()
        alone, _ = model.recommend(USERS[0], k=6, fold=Copies(pairs), exclude_seen=False)
        assert alone.tolist() == ids_UK[0].tolist()


def test_copies_of_a_whole_kind_leave_one_and_empty_places(model: Recommender) -> None:
    kinds: dict[str, list[str]] = {}
    for item_id in model.item_ids:
        kinds.setdefault(kind_of(item_id), []).append(item_id)
    copies = Copies(pair for names in kinds.values() for pair in combinations(names, 2))
    ids, scores = model.recommend("user00", k=6, fold=copies, exclude_seen=False)
    assert sorted(map(kind_of, ids[:4])) == sorted(kinds)
    assert ids[4:].tolist() == ["", ""] and np.isneginf(scores[4:]).all()
    seen_too, _ = model.recommend("user00", k=6, fold=copies)
    assert "jazz" not in map(kind_of, seen_too) and (seen_too != "").sum() == 3


@pytest.mark.parametrize("extra", [{"diversity": 0.5}, {"explore_share": 0.5}, {}])
def test_no_copies_together_with_the_other_options(model: Recommender, extra: dict[str, float]) -> None:
    pairs = [(f"{kind}-08", f"{kind}-09") for kind in ("jazz", "sport", "rain", "chess")]
    pairs += [("jazz-09", "sport-09"), ("rain-09", "chess-09")]
    ids_UK, _ = model.recommend([*USERS, "stranger"], k=10, fold=Copies(pairs), **extra)  # type: ignore[arg-type]
    assert (ids_UK != "").all()
    for ids in ids_UK:
        assert len(set(ids)) == 10
        assert not any(set(pair) <= set(ids) for pair in pairs)


def test_copies_of_items_that_the_model_does_not_have_do_not_count(model: Recommender) -> None:
    plain, _ = model.recommend(USERS, k=5)
    for copies in (Copies([]), Copies([("jazz-00", "elsewhere"), ("jazz-00", "jazz-00")])):
        assert (model.recommend(USERS, k=5, fold=copies)[0] == plain).all()


def test_the_command_still_fills_its_lists(
    model: Recommender, pairs: tuple[Interactions, Interactions], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.save(tmp_path / "model")
    first, second = model.recommend("user00", k=2)[0]
    (tmp_path / "same.json").write_text(json.dumps({"pairs": [[first, second]]}))
    command = ["recommend", "--model", str(tmp_path / "model"), "--fold", str(tmp_path / "same.json"), "--k", "5"]
    assert main([*command, "--user", "user00", "--json"]) == 0
    found = [row["item_id"] for row in json.loads(capsys.readouterr().out)["items"]]
    expected = model.recommend("user00", k=6)[0].tolist()
    assert found == [expected[0], *expected[2:]]
    assert main([*command, "--all", "--out", str(tmp_path / "all.csv")]) == 0
    with open(tmp_path / "all.csv", newline="") as file:
        assert sum(row["user_id"] == "user00" for row in csv.DictReader(file)) == 5
