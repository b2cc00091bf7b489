"""Reading interactions and holding some out."""

from __future__ import annotations

import json
from datetime import time, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planted import pairs, random_interactions

from mmrec.errors import InteractionError, LeakError
from mmrec.evaluation.interactions import align, check_no_leak, make_interactions, read_interactions, write_interactions

USERS = ["u1", "u2", "u1", "u3", "用户"]
ITEMS = ["007", "b", "b", "007", "c"]
TIMES = [10.0, 20.5, 5.0, 1.0, 3.0]


def write(path: Path) -> Path:
    rows = [
        {"user_id": u, "item_id": i, "timestamp": t, "weight": 1.5} for u, i, t in zip(USERS, ITEMS, TIMES, strict=True)
    ]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    else:
        lines = ["user_id,item_id,timestamp,weight,source"]
        lines += [f"{r['user_id']},{r['item_id']},{r['timestamp']},{r['weight']},web" for r in rows]
        path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_every_format_reads_the_same(tmp_path: Path, suffix: str) -> None:
    interactions = read_interactions(write(tmp_path / f"log.{suffix}"))
    assert interactions.user_ids == ("u1", "u2", "u3", "用户")
    assert interactions.item_ids == ("007", "b", "c")
    assert interactions.user_rows.tolist() == [0, 1, 0, 2, 3]
    assert interactions.item_rows.tolist() == [0, 1, 1, 0, 2]
    assert interactions.timestamps is not None and interactions.timestamps.tolist() == TIMES
    assert interactions.weights.tolist() == [1.5] * 5
    assert interactions.matrix().toarray()[0].tolist() == [1.5, 1.5, 0.0]


def test_dates_become_seconds(tmp_path: Path) -> None:
    moments = pa.array([1_700_000_000_123], pa.timestamp("ms", tz="Europe/Berlin"))
    pq.write_table(pa.table({"user_id": [1], "item_id": [2], "timestamp": moments}), tmp_path / "log.parquet")
    interactions = read_interactions(tmp_path / "log.parquet")
    assert interactions.timestamps is not None and interactions.timestamps[0] == pytest.approx(1_700_000_000.123)
    assert interactions.user_ids == ("1",)


def test_repeated_pairs_are_merged() -> None:
    merged = make_interactions(
        ["a", "a", "b", "a"],
        ["x", "y", "x", "x"],
        timestamps=np.array([5.0, 1, 2, 3]),
        weights=np.array([1.0, 2, 3, 4]),
    )
    assert merged.user_rows.tolist() == [0, 0, 1] and merged.item_rows.tolist() == [0, 1, 0]
    assert merged.weights.tolist() == [5, 2, 3]
    assert merged.timestamps is not None and merged.timestamps.tolist() == [5, 1, 2]


def test_catalog_and_known_users_keep_their_rows() -> None:
    catalog = ("c", "b", "007", "never")
    interactions = make_interactions(USERS, ITEMS, known_items=catalog, known_users=("u3", "u9"))
    assert interactions.item_ids == catalog
    assert interactions.item_rows.tolist() == [2, 1, 1, 2, 0]
    assert interactions.user_ids[:2] == ("u3", "u9")


def test_unknown_items_raise_or_are_dropped() -> None:
    with pytest.raises(InteractionError, match=r"2 of 5 interactions name 1 items .* as 'b'"):
        make_interactions(USERS, ITEMS, known_items=("007", "c"))
    kept = make_interactions(USERS, ITEMS, known_items=("007", "c"), unknown_items="drop")
    assert kept.item_ids == ("007", "c") and len(kept) == 3
    with pytest.raises(InteractionError, match="not in the catalog"):
        make_interactions(USERS, ITEMS, known_items=("other",), unknown_items="drop")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("user_id,item_id\n", "no interactions"),
        ("user,item_id\na,b\n", "no column user_id"),
        ("user_id,item_id\na,\n", "1 interactions have no item_id, the first is number 1"),
        ("user_id,item_id\na,  \n", "no item_id"),
        ("user_id,item_id,weight\na,b,-1\n", "not positive"),
        ("user_id,item_id,weight\na,b,nan\n", "not positive"),
        ("user_id,item_id,weight\na,b,heavy\n", "weight must hold numbers"),
        ("user_id,item_id,timestamp\na,b,1\na,c,\n", "interaction 2 has no finite timestamp"),
        ("user_id,item_id\na,b,c\n", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_bad_files_say_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text)
    with pytest.raises(InteractionError, match=words):
        read_interactions(path)


def test_other_bad_files(tmp_path: Path) -> None:
    with pytest.raises(InteractionError, match="there is no file"):
        read_interactions(tmp_path / "absent.csv")
    with pytest.raises(InteractionError, match=r"end in \.csv"):
        read_interactions(tmp_path / "log.txt")
    path = tmp_path / "log.jsonl"
    path.write_text('{"user_id": "a", "item_id": "b"}\n[1]\n')
    with pytest.raises(InteractionError, match="line 2: expected an object"):
        read_interactions(path)


def test_leaks_are_counted() -> None:
    train = make_interactions(USERS, ITEMS)
    clean = make_interactions(["u2"], ["007"])
    check_no_leak(train, clean)
    leaky = make_interactions(["new", "u1", "用户"], ["b", "b", "c"])
    with pytest.raises(LeakError, match="2 of 3 held-out interactions are present in training, as user 'u1'"):
        check_no_leak(train, leaky)


def test_align_keeps_pairs() -> None:
    interactions = random_interactions()
    aligned = align(interactions, user_ids=interactions.user_ids[::-1], item_ids=("other", *interactions.item_ids[5:]))
    assert pairs(aligned) == pairs(interactions)
    assert aligned.item_ids[0] == "other"


@pytest.mark.parametrize("moments", [[timedelta(1)], [time(12)], [[1.0]], [{"at": 1.0}]])
def test_columns_of_parquet_that_are_no_moments_are_refused(tmp_path: Path, moments: list[Any]) -> None:
    pq.write_table(pa.table({"user_id": ["u"], "item_id": ["i"], "timestamp": moments}), tmp_path / "log.parquet")
    with pytest.raises(InteractionError, match="timestamp must hold numbers"):
        read_interactions(tmp_path / "log.parquet")


@pytest.mark.parametrize("name", ["again.csv", "again.parquet"])
def test_written_interactions_read_back(tmp_path: Path, name: str) -> None:
    interactions = make_interactions(USERS, ITEMS, timestamps=np.array(TIMES), weights=np.array([1, 2.5, 1, 1, 0.1]))
    write_interactions(interactions, tmp_path / name)
    again = read_interactions(tmp_path / name)
    assert pairs(again) == pairs(interactions)
    assert again.weights.tolist() == interactions.weights.tolist()
    assert again.timestamps is not None and again.timestamps.tolist() == TIMES
    with pytest.raises(InteractionError, match=r"\.csv or \.parquet"):
        write_interactions(interactions, tmp_path / "again.json")
    with pytest.raises(InteractionError, match="cannot be written"):
        write_interactions(interactions, tmp_path / "nowhere" / name)


def test_order_is_by_time_then_row() -> None:
    timed = make_interactions(["u"] * 4, list("abcd"), timestamps=np.array([3.0, 1.0, 3.0, 2.0]))
    assert timed.order().tolist() == [2, 0, 3, 1]
    assert make_interactions(USERS, ITEMS).order().tolist() == [0, 1, 2, 3, 4]
