"""Fixtures shared by the tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from object_stores import Watched, object_store

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


@pytest.fixture(scope="module")
def module_patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def running_bucket(module_patch: pytest.MonkeyPatch) -> Iterator[Watched]:
    with object_store(module_patch) as watched:
        yield watched


@pytest.fixture
def bucket(running_bucket: Watched) -> Watched:
    running_bucket.clear()
    return running_bucket
