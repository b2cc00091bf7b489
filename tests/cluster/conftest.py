"""A store with planted kinds."""

from __future__ import annotations

import pytest
from planted import item_ids, planted, write_store

from mmrec.store.feature_store import FeatureStore


@pytest.fixture(scope="module")
def planted_store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return write_store(tmp_path_factory.mktemp("planted"), planted(item_ids()))
