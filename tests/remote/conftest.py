from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from object_stores import Site, web_site


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Site, str]]:
    """A web server on 127.0.0.1, and its host with port."""
    content = Site()
    with web_site(content, tmp_path, monkeypatch) as host:
        yield content, host
