"""The feature store: what is written is read again, resumed, replaced and pruned."""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_rows import DIMS, assert_same, by_id, filled, key, make, tokens

from mmrec.catalog.manifest import Item
from mmrec.errors import Problem, Reason, StoreError
from mmrec.store.feature_store import EncoderRecord, FeatureStore
from mmrec.store.features import Features, Modality, Status

KEY = "0123456789abcdef"


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
        keys={"visual": KEY, "audio": "", "text": KEY[::-1]},
        catalog_key=KEY[::-1],
        media_hash=KEY,
        media_state=KEY[::-1],
        classes=[("狗 dog", 0.75), ("park bench", 0.125)],
        language="zh",
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


def test_what_is_kept_is_left_as_it_is(store: FeatureStore) -> None:
    before = by_id(store)
    stored = store.keys().row("a")
    assert stored is not None
    item = Item(item_id="a", title="neu", description="d", tags=("x",), language="de", metadata={"k": "v"})
    words = tokens("text", 2, seed=7)
    row = Features(
        item, {"text": words}, {}, {"text": "text-f"}, keys={m: key(9) for m in DIMS}, catalog_key=key(2), stored=stored
    )
    row.kept = {"visual": "as it is", "audio": "as it is"}
    store.write([], [row])
    after = by_id(store)
    assert after["a"].item == item
    assert after["a"].keys == {**before["a"].keys, "text": key(9)}
    np.testing.assert_array_equal(after["a"].tokens["text"].vectors_TD, words.vectors_TD)
    for modality in before["a"].tokens.keys() - {"text"}:
        np.testing.assert_array_equal(after["a"].tokens[modality].vectors_TD, before["a"].tokens[modality].vectors_TD)
    assert_same(after["c"], before["c"])


def test_stale_tokens_are_marked_and_kept_and_fresh_again(store: FeatureStore) -> None:
    before = by_id(store)["a"]
    now = datetime(2026, 1, 2, tzinfo=UTC)
    row = Features(Item(item_id="a"), stored=store.keys().row("a"), stale_since={"visual": now})
    row.problems["visual"] = Problem(Reason.MISSING_FILE, "away")
    row.kept = {"visual": "stale", "audio": "as it is", "text": "as it is"}
    assert row.status == Status.STALE
    store.write([], [row])
    stale = by_id(store)["a"]
    assert (stale.status, stale.stale_since, stale.problems["visual"].detail) == (Status.STALE, {"visual": now}, "away")
    np.testing.assert_array_equal(stale.tokens["visual"].vectors_TD, before.tokens["visual"].vectors_TD)
    stored = store.keys().row("a")
    assert stored is not None and stored.stale == {"visual"}
    back = Features(Item(item_id="a"), stored=stored, kept={"visual": "fresh", "audio": "as it is", "text": "as it is"})
    store.write([], [back])
    fresh = by_id(store)["a"]
    assert (fresh.status, fresh.stale_since, fresh.tokens.keys()) == (before.status, {}, before.tokens.keys())
    assert "visual" not in fresh.problems


def test_replacing_an_unknown_item_adds_no_row(store: FeatureStore) -> None:
    store.write([], [make("z", text=1)])
    assert set(by_id(store)) == {"a", "b", "c"}


def test_writing_nothing_is_allowed(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store", create=True)
    store.write([], [])
    store.add_encoders([])
    assert len(store) == 0
    assert list(store.features()) == []
    ids, vectors_ID = store.vectors("visual")
    assert ids == [] and len(vectors_ID) == 0
    assert store.status().items == 0


# --- keys -------------------------------------------------------------------------------------------------------------


def test_keys_say_what_is_known_of_each_row(tmp_path: Path) -> None:
    row = make("a", visual=1)
    row.media_hash, row.media_state = key(5), key(6)
    row.problems["audio"] = Problem(Reason.TIMEOUT, "")
    keys = filled(tmp_path / "store", [row, make("failed")]).keys()
    found = keys.row("a")
    assert found is not None
    assert found.keys == dict.fromkeys(DIMS, key(1))
    assert (found.catalog_key, found.media_hash, found.media_state) == (key(1), key(5), key(6))
    assert (found.with_tokens, found.faulty, found.stale) == ({"visual"}, {"audio"}, frozenset())
    assert found.worth_retrying == {"audio"}
    failed = keys.row("failed")
    assert failed is not None and failed.worth_retrying == set(DIMS) and not failed.with_tokens
    assert keys.holds("a") and not keys.holds("b") and keys.row("b") is None


def test_keys_of_an_empty_store(tmp_path: Path) -> None:
    keys = FeatureStore(tmp_path / "store", create=True).keys()
    assert keys.row("a") is None and len(keys) == 0


def test_keys_of_many_rows(tmp_path: Path) -> None:
    rows = [dataclasses.replace(make(f"item {n}", text=1), keys={"text": key(n * 2**40)}) for n in range(3000)]
    keys = filled(tmp_path / "store", rows).keys()
    for row in rows:
        found = keys.row(row.item.item_id)
        assert found is not None and found.keys == {"visual": "", "audio": "", **row.keys}
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
    assert status.statuses == {"ok": 3, "partial": 1, "failed": 1, "stale": 0}
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


def test_keys_mean_the_same_in_another_process(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store", create=True)
    store.write([Features(Item(item_id=name, title=name), keys={"text": "00ff"}) for name in ("a", "影片 🎬")])
    (tmp_path / "keys").write_bytes(pickle.dumps(store.keys()))
    code = (
        "import pickle, sys; keys = pickle.load(open(sys.argv[1], 'rb'));"
        "print(len(keys), keys.row('影片 🎬').keys['text'], keys.row('b'), keys.num_leaving(['a', 'c']))"
    )
    command = [sys.executable, "-X", "utf8", "-c", code, str(tmp_path / "keys")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "00000000000000ff", "None", "1"]


def test_rows_that_leave_are_counted_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmrec.store.keys._IDS_AT_ONCE", 3)
    store = FeatureStore(tmp_path / "store", create=True)
    store.put([Features(Item(item_id=str(n))) for n in range(10)])
    staying = [*"13579", "1", "not there", "nor this"]
    assert store.keys().num_leaving(staying) == 5
    assert store.keys().num_leaving([]) == 10
    assert store.keys().num_leaving(f"other {n}" for n in range(7)) == 10


def test_rows_put_twice_stand_once(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store", create=True)
    rows = [Features(Item(item_id=str(n), title="before")) for n in range(5)]
    assert store.put(rows[:3]) == 0
    assert store.put([Features(Item(item_id=row.item.item_id, title="after")) for row in rows]) == 3
    assert {(row.item.item_id, row.item.title) for row in store.features()} == {(str(n), "after") for n in range(5)}
    assert len(store) == 5
