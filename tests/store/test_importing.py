"""Features made elsewhere: what is taken over, row by row, and what is refused."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mmrec.catalog.manifest import read_catalog
from mmrec.errors import CatalogError, Reason, StoreError
from mmrec.store.feature_store import FeatureStore
from mmrec.store.features import Features, Status
from mmrec.store.importing import import_features

IDS = ["b", "a", "c"]


@pytest.fixture
def items(tmp_path: Path) -> Path:
    path = tmp_path / "items.csv"
    path.write_text("item_id,title,age_limit\n" + "".join(f"{name},Title {name},12\n" for name in IDS))
    return path


def save(path: Path, array: NDArray[Any]) -> Path:
    np.save(path, array, allow_pickle=True)
    return path


def stored(folder: Path) -> dict[str, Features]:
    return {features.item.item_id: features for features in FeatureStore(folder).features()}


def test_rows_belong_to_items_in_order(items: Path, tmp_path: Path) -> None:
    visual = np.arange(12, dtype=np.float64).reshape(3, 4)
    audio = np.arange(30, dtype=np.float32).reshape(3, 2, 5)
    paths = {"visual": save(tmp_path / "v.npy", visual), "audio": save(tmp_path / "a.npy", audio)}
    assert import_features(items, tmp_path / "store", paths) == 3  # type: ignore[arg-type]
    found = stored(tmp_path / "store")
    assert set(found) == set(IDS)
    for row, name in enumerate(IDS):
        assert np.array_equal(found[name].tokens["visual"].vectors_TD, visual[row : row + 1])
        assert np.array_equal(found[name].tokens["audio"].vectors_TD, audio[row])
        assert found[name].tokens["audio"].spans_T2.shape == (2, 2)
        assert found[name].status is Status.OK and found[name].item.title == f"Title {name}"
        assert found[name].item.metadata == {"age_limit": "12"}
    records = {record.modality: record for record in FeatureStore(tmp_path / "store").encoders()}
    assert {m: record.dim for m, record in records.items()} == {"visual": 4, "audio": 5}
    assert records["visual"].spec == {"kind": "imported"} and "v.npy" in records["visual"].name


def test_more_items_than_one_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmrec.store.importing.ROWS_PER_COMMIT", 4)
    manifest = tmp_path / "many.jsonl"
    manifest.write_text("".join(f'{{"item_id": {k}}}\n' for k in range(10)))
    vectors = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    import_features(manifest, tmp_path / "store", {"text": save(tmp_path / "t.npy", vectors)})
    found = stored(tmp_path / "store")
    assert read_catalog(manifest).num_items == len(found) == 10
    assert all(np.array_equal(found[str(k)].tokens["text"].vectors_TD[0], vectors[k]) for k in range(10))


@pytest.mark.parametrize("dtype", ["float16", "float64", ">f4", "int8", "uint16"])
def test_all_real_numbers_become_float32(items: Path, tmp_path: Path, dtype: str) -> None:
    vectors = np.array([[1, 2], [3, 4], [5, 6]]).astype(dtype)
    import_features(items, tmp_path / "store", {"visual": save(tmp_path / "v.npy", np.asfortranarray(vectors))})
    tokens = stored(tmp_path / "store")["a"].tokens["visual"].vectors_TD
    assert tokens.dtype == np.float32 and tokens.tolist() == [[3, 4]]


def test_tokens_that_are_not_finite_are_left_out(items: Path, tmp_path: Path) -> None:
    vectors = np.ones((3, 2, 4))
    vectors[0, 0, 1] = np.nan
    vectors[1] = np.inf
    vectors[2, 1, 3] = 1e300  # not in float32
    import_features(items, tmp_path / "store", {"visual": save(tmp_path / "v.npy", vectors)})
    found = stored(tmp_path / "store")
    assert len(found["b"].tokens["visual"].vectors_TD) == len(found["c"].tokens["visual"].vectors_TD) == 1
    assert found["a"].tokens == {} and found["a"].problems["visual"].reason is Reason.NOT_FINITE
    assert found["a"].status is Status.FAILED and FeatureStore(tmp_path / "store").status().statuses["failed"] == 1


def test_importing_again_replaces(items: Path, tmp_path: Path) -> None:
    store, path = tmp_path / "store", tmp_path / "v.npy"
    import_features(items, store, {"visual": save(path, np.ones((3, 4)))})
    first = FeatureStore(store).fingerprints()
    import_features(items, store, {"visual": path})
    assert FeatureStore(store).fingerprints() == first and len(FeatureStore(store)) == 3
    import_features(items, store, {"visual": save(path, np.full((3, 6), 2.0))})
    assert FeatureStore(store).fingerprints() != first and len(FeatureStore(store)) == 3
    assert stored(store)["a"].tokens["visual"].vectors_TD.tolist() == [[2.0] * 6]


def test_features_that_cannot_be_compared_are_not_mixed(items: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    import_features(items, store, {"visual": save(tmp_path / "v.npy", np.ones((3, 4)))})
    before = FeatureStore(store).fingerprints()
    for name in ("a", "new"):
        part = tmp_path / "part.csv"
        part.write_text(f"item_id\n{name}\n")
        with pytest.raises(StoreError, match="visual tokens of another origin"):
            import_features(part, store, {"visual": save(tmp_path / "w.npy", np.ones((1, 4)) * 2)})
    assert FeatureStore(store).fingerprints() == before and len(FeatureStore(store)) == 3
    import_features(part, store, {"audio": tmp_path / "w.npy"})
    assert set(FeatureStore(store).fingerprints()) == {"visual", "audio"} and len(FeatureStore(store)) == 4


def test_one_file_for_two_modalities(items: Path, tmp_path: Path) -> None:
    path = save(tmp_path / "x.npy", np.ones((3, 4)))
    import_features(items, tmp_path / "store", {"visual": path, "audio": path})
    status = FeatureStore(tmp_path / "store").status()
    assert {(e["modality"], e["items"]) for e in status.encoders} == {("visual", 3), ("audio", 3)}


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.ones((2, 4)), "has 2 rows, the manifest 3"),
        (np.ones(3), "not real numbers"),
        (np.ones((3, 1, 1, 1)), "not real numbers"),
        (np.ones((3, 0)), "not real numbers"),
        (np.ones((3, 0, 4)), "not real numbers"),
        (np.ones((3, 4), bool), "holds bool"),
        (np.ones((3, 4), complex), "holds complex128"),
        (np.array([["a"], ["b"], ["c"]]), "not real numbers"),
        (np.array([[None], [1], ["x"]], dtype=object), "cannot be read as a NumPy file"),
        (np.zeros((3, 2), [("x", float)]), "not real numbers"),
    ],
)
def test_arrays_that_are_no_features(items: Path, tmp_path: Path, array: NDArray[Any], words: str) -> None:
    with pytest.raises(CatalogError, match=words):
        import_features(items, tmp_path / "store", {"visual": save(tmp_path / "v.npy", array)})
    assert not (tmp_path / "store").exists()


def _npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, x=np.ones((3, 4)))
    return file.getvalue()


def _truncated() -> bytes:
    file = io.BytesIO()
    np.save(file, np.ones((3, 4)))
    return file.getvalue()[:-8]


class Exploding:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("a pickle was opened",))


@pytest.mark.parametrize("data", [b"", b"junk", _npz(), _truncated(), pickle.dumps(Exploding())])
def test_files_that_are_no_arrays(items: Path, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "v.npy"
    path.write_bytes(data)
    with pytest.raises(CatalogError, match="cannot be read as a NumPy file"):
        import_features(items, tmp_path / "store", {"visual": path})


def test_pickled_objects_in_an_array_are_not_opened(items: Path, tmp_path: Path) -> None:
    path = save(tmp_path / "v.npy", np.array([[Exploding()]] * 3, dtype=object))
    with pytest.raises(CatalogError, match="Python objects"):
        import_features(items, tmp_path / "store", {"visual": path})


def test_nothing_to_import(items: Path, tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="nothing to import"):
        import_features(items, tmp_path / "store", {})
    with pytest.raises(CatalogError, match="No such file"):
        import_features(items, tmp_path / "store", {"visual": tmp_path / "none.npy"})
    with pytest.raises(CatalogError, match="no catalog"):
        import_features(tmp_path / "none.csv", tmp_path / "store", {"visual": tmp_path / "none.npy"})


def test_a_store_in_use_is_left_alone(items: Path, tmp_path: Path) -> None:
    path = save(tmp_path / "v.npy", np.ones((3, 4)))
    with (
        FeatureStore(tmp_path / "store", create=True).lock(),
        pytest.raises(StoreError, match="being written by another job"),
    ):
        import_features(items, tmp_path / "store", {"visual": path})


def test_items_of_the_same_origin_join_later(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part, names in (("first", ["a", "b'; drop", "c"]), ("second", ["d", "e"])):
        np.save(tmp_path / f"{part}.npy", rng.normal(size=(len(names), 4)).astype(np.float32))
        lines = [f'"{name}","title of {name}"' for name in names]
        (tmp_path / f"{part}.csv").write_text("\n".join(["item_id,title", *lines]) + "\n")
        import_features(
            tmp_path / f"{part}.csv", tmp_path / "store", {"visual": tmp_path / f"{part}.npy"}, origin="clip"
        )
    store = FeatureStore(tmp_path / "store")
    assert len(store) == 5 and len(store.fingerprints()) == 1
    chosen = {f.item.item_id: f.tokens["visual"].vectors_TD for f in store.features(["d", "b'; drop", "nobody"])}
    assert sorted(chosen) == ["b'; drop", "d"]
    assert np.array_equal(chosen["d"][0], np.load(tmp_path / "second.npy")[0])
    assert list(store.features([])) == []
    with pytest.raises(StoreError, match="same origin"):
        import_features(
            tmp_path / "second.csv", tmp_path / "store", {"visual": tmp_path / "second.npy"}, origin="other"
        )
