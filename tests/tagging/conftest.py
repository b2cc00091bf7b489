"""A store of texts of three kinds, and pictures whose encoder has no words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from encoders.base import load_encoder
from mmrec.catalog import Item
from mmrec.store import EncoderRecord, Features, FeatureStore, Tokens

TITLES = {
    "piano": ["slow piano at midnight", "a piano lesson", "piano and rain", "quiet piano music"],
    "football": ["football goals of the week", "football in the rain", "street football", "football final"],
    "noodles": ["noodles in ten minutes", "how to cook noodles", "noodles and soup", "cold noodles"],
}
ITEM_IDS = [f"{kind}-{number}" for kind in TITLES for number in range(4)]


def kind_of(item_id: str) -> str:
    return item_id.split("-")[0]


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    encoder = load_encoder("hashed-ngrams", device="cpu")
    store = FeatureStore(tmp_path / "store", create=True)
    store.add_encoders(
        [
            EncoderRecord(fingerprint="v", modality="visual", name="looks", dim=8, spec={"kind": "imported"}),
            EncoderRecord(fingerprint="t", modality="text", name="n", dim=encoder.dim, spec={"kind": "hashed-ngrams"}),
        ]
    )
    rng = np.random.default_rng(0)
    rows = []
    for item_id in ITEM_IDS:
        kind, number = item_id.split("-")
        title = TITLES[kind][int(number)]
        look_TD = 2 * np.eye(8)[list(TITLES).index(kind)] + rng.normal(scale=0.3, size=(2, 8))
        rows.append(
            Features(
                Item(item_id=item_id, title=title, metadata={"year": "2001"}),
                tokens={
                    "visual": Tokens(look_TD.astype(np.float32), np.array([[0.0, 1.0], [1.0, 2.0]])),
                    "text": Tokens(encoder.encode([title]).numpy(), np.zeros((1, 2))),
                },
                fingerprints={"visual": "v", "text": "t"},
                keys={"visual": "1" * 16, "text": "1" * 16},
            )
        )
    store.write(rows)
    return store


@pytest.fixture
def pictures(tmp_path: Path) -> FeatureStore:
    """Pictures alone, near the axis of their kind, whose encoder has no words."""
    store = FeatureStore(tmp_path / "pictures", create=True)
    store.add_encoders(
        [EncoderRecord(fingerprint="v", modality="visual", name="looks", dim=8, spec={"kind": "imported"})]
    )
    rng = np.random.default_rng(1)
    for item_id in ITEM_IDS:
        look_TD = np.eye(8)[list(TITLES).index(kind_of(item_id))] + rng.normal(scale=0.1, size=(1, 8))
        tokens = Tokens(look_TD.astype(np.float32), np.zeros((1, 2)))
        store.write([Features(Item(item_id=item_id), tokens={"visual": tokens}, fingerprints={"visual": "v"})])
    return store
