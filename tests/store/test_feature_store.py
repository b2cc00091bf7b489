"""The feature store: what is written is read again, resumed, replaced, pruned and exported."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mmrec.store.feature_store
from mmrec.catalog.manifest import Item
from mmrec.errors import Problem, Reason, StoreError
from mmrec.store.feature_store import EncoderRecord, FeatureStore
from mmrec.store.features import Features, Modality, Tokens

DIMS: dict[Modality, int] = {"visual": 5, "audio": 3, "text": 4}
KEY = "0123456789abcdef" * 2
AWKWARD_IDS = [
    "it's",
    'say "hi"',
    "'; DROP TABLE items; --",
    "two\nlines",
    "a\tb",
    "%_*\\",
    " padded ",
    "狗🐕",
    "كلب",
    "a" * 500,
]


def key(number: int) -> str:
    return f"{number:016x}" * 2


def tokens(modality: Modality, count: int, seed: int = 0) -> Tokens:
    rng = np.random.default_rng([seed, count])
    starts_T = np.arange(count) / 3
    return Tokens(
        rng.normal(size=(count, DIMS[modality])).astype(np.float32), np.column_stack([starts_T, starts_T + 0.5])
    )


def make(item_id: str, *, seed: int = 0, fingerprint: str = "f", content: int = 1, **counts: int) -> Features:
    """An item with `counts` tokens of each modality named."""
    modalities: list[Modality] = [modality for modality in DIMS if modality in counts]
    return Features(
        Item(item_id=item_id, title=f"title of {item_id}"),
        tokens={modality: tokens(modality, counts[modality], seed) for modality in modalities},
        problems={modality: Problem(Reason.NO_STREAM, "none") for modality in DIMS if modality not in counts},
        fingerprints={modality: f"{modality}-{fingerprint}" for modality in modalities},
        content_key=key(content),
        catalog_key=key(1),
    )


def filled(folder: Path, rows: Sequence[Features]) -> FeatureStore:
    store = FeatureStore(folder, create=True)
    store.write(rows)
    return store


def by_id(store: FeatureStore) -> dict[str, Features]:
    rows = list(store.features())
    found = {row.item.item_id: row for row in rows}
    assert len(found) == len(rows)
    return found


def assert_same(left: Features, right: Features) -> None:
    assert left.tokens.keys() == right.tokens.keys()
    for modality, expected in right.tokens.items():
        found = left.tokens[modality]
        assert found.vectors_TD.dtype == np.float32
        np.testing.assert_array_equal(found.vectors_TD, expected.vectors_TD)
        np.testing.assert_array_equal(found.spans_T2, expected.spans_T2)
    assert dataclasses.replace(left, tokens={}) == dataclasses.replace(right, tokens={})


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return filled(tmp_path / "store", [make("a", visual=2, text=1), make("b", audio=3), make("c", seed=1, visual=4)])


# --- rows -------------------------------------------------------------------------------------------------------------


def test_every_field_comes_back(tmp_path: Path) -> None:
    item = Item(
        item_id="狗 🐕",
        media=tmp_path / "影片/狗.mp4",
        title="走路的狗",
        description="line one\nline two",
        tags=("a", "b|c", "🐾"),
        language="zh",
        metadata={"year": "2021", "导演": '"quoted"'},
    )
    row = Features(
        item,
        tokens={"visual": tokens("visual", 7), "text": tokens("text", 1)},
        problems={"visual": Problem(Reason.CORRUPT, "2 read errors"), "audio": Problem(Reason.NO_STREAM, "no sound")},
        fingerprints={"visual": "f1", "text": "f2"},
        duration_seconds=1.0 / 3.0,
        facts={"fps": 29.97, "video_codec": "h264", "注": [1, None]},
        content_key=KEY,
        catalog_key=KEY[::-1],
    )
    store = filled(tmp_path / "store", [row])
    (found,) = store.features()
    assert_same(found, row)
    assert store.to_arrow(["status"]).to_pylist() == [{"status": "partial"}]


def test_a_missing_modality_is_null_with_a_reason(store: FeatureStore) -> None:
    (row,) = (r for r in store.to_arrow().to_pylist() if r["item_id"] == "b")
    assert row["visual_tokens"] is None and row["visual_starts"] is None and row["visual_fingerprint"] is None
    assert row["visual_reason"] == "no_stream"
    assert np.shape(row["audio_tokens"]) == (3, DIMS["audio"])
    assert row["audio_reason"] is None
    assert row["status"] == "ok"


def test_awkward_ids_are_ids_like_others(tmp_path: Path) -> None:
    first = [make(item_id, visual=1) for item_id in AWKWARD_IDS]
    store = filled(tmp_path / "store", first)
    second = [make(item_id, seed=2, visual=2, content=2) for item_id in AWKWARD_IDS]
    store.write([], second[::2])
    found = by_id(store)
    assert set(found) == set(AWKWARD_IDS)
    for place, item_id in enumerate(AWKWARD_IDS):
        assert_same(found[item_id], first[place] if place % 2 else second[place])
    assert store.prune(AWKWARD_IDS[1:]) == 1
    assert set(by_id(store)) == set(AWKWARD_IDS[1:])


def test_a_changed_item_keeps_one_row(store: FeatureStore) -> None:
    changed = make("a", seed=9, audio=2, content=2)
    store.write([make("d", text=1)], [changed])
    assert len(store) == 4
    assert_same(by_id(store)["a"], changed)


def test_relabelling_changes_words_and_leaves_tokens(store: FeatureStore) -> None:
    before = by_id(store)
    item = Item(item_id="a", title="neu", description="d", tags=("x",), language="de", metadata={"k": "v"})
    store.relabel([(item, key(2)), (Item(item_id="b"), key(3))])
    after = by_id(store)
    assert after["a"].item == item
    assert_same(after["a"], dataclasses.replace(before["a"], item=item, catalog_key=key(2)))
    assert after["b"].item.title == ""
    assert_same(after["c"], before["c"])


def test_relabelling_an_unknown_item_adds_no_row(store: FeatureStore) -> None:
    store.relabel([(Item(item_id="z"), key(2))])
    assert set(by_id(store)) == {"a", "b", "c"}


def test_writing_nothing_is_allowed(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store", create=True)
    store.write([], [])
    store.relabel([])
    store.add_encoders([])
    assert len(store) == 0
    assert list(store.features()) == []
    ids, vectors_ID = store.vectors("visual")
    assert ids == [] and len(vectors_ID) == 0
    assert store.status().items == 0


# --- keys -------------------------------------------------------------------------------------------------------------


def test_keys_tell_new_changed_relabelled_and_same(tmp_path: Path) -> None:
    failed = make("failed")
    store = filled(tmp_path / "store", [make("a", visual=1), failed])
    keys = store.keys()
    assert keys.compare("a", key(1), key(1)) == "same"
    assert keys.compare("a", key(1), key(2)) == "relabelled"
    assert keys.compare("a", key(2), key(2)) == "changed"
    assert keys.compare("b", key(1), key(1)) == "new"
    assert keys.holds("a") and not keys.holds("b")
    assert keys.worth_retrying("failed") and not keys.worth_retrying("a") and not keys.worth_retrying("b")


def test_keys_of_an_empty_store(tmp_path: Path) -> None:
    keys = FeatureStore(tmp_path / "store", create=True).keys()
    assert keys.compare("a", key(1), key(1)) == "new"
    assert not keys.worth_retrying("a")


def test_keys_of_many_rows(tmp_path: Path) -> None:
    rows = [dataclasses.replace(make(f"item {n}", text=1), content_key=key(n * 2**40)) for n in range(3000)]
    keys = filled(tmp_path / "store", rows).keys()
    for row in rows:
        assert keys.compare(row.item.item_id, row.content_key, key(1)) == "same"
    assert not keys.holds("item 3000")


# --- prune ------------------------------------------------------------------------------------------------------------


def test_prune_deletes_what_left(store: FeatureStore) -> None:
    assert store.prune(iter(["a", "c", "never seen"])) == 1
    assert set(by_id(store)) == {"a", "c"}
    assert store.prune(["a", "c"]) == 0


def test_prune_with_nothing_to_keep_empties_the_store(store: FeatureStore) -> None:
    assert store.prune([]) == 3
    assert len(store) == 0


# --- encoders and status ----------------------------------------------------------------------------------------------


def record(modality: Modality, fingerprint: str = "f", **spec: Any) -> EncoderRecord:
    return EncoderRecord(
        fingerprint=f"{modality}-{fingerprint}",
        modality=modality,
        name=f"the {modality} encoder",
        dim=DIMS[modality],
        spec=spec,
    )


def test_an_encoder_is_recorded_once(store: FeatureStore) -> None:
    records = [record("visual", kind="descriptors", depth=[1, 2]), record("text", kind="é")]
    store.add_encoders(records)
    store.add_encoders([*records, record("audio")])
    found = {encoder.fingerprint: encoder for encoder in store.encoders()}
    assert found == {r.fingerprint: r for r in [*records, record("audio")]}
    assert len(store.encoders()) == 3


def test_status_counts_items_reasons_and_encoders(store: FeatureStore) -> None:
    broken = dataclasses.replace(
        make("broken", text=1), problems={"visual": Problem(Reason.CORRUPT), "audio": Problem(Reason.TIMEOUT)}
    )
    store.write([broken, make("empty")])
    store.add_encoders([record("visual"), record("text"), record("visual", "unused")])
    status = store.status()
    assert status.items == 5
    assert status.statuses == {"ok": 3, "partial": 1, "failed": 1}
    assert status.reasons == {
        "visual": {"no_stream": 2, "corrupt": 1},
        "audio": {"no_stream": 3, "timeout": 1},
        "text": {"no_stream": 3},
    }
    assert [(e["modality"], e["fingerprint"], e["items"]) for e in status.encoders] == [
        ("text", "text-f", 2),
        ("visual", "visual-f", 2),
    ]
    assert status.bytes_on_disk == sum(p.stat().st_size for p in store.folder.rglob("*") if p.is_file())
    assert json.loads(json.dumps(dataclasses.asdict(status)))["statuses"]["ok"] == 3


# --- vectors ----------------------------------------------------------------------------------------------------------


def test_vectors_are_the_mean_direction_of_the_tokens(tmp_path: Path) -> None:
    rows = [make(str(n), seed=n, visual=1 + n % 5) if n % 3 else make(str(n), text=2) for n in range(2500)]
    store = filled(tmp_path / "store", rows)
    ids, vectors_ID = store.vectors("visual")
    assert vectors_ID.dtype == np.float32
    assert set(ids) == {str(n) for n in range(2500) if n % 3}
    for item_id, vector_D in zip(ids, vectors_ID, strict=True):
        tokens_TD = rows[int(item_id)].tokens["visual"].vectors_TD.astype(np.float64)
        mean_D = (tokens_TD / np.linalg.norm(tokens_TD, axis=1, keepdims=True)).mean(axis=0)
        np.testing.assert_allclose(vector_D, mean_D / np.linalg.norm(mean_D), atol=1e-6)


def test_vectors_of_mixed_encoders_are_refused(store: FeatureStore) -> None:
    store.write([make("d", fingerprint="other", visual=1)])
    with pytest.raises(StoreError, match="visual tokens of 2 encoders"):
        store.vectors("visual")
    assert store.vectors("audio")[0] == ["b"]


def test_vectors_of_an_unknown_modality_are_refused(store: FeatureStore) -> None:
    with pytest.raises(StoreError, match="modality 'smell'"):
        store.vectors("smell")  # type: ignore[arg-type]


# --- export -----------------------------------------------------------------------------------------------------------


def test_parquet_holds_every_column(store: FeatureStore, tmp_path: Path) -> None:
    (path,) = store.export(tmp_path / "out" / "deep", "parquet")
    table = pq.read_table(path)
    assert table.schema.names == store.to_arrow().schema.names
    assert table.sort_by("item_id").to_pylist() == store.to_arrow().sort_by("item_id").to_pylist()


def test_parquet_is_read_by_pandas(store: FeatureStore, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    (path,) = store.export(tmp_path, "parquet")
    frame = pandas.read_parquet(path).set_index("item_id")
    np.testing.assert_array_equal(np.stack(frame.loc["a", "visual_tokens"]), tokens("visual", 2).vectors_TD)
    assert frame.loc["b", "visual_tokens"] is None


def test_parquet_is_read_by_polars(store: FeatureStore, tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    (path,) = store.export(tmp_path, "parquet")
    row = polars.read_parquet(path).row(by_predicate=polars.col("item_id") == "a", named=True)
    np.testing.assert_array_equal(np.array(row["visual_tokens"], np.float32), tokens("visual", 2).vectors_TD)
    assert row["audio_tokens"] is None


def test_parquet_is_read_by_duckdb(store: FeatureStore, tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    (path,) = store.export(tmp_path, "parquet")
    query = "select item_id, len(visual_tokens), visual_reason from read_parquet(?) order by item_id"
    assert duckdb.execute(query, [str(path)]).fetchall() == [("a", 2, None), ("b", None, "no_stream"), ("c", 4, None)]


def test_npy_rows_follow_the_item_table(tmp_path: Path) -> None:
    rows = [make(str(n), seed=n, visual=1 + n % 3, **({"audio": 2} if n % 4 == 0 else {})) for n in range(2100)]
    store = filled(tmp_path / "store", rows)
    paths = store.export(tmp_path / "out", "npy")
    assert [path.name for path in paths] == ["items.parquet", "visual.npy", "audio.npy"]
    table = pq.read_table(paths[0])
    assert table.schema.names == ["item_id", "status", "visual_count", "audio_count", "text_count"]
    for modality in ("visual", "audio"):
        array_TD = np.load(tmp_path / "out" / f"{modality}.npy", mmap_mode="r")
        assert array_TD.dtype == np.float32
        counts = table[f"{modality}_count"].to_pylist()
        assert sum(counts) == len(array_TD)
        for item_id, part_TD in zip(
            table["item_id"].to_pylist(), np.split(array_TD, np.cumsum(counts)[:-1]), strict=True
        ):
            expected = rows[int(item_id)].tokens.get(modality)  # type: ignore[call-overload]
            np.testing.assert_array_equal(
                part_TD, np.zeros_like(part_TD[:0]) if expected is None else expected.vectors_TD
            )


def test_npy_of_mixed_encoders_is_refused(store: FeatureStore, tmp_path: Path) -> None:
    store.write([make("d", fingerprint="other", visual=1)])
    with pytest.raises(StoreError, match="visual tokens of 2 encoders"):
        store.export(tmp_path / "out", "npy")


def test_an_empty_store_exports_empty_tables(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store", create=True)
    (parquet,) = store.export(tmp_path / "a", "parquet")
    assert pq.read_table(parquet).num_rows == 0
    (items,) = store.export(tmp_path / "b", "npy")
    assert pq.read_table(items).num_rows == 0


def test_export_onto_a_file_is_refused(store: FeatureStore, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("here already")
    with pytest.raises(StoreError):
        store.export(tmp_path / "out", "parquet")


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


def test_compaction_keeps_rows_and_merges_fragments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmrec.store.feature_store, "COMMITS_BETWEEN_COMPACTIONS", 4)
    store = FeatureStore(tmp_path / "store", create=True)
    rows = [make(str(n), seed=n, visual=2) for n in range(16)]
    for start in range(0, 16, 2):
        store.write(rows[start : start + 2], [dataclasses.replace(rows[0], content_key=key(start))])
    found = by_id(store)
    assert len(found) == 16
    for row in rows[1:]:
        assert_same(found[row.item.item_id], row)
    assert found["0"].content_key == key(14)
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
    store.write([], [dataclasses.replace(row, content_key=key(1)) for row in rows[:20]])
    store.compact()
    assert num_fragments(store) == 1, "half of the rows were replaced"
    assert len(by_id(store)) == 40


def num_fragments(store: FeatureStore) -> int:
    return int(store._items.stats()["fragment_stats"]["num_fragments"])
