"""What the parts of the benchmark of language share: rows of figures, and rows of files."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]


def spread(values: Sequence[Any], count: int) -> list[Any]:
    """So many of them, from all over."""
    return list(values[:: max(1, len(values) // count)][:count])


def read_rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


def plain(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", text.casefold()))
