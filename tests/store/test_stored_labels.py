"""Labels beside the items: they stay while items are written, and are known to searches, filters and exports."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from store_rows import DIMS, filled, make

from mmrec import Query, Searcher
from mmrec.errors import SearchError, StoreError
from mmrec.recommending.fitting import catalog_rows
from mmrec.store import EncoderRecord, FeatureStore, LabelledItem


def labelled(**labels: list[str]) -> list[LabelledItem]:
    return [
        LabelledItem(item_id=item_id, labels=named, scores=dict.fromkeys(named, 0.75) | {"dull": 0.25})
        for item_id, named in labels.items()
    ]


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    store = filled(tmp_path / "store", [make("a", visual=1, text=1), make("b", visual=2), make("c", text=1)])
    store.add_encoders(
        EncoderRecord(fingerprint=f"{m}-f", modality=m, name="imported", dim=dim, spec={"kind": "imported"})
        for m, dim in DIMS.items()
    )
    store.labels.write("mood", labelled(a=["calm", "wet"], b=["wild"], c=[]))
    return store


def test_labels_are_read_as_they_were_written(store: FeatureStore) -> None:
    opened = FeatureStore(store.folder)
    assert opened.labels.names() == ["mood"]
    assert opened.labels.of_items() == {"a": {"mood": ["calm", "wet"]}, "b": {"mood": ["wild"]}, "c": {"mood": []}}
    rows = {row["item_id"]: row for row in opened.labels.read("mood").to_pylist()}
    assert rows["b"]["scores"] == [{"label": "wild", "score": 0.75}, {"label": "dull", "score": 0.25}]
    opened.labels.write("mood", labelled(a=["wild"]))
    assert store.labels.of_items() == {"a": {"mood": ["wild"]}}
    opened.labels.write("topic", labelled(b=["cats"]))
    assert store.labels.names() == ["mood", "topic"] and store.labels.of_items()["b"] == {"topic": ["cats"]}
    store.labels.remove("mood")
    assert opened.labels.names() == ["topic"]


def test_a_job_leaves_labels_and_what_changed_is_counted(store: FeatureStore) -> None:
    assert store.labels.state("mood") == {"items": 3, "outdated": 0, "missing": 0}
    store.write([make("d", text=1)], [make("a", visual=3, text=1, content=2)])
    assert store.labels.of_items()["a"] == {"mood": ["calm", "wet"]}
    assert store.status().labels == {"mood": {"items": 3, "outdated": 1, "missing": 1}}
    store.labels.write("mood", labelled(a=["wild"], b=["wild"], c=[], d=[]))
    assert store.labels.state("mood") == {"items": 4, "outdated": 0, "missing": 0}


def test_pruned_items_lose_their_labels(store: FeatureStore) -> None:
    assert store.prune(["a", "c"]) == 1
    assert set(store.labels.of_items()) == {"a", "c"}
    assert store.labels.state("mood") == {"items": 2, "outdated": 0, "missing": 0}


def test_labels_of_a_restored_state_say_which_items_are_others(store: FeatureStore) -> None:
    version = store.version
    store.write([], [make("a", visual=3, text=1, content=2)])
    store.labels.write("mood", labelled(a=["wild"], b=["wild"], c=[]))
    store.restore(version)
    assert store.labels.state("mood") == {"items": 3, "outdated": 1, "missing": 0}
    assert store.labels.of_items()["a"] == {"mood": ["wild"]}


def test_each_set_of_features_has_labels_of_its_own(store: FeatureStore) -> None:
    other = FeatureStore(store.folder, create=True, encoder_set="clip")
    other.write([make("a", visual=1)])
    other.labels.write("mood", labelled(a=["dull"]))
    assert other.labels.of_items() == {"a": {"mood": ["dull"]}}
    assert store.labels.of_items()["a"] == {"mood": ["calm", "wet"]} and store.labels.names() == ["mood"]
    assert store.sets() == ["", "clip"]


def test_an_export_has_a_file_for_each_set(store: FeatureStore, tmp_path: Path) -> None:
    paths = store.export(tmp_path / "out", "parquet")
    assert [path.name for path in paths] == ["items.parquet", "labels.mood.parquet"]
    assert pq.read_table(paths[1]).column_names == ["item_id", "labels", "scores"]


def test_only_one_process_writes_them(store: FeatureStore) -> None:
    with FeatureStore(store.folder).lock(), pytest.raises(StoreError, match="being written by another job"):
        store.labels.write("topic", labelled(a=["cats"]))


def test_searches_are_filtered_by_labels_and_see_new_ones(store: FeatureStore) -> None:
    searcher = Searcher(store)

    def found(where: str) -> list[str]:
        return sorted(searcher.search(Query(words=["title"], where=where))[0])

    assert found("mood = 'calm'") == ["a"]
    assert found("mood in ('wet', 'wild')") == ["a", "b"]
    assert found("mood != 'calm'") == ["b", "c"]
    store.labels.write("mood", labelled(c=["calm"]))
    assert found("mood = 'calm'") == ["c"]
    store.labels.remove("mood")
    with pytest.raises(SearchError, match="no column 'mood'"):
        found("mood = 'calm'")


def test_a_model_knows_the_labels_that_there_were(store: FeatureStore) -> None:
    assert [row.get("mood") for row in catalog_rows(store, ["c", "a"])] == [[], ["calm", "wet"]]
