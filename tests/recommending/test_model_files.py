"""Models on disk: the same answers after loading, no pickles, and one clear line for what is damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planted import (
    CONFIG,
    DAY,
    QUIET,
    SMALL,
    files_of,
    item_ids,
    planted,
    quick,
    seal,
    to_interactions,
    watched,
    with_times,
    write_store,
)
from safetensors.numpy import load_file, save_file

from mmrec.errors import ModelError
from mmrec.evaluation.interactions import make_interactions
from mmrec.recommending.fitting import RecommenderConfig
from mmrec.recommending.recommender import Recommender
from mmrec.store.feature_store import FeatureStore

pytestmark = pytest.mark.usefixtures("one_thread")
TOWER = {"tower.json", "tower.safetensors"}
FILES = {"manifest.json", "model.json", *TOWER, "items.safetensors", "items.parquet", "interactions.parquet"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return write_store(tmp_path_factory.mktemp("planted"), planted(item_ids()))


@pytest.fixture(scope="module")
def model(store: FeatureStore) -> Recommender:
    train, held_out = watched(["jazz-09"])
    config = RecommenderConfig(fusion=replace(SMALL, max_epochs=2, half_lives=(1.0, 5.0)))
    train, held_out = with_times(train), with_times(held_out, start_day=1000)
    return Recommender.fit(store, train, validation=held_out, config=config, hardware=QUIET)


@pytest.fixture(scope="module")
def saved(model: Recommender, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    model.save(folder)
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    """A model that may be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def assert_same(first: Recommender, second: Recommender) -> None:
    assert first.item_ids == second.item_ids and first.user_ids == second.user_ids
    assert first.config == second.config and first.report == second.report
    assert [first.item(i) for i in first.item_ids] == [second.item(i) for i in second.item_ids]
    assert np.array_equal(first.item_vectors[1], second.item_vectors[1])
    users = [*first.user_ids, "stranger"] if first.user_ids else [first.user_state().add(first.item_ids[0])]
    assert np.array_equal(first.user_vectors(users), second.user_vectors(users))
    for options in ({}, {"where": {"kind": "rain"}}, {"diversity": 0.3}, {"explore_share": 0.2}):
        ours, theirs = (one.recommend(users, k=8, **options) for one in (first, second))  # type: ignore[arg-type]
        assert np.array_equal(ours[0], theirs[0]) and np.array_equal(ours[1], theirs[1])
    items = first.item_ids[:5]
    assert np.array_equal(first.score(users[0], items), second.score(users[0], items))
    assert np.array_equal(first.similar_items(items)[1], second.similar_items(items)[1])


def test_loading_gives_the_same_answers(model: Recommender, saved: Path) -> None:
    loaded = Recommender.load(saved)
    assert_same(model, loaded)
    held_out = watched(["jazz-09"])[1]
    assert model.evaluate(held_out, ks=[5]) == loaded.evaluate(held_out, ks=[5])


def test_saving_what_was_loaded_changes_nothing(saved: Path, tmp_path: Path) -> None:
    Recommender.load(saved).save(tmp_path / "again")
    for name in FILES - {"interactions.parquet", "items.parquet", "manifest.json"}:
        assert (files_of(tmp_path / "again") / name).read_bytes() == (files_of(saved) / name).read_bytes()
    assert_same(Recommender.load(saved), Recommender.load(tmp_path / "again"))


def test_content_alone_is_saved_too(store: FeatureStore, tmp_path: Path) -> None:
    model = Recommender.fit(
        store, config=replace(CONFIG, fusion=replace(SMALL, fusion="gated", max_epochs=1)), hardware=QUIET
    )
    model.save(tmp_path / "model")
    assert_same(model, Recommender.load(tmp_path / "model"))
    assert Recommender.load(tmp_path / "model").user_ids == []


