"""The catalog that the tests of the service serve, and how it is served."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from mmrec.service import ServiceConfig

PRESET = """
visual: {kind: descriptors}
audio: {kind: log-mel}
text: {kind: hashed-ngrams}
frames: {count: 3}
sound: {window_seconds: 1, count: 2}
"""
SLASHES, SCRIPT = "a/../b c?d#e", "<script>alert(1)</script>"
ROWS = [
    ("clip", "clip.mp4", "a dog walks", "dog|walk", "2001"),
    ("tone", "tone.wav", "a quiet tone", "calm", "2002"),
    (SLASHES, "photo.png", SCRIPT, "red", "2003"),
    ("damaged", "damaged.mp4", "damaged film", "", "2004"),
    ("missing", "none.mp4", "missing film", "", "2005"),
    ("outside", "outside.png", "a picture from elsewhere", "", "2006"),
    ("drawing", "drawing.svg", "a drawing with a script", "", "2007"),
    *((f"jazz-{n}", "", f"slow jazz at night, part {n}", "jazz|calm", str(1990 + n)) for n in range(8)),
    *((f"goal-{n}", "", f"the best goals of week {n}", "sport|ball", str(2010 + n)) for n in range(8)),
]
NUM_USERS = 24
BASE = "http://127.0.0.1"
MakeClient = Callable[..., TestClient]


def config_of(folder: Path, state: Path, **options: Any) -> ServiceConfig:
    options = {"models": [folder / "model"], "requests_per_second": 0.0, **options}
    return ServiceConfig(store=folder / "store", state=state, **options)


def environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[1])
    return {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
