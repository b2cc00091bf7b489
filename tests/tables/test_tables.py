"""Tables: encodings, names of columns, formats and folders, missing values, and what is refused in which words."""

from __future__ import annotations

import json
import logging
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmrec.errors import CatalogError, ModelError
from mmrec.remote import find_url
from mmrec.tables import Table, is_missing, local_path, read_lines, to_text, walk_files

TEXT = "item_id,title\na,café 狗\nb,u\n"
LINES = '{"item_id": "a", "title": "café 狗"}\n{"item_id": "b", "title": "u"}\n'
EXPECTED = [{"item_id": "a", "title": "café 狗"}, {"item_id": "b", "title": "u"}]


def table(path: Path, *, others: bool = True) -> Table:
    return Table(path, known=["item_id", "title"], required=["item_id"], others=others, error=CatalogError)


def values_of(path: Path, **options: bool) -> list[dict[str, Any]]:
    return [values for _, values in table(path, **options).rows()]


def written(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


# --- encodings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize(("suffix", "text"), [("csv", TEXT), ("jsonl", LINES)])
def test_text_is_read_in_these_encodings(tmp_path: Path, suffix: str, text: str, encoding: str, line_end: str) -> None:
    path = written(tmp_path / f"t.{suffix}", text.replace("\n", line_end), encoding)
    assert values_of(path) == EXPECTED
    assert table(path).columns().to_pylist() == EXPECTED


def test_utf_16_with_its_big_end_first(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "\ufeff" + TEXT, "utf-16-be")
    assert values_of(path) == EXPECTED


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32", "latin-1"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_others_are_refused_in_words(tmp_path: Path, suffix: str, encoding: str) -> None:
    text = (TEXT if suffix == "csv" else LINES).replace(" 狗", "")
    path = written(tmp_path / f"t.{suffix}", text, encoding)
    for read in (values_of, lambda path: table(path).columns()):
        with pytest.raises(CatalogError, match=r"not UTF-8 .*: save the file as UTF-8") as caught:
            read(path)
        assert str(path) in str(caught.value)


def test_lines_know_their_number(tmp_path: Path) -> None:
    path = written(tmp_path / "users.txt", "\r\nuser 1\r\n\u2028x\n  \nlast", "utf-8-sig")
    assert list(read_lines(path, ModelError)) == [(2, "user 1"), (3, "\u2028x"), (5, "last")]
    path.write_bytes(b"a\ncaf\xe9\n")
    with pytest.raises(ModelError, match=r"row 2: not UTF-8"):
        list(read_lines(path, ModelError))


# --- names of columns -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header", ["Item_ID,Title", " item_id,title ", "item_id, title", "Item ID,TITLE", "item-id,title"]
)
def test_columns_that_are_almost_named_are_taken_with_one_warning(
    tmp_path: Path, header: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path / "t.csv", f"{header}\na,t\nb,u\n")
    for read in (lambda found: list(found.rows()), Table.columns):
        found = table(path)
        caplog.clear()
        read(found)
        found.warn_of_renamed()
        (record,) = caplog.records
        assert record.levelno == logging.WARNING and str(path) in record.getMessage()
    assert values_of(path) == table(path).columns().to_pylist() == [
        {"item_id": "a", "title": "t"},
        {"item_id": "b", "title": "u"},
    ]  # fmt: skip


