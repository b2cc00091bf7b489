"""What objects show of themselves: one line of sizes, whatever state they are in, and tables in notebooks."""

from __future__ import annotations

import importlib.util
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mmrec.catalog import Item, read_catalog
from mmrec.embedding import EmbedReport
from mmrec.errors import Problem, Reason
from mmrec.evaluation import make_interactions
from mmrec.ranking import ApproximateRanker, Ranker
from mmrec.store import EncoderRecord, Features, FeatureStore, StoreStatus, Tokens

EVIL = "<script>alert('&')</script>\n"


def visual(count: int, width: int = 420) -> Tokens:
    spans_T2 = np.linspace(0.2, 12.5, 2 * count).reshape(count, 2)
    return Tokens(np.ones((count, width), np.float32), spans_T2)


def words(width: int = 384) -> Tokens:
    return Tokens(np.ones((1, width), np.float32), np.zeros((1, 2)))


def record(modality: str, dim: int, name: str = "n") -> EncoderRecord:
    return EncoderRecord(fingerprint=f"{modality}-{dim}", modality=modality, name=name, dim=dim, spec={})  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    store = FeatureStore(tmp_path / "store", create=True)
    store.add_encoders([record("visual", 420), record("text", 384, EVIL)])
    features = Features(Item(item_id="a"), {"visual": visual(8), "text": words()})
    features.fingerprints = {"visual": "visual-420", "text": "text-384"}
    store.write([features, Features(Item(item_id="b"), problems={"visual": Problem(Reason.CORRUPT)})])
    return store


# --- one line ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "shown"),
    [
        (visual(8), "Tokens(8 x 420, 0.2 to 12.5 s)"),
        (words(), "Tokens(1 x 384)"),
        (Tokens(np.zeros((0, 4), np.float32), np.zeros((0, 2))), "Tokens(0 x 4)"),
        (Tokens(np.zeros((1, 4), np.float32), np.full((1, 2), np.nan)), "Tokens(1 x 4, nan to nan s)"),
    ],
)
def test_tokens(tokens: Tokens, shown: str) -> None:
    assert repr(tokens) == shown


@pytest.mark.parametrize(
    ("item", "shown"),
    [
        (Item(item_id=""), "Item('')"),
        (Item(item_id="影片\n"), r"Item('影片\n')"),
        (
            Item(
                item_id="a", media=Path("/x/clip.mp4"), title="t", description="words", tags=("x", "y"), language="en"
            ),
            "Item('a', media 'clip.mp4', title 't', description of 5 characters, 2 tags, language 'en')",
        ),
        (Item(item_id="a", problem=Problem(Reason.FORBIDDEN_PATH, EVIL)), "Item('a', forbidden_path)"),
    ],
)
def test_items(item: Item, shown: str) -> None:
    assert repr(item) == shown


def test_a_long_title_is_cut() -> None:
    assert len(repr(Item(item_id="a", title="x\n" * 10_000))) < 60


def test_features() -> None:
    features = Features(Item(item_id="id"), {"visual": visual(8), "text": words()})
    assert repr(features) == "Features('id', ok, visual 8 x 420, text 1 x 384)"
    features.problems["audio"] = Problem(Reason.TIMEOUT, EVIL)
    assert repr(features) == "Features('id', partial, visual 8 x 420, text 1 x 384, audio timeout)"
    assert repr(Features(Item(item_id="id"))) == "Features('id', failed)"


def test_a_catalog(tmp_path: Path) -> None:
    path = tmp_path / "catalog.csv"
    path.write_text("item_id\na\nb\n", encoding="utf-8")
    assert repr(read_catalog(path)) == f"Catalog('{path}', 2 items)"


def test_interactions() -> None:
    interactions = make_interactions(["u", "u", "v"], ["a", "b", "a"])
    assert repr(interactions) == "Interactions(2 users, 2 items, 3 interactions, without timestamps)"
    timed = make_interactions(["u"], ["a"], timestamps=np.zeros(1))
    assert repr(timed) == "Interactions(1 users, 1 items, 1 interactions, with timestamps)"


def test_rankers() -> None:
    vectors_ID = np.random.default_rng(0).normal(size=(500, 6)).astype(np.float32)
    assert repr(Ranker(vectors_ID)) == "Ranker(500 items x 6, 'cpu')"
    ranker = ApproximateRanker(vectors_ID)
    assert repr(ranker) == "ApproximateRanker(500 items x 6, without an index)"
    if importlib.util.find_spec("faiss"):
        ranker.build(vectors_ID[:20], recall=1.0)
        assert repr(ranker) == "ApproximateRanker(500 items x 6, index of recall 1.000)"


def test_a_report() -> None:
    assert repr(EmbedReport()) == "EmbedReport(0 items; 0.0 s)"
    report = EmbedReport(items=9, ok=5, partial=1, failed=1, skipped=2, seconds=12.34)
    assert repr(report) == "EmbedReport(9 items: 5 ok, 1 partial, 1 failed, 2 skipped; 12.3 s)"


def test_a_store(store: FeatureStore) -> None:
    assert repr(store) == f"FeatureStore('{store.folder}', 2 items, visual 420, text 384)"
    store.add_encoders([record("visual", 512)])
    assert repr(store) == f"FeatureStore('{store.folder}', 2 items, visual 420 or 512, text 384)"


def test_an_empty_store(tmp_path: Path) -> None:
    assert repr(FeatureStore(tmp_path, create=True)) == f"FeatureStore('{tmp_path}', 0 items)"


def test_a_store_that_has_gone_away(store: FeatureStore) -> None:
    shutil.rmtree(store.folder)
    assert repr(store) == f"FeatureStore('{store.folder}', no longer there)"


@pytest.mark.parametrize("part", ["items.lance/data", "encoders.lance/data", "encoders.lance"])
def test_a_damaged_store(store: FeatureStore, part: str) -> None:
    shutil.rmtree(store.folder / part)
    assert repr(store).startswith(f"FeatureStore('{store.folder}', ")


def test_the_status_of_a_store(store: FeatureStore) -> None:
    assert repr(store.status()).startswith("StoreStatus(2 items: 1 ok, 1 failed; text 384, visual 420; 0.")
    empty = StoreStatus(items=0, statuses={}, reasons={}, encoders=[], bytes_on_disk=0)
    assert repr(empty) == "StoreStatus(0 items; 0.0 MB)"


# --- notebooks --------------------------------------------------------------------------------------------------------


def test_a_status_is_a_table(store: FeatureStore) -> None:
    html = store.status()._repr_html_()
    assert html.startswith("<table>")
    assert "<th>visual: corrupt</th><td>1</td>" in html
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_a_report_is_a_table() -> None:
    report = EmbedReport(items=3, ok=2, reasons=Counter(no_text=1), encoders={"text": {"name": EVIL, "dim": 384}})
    html = report._repr_html_()
    assert "<th>items</th><td>3</td>" in html
    assert "<th>no_text</th><td>1</td>" in html
    assert "384 wide" in html
    assert "<script>" not in html
    assert EmbedReport()._repr_html_().startswith("<table>")
