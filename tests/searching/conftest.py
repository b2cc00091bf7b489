"""A store whose tokens are planted."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted_search import TITLES, WIDTH, item

from encoders.base import load_encoder
from mmrec.store import EncoderRecord, FeatureStore


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    store = FeatureStore(tmp_path / "store", create=True)
    dim = load_encoder("hashed-ngrams", device="cpu").dim
    store.add_encoders(
        [
            EncoderRecord(fingerprint="v", modality="visual", name="planted", dim=WIDTH, spec={"kind": "imported"}),
            EncoderRecord(fingerprint="t", modality="text", name="n-grams", dim=dim, spec={"kind": "hashed-ngrams"}),
        ]
    )
    store.write([item(place, item_id) for place, item_id in enumerate(TITLES)])
    return store
