"""Holding interactions out: what each split promises, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted import pairs, random_interactions

from mmrec.cli import main
from mmrec.errors import InteractionError
from mmrec.evaluation.interactions import make_interactions, read_interactions
from mmrec.evaluation.splits import (
    split,
    split_by_time,
    split_cold_items,
    split_in_three,
    split_leave_last_out,
    split_random,
)


def test_random_split_is_a_partition_and_reproducible() -> None:
    interactions = random_interactions()
    train, held_out = split_random(interactions, 0.2, seed=3)
    assert pairs(train) | pairs(held_out) == pairs(interactions) and not pairs(train) & pairs(held_out)
    assert len(held_out) == round(0.2 * len(interactions))
    assert pairs(split_random(interactions, 0.2, seed=3)[1]) == pairs(held_out)


def test_leave_last_out_takes_each_users_latest() -> None:
    interactions = random_interactions()
    train, held_out = split_leave_last_out(interactions)
    assert len(train) + len(held_out) == len(interactions)
    assert held_out.user_degrees().max() == 1
    assert train.timestamps is not None and held_out.timestamps is not None
    latest = dict(zip(held_out.user_rows.tolist(), held_out.timestamps.tolist(), strict=True))
    assert all(t <= latest.get(u, t) for u, t in zip(train.user_rows.tolist(), train.timestamps.tolist(), strict=True))
    assert (train.user_degrees()[interactions.user_degrees() > 0] >= 1).all()


def test_time_split_has_one_cut() -> None:
    train, held_out = split_by_time(random_interactions(), 0.25)
    assert train.timestamps is not None and held_out.timestamps is not None
    assert train.timestamps.max() < held_out.timestamps.min()
    assert 0.2 < len(held_out) / (len(train) + len(held_out)) < 0.3


def test_cold_items_are_held_out_whole() -> None:
    interactions = random_interactions()
    train, held_out = split_cold_items(interactions, 0.1)
    assert not set(train.item_rows.tolist()) & set(held_out.item_rows.tolist())
    assert len(set(held_out.item_rows.tolist())) == 4
    assert len(train) + len(held_out) == len(interactions)


def test_without_times_the_last_row_is_the_last() -> None:
    train, held_out = split_leave_last_out(make_interactions(["u", "v", "u", "u"], ["a", "a", "c", "b"]))
    assert pairs(held_out) == {("u", "b")}
    assert pairs(train) == {("u", "a"), ("v", "a"), ("u", "c")}


def test_splits_refuse_what_they_cannot_do() -> None:
    untimed = make_interactions(["u", "v"], ["a", "b"])
    with pytest.raises(InteractionError, match="no timestamps"):
        split_by_time(untimed, 0.5)
    with pytest.raises(InteractionError, match="between 0 and 1"):
        split_random(untimed, 1.0)
    with pytest.raises(InteractionError, match="'late' is not one of random, last, time, cold"):
        split(untimed, "late")  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["random", "last", "time", "cold"])
def test_three_parts_by_one_rule(how: str) -> None:
    interactions = random_interactions()
    train, validation, test = split_in_three(interactions, how, share=0.2, seed=3)  # type: ignore[arg-type]
    parts = [pairs(part) for part in (train, validation, test)]
    assert set.union(*parts) == pairs(interactions) and sum(map(len, parts)) == len(interactions)
    assert pairs(test) == pairs(split(interactions, how, share=0.2, seed=3)[1])  # type: ignore[arg-type]
    assert len(validation) == pytest.approx(len(test), rel=0.35) and len(train) > len(validation)
    if how == "time":
        assert validation.timestamps is not None and test.timestamps is not None and train.timestamps is not None
        assert (
            train.timestamps.max() < validation.timestamps.min() <= validation.timestamps.max() < test.timestamps.min()
        )
    if how == "cold":
        assert not set(validation.item_rows.tolist()) & (set(train.item_rows.tolist()) | set(test.item_rows.tolist()))


def test_three_parts_leave_something(tmp_path: Path) -> None:
    with pytest.raises(InteractionError, match="twice: expected below"):
        split_in_three(random_interactions(), "random", share=0.5)


def test_the_command_writes_three_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "all.csv").write_text("user_id,item_id,timestamp\nu,a,1\nu,b,2\nu,c,3\nu,d,4\n")
    names = {name: str(tmp_path / f"{name}.csv") for name in ("train", "validation", "test")}
    words = [word for name, path in names.items() for word in (f"--{name}", path)]
    assert main(["split", "--interactions", str(tmp_path / "all.csv"), *words]) == 0
    assert capsys.readouterr().out.count("1 interactions in") == 2
    found = {name: pairs(read_interactions(path)) for name, path in names.items()}
    assert found == {"train": {("u", "a"), ("u", "b")}, "validation": {("u", "c")}, "test": {("u", "d")}}


@pytest.mark.parametrize("how", ["random", "last", "time", "cold"])
def test_the_command_writes_both_parts(tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"u{k % 7},i{k % 11},{k}" for k in range(60)]
    (tmp_path / "all.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n")
    command = ["split", "--interactions", "all.csv", "--how", how, "--train", "train.csv", "--held-out", "held.parquet"]
    assert main([str(tmp_path / part) if "." in part else part for part in command]) == 0
    whole, train, held = (read_interactions(tmp_path / name) for name in ("all.csv", "train.csv", "held.parquet"))
    assert pairs(train) | pairs(held) == pairs(whole) and not pairs(train) & pairs(held) and len(held)
    assert f"{len(train)} interactions" in capsys.readouterr().out
