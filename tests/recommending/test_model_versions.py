"""The versions of a model: readers find the old one or the new one, and nothing in between."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from planted import files_of, item_ids, planted, quick, watched, write_store

from mmrec.errors import ModelError, StoreError
from mmrec.recommending import Recommender, current_version, list_versions, rollback
from mmrec.recommending.model_versions import check_files
from mmrec.store.feature_store import FeatureStore

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return write_store(tmp_path_factory.mktemp("planted"), planted(item_ids()))


@pytest.fixture(scope="module")
def model(store: FeatureStore) -> Recommender:
    train, held_out = watched()
    return quick(store, train, validation=held_out)


@pytest.fixture
def folder(model: Recommender, tmp_path: Path) -> Path:
    model.save(tmp_path / "model")
    return tmp_path / "model"


def fewer(model_folder: Path, count: int) -> Recommender:
    """The model without some items, by which versions are told apart."""
    model = Recommender.load(model_folder)
    model.remove_items(model.item_ids[:count])
    return model


def test_versions_are_numbered_listed_and_kept(folder: Path) -> None:
    small = fewer(folder, 5)
    assert [small.save(folder) for _ in range(4)] == [2, 3, 4, 5]
    versions = list_versions(folder)
    assert [(v.number, v.is_current, v.items, v.users) for v in versions] == [
        (3, False, 35, 80), (4, False, 35, 80), (5, True, 35, 80)
    ]  # fmt: skip
    assert versions[0].validation == small.report.metrics and versions[0].saved_at.endswith("+00:00")
    assert small.save(folder, keep=1) == 6 and [v.number for v in list_versions(folder)] == [6]
    assert {path.name for path in folder.iterdir()} - {".lock"} == {"current", "versions"}
    assert {path.name for path in (folder / "versions").iterdir()} == {"6"}
    with pytest.raises(ModelError, match="versions to keep is 0"):
        small.save(folder, keep=0)


def test_going_back(folder: Path) -> None:
    for count in (1, 2):
        fewer(folder, count).save(folder)
    assert rollback(folder) == 2 == current_version(folder)
    assert len(Recommender.load(folder).item_ids) == 39
    assert rollback(folder, 1) == 1 and len(Recommender.load(folder).item_ids) == 40
    with pytest.raises(ModelError, match="no version before 1"):
        rollback(folder)
    with pytest.raises(ModelError, match="no version 9; it has 1, 2, 3"):
        rollback(folder, 9)
    (folder / "versions" / "3" / "items.parquet").write_bytes(b"")
    with pytest.raises(ModelError, match="is not the file"):
        rollback(folder, 3)
    assert current_version(folder) == 1
    assert fewer(folder, 4).save(folder) == 4  # the number of a version that was left is not given again


@pytest.mark.parametrize("place", ["pq.write_table", "save_arrays"])
def test_a_full_disk_leaves_the_old_version(
    folder: Path, model: Recommender, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(f"mmrec.recommending.model_files.{place}", full)
        with pytest.raises(ModelError, match="cannot be written: No space left on device"):
            model.save(folder)
    assert {path.name for path in (folder / "versions").iterdir()} == {"1"}
    assert len(Recommender.load(folder).item_ids) == 40 and model.save(folder) == 2


def test_what_cannot_be_read_back_is_not_published(
    folder: Path, model: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage(path: Path, *_: Any) -> None:
        (path / "model.json").write_text("{}")

    monkeypatch.setattr("mmrec.recommending.recommender.write_model", damage)
    with pytest.raises(ModelError, match="is damaged"):
        model.save(folder)
    monkeypatch.undo()
    assert current_version(folder) == 1 and Recommender.load(folder).user_ids == model.user_ids


def test_what_a_killed_job_left_is_swept(folder: Path, model: Recommender) -> None:
    (folder / "versions" / ".partial").mkdir()
    (folder / "versions" / ".partial" / "items.parquet").write_text("half")
    (folder / "versions" / ".pointer").write_text("7")
    assert model.save(folder) == 2
    assert {path.name for path in (folder / "versions").iterdir()} == {"1", "2"}


def test_a_reader_whose_version_goes_takes_the_next(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = fewer(folder, 3)

    def late(path: Path) -> None:
        check_files(path)
        if path == folder / "versions" / "1":
            monkeypatch.undo()
            small.save(folder, keep=1)
            assert not path.exists()

    monkeypatch.setattr("mmrec.recommending.model_files.check_files", late)
    assert len(Recommender.load(folder).item_ids) == 37


def test_readers_beside_a_writer(folder: Path) -> None:
    small, done, wrong = fewer(folder, 3), threading.Event(), list[object]()

    def read() -> None:
        while not done.is_set():
            try:
                found = len(Recommender.load(folder).item_ids)
                if found not in (37, 40):
                    wrong.append(found)
            except Exception as error:  # noqa: BLE001
                wrong.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for _ in range(8):
        small.save(folder, keep=1)
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == []


def test_files_have_the_mode_that_the_umask_gives(model: Recommender, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        model.save(tmp_path / "model")
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o640}
    assert files_of(tmp_path / "model").stat().st_mode & 0o777 == 0o750


def test_models_and_stores_are_told_apart(folder: Path, store: FeatureStore) -> None:
    with pytest.raises(ModelError, match="is a feature store, not a model: `mmrec fit --store"):
        Recommender.load(store.folder)
    with pytest.raises(StoreError, match="is a fitted model, not a store"):
        FeatureStore(folder)


def test_a_model_of_the_former_layout_and_a_damaged_pointer(folder: Path, tmp_path: Path) -> None:
    former = Path(shutil.copytree(files_of(folder), tmp_path / "former"))
    with pytest.raises(ModelError, match="saved by an earlier version of mmrec: fit it anew"):
        Recommender.load(former)
    (folder / "current").write_text("")
    with pytest.raises(ModelError, match="current holds no number"):
        Recommender.load(folder)
    (folder / "current").write_text("8")
    with pytest.raises(ModelError, match="is damaged"):
        Recommender.load(folder)