@pytest.mark.parametrize(
    "change",
    [{"use_ids": False}, {"smoothing": 0.0}, {"fusion": "concat"}, {"fusion": "mean"}, {"order": "rows"},
     {"full_softmax_items": 0}],
)  # fmt: skip
def test_every_kind_of_tower_is_saved(store: FeatureStore, tmp_path: Path, change: dict[str, Any]) -> None:
    fusion = replace(SMALL, max_epochs=1, **change)
    model = Recommender.fit(store, watched()[0], config=RecommenderConfig(fusion=fusion), hardware=QUIET)
    model.save(tmp_path / "model")
    loaded = Recommender.load(tmp_path / "model")
    assert_same(model, loaded)
    later = write_store(tmp_path / "later", planted(["jazz-50"], seed=9))
    for one in (model, loaded):
        one.embed_items(later, ["jazz-50"])
    assert_same(model, loaded)


def test_times_weights_and_names_survive(store: FeatureStore, tmp_path: Path) -> None:
    train = make_interactions(
        ["ü 1", "ü 1", "名前", "名前", "名前"],
        ["jazz-00", "jazz-01", "rain-00", "rain-01", "jazz-00"],
        timestamps=np.array([5e8, 1e9, 3.0, 1.0, 2.0]),
        weights=np.array([0.5, 2.0, 1.0, -1.0, 0.0]),
    )
    model = quick(store, train)
    model.save(tmp_path / "model")
    loaded = Recommender.load(tmp_path / "model")
    assert loaded.user_ids == ["ü 1", "名前"]
    assert np.array_equal(model.user_vectors(["ü 1", "名前"]), loaded.user_vectors(["ü 1", "名前"]))
    assert not {"jazz-00", "jazz-01"} & set(loaded.recommend("ü 1", k=40)[0])
    for one in (model, loaded):  # the last moment is known too
        one.user_state("名前").add("jazz-03", timestamp=1000.0 * DAY)
    assert np.array_equal(model.user_vectors(["名前"]), loaded.user_vectors(["名前"]))


def test_weights_below_1_survive(store: FeatureStore, tmp_path: Path) -> None:
    train = make_interactions(
        ["a"] * 4, ["jazz-00", "jazz-01", "rain-00", "rain-01"], weights=np.array([1, 0, -1, 0.5])
    )
    model = quick(store, train)
    model.save(tmp_path / "model")
    assert_same(model, Recommender.load(tmp_path / "model"))
    assert not set(train.item_ids) & set(Recommender.load(tmp_path / "model").recommend("a", k=40)[0])


def test_the_effective_configuration_is_saved(model: Recommender, saved: Path) -> None:
    about = json.loads((files_of(saved) / "model.json").read_text())
    assert RecommenderConfig.from_mapping(about["config"]) == model.config
    assert about["config"]["learning_rate"] == SMALL.learning_rate and about["config"]["half_lives"] == [1.0, 5.0]
    assert set(about["config"]) == set(SMALL.to_mapping())
    assert about["report"]["rules"]["order"] == "by time"
    assert about["encoders"]["visual"]["fingerprint"] == "planted-visual"


def test_nothing_is_pickled(saved: Path) -> None:
    files = files_of(saved)
    assert {path.name for path in files.iterdir()} == FILES
    for path in files.iterdir():
        assert not path.read_bytes().startswith((*(bytes([128, protocol]) for protocol in range(2, 6)), b"PK"))
    assert "fusion.projections.visual.linear.weight" in load_file(files / "tower.safetensors")
    assert {"vectors", "bias"} == set(load_file(files / "items.safetensors"))


def test_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no model at"):
        Recommender.load(tmp_path)
    with pytest.raises(ModelError, match="there is no model at"):
        Recommender.load(tmp_path / "none")


def _edit(change: Callable[[dict[str, Any]], Any], name: str = "model.json") -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        about = json.loads((folder / name).read_text())
        change(about)
        (folder / name).write_text(json.dumps(about))

    return damage


def _truncate(name: str, size: int = 100) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size]) and None


def _fewer_items(folder: Path) -> None:
    table = pq.read_table(folder / "items.parquet")
    pq.write_table(table.slice(0, 7), folder / "items.parquet")


