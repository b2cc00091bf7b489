from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from object_stores import BUCKET, Watched, upload

from mmrec.catalog import read_catalog
from mmrec.errors import CatalogError, Reason
from mmrec.remote import Access, Url, objects

ROWS = [
    {"item_id": "below", "media": "clips/雨 1.mp4", "title": "rain"},
    {"item_id": "above", "media": "../secret.mp4", "title": "t"},
    {"item_id": "hidden", "media": "clips/../../secret.mp4", "title": "t"},
    {"item_id": "elsewhere", "media": "gs://other/a.mp4", "title": "t"},
    {"item_id": "web", "media": "https://media.example.org/a.mp4", "title": "t"},
    {"item_id": "local", "media": "/etc/passwd", "title": "t"},
    {"item_id": "file", "media": "file:///etc/passwd", "title": "t"},
    {"item_id": "words", "media": "", "title": "words"},
]


def at(key: str) -> str:
    return f"s3://{BUCKET}/{key}"


@pytest.fixture(params=["csv", "jsonl", "parquet"])
def catalog(bucket: Watched, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    name = f"catalog.{request.param}"
    table = pa.Table.from_pylist(ROWS)
    if request.param == "csv":
        pyarrow.csv.write_csv(table, tmp_path / name)
    elif request.param == "parquet":
        pq.write_table(table, tmp_path / name)
    else:
        table.to_pandas().to_json(tmp_path / name, orient="records", lines=True, force_ascii=False)
    objects.write(Url.parse(at(f"folder/{name}")), tmp_path / name)
    return at(f"folder/{name}")


def test_a_catalog_at_a_url(catalog: str) -> None:
    found = read_catalog(catalog, access=Access(hosts=("media.example.org",)))
    assert found.num_items == len(ROWS) and repr(found) == f"Catalog('{catalog}', {len(ROWS)} items)"
    items = {item.item_id: item for item in found.items()}
    assert str(items["below"].media) == at("folder/clips/雨 1.mp4")
    assert str(items["elsewhere"].media) == "gs://other/a.mp4"
    assert str(items["web"].media) == "https://media.example.org/a.mp4"
    assert items["words"].media is None and items["words"].problem is None
    told = {"above": "leaves the catalog's folder", "hidden": "leaves the catalog's folder"}
    told |= dict.fromkeys(("local", "file"), "only with a media root")
    for item_id, words in told.items():
        problem = items[item_id].problem
        assert problem is not None and problem.reason is Reason.FORBIDDEN_PATH and words in problem.detail
    found.check_unchanged()
    objects.write(Url.parse(catalog), objects.read_whole(Url.parse(catalog)) + b"\n")
    with pytest.raises(CatalogError, match="changed while it was read"):
        found.check_unchanged()


def test_media_roots(catalog: str, tmp_path: Path) -> None:
    below = {i.item_id: i for i in read_catalog(catalog, media_root=at("folder")).items()}
    assert below["below"].problem is None
    for item_id in ("elsewhere", "local", "file"):
        problem = below[item_id].problem
        assert problem is not None and "outside the media root" in problem.detail
    local = {i.item_id: i for i in read_catalog(catalog, media_root="/etc").items()}
    assert local["local"].media == Path("/etc/passwd").resolve()
    assert local["below"].problem is not None


def test_a_prefix_is_a_folder_of_media(bucket: Watched, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.mp4", "sub/b c.wav", "sub/.trash/d.mp4", "._e.mp4", "Thumbs.db", "notes.txt"):
        (tmp_path / "prefix" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "prefix" / name).write_bytes(b"x")
    upload(tmp_path)
    local, remote = (list(read_catalog(place).items()) for place in (tmp_path / "prefix", at("prefix")))
    assert [item.item_id for item in remote] == [item.item_id for item in local] == ["a.mp4", "sub/b c.wav"]
    assert str(remote[1].media) == at("prefix/sub/b c.wav")
    assert "passed over 1 file that is no media: 1 .txt" in caplog.text


def test_parts_below_a_prefix_are_a_table(bucket: Watched, tmp_path: Path) -> None:
    for part in range(2):
        folder = tmp_path / "parts" / f"year={2000 + part}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"item_id": [f"i{part}"], "title": ["t"]}), folder / "part-0.parquet")
    upload(tmp_path)
    items = list(read_catalog(at("parts")).items())
    assert [(item.item_id, item.metadata["year"]) for item in items] == [("i0", "2000"), ("i1", "2001")]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (at("none.csv"), f"there is no object at {at('none.csv')}"),
        (at("nowhere"), f"there is no catalog at {at('nowhere')}"),
        ("s3://no-such-bucket/c.csv", "no-such-bucket"),
        ("s3://no-such-bucket/folder", "there is no bucket s3://no-such-bucket"),
        ("http://example.org/c.csv", "expected a local path, or one of"),
        ("https://127.0.0.1:9/c.csv", "cannot be read, after 5 tries"),
        ("https://localhost:9/c.csv", "an address of this machine or its network"),
    ],
)
def test_what_is_no_catalog_is_said_in_words(bucket: Watched, url: str, words: str) -> None:
    with pytest.raises(CatalogError, match=words) as caught:
        read_catalog(url)
    assert "\n" not in str(caught.value)


def test_what_is_wrong_in_a_catalog_names_the_url_and_the_row(bucket: Watched) -> None:
    objects.write(Url.parse(at("bad.csv")), b"item_id,title\na,t\na,u\n")
    with pytest.raises(CatalogError, match=rf"{at('bad.csv')}, row 3: item_id 'a' stands already in row 2"):
        read_catalog(at("bad.csv"))
