"""What a store is exported to: Parquet and NumPy files, read by others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from store_rows import filled, make, tokens

from mmrec.errors import StoreError
from mmrec.store.feature_store import FeatureStore


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
    assert [path.name for path in paths] == ["token_counts.parquet", "visual.npy", "audio.npy"]
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
