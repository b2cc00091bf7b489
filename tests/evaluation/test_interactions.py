"""Reading interactions and holding some out."""

from __future__ import annotations

import json
import logging
from datetime import date, time, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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


def merged(
    pairs_N: str, times: list[float] | None = None, weights: list[float] | None = None
) -> list[tuple[str, float, float | None]]:
    """Pairs of a user and an item, such as "ax by", once they are interactions: (pair, weight, time)."""
    users, items = zip(*pairs_N.split(), strict=True)
    made = make_interactions(
        users,
        items,
        timestamps=None if times is None else np.array(times),
        weights=None if weights is None else np.array(weights),
    )
    moments = [None] * len(made) if made.timestamps is None else made.timestamps.tolist()
    names = [made.user_ids[u] + made.item_ids[i] for u, i in zip(made.user_rows, made.item_rows, strict=True)]
    return list(zip(names, made.weights.tolist(), moments, strict=True))


def test_a_repeated_pair_stands_where_it_occurred_last() -> None:
    assert merged("ax ay bx ax", [5, 1, 2, 3], [1, 2, 3, 4]) == [("ax", 5, 5), ("ay", 2, 1), ("bx", 3, 2)]
    assert merged("ax ay bx ax", [3, 1, 2, 5], [1, 2, 3, 4]) == [("ay", 2, 1), ("bx", 3, 2), ("ax", 5, 5)]
    assert merged("ax ay ax ay ax") == [("ay", 2, None), ("ax", 3, None)]  # by row, where there are no times
    assert merged("ax ay ax", [7, 7, 7]) == [("ay", 1, 7), ("ax", 2, 7)]  # and where they are equal
    assert merged("ax ax ay", [7, 7, 1]) == [("ax", 2, 7), ("ay", 1, 1)]


def test_weights_of_a_repeated_pair_add_up() -> None:
    assert merged("ax ax", weights=[2.5, -1]) == [("ax", 1.5, None)]
    assert merged("ax ax ax", weights=[1, -1, 0]) == [("ax", 0, None)]
    assert merged("ax ax", weights=[1, -3]) == [("ax", -2, None)]


@settings(deadline=None, max_examples=50)
@given(
    rows=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.integers(0, 3), st.integers(-2, 2))),
    timed=st.booleans(),
)
def test_merging_follows_a_plain_loop(rows: list[tuple[str, str, int, int]], timed: bool) -> None:
    if not rows:
        return
    last: dict[str, tuple[float, int]] = {}
    total: dict[str, float] = {}
    for row, (user, item, moment, weight) in enumerate(rows):
        place = (float(moment) if timed else 0.0, row)
        last[user + item] = max(last.get(user + item, place), place)
        total[user + item] = total.get(user + item, 0.0) + weight
    expected = [
        (pair, total[pair], last[pair][0] if timed else None) for pair in sorted(last, key=lambda pair: last[pair][1])
    ]
    times = [float(moment) for _, _, moment, _ in rows] if timed else None
    found = merged(" ".join(u + i for u, i, _, _ in rows), times, [float(weight) for *_, weight in rows])
    assert found == expected


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_weights_of_0_and_below_are_kept(tmp_path: Path, suffix: str) -> None:
    path = write_columns(tmp_path / f"log.{suffix}", weight=[1.5, 0, -2])
    interactions = read_interactions(path)
    assert interactions.weights.tolist() == [1.5, 0, -2]
    assert interactions.matrix().toarray().tolist() == [[1.5, 0, -2]]
    if suffix != "jsonl":
        write_interactions(interactions, path)
        assert read_interactions(path).weights.tolist() == [1.5, 0, -2]


# --- times ------------------------------------------------------------------------------------------------------------

MOMENT = 1_700_000_000  # 2023-11-14T22:13:20Z


def write_columns(path: Path, **columns: list[Any]) -> Path:
    """A user's interactions with items 0, 1, 2, and more columns."""
    length = len(next(iter(columns.values())))
    rows = [
        {"user_id": "u", "item_id": f"i{k}", **{name: values[k] for name, values in columns.items()}}
        for k in range(length)
    ]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    else:
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(lines))
    return path