def test_blanks_after_the_commas_of_a_header_are_none_of_the_cells(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", 'item_id, title, year\na, "x, y", 2001\n')
    assert values_of(path) == [{"item_id": "a", "title": "x, y", "year": "2001"}]
    assert table(path, others=False).columns().to_pylist() == [{"item_id": "a", "title": "x, y"}]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_columns_that_become_one_are_refused_by_both_names(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t.{suffix}"
    if suffix == "csv":
        written(path, "item_id,Title,title\na,t,u\n")
    elif suffix == "jsonl":
        written(path, '{"item_id": "a", "Title": "t", "title": "u"}\n')
    else:
        pq.write_table(pa.table({"item_id": ["a"], "Title": ["t"], "title": ["u"]}), path)
    for read in (values_of, lambda path: table(path).columns()):
        with pytest.raises(CatalogError, match="'Title' and 'title' are both taken for the column title"):
            read(path)


def test_repeated_columns(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "item_id,year,year,,\na,1,2,3,4\n")
    with pytest.raises(CatalogError, match="the header names 'year' more than once"):
        values_of(path)
    assert values_of(path, others=False) == table(path, others=False).columns().to_pylist() == [{"item_id": "a"}]
    written(path, "item_id,item_id\na,b\n")
    with pytest.raises(CatalogError, match="the header names 'item_id' more than once"):
        table(path, others=False).columns()


def test_the_row_numbers_of_a_data_frame_are_no_column(tmp_path: Path) -> None:
    frame = pd.DataFrame({"item_id": ["a", "b", "c"], "year": [1, 2, 3]})
    frame.to_csv(tmp_path / "t.csv")
    frame[frame.year > 1].to_parquet(tmp_path / "t.parquet")
    assert values_of(tmp_path / "t.csv")[0] == {"item_id": "a", "year": "1"}
    assert values_of(tmp_path / "t.parquet")[0] == {"item_id": "b", "year": 2}


def test_other_separators_are_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no column item_id; found 'item_id;title': cells are separated by commas"):
        values_of(written(tmp_path / "t.csv", "item_id;title\na;t\n"))


# --- rows and columns -------------------------------------------------------------------------------------------------


def test_line_breaks_in_quotes_at_any_size(tmp_path: Path) -> None:
    text = "".join(f'{n},"line one {n}\nline two, ""{n}"""\n' for n in range(150_000))
    path = written(tmp_path / "t.csv", "item_id,review\n" + text)
    assert path.stat().st_size > 4 * 2**20
    columns = table(path, others=False).columns()
    assert columns["item_id"].to_pylist() == [str(n) for n in range(150_000)]
    assert sum(1 for _ in table(path).rows()) == 150_000


def test_cells_of_megabytes(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", f"item_id,notes\na,{'x' * 20_000_000}\nb,\n")
    assert table(path, others=False).columns()["item_id"].to_pylist() == ["a", "b"]
    assert [len(values["notes"]) for values in values_of(path)] == [20_000_000, 0]


def test_bytes_in_columns_that_nobody_needs_may_be_anything(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"item_id,notes\na,caf\xe9\n")
    assert table(path, others=False).columns().to_pylist() == [{"item_id": "a"}]


def test_ids_keep_their_zeros(tmp_path: Path) -> None:
    assert table(written(tmp_path / "t.csv", "item_id\n007\n")).columns()["item_id"].to_pylist() == ["007"]


def test_large_cells_of_parquet_are_read_a_few_rows_at_a_time(tmp_path: Path) -> None:
    import tracemalloc

    pq.write_table(pa.table({"item_id": [f"{n}" for n in range(100)], "notes": ["x" * 2_000_000] * 100}), tmp_path / "t.parquet", use_dictionary=False)  # fmt: skip  # noqa: E501
    tracemalloc.start()
    assert sum(1 for _ in table(tmp_path / "t.parquet").rows()) == 100
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30e6


def test_places(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "item_id\na\n\nb\n")
    assert table(path).where_record(1) == f"{path}, row 4"
    folder = tmp_path / "t.parquet"
    folder.mkdir()
    for name, ids in (("part-0.parquet", ["a", "b"]), ("part-1.parquet", ["c"])):
        pq.write_table(pa.table({"item_id": ids}), folder / name)
    assert [row for row, _ in table(folder).rows()] == [1, 2, 3]
    assert table(folder).where(3) == table(folder).where_record(2) == f"{folder / 'part-1.parquet'}, row 1"


def test_values_unlike_those_of_other_rows(tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl", '{"item_id": 1}\n\n{"item_id": "a"}\n')
    assert table(path).columns()["item_id"].to_pylist() == ["1", "a"]
    written(path, f'{{"item_id": {2**70}}}\n')
    assert table(path).columns()["item_id"].to_pylist() == [str(2**70)]
    written(path, '{"item_id": "a"}\n\n{"item_id": [1]}\n')
    with pytest.raises(CatalogError, match=r"t\.jsonl, row 3: item_id \[1\] is unlike the values of other rows"):
        table(path).columns()


# --- folders of Parquet parts -----------------------------------------------------------------------------------------


def test_a_folder_of_parts_as_pandas_writes_it(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "item_id": ["a", "b", "c"],
            "title": ["t", "u", "v"],
            "genre": ["sci-fi/x", None, "jazz"],
            "code": ["007", "1", "1"],
        }
    )
    frame.to_parquet(tmp_path / "t.parquet", partition_cols=["genre", "code"])
    (tmp_path / "t.parquet" / "_SUCCESS").touch()
    (tmp_path / "t.parquet" / ".part-0.parquet.crc").write_bytes(b"x")
    (tmp_path / "t.parquet" / "_temporary").mkdir()
    (tmp_path / "t.parquet" / "_temporary" / "part-9.parquet").write_bytes(b"half a file")
    expected = {row["item_id"]: row for row in frame.to_dict("records")}
    expected["b"]["genre"] = None
    for rows in (values_of(tmp_path / "t.parquet"), table(tmp_path / "t.parquet").columns().to_pylist()):
        assert {row["item_id"]: row for row in rows} == expected


def test_parts_may_hold_other_types_and_columns(tmp_path: Path) -> None:
    folder = tmp_path / "t.parquet"
    folder.mkdir()
    pq.write_table(pa.table({"item_id": ["a"], "title": pa.array([None], pa.null())}), folder / "part-0.parquet")
    pq.write_table(pa.table({"title": ["t"], "item_id": ["b"], "year": [1]}), folder / "part-1.parquet")
    assert values_of(folder) == [{"item_id": "a", "title": None}, {"title": "t", "item_id": "b", "year": 1}]
    assert table(folder, others=False).columns()["title"].to_pylist() == [None, "t"]
    pq.write_table(pa.table({"item_id": [5]}), folder / "part-2.parquet")
    with pytest.raises(CatalogError, match="its parts do not fit together"):
        table(folder).columns()
    (folder / "part-1.parquet").write_bytes(b"PAR1")
    with pytest.raises(CatalogError, match="not a readable Parquet file"):
        values_of(folder)


def test_a_folder_without_parts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").mkdir()
    for read in (values_of, lambda path: table(path).columns()):
        with pytest.raises(CatalogError, match="a folder without Parquet files"):
            read(tmp_path / "t.parquet")


def test_files_below_a_folder(tmp_path: Path) -> None:
    for name in (
        "b.mp4",
        "._b.mp4",
        ".DS_Store",
        ".Trashes/x.mp4",
        "@eaDir/x.jpg",
        "sub/c.mp4",
        "real/d.mp4",
        "Thumbs.db",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "sub" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "up").symlink_to(tmp_path)
    (tmp_path / "real" / "across").symlink_to(tmp_path / "sub")
    found = [str(path.relative_to(tmp_path)) for path in walk_files(tmp_path)]
    assert found == ["b.mp4", "real/d.mp4", "real/across/c.mp4", "sub/c.mp4", "sub/link/d.mp4"]


# --- paths and values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["s3://b/t.csv", "https://example.org/t.csv", "gs://b/t", "az:/b/t"])
def test_what_is_local_alone_refuses_urls_in_words(url: str) -> None:
    for path in (url, Path(url)):
        with pytest.raises(ModelError, match=r"^\w+://.* is a URL: only local paths"):
            local_path(path, ModelError)


@pytest.mark.parametrize("url", ["file:///t.csv", "hdfs:/b/t.csv", "http://example.org/t.csv"])
def test_urls_of_unknown_schemes_are_refused_with_those_that_are_known(url: str) -> None:
    for path in (url, Path(url)):
        with pytest.raises(ModelError, match=r"cannot be reached: .* local path, or one of s3://, gs://, az://, https"):
            local_path(path, ModelError)


@pytest.mark.parametrize("path", ["t.csv", "/a/b:c/t.csv", "C:/t.csv", "a:b", "./s3://x", "12:/x"])
def test_paths_are_no_urls(path: str) -> None:
    assert find_url(path) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (float("nan"), ""),
        (float("-inf"), ""),
        (np.float64("nan"), ""),
        (pd.NaT, ""),
        (Decimal("NaN"), ""),
        (True, "true"),
        (2001, "2001"),
        (2001.0, "2001"),
        (0.5, "0.5"),
        (-0.0, "0"),
        (1e300, "1e+300"),
        (Decimal("9.90"), "9.90"),
        (Decimal("1E+3"), "1000"),
        (date(2024, 2, 29), "2024-02-29"),
        (datetime(2024, 2, 29, 12, tzinfo=UTC), "2024-02-29T12:00:00+00:00"),
        (time(12, 30), "12:30:00"),
        (timedelta(hours=1), "1:00:00"),
        ("狗".encode(), "狗"),
        (b"\xff", ""),
        ("nan", "nan"),
        (["a", float("nan"), 1.0, date(2024, 2, 29)], '["a", null, 1, "2024-02-29"]'),
        ({"a": {1: b"x"}}, '{"a": {"1": "x"}}'),
    ],
)
def test_values_in_words(value: Any, text: str) -> None:
    assert to_text(value) == text
    assert is_missing(value) == (text == "" and not isinstance(value, bytes))


def test_values_of_parquet(tmp_path: Path) -> None:
    columns = {
        "item_id": ["a"],
        "single": pa.array([4.1], pa.float32()),
        "moment": pa.array([1_700_000_000_123_456_789], pa.timestamp("ns")),
        "hour": pa.array([3_600_000_000_001], pa.time64("ns")),
        "length": pa.array([1_500_000_001], pa.duration("ns")),
        "kind": pa.array(["x"]).dictionary_encode(),
        "price": pa.array([Decimal("9.90")]),
        "a.dot": [1],
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    (values,) = values_of(tmp_path / "t.parquet")
    assert {name: to_text(value) for name, value in values.items()} == {
        "item_id": "a",
        "single": "4.1",
        "moment": "2023-11-14T22:13:20.123456",
        "hour": "01:00:00",
        "length": "0:00:01.500000",
        "kind": "x",
        "price": "9.90",
        "a.dot": "1",
    }
    assert json.dumps(to_text(values))
