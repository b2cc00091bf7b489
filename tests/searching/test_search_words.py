"""Words through encoders that have some: frames by words, and languages that are not known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from encoders.base import load_encoder
from encoders.text import HashedNgrams
from mmrec import Query, Searcher
from mmrec.catalog import Item
from mmrec.store import EncoderRecord, Features, FeatureStore, Tokens

SCENES = {
    "day": ["a red car", "a red car", "waves on the shore"],
    "night": ["a black cat", "rain", "a red car at night"],
}


@pytest.fixture
def scenes(tmp_path: Path) -> FeatureStore:
    """Frames that an encoder with words made: of n-grams, as if pictures were captions."""
    encoder = load_encoder("hashed-ngrams", device="cpu")
    store = FeatureStore(tmp_path / "store", create=True)
    spec = {"kind": "hashed-ngrams"}
    store.add_encoders([EncoderRecord(fingerprint="v", modality="visual", name="captions", dim=encoder.dim, spec=spec)])
    spans_T2 = np.array([[60.0, 62.0], [62.0, 64.5], [64.5, 70.0]])
    store.write(
        [
            Features(
                Item(item_id=item_id),
                tokens={"visual": Tokens(encoder.encode(captions).numpy(), spans_T2)},
                fingerprints={"visual": "v"},
            )
            for item_id, captions in SCENES.items()
        ]
    )
    return store


def test_words_find_frames(scenes: FeatureStore, caplog: pytest.LogCaptureFixture) -> None:
    searcher = Searcher(scenes)
    assert searcher.search(Query(words=["red car"]))[0] == ["day", "night"]
    assert searcher.search(Query(words=["red car"], without=["waves on the shore", "car"]), k=1)[0] == ["day"]
    first, second = searcher.moments(Query(words=["a red car"]))
    assert (first.item_id, first.when, first.cosine) == ("day", "01:00-01:05", pytest.approx(1, abs=1e-5))
    assert (second.item_id, second.when) == ("night", "01:04-01:10")
    assert not caplog.records


def test_a_language_that_is_not_known_is_named_once(
    scenes: FeatureStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("py3langid")
    monkeypatch.setattr(HashedNgrams, "languages", frozenset({"en"}), raising=False)
    texts = FeatureStore(scenes.folder, create=True, encoder_set="texts")
    encoder = load_encoder("hashed-ngrams", device="cpu")
    texts.add_encoders(
        [EncoderRecord(fingerprint="t", modality="text", name="n", dim=encoder.dim, spec={"kind": "hashed-ngrams"})]
    )
    words = Tokens(encoder.encode(["ein roter Hund"]).numpy(), np.zeros((1, 2)))
    texts.write([Features(Item(item_id="a", title="a"), tokens={"text": words}, fingerprints={"text": "t"})])
    searcher = Searcher(texts)
    for _ in range(2):
        searcher.search(Query(words=["Ein Hund läuft durch den Park."]))
    searcher.search(Query(words=["A dog runs through the park."]))
    (record,) = caplog.records
    assert "does not know the language of 'Ein Hund läuft durch den Park.' (de)" in record.message
