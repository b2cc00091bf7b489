"""Catalogs: what is read, what is refused with its row, what is recorded on the item."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from manifests import WRITERS, items_of, only, write_csv, write_jsonl, write_parquet

from mmrec.catalog.manifest import Item, read_catalog
from mmrec.errors import CatalogError, Reason

ROWS = [
    {
        "item_id": "狗-1",
        "media": "影片/狗 🐕.mp4",
        "title": "走路的狗",
        "description": 'line one\nline two, "quoted"',
        "tags": "动物 | outdoors||🐾",
        "language": "zh",
        "year": "2021",
    },
    {
        "item_id": "كلب",
        "media": "clips/a.1.mp4",
        "title": "كلب ينبح",
        "description": "",
        "tags": "",
        "language": "ar",
        "year": "",
    },
    {"item_id": "🎵", "media": "", "title": "Ω", "description": "", "tags": "x", "language": "", "year": "1999"},
]


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_the_same_items(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"目录 🎬.{kind}"
    WRITERS[kind](path, ROWS)
    dog, arabic, note = items_of(path)
    assert dog == Item(
        item_id="狗-1",
        media=tmp_path / "影片/狗 🐕.mp4",
        title="走路的狗",
        description='line one\nline two, "quoted"',
        tags=("动物", "outdoors", "🐾"),
        language="zh",
        metadata={"year": "2021"},
    )
    assert (arabic.item_id, arabic.title, arabic.tags, arabic.metadata) == ("كلب", "كلب ينبح", (), {})
    assert (note.item_id, note.media, note.problem) == ("🎵", None, None)


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    assert only(write_csv(tmp_path / "c.csv", [{"item_id": "a", "title": "t"}], encoding="utf-8-sig")).item_id == "a"
    path = tmp_path / "c.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"item_id": "a", "title": "t"}\n')
    assert only(path).item_id == "a"


def test_suffixes_are_read_whatever_their_case(tmp_path: Path) -> None:
    assert only(write_csv(tmp_path / "c.CSV", [{"item_id": "a", "title": "t"}])).title == "t"


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_whole_numbers_are_ids_and_lists_are_tags(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"c.{kind}"
    WRITERS[kind](path, [{"item_id": 7, "tags": ["a", " b|c ", ""], "title": "t"}])
    item = only(path)
    assert item.item_id == "7"
    assert item.tags == ("a", "b|c")


def test_other_columns_are_kept_as_metadata(tmp_path: Path) -> None:
    row = {"item_id": "a", "title": "t", "year": 2021, "genre": {"x": ["é"]}, "none": None, "empty": "", "zero": 0}
    assert only(write_jsonl(tmp_path / "c.jsonl", [row])).metadata == {
        "year": "2021",
        "genre": '{"x": ["é"]}',
        "zero": "0",
    }


def test_parquet_values_of_any_type_become_text(tmp_path: Path) -> None:
    import datetime

    row = {"item_id": "a", "title": "t", "day": datetime.date(2024, 2, 29), "share": 0.5, "raw": b"\xff"}
    metadata = only(write_parquet(tmp_path / "c.parquet", [row])).metadata
    assert metadata["share"] == "0.5"
    assert "2024-02-29" in metadata["day"]
    assert json.dumps(dict(metadata))


def test_blank_lines_are_no_rows_but_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('\n{"item_id": "a", "title": "t"}\n\n{"item_id": "a", "title": "t"}\n')
    with pytest.raises(CatalogError, match="row 4: item_id 'a' stands already in row 2"):
        read_catalog(path)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_repeated_id_names_both_rows(tmp_path: Path, kind: str) -> None:
    rows = [{"item_id": i, "title": "t"} for i in ("a", "b", "c", "b")]
    first, second = (3, 5) if kind == "csv" else (2, 4)
    path = WRITERS[kind](tmp_path / f"c.{kind}", rows)
    with pytest.raises(CatalogError, match=f"row {second}: item_id 'b' stands already in row {first}"):
        read_catalog(path)


def test_a_number_and_its_text_are_one_id(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"item_id": 1, "title": "t"}, {"item_id": "1", "title": "t"}]
    with pytest.raises(CatalogError, match="row 2: item_id '1' stands already in row 1"):
        read_catalog(write_jsonl(tmp_path / "c.jsonl", rows))


@pytest.mark.parametrize("item_id", ["", "  ", None])
def test_an_empty_id_names_its_row(tmp_path: Path, item_id: str | None) -> None:
    rows = [{"item_id": "a", "title": "t"}, {"item_id": item_id, "title": "t"}]
    with pytest.raises(CatalogError, match="row 2: item_id is empty"):
        read_catalog(write_jsonl(tmp_path / "c.jsonl", rows))


@pytest.mark.parametrize("item_id", [1.5, True, ["a"], {"a": 1}])
def test_an_id_is_text_or_a_whole_number(tmp_path: Path, item_id: object) -> None:
    with pytest.raises(CatalogError, match=r"row 1: item_id .* is neither text nor a whole number"):
        read_catalog(write_jsonl(tmp_path / "c.jsonl", [{"item_id": item_id, "title": "t"}]))


def test_half_of_a_surrogate_pair_is_no_id_but_does_no_harm_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"item_id": "\\ud83d", "title": "t"}\n')
    with pytest.raises(CatalogError, match=r"row 1: .*not valid Unicode"):
        read_catalog(path)
    path.write_text('{"item_id": "a", "title": "x\\ud83d", "note\\ud83d": "y\\ud83d", "tags": ["z\\ud83d"]}\n')
    item = only(path)
    assert "\N{REPLACEMENT CHARACTER}" not in item.item_id
    for text in (item.title, *item.tags, *item.metadata.keys(), *item.metadata.values()):
        text.encode()


REFUSED_CSV = [
    pytest.param(b"", "is empty", id="empty file"),
    pytest.param(b"id,title\n1,t\n", "no column item_id; found 'id', 'title'", id="no item_id"),
    pytest.param(b"item_id,title,title\n1,t,u\n", "'title' more than once", id="repeated column"),
    pytest.param("item_id,title\na,café\n".encode("latin-1"), "not UTF-8", id="latin-1"),
    pytest.param("item_id,title\na,t\n".encode("utf-16-le"), "not UTF-8", id="utf-16 without a mark"),
    pytest.param("item_id,title\na,t\n".encode("utf-32"), "not UTF-8", id="utf-32"),
    pytest.param("item_id,title\na,t\n".encode("utf-16")[:-1], "not UTF-16", id="utf-16 cut off"),
    pytest.param(b"item_id,title\na,t\nb,x,y\n", "row 3: 3 cells, but the header has 2", id="too many cells"),
    pytest.param(b"item_id,title\na,t\nb\n", "row 3: 1 cells, but the header has 2", id="too few cells"),
    pytest.param(b'item_id,title\na,"open\n', "not CSV", id="open quote"),
]


@pytest.mark.parametrize(("content", "message"), REFUSED_CSV)
def test_a_bad_csv_is_refused_with_its_place(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "c.csv"
    path.write_bytes(content)
    with pytest.raises(CatalogError, match=message) as caught:
        read_catalog(path)
    assert str(path) in str(caught.value)


GOOD_LINE = b'{"item_id": "a", "title": "t"}\n'
REFUSED_JSONL = [
    pytest.param(GOOD_LINE + b'{"item_id": "b"', "row 2: not JSON", id="cut off"),
    pytest.param(GOOD_LINE + b'["b"]', "row 2: expected a JSON object, found list", id="list"),
    pytest.param(GOOD_LINE + b'{"title": "t"}', "row 2: there is no column item_id", id="no item_id"),
    pytest.param(GOOD_LINE + b'{"item_id": "caf\xe9"}', "row 2: not UTF-8", id="latin-1"),
    pytest.param(b"[" * 100_000, "row 1: not JSON", id="deep nesting"),
]


@pytest.mark.parametrize(("content", "message"), REFUSED_JSONL)
def test_a_bad_jsonl_is_refused_with_its_row(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(content)
    with pytest.raises(CatalogError, match=message):
        read_catalog(path)


def test_a_bad_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(CatalogError, match="not a readable Parquet file"):
        read_catalog(path)
    with pytest.raises(CatalogError, match="no column item_id"):
        read_catalog(write_parquet(path, [{"id": "a"}]))


def test_what_is_no_catalog_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="there is no catalog at"):
        read_catalog(tmp_path / "nothing.csv")
    path = tmp_path / "catalog.xlsx"
    path.write_bytes(b"PK")
    with pytest.raises(CatalogError, match=r"a folder or a file that ends in \.csv"):
        read_catalog(path)


def test_a_catalog_without_items_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("item_id,title\n")
    (tmp_path / "c.jsonl").write_text("\n")
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "notes.txt").write_text("no media")
    for name, wanted in (("c.csv", "a row"), ("c.jsonl", "a row"), ("media", "a media file")):
        with pytest.raises(CatalogError, match=f"{name} has no items: expected at least {wanted}"):
            read_catalog(tmp_path / name)


def test_a_row_with_neither_media_nor_text_is_the_item_s_own_problem(tmp_path: Path) -> None:
    rows = [
        {"item_id": "a", "media": "", "title": " ", "description": "", "tags": "|", "language": "en"},
        {"item_id": "b", "media": "", "title": "", "description": "", "tags": "x", "language": ""},
    ]
    empty, tagged = items_of(write_csv(tmp_path / "c.csv", rows))
    assert empty.problem is not None and empty.problem.reason is Reason.NO_CONTENT
    assert tagged.problem is None


def test_a_manifest_that_changes_under_the_reader_is_noticed(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "c.csv", [{"item_id": "a", "title": "t"}, {"item_id": "b", "title": "u"}])
    catalog = read_catalog(path)
    items = catalog.items()
    assert next(items).item_id == "a"
    catalog.check_unchanged()
    with open(path, "a") as file:
        file.write("c,v\n")
    assert next(items).item_id == "b"
    with pytest.raises(CatalogError, match="changed while it was read"):
        catalog.check_unchanged()


def test_items_can_be_read_more_than_once(tmp_path: Path) -> None:
    catalog = read_catalog(write_csv(tmp_path / "c.csv", ROWS))
    assert list(catalog.items()) == list(catalog.items())


@pytest.mark.parametrize("kind", WRITERS)
def test_a_large_catalog_is_streamed(tmp_path: Path, kind: str) -> None:
    """A manifest of 100 MB goes through a few MB of memory, with the ids' hashes to know them again."""
    num_rows = 20_000
    text = "x" * 5000
    path = tmp_path / f"c.{kind}"
    WRITERS[kind](path, [{"item_id": f"item number {n}", "title": text} for n in range(num_rows)])
    tracemalloc.start()
    catalog = read_catalog(path)
    count = sum(1 for _ in catalog.items())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert catalog.num_items == count == num_rows
    assert peak < 20e6


