"""A store of three items."""

from __future__ import annotations

from pathlib import Path

import pytest
from store_rows import filled, make

from mmrec.store.feature_store import FeatureStore


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return filled(tmp_path / "store", [make("a", visual=2, text=1), make("b", audio=3), make("c", seed=1, visual=4)])
