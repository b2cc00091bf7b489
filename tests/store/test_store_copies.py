"""A store that is copied or pickled opens its folder again."""

from __future__ import annotations

import copy
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from mmrec.catalog import Item
from mmrec.errors import StoreError
from mmrec.store import Features, FeatureStore, Tokens


def features(item_id: str) -> Features:
    tokens = Tokens(np.ones((1, 4), np.float32), np.zeros((1, 2)))
    return Features(Item(item_id=item_id), {"text": tokens}, fingerprints={"text": "f"})


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    store = FeatureStore(tmp_path / "store", create=True)
    store.write([features("a")])
    return store


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda store: pickle.loads(pickle.dumps(store))])  # noqa: S301
def test_a_copy_reads_and_writes_the_same_folder(store: FeatureStore, duplicate: object) -> None:
    other = duplicate(store)  # type: ignore[operator]
    assert other is not store
    assert other.folder == store.folder
    other.write([features("b")])
    assert [row.item.item_id for row in FeatureStore(store.folder).features()] == ["a", "b"]


def test_a_pickle_does_not_depend_on_the_working_folder(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps(FeatureStore("store"))
    monkeypatch.chdir("/")
    assert len(pickle.loads(data)) == 1  # noqa: S301


def test_a_store_goes_to_another_process(store: FeatureStore) -> None:
    with ProcessPoolExecutor(1, get_context("spawn")) as processes:
        assert processes.submit(len, store).result() == 1


def test_joblib_dumps_a_store(store: FeatureStore, tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib")
    joblib.dump({"features": store}, tmp_path / "dumped")
    assert len(joblib.load(tmp_path / "dumped")["features"]) == 1


def test_a_pickle_of_a_store_that_has_gone_away_is_refused_when_it_is_read(store: FeatureStore) -> None:
    data = pickle.dumps(store)
    shutil.rmtree(store.folder)
    with pytest.raises(StoreError, match="there is no store"):
        pickle.loads(data)  # noqa: S301