def test_knowing_ids_again_takes_little_memory(tmp_path: Path) -> None:
    num_rows = 100_000
    path = tmp_path / "c.csv"
    path.write_text("item_id,title\n" + "".join(f"{'long' * 50}{n},t\n" for n in range(num_rows)))
    tracemalloc.start()
    assert read_catalog(path).num_items == num_rows
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150 * num_rows


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_missing_values_are_no_text(tmp_path: Path, kind: str) -> None:
    nan = float("nan")
    rows: list[dict[str, Any]] = [
        {"item_id": "a", "media": nan, "title": "t", "tags": nan, "year": nan, "rank": float("inf")},
        {"item_id": "b", "media": "b.mp4", "title": None, "tags": None, "year": 2001.0, "rank": None},
    ]
    if kind == "parquet":  # a column of Parquet has one type: media and tags of it would be text
        for row in rows:
            row |= {name: None for name in ("media", "tags") if row[name] is nan}
    first, second = items_of(WRITERS[kind](tmp_path / f"c.{kind}", rows))
    assert (first.media, first.tags, first.metadata) == (None, (), {})
    assert (second.title, second.metadata, second.problem) == ("", {"year": "2001"}, None)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_ids_and_titles_of_other_types(tmp_path: Path, kind: str) -> None:
    import decimal

    row: dict[str, Any] = {"item_id": 7, "title": 1984, "live": True}
    if kind == "parquet":
        row |= {"item_id": decimal.Decimal(7), "title": b"1984"}
    item = only(WRITERS[kind](tmp_path / f"c.{kind}", [row]))
    assert (item.item_id, item.title, item.metadata) == ("7", "1984", {"live": "true"})
    with pytest.raises(CatalogError, match="row 1: item_id is empty"):
        read_catalog(WRITERS[kind](tmp_path / f"c.{kind}", [{"item_id": float("nan"), "title": "t"}]))