def times_of(path: Path) -> list[float]:
    timestamps = read_interactions(path).timestamps
    assert timestamps is not None
    return timestamps.tolist()


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(("unit", "name"), [(10**3, "milliseconds"), (10**6, "microseconds"), (10**9, "nanoseconds")])
@pytest.mark.parametrize("kind", [int, float])
def test_smaller_units_are_recognised_with_a_warning(
    tmp_path: Path, suffix: str, unit: int, name: str, kind: type, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_columns(tmp_path / f"log.{suffix}", timestamp=[kind(MOMENT * unit), kind((MOMENT + 86_400) * unit)])
    with caplog.at_level(logging.WARNING):
        assert times_of(path) == pytest.approx([MOMENT, MOMENT + 86_400], abs=1e-3)
    assert f"taken for {name}" in caplog.text and str(path) in caplog.text


@pytest.mark.parametrize("moments", [[MOMENT, MOMENT + 1], [0, 5.5], [-(10**9), 10**10], [4e9, 9e10], [0, 0]])
def test_seconds_are_taken_as_they_are(tmp_path: Path, moments: list[float], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert times_of(write_columns(tmp_path / "log.csv", timestamp=moments)) == moments
    assert not caplog.text


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("moments", [[MOMENT, MOMENT * 1000], [MOMENT * 10**6, MOMENT * 10**9]])
def test_mixed_units_are_refused(tmp_path: Path, suffix: str, moments: list[int]) -> None:
    path = write_columns(tmp_path / f"log.{suffix}", timestamp=moments)
    with pytest.raises(InteractionError, match=r"row \d: timestamp is '?\d+'?: expected \w+ since 1970, as 1700000000"):
        read_interactions(path)


ISO = {
    "with a Z": ["2023-11-14T22:13:20Z", "2023-11-15T22:13:20Z"],
    "with a zone": ["2023-11-15T00:13:20+02:00", "2023-11-15T14:13:20-08:00"],
    "without": ["2023-11-14T22:13:20", "2023-11-15T22:13:20"],
    "with a blank": ["2023-11-14 22:13:20", "2023-11-15 22:13:20"],
}


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("kind", ISO)
def test_dates_and_times_in_iso_8601(tmp_path: Path, suffix: str, kind: str) -> None:
    path = write_columns(tmp_path / f"log.{suffix}", timestamp=ISO[kind])
    assert times_of(path) == [MOMENT, MOMENT + 86_400]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_other_texts_of_times(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"log.{suffix}"
    assert times_of(write_columns(path, timestamp=["2023-11-14", "2023-11-15"])) == [1_699_920_000, 1_700_006_400]
    fractions = times_of(write_columns(path, timestamp=["2023-11-14T22:13:20.250Z", "2023-11-14T22:13:21.000Z"]))
    assert fractions == [MOMENT + 0.25, MOMENT + 1]
    assert times_of(write_columns(path, timestamp=[str(MOMENT), str(MOMENT + 1)])) == [MOMENT, MOMENT + 1]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("moments", "bad"),
    [
        (["2023-11-14T22:13:20Z", "yesterday"], 2),
        (["noon", "noon"], 1),
        (["noon", "2023-11-15"], 1),
        (["2023-11-14T22:13:20Z", "2023-11-15T22:13:20"], 2),
        (["1700000000", "2023-11-15"], 2),
    ],
)
def test_texts_that_are_no_times_are_refused(tmp_path: Path, suffix: str, moments: list[str], bad: int) -> None:
    path = write_columns(tmp_path / f"log.{suffix}", timestamp=moments)
    row = bad + (suffix == "csv")
    with pytest.raises(InteractionError, match=f"row {row}: timestamp is '{moments[bad - 1]}': expected .* ISO 8601"):
        read_interactions(path)


@pytest.mark.parametrize("moments", [["2023-11-14", None], [None, "2023-11-14"], [MOMENT, None], [MOMENT * 1000, None]])
def test_times_that_some_lack_are_refused(tmp_path: Path, moments: list[Any]) -> None:
    for suffix in ("jsonl", "parquet"):
        path = write_columns(tmp_path / f"log.{suffix}", timestamp=moments)
        with pytest.raises(InteractionError, match=r"row \d: timestamp is missing: expected"):
            read_interactions(path)


@pytest.mark.parametrize("mixed", [["2023-11-14", MOMENT], [MOMENT, "2023-11-14"], ["a", 2.5], [True, "x"]])
@pytest.mark.parametrize("name", ["timestamp", "weight"])
def test_json_of_several_kinds_is_refused(tmp_path: Path, name: str, mixed: list[Any]) -> None:
    path = write_columns(tmp_path / "log.jsonl", **{name: mixed})
    with pytest.raises(InteractionError, match=r"log\.jsonl"):
        read_interactions(path)


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    for suffix in ("csv", "jsonl"):
        path = write_columns(tmp_path / f"log.{suffix}", timestamp=[MOMENT])
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert read_interactions(path).user_ids == ("u",) and times_of(path) == [MOMENT]


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
        ("user_id,item_id\na,\n", "row 2: item_id is missing: expected text or a whole number"),
        ("user_id,item_id\na,  \n", "row 2: item_id is '  ': expected text"),
        ("user_id,item_id,weight\na,b,nan\n", "row 2: weight is 'nan': expected a finite number"),
        ("user_id,item_id,weight\na,b,1\na,c,-inf\n", "row 3: weight is '-inf': expected a finite number"),
        ("user_id,item_id,weight\na,b,1\na,c,heavy\n", "row 3: weight is 'heavy': expected a finite number"),
        ("user_id,item_id,timestamp\na,b,1\na,c,\n", "row 3: timestamp is missing: expected seconds since 1970"),
        ("user_id,item_id\na,b,c\n", "row 2: 3 cells, but the header has 2"),
        ("", "is empty: expected a header row"),
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
    with pytest.raises(InteractionError, match=r"ends in \.csv"):
        read_interactions(tmp_path / "log.txt")
    path = tmp_path / "log.jsonl"
    path.write_text('{"user_id": "a", "item_id": "b"}\n[1]\n')
    with pytest.raises(InteractionError, match="row 2: expected a JSON object, found list"):
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
    with pytest.raises(InteractionError, match=r"row 1: timestamp is .*: expected seconds"):
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


def test_a_folder_of_parquet_parts(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    for user, items in (("007", ["a", "b"]), ("x", ["a"])):
        (folder / f"user_id={user}").mkdir(parents=True)
        pq.write_table(
            pa.table({"item_id": items, "note": [None] * len(items)}), folder / f"user_id={user}" / "p.parquet"
        )
    assert pairs(read_interactions(folder)) == {("007", "a"), ("007", "b"), ("x", "a")}
    pq.write_table(pa.table({"item_id": [None]}, schema=pa.schema([("item_id", pa.string())])), folder / "user_id=x" / "q.parquet")  # fmt: skip  # noqa: E501
    with pytest.raises(InteractionError, match=r"user_id=x/q\.parquet, row 1: item_id is missing"):
        read_interactions(folder)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_the_row_of_a_bad_value_is_that_of_the_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"log.{suffix}"
    if suffix == "csv":
        path.write_text('user_id,item_id,note,weight\nu,a,"two\nlines",1\n\nu,b,,heavy\n')
    else:
        rows = [{"user_id": "u", "item_id": "a", "weight": "1"}, {"user_id": "u", "item_id": "b", "weight": "heavy"}]
        path.write_text("\n\n" + "\n\n".join(map(json.dumps, rows)))
    number = 4 if suffix == "csv" else 5
    with pytest.raises(InteractionError, match=rf"log\.{suffix}, row {number}: weight is 'heavy': expected"):
        read_interactions(path)


def test_missing_ids_of_json(tmp_path: Path) -> None:
    for missing in ("NaN", "null"):
        (tmp_path / "log.jsonl").write_text(
            f'{{"user_id": "u", "item_id": "i"}}\n{{"user_id": {missing}, "item_id": "i"}}'
        )
        with pytest.raises(InteractionError, match=r"log\.jsonl, row 2: user_id is missing"):
            read_interactions(tmp_path / "log.jsonl")
    (tmp_path / "log.jsonl").write_text('{"user_id": "u"}')
    with pytest.raises(InteractionError, match=r"log\.jsonl, row 1: there is no column item_id; found 'user_id'"):
        read_interactions(tmp_path / "log.jsonl")


@pytest.mark.parametrize("ids", [[1.5], [True], [["a"]]])
def test_ids_of_parquet_that_are_none(tmp_path: Path, ids: list[Any]) -> None:
    pq.write_table(pa.table({"user_id": ids, "item_id": ["i"]}), tmp_path / "log.parquet")
    with pytest.raises(InteractionError, match=r"log\.parquet, row 1: user_id is .*: expected text or a whole number"):
        read_interactions(tmp_path / "log.parquet")


def test_ids_of_parquet_of_other_types(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    for users in (pa.array([b"u"]), pa.array(["u"]).dictionary_encode(), pa.array(["u"], pa.large_string())):
        pq.write_table(pa.table({"user_id": users, "item_id": [1]}), path)
        assert pairs(read_interactions(path)) == {("u", "1")}
    pq.write_table(pa.table({"user_id": [b"\xff"], "item_id": [1]}), path)
    with pytest.raises(InteractionError, match=r"row 1: user_id is b'\\xff': expected text in UTF-8"):
        read_interactions(path)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_columns_without_any_value_are_as_if_not_there(tmp_path: Path, suffix: str) -> None:
    blank = "" if suffix == "csv" else None
    path = write_columns(tmp_path / f"log.{suffix}", timestamp=[blank, blank], weight=[blank, blank])
    interactions = read_interactions(path)
    assert interactions.timestamps is None and interactions.weights.tolist() == [1, 1]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_nanoseconds_of_iso_times_and_truth_values_of_weights(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"log.{suffix}"
    assert times_of(write_columns(path, timestamp=["2023-11-14T22:13:20.123456789Z"])) == [MOMENT + 0.123456]
    assert read_interactions(write_columns(path, weight=[True, False])).weights.tolist() == [1, 0]


@pytest.mark.parametrize("url", ["s3://bucket/log.csv", "https://example.org/log.parquet"])
def test_files_on_other_machines_are_refused_in_words(url: str) -> None:
    with pytest.raises(InteractionError, match=f"{url} is a URL: only local paths"):
        read_interactions(url)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("weight", [date(2024, 1, 1), date(2024, 1, 2)]),
        ("weight", [None, timedelta(1)]),
        ("weight", [[1.0], [2.0]]),
        ("timestamp", [True, False]),
        ("timestamp", [None, {"seconds": 1}]),
        ("timestamp", [time(1), time(2)]),
    ],
)
def test_values_of_another_kind_are_refused_though_arrow_could_cast_them(
    tmp_path: Path, name: str, values: list[Any]
) -> None:
    pq.write_table(pa.table({"user_id": ["u", "v"], "item_id": ["i", "j"], name: values}), tmp_path / "a.parquet")
    row = 1 if values[0] is not None else 2
    with pytest.raises(
        InteractionError, match=rf"a.parquet, row {row}: {name} is (?!missing).*: expected (a finite|sec)"
    ):
        read_interactions(tmp_path / "a.parquet")


def test_categories_are_read_as_their_values(tmp_path: Path) -> None:
    columns = {"user_id": ["u", "v"], "item_id": ["i", "j"], "weight": [2.0, 3.0], "timestamp": [5, 6]}
    table = pa.table({name: pa.array(values).dictionary_encode() for name, values in columns.items()})
    pq.write_table(table, tmp_path / "a.parquet")
    found = read_interactions(tmp_path / "a.parquet")
    assert found.weights.tolist() == [2.0, 3.0] and found.timestamps is not None and found.timestamps.tolist() == [5, 6]
