"""Values of any type, as JSON, Parquet and Python have them, in words."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import date, time
from decimal import Decimal
from typing import Any

EXACT = 2**53
"""Whole numbers up to here are told apart by a float."""


def is_missing(value: Any) -> bool:
    """Whether a cell says nothing: None, a NaN or NaT, an infinite number.

    >>> from mmrec.tables import is_missing
    >>> [is_missing(value) for value in (None, float("nan"), float("inf"), "", 0)]
    [True, True, True, False, False]
    """
    if value is None:
        return True
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, Decimal):
        return not value.is_finite()
    return isinstance(value, date) and value != value  # NaT, which calls itself a date


def to_text(value: Any) -> str:
    """A value in words: numbers without needless zeros, dates in ISO 8601, lists and mappings as JSON.

    What is missing, and bytes that are no UTF-8, are empty.

    >>> import datetime
    >>> from mmrec.tables import to_text
    >>> [to_text(value) for value in (True, 2001.0, b"caf\\xc3\\xa9", datetime.date(2024, 2, 29), float("nan"))]
    ['true', '2001', 'café', '2024-02-29', '']
    >>> to_text({"cast": ["Ada", None]})
    '{"cast": ["Ada", null]}'
    """
    plain = value if isinstance(value, str) else _to_plain(value)
    if plain is None:
        return ""
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _to_plain(value: Any) -> Any:
    """What JSON can hold."""
    if is_missing(value):
        return None
    if isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= EXACT else value
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, bytes):
        return _decode(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {to_text(key): _to_plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(inner) for inner in value]
    return str(value)


def _decode(value: bytes) -> str | None:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return None