def test_columns_almost_named_are_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_csv(tmp_path / "c.csv", [{"Item_ID": "a", " media": "a.mp4", "Title ": "t"}])
    item = only(path)
    assert (item.item_id, item.media, item.title) == ("a", tmp_path / "a.mp4", "t")
    (record,) = caplog.records
    assert "'Item_ID' for item_id, ' media' for media, 'Title ' for title" in record.getMessage()


def test_a_folder_of_parquet_parts_is_a_manifest(tmp_path: Path) -> None:
    for folder in (tmp_path / "catalog.parquet", tmp_path / "parts"):
        (folder / "year=2001").mkdir(parents=True)
        write_parquet(folder / "part-0.parquet", [{"item_id": "a", "media": "a.mp4"}])
        write_parquet(folder / "year=2001" / "part-1.parquet", [{"item_id": "b", "title": "t"}])
        (folder / "_SUCCESS").touch()
        catalog = read_catalog(folder)
        first, second = catalog.items()
        assert first.media == tmp_path / "a.mp4"  # beside the manifest
        assert (second.item_id, second.metadata) == ("b", {"year": "2001"})
        catalog.check_unchanged()
        write_parquet(folder / "part-2.parquet", [{"item_id": "a", "title": "t"}])
        with pytest.raises(CatalogError, match="changed while it was read"):
            catalog.check_unchanged()
        message = r"part-2\.parquet, row 1: item_id 'a' stands already in .*part-0\.parquet, row 1"
        with pytest.raises(CatalogError, match=message):
            read_catalog(folder)


@pytest.mark.parametrize("url", ["hdfs://host/c.csv", "http://example.org/c.csv", "ftp://host/c.parquet"])
def test_catalogs_that_cannot_be_reached_are_refused_in_words(url: str) -> None:
    for path in (url, Path(url)):
        with pytest.raises(CatalogError, match=f"{url} cannot be reached: expected a local path, or one of s3://"):
            read_catalog(path)