def _fewer_biases(folder: Path) -> None:
    arrays = load_file(folder / "items.safetensors")
    save_file({**arrays, "bias": arrays["bias"][:7]}, folder / "items.safetensors")


def _strange_rows(folder: Path) -> None:
    table = pq.read_table(folder / "interactions.parquet")
    rows = pa.array(np.full(table.num_rows, 4000))
    pq.write_table(table.set_column(1, "item", rows), folder / "interactions.parquet")


def _without(array: str, name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        arrays = load_file(folder / name)
        del arrays[array]
        save_file(arrays, folder / name)

    return damage


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another format": (_edit(lambda about: about.update(format=99), "manifest.json"), "has format 99; this version"),
    "no format": (_edit(lambda about: about.pop("format"), "manifest.json"), "is damaged"),
    "no manifest": (lambda folder: (folder / "manifest.json").write_text("{"), "is damaged"),
    "no configuration": (_edit(lambda about: about.update(config=None)), "is damaged"),
    "unknown setting": (_edit(lambda about: about["config"].update(magic=1)), "unknown settings"),
    "another width": (_edit(lambda about: about["fusion"].update(dim=32), "tower.json"), "holds no tower"),
    "odd heads": (_edit(lambda about: about["fusion"].update(dim=15), "tower.json"), "holds no tower"),
    "another tower": (_edit(lambda about: about.update(kind="content"), "tower.json"), "holds no tower"),
    "another count": (_edit(lambda about: about.update(num_items=3), "tower.json"), "holds no tower"),
    "no settings": (_edit(lambda about: about.update(users=None), "tower.json"), "holds no tower"),
    "no JSON": (lambda folder: (folder / "model.json").write_text("{"), "is damaged"),
    "a list": (lambda folder: (folder / "model.json").write_text("[]"), "is damaged"),
    "cut weights": (_truncate("tower.safetensors"), "holds no tower"),
    "cut items": (_truncate("items.safetensors"), "is damaged"),
    "cut rows": (_truncate("items.parquet"), "is damaged"),
    "cut interactions": (_truncate("interactions.parquet"), "is damaged"),
    "no weights": (lambda folder: (folder / "tower.safetensors").unlink(), "holds no tower"),
    "no interactions": (lambda folder: (folder / "interactions.parquet").unlink(), "is damaged"),
    "no vectors": (_without("vectors", "items.safetensors"), "is damaged"),
    "no biases": (_without("items.bias.weight", "tower.safetensors"), "holds no tower"),
    "fewer biases": (_fewer_biases, "not of one model"),
    "fewer items": (_fewer_items, "not of one model"),
    "strange rows": (_strange_rows, "not of one model"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_told_in_one_line(copy: Path, kind: str) -> None:
    damage, words = DAMAGE[kind]
    damage(files_of(copy))
    with suppress(KeyError, ValueError):  # as if it had been saved like this
        seal(files_of(copy))
    with pytest.raises(ModelError, match=words) as caught:
        Recommender.load(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(FILES - {"manifest.json"}))
def test_files_that_are_not_those_that_were_saved_are_refused(copy: Path, saved: Path, name: str) -> None:
    model = Recommender.load(saved)
    model.remove_items([model.item_ids[-1]])
    model.save(copy)
    other = copy / "versions" / "1" / name
    if other.read_bytes() == (files_of(copy) / name).read_bytes():
        other.write_bytes(other.read_bytes() + b" ")
    shutil.copy(other, files_of(copy))
    with pytest.raises(ModelError, match=f"{name} is not the file that was saved.*mmrec rollback"):
        Recommender.load(copy)


def test_a_place_that_is_no_folder(model: Recommender, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot be written"):
        model.save(tmp_path / "file")


def test_another_model_takes_the_place(model: Recommender, store: FeatureStore, copy: Path) -> None:
    other = Recommender.fit(
        store,
        to_interactions([("new", "jazz-00"), ("new", "rain-00")]),
        config=replace(CONFIG, fusion=replace(SMALL, max_epochs=1)),
        hardware=QUIET,
    )
    other.save(copy)
    assert Recommender.load(copy).user_ids == ["new"]
