"""Fixtures shared by the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def shared_media() -> Path:
    """A folder of real recordings that lies beside the repository on some machines."""
    folder = SHARED / "media"
    if not folder.is_dir():
        pytest.skip("the folder of real media is not here")
    return folder
