"""Opening a store, damaged ones, and many processes at once."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from store_rows import DIMS, assert_same, by_id, key, make

import mmrec.store.feature_store
import mmrec.store.tables
from mmrec.errors import StoreError
from mmrec.store.feature_store import FeatureStore

# --- opening ----------------------------------------------------------------------------------------------------------


def test_a_folder_that_is_no_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no store at .*make one with `mmrec embed"):
        FeatureStore(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(StoreError, match="there is no store at"):
        FeatureStore(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("words")
    with pytest.raises(StoreError):
        FeatureStore(tmp_path / "file", create=True)


def test_a_store_of_another_schema_is_refused(tmp_path: Path) -> None:
    import lancedb

    lancedb.connect(tmp_path).create_table("items", pa.table({"item_id": ["a"], "vector": [1.0]}))
    for create in (False, True):
        with pytest.raises(StoreError, match="made by another version of mmrec"):
            FeatureStore(tmp_path, create=create)


def test_a_store_of_an_earlier_version_opens_and_is_to_be_embedded_anew(store: FeatureStore) -> None:
    import lancedb

    table = lancedb.connect(store.folder).open_table("items")
    table.drop_columns(["visual_classes", "visual_class_scores", "text_language"])
    table.drop_columns(["media_hash", "media_state", *(f"{m}_{n}" for m in DIMS for n in ("key", "stale_since"))])
    table.add_columns({"content_key": "'00'"})
    opened = FeatureStore(store.folder)
    assert sorted(row.item.item_id for row in opened.features()) == ["a", "b", "c"]
    row = opened.keys().row("a")
    assert row is not None and set(row.keys.values()) == {""} and row.with_tokens
    opened.write([make("d", text=1)])
    assert len(opened) == 4


@pytest.mark.parametrize("part", ["_versions", "data"])
def test_a_damaged_store_says_so(store: FeatureStore, part: str) -> None:
    shutil.rmtree(store.folder / "items.lance" / part)
    with pytest.raises(StoreError, match="store ") as caught:
        FeatureStore(store.folder).vectors("visual")
    assert str(store.folder) in str(caught.value)


@pytest.mark.parametrize(
    "read",
    [
        lambda store: store.vectors("visual"),
        lambda store: list(store.features()),
        lambda store: store.status(),
        lambda store: store.keys(),
        lambda store: store.to_arrow(),
        lambda store: store.export(store.folder / "out", "parquet"),
        lambda store: store.export(store.folder / "out", "npy"),
    ],
    ids=["vectors", "features", "status", "keys", "to_arrow", "parquet", "npy"],
)
def test_a_truncated_store_says_so_whatever_is_read(store: FeatureStore, read: Any) -> None:
    for path in (store.folder / "items.lance" / "data").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StoreError, match="store "):
        read(FeatureStore(store.folder))


# --- many at once -----------------------------------------------------------------------------------------------------


def test_a_second_writer_is_refused_at_once(store: FeatureStore) -> None:
    program = textwrap.dedent("""
        import sys
        from mmrec.errors import StoreError
        from mmrec.store.feature_store import FeatureStore
        try:
            with FeatureStore(sys.argv[1]).lock():
                print("mine")
        except StoreError as error:
            print(error)
    """)

    def other_process() -> str:
        command = [sys.executable, "-c", program, str(store.folder)]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout

    with store.lock():
        assert "is being written by another job" in other_process()
        with pytest.raises(StoreError, match="another job"), FeatureStore(store.folder).lock():
            pass
    assert other_process() == "mine\n"


def test_readers_see_whole_commits(store: FeatureStore) -> None:
    reader = FeatureStore(store.folder)
    batches = store.scan(["item_id"])
    store.write([make("d", visual=1)], [make("a", seed=5, visual=1, content=2)])
    assert sorted(batches.read_all()["item_id"].to_pylist()) == ["a", "b", "c"]
    assert len(FeatureStore(store.folder)) == 4
    assert len(reader) in {3, 4}


def test_an_open_store_reads_on_after_its_version_was_dropped(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = FeatureStore(store.folder)
    reader.vectors("visual")
    monkeypatch.setattr(mmrec.store.tables, "LONGEST_READ", timedelta(0))
    store.write([make("d", visual=2)], [dataclasses.replace(row, catalog_key=key(7)) for row in by_id(store).values()])
    before = [version.number for version in store.versions()]
    store.compact(timedelta(0))
    kept = [version.number for version in store.versions()]
    assert len(kept) == 1 and kept[0] not in before, "the version that the reader opened is gone"
    assert sorted(row.item.item_id for row in reader.features()) == ["a", "b", "c", "d"]
    assert len(reader) == 4 and "d" in reader.vectors("visual")[0]


def test_the_version_that_a_young_run_started_from_is_not_dropped(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mmrec.store.tables, "LONGEST_READ", timedelta(0))
    with store.run("a job") as run:
        store.write([], [dataclasses.replace(row, catalog_key=key(7)) for row in by_id(store).values()])
        store.compact(timedelta(days=1))
    (tagged,) = (version for version in store.versions() if version.tag == run.run_id)
    store.restore(tagged.number)
    assert by_id(store)["a"].catalog_key == key(1)
    monkeypatch.setattr(mmrec.store.tables, "run_start", lambda _: datetime(2020, 1, 1, tzinfo=UTC))
    store.write([], [dataclasses.replace(row, catalog_key=key(8)) for row in by_id(store).values()])
    store.compact(timedelta(0))
    assert [version.tag for version in store.versions()] == [""]


def test_compaction_keeps_rows_and_merges_fragments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmrec.store.feature_store, "COMMITS_BETWEEN_COMPACTIONS", 4)
    store = FeatureStore(tmp_path / "store", create=True)
    rows = [make(str(n), seed=n, visual=2) for n in range(16)]
    for start in range(0, 16, 2):
        store.write(rows[start : start + 2], [dataclasses.replace(rows[0], catalog_key=key(start))])
    found = by_id(store)
    assert len(found) == 16
    for row in rows[1:]:
        assert_same(found[row.item.item_id], row)
    assert found["0"].catalog_key == key(14)
    assert num_fragments(store) < 8


def test_a_large_store_is_not_rewritten_for_a_few_new_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmrec.store.feature_store, "COMMITS_BETWEEN_COMPACTIONS", 4)
    store = FeatureStore(tmp_path / "store", create=True)
    rows = [make(str(n), seed=n, visual=1) for n in range(40)]
    store.write(rows[:24])
    for row in rows[24:35]:
        store.write([row])
    assert num_fragments(store) == 12, "eleven new rows beside 24"
    for row in rows[35:]:
        store.write([row])
    assert num_fragments(store) == 17, "no more in them than in the first"
    store.write([], [dataclasses.replace(row, catalog_key=key(1)) for row in rows[:20]])
    store.compact()
    assert num_fragments(store) == 1, "half of the rows were replaced"
    assert len(by_id(store)) == 40


def num_fragments(store: FeatureStore) -> int:
    return int(store._items.stats()["fragment_stats"]["num_fragments"])


def test_a_store_where_none_can_be_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("hdfs://host/store", Path("hdfs://host/store")):
        with pytest.raises(StoreError, match=r"hdfs://host/store cannot be reached: expected a local path, or one of"):
            FeatureStore(folder, create=True)
    with pytest.raises(StoreError, match=r"https://example.org/store can only be read"):
        FeatureStore("https://example.org/store", create=True)
    assert not list(tmp_path.iterdir())


def test_what_no_folder_needs_is_imported_only_when_it_is_asked_for(tmp_path: Path) -> None:
    words = f"""
import sys
from mmrec.store import FeatureStore
FeatureStore({str(tmp_path / "store")!r}, create=True)
assert "lance_namespace_urllib3_client.api" not in sys.modules
import lance_namespace_urllib3_client
print(lance_namespace_urllib3_client.ApiClient.__name__)
from lance_namespace_urllib3_client import Configuration
"""
    found = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert found.stdout == "ApiClient\n"
