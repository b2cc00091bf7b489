"""By what the weights of a model on disk are recognised."""

from __future__ import annotations

import hashlib
from pathlib import Path

HASHED_BYTES = 2**20
"""Of the head and the tail of each file."""


def weights_digest(model: str) -> str:
    """A hash of the sizes, heads and tails of a model's files, in a folder or one; of a name on the hub, the name."""
    path = Path(model)
    if not path.exists():
        return f"hub:{model}"
    hashed = hashlib.blake2b(digest_size=8)
    for file in [path] if path.is_file() else sorted(p for p in path.iterdir() if p.is_file()):
        size = file.stat().st_size
        hashed.update(f"{file.name} {size}".encode())
        with file.open("rb") as opened:
            hashed.update(opened.read(HASHED_BYTES))
            opened.seek(max(0, size - HASHED_BYTES))
            hashed.update(opened.read())
    return hashed.hexdigest()
