"""Which items may stand in any list: by what the catalog says of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrec.errors import ModelError

Where = Mapping[str, Any]


def matching(catalog: Sequence[Mapping[str, Any]], where: Where) -> NDArray[np.bool_]:
    """The items `(I,)` whose columns have the wanted values; arguments as `Recommender.recommend`."""
    matching_I = np.ones(len(catalog), np.bool_)
    for column, wanted in where.items():
        keep = _predicate(wanted)
        if not any(column in row for row in catalog):
            raise ModelError(f"the catalog has no column {column!r}")
        matching_I &= np.array([keep(row.get(column)) for row in catalog], np.bool_)
    return matching_I


def _predicate(wanted: Any) -> Callable[[Any], bool]:
    if callable(wanted):
        return lambda value: bool(wanted(value))
    several = isinstance(wanted, Collection) and not isinstance(wanted, str)
    texts = {str(value) for value in (wanted if several else [wanted])}
    return lambda value: not texts.isdisjoint(value if isinstance(value, list) else [value])
