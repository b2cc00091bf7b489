"""Fixtures shared by the tests."""

from __future__ import annotations

from collections.abc import Iterator
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


@pytest.fixture
def labelled() -> Path:
    """A folder of labelled pictures, voices and sentences that lies beside the repository on some machines."""
    folder = SHARED / "data" / "labelled"
    if not folder.is_dir():
        pytest.skip("the folder of labelled data is not here")
    return folder


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For small fits: on busy processors, threads would only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
