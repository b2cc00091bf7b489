"""The tables that are searched follow the items, and only what changed is written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from store_rows import DIMS, make

from mmrec.errors import StoreError
from mmrec.store import EncoderRecord, FeatureStore, SearchTables
from mmrec.store import searching as searching_module


@pytest.fixture
def tables(store: FeatureStore) -> SearchTables:
    store.add_encoders(
        EncoderRecord(fingerprint=f"{m}-f", modality=m, name=m, dim=dim, spec={"kind": "imported"})
        for m, dim in DIMS.items()
    )
    return SearchTables(store)


def visual_ids(tables: SearchTables) -> list[str]:
    hits = tables.nearest("visual", np.ones((1, DIMS["visual"]), np.float32), column="tokens", limit=99)
    return sorted(item_id for item_id, _ in hits)


def test_only_what_changed_is_written(store: FeatureStore, tables: SearchTables) -> None:
    assert tables.is_missing
    assert tables.refresh() == 3 + 4  # words of three items; visual, text, audio, visual
    assert (tables.refresh(), tables.is_outdated) == (0, False)
    store.write([make("d", visual=1)], [make("a", content=2, seed=5, visual=2, text=1)])
    assert tables.is_outdated
    assert tables.refresh() == 2 + 2  # words and pictures of d; pictures and text of a, whose words are the same
    assert visual_ids(tables) == ["a", "c", "d"]
    kept = tables.moments("visual", ["a"])["a"]
    (row,) = store.features(["a"])
    vectors_TD = row.tokens["visual"].vectors_TD
    np.testing.assert_allclose(kept.vectors_TD, vectors_TD / np.linalg.norm(vectors_TD, axis=1, keepdims=True), 1e-5)
    np.testing.assert_array_equal(kept.spans_T2, row.tokens["visual"].spans_T2)


def test_rows_that_left_are_found_no_more(store: FeatureStore, tables: SearchTables) -> None:
    tables.refresh()
    version = store.version
    store.prune(["b", "c"])
    assert tables.refresh() == 3
    assert visual_ids(tables) == ["c"]
    assert [item_id for item_id, _ in tables.matching("title", limit=9)] == ["b", "c"]
    store.restore(version)
    assert tables.refresh() == 3
    assert visual_ids(tables) == ["a", "c"]


def test_a_modality_without_any_token_leaves(store: FeatureStore, tables: SearchTables) -> None:
    tables.refresh()
    store.prune(["c"])
    tables.refresh()
    assert sorted(tables.fingerprints) == ["visual"]
    assert not (store.folder / "search.audio.lance").exists()


def test_imported_rows_without_keys_are_written_again(store: FeatureStore, tables: SearchTables) -> None:
    row = make("d", visual=1)
    row.keys = {}
    store.write([row])
    tables.refresh()
    store.write([make("e", text=1)])
    assert tables.refresh() == 2 + 1  # the words and text of e; the pictures of d


def test_mixed_encoders_are_refused(store: FeatureStore, tables: SearchTables) -> None:
    store.write([make("d", fingerprint="g", visual=1)])
    with pytest.raises(StoreError, match="2 encoders"):
        tables.refresh()
    assert tables.is_missing


def test_many_tokens_are_compared_as_brute_force_does(store: FeatureStore, tables: SearchTables) -> None:
    tables.refresh()
    wanted_TD = np.random.default_rng(1).normal(size=(3, DIMS["visual"])).astype(np.float32)
    wanted_TD /= np.linalg.norm(wanted_TD, axis=1, keepdims=True)
    tokens = tables.moments("visual", ["a", "b", "c"])
    expected = {i: float((of.vectors_TD @ wanted_TD.T).max(axis=0).mean()) for i, of in tokens.items()}
    found = tables.nearest("visual", wanted_TD, column="tokens", limit=9)
    assert dict(found) == pytest.approx(expected, abs=1e-5)
    assert [item_id for item_id, _ in found] == sorted(expected, key=lambda item_id: -expected[item_id])


def test_many_rows_get_indices_that_find_the_best(
    store: FeatureStore, tables: SearchTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching_module, "INDEXED_ROWS", 300)
    monkeypatch.setattr(searching_module, "EXACT_ROWS", 50)
    store.write([make(f"n{number}", seed=number, visual=2) for number in range(300)])
    tables.refresh()
    assert (store.folder / "search.visual.lance" / "_indices").is_dir()
    tokens = tables.moments("visual", [row for row, _ in tables.matching("title", limit=999)])
    wanted_1D = np.eye(DIMS["visual"], dtype=np.float32)[:1]
    exact = sorted(tokens, key=lambda item_id: -float((tokens[item_id].vectors_TD @ wanted_1D[0]).max()))
    for where in ("", "item_id != 'nobody'"):
        found = tables.nearest("visual", wanted_1D, column="tokens", where=where, limit=10)
        assert len({item_id for item_id, _ in found} & set(exact[:10])) >= 9
    few = tables.nearest("visual", wanted_1D, column="tokens", where="item_id IN ('n7', 'n8')", limit=10)
    assert sorted(item_id for item_id, _ in few) == ["n7", "n8"]
    store.write([make("late", seed=999, visual=2)])
    tables.refresh()
    late_1D = tables.moments("visual", ["late"])["late"].vectors_TD[:1]
    assert tables.nearest("visual", late_1D, column="tokens", limit=1)[0][0] == "late"


@pytest.mark.parametrize("column", ["vector", "tokens"])
def test_a_filter_that_leaves_few_is_answered_exactly(
    store: FeatureStore, tables: SearchTables, column: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching_module, "ROWS_AT_ONCE", 7)
    store.write([make(f"n{number}", seed=number, visual=1 + number % 3) for number in range(30)])
    tables.refresh()
    wanted_TD = np.random.default_rng(2).normal(size=(1 if column == "vector" else 3, DIMS["visual"]))
    wanted_TD = (wanted_TD / np.linalg.norm(wanted_TD, axis=1, keepdims=True)).astype(np.float32)
    where = "item_id IN ('n1', 'n2', 'n3', 'n5', 'n8', 'n13', 'n21')"
    by_engine = dict(tables.nearest("visual", wanted_TD, column=column, limit=99))
    found = tables.nearest("visual", wanted_TD, column=column, where=where, limit=5)
    expected = {f"n{number}": by_engine[f"n{number}"] for number in (1, 2, 3, 5, 8, 13, 21)}
    assert [item_id for item_id, _ in found] == sorted(expected, key=lambda i: (-expected[i], i))[:5]
    assert [score for _, score in found] == pytest.approx([expected[item_id] for item_id, _ in found], abs=1e-5)
    assert tables.nearest("visual", wanted_TD, column=column, where="item_id = 'nobody'", limit=5) == []


def test_every_width_is_cut_into_pieces_of_few_numbers() -> None:
    cut = {dim: searching_module._num_sub_vectors(dim) for dim in (64, 153, 512, 1700, 151, 4)}
    assert cut == {64: 8, 153: 51, 512: 64, 1700: 340, 151: 151, 4: 1}


def test_sets_are_searched_apart(store: FeatureStore, tables: SearchTables) -> None:
    tables.refresh()
    other = FeatureStore(store.folder, create=True, encoder_set="other")
    other.write([make("z", visual=1)])
    of_other = SearchTables(other)
    of_other.refresh()
    assert (visual_ids(of_other), visual_ids(tables)) == (["z"], ["a", "c"])
    assert store.sets() == ["", "other"]


def test_tokens_that_point_nowhere_are_left_out(store: FeatureStore, tables: SearchTables) -> None:
    dark, half = make("dark", visual=2), make("half", visual=3)
    dark.tokens["visual"].vectors_TD[:] = 0
    half.tokens["visual"].vectors_TD[1] = 0
    store.write([dark, half])
    tables.refresh()
    assert visual_ids(tables) == ["a", "c", "half"]
    kept = tables.moments("visual", ["half"])["half"]
    assert len(kept.vectors_TD) == 2
    np.testing.assert_array_equal(kept.spans_T2, half.tokens["visual"].spans_T2[[0, 2]])
