"""Filters: values are compared by what they say, whatever type the catalog wrote them in."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest

from mmrec.errors import ModelError
from mmrec.recommending.filters import CatalogFilter


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("true", True),
        ("True", True),
        ("FALSE", False),
        ("true", np.bool_(True)),
        ("true", "True"),
        ("2001", 2001),
        ("2001.0", 2001),
        ("2001", 2001.0),
        ("2001", np.int64(2001)),
        ("2001.0", "2001"),
        ("9.90", 9.9),
        ("-3.00", -3),
        ("2024-02-29", date(2024, 2, 29)),
        ("2024-02-29T00:00:00", date(2024, 2, 29)),
        ("2024-02-29T01:00:00+01:00", "2024-02-29"),
        ("2024-02-29 12:00:00", datetime(2024, 2, 29, 12, tzinfo=UTC)),
        ("", None),
        ("7", ["x", 7]),
        ("7", {7.0}),
    ],
)
def test_values_that_say_the_same(written: str, wanted: Any) -> None:
    items = CatalogFilter([{"column": written}, {"column": "another"}])
    assert items.matching({"column": wanted}).tolist() == [True, False]


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("007", 7),
        ("1", True),
        ("1e3", 1000),
        ("2024-02-29T12:00:00", date(2024, 2, 29)),
        ("2024-02-30", date(2024, 2, 29)),
        ("0001-01-01T00:00:00+05:00", "0001-01-01"),
        ("10", 1),
        ("true story", True),
        ("None", None),
    ],
)
def test_values_that_do_not(written: str, wanted: Any) -> None:
    assert not CatalogFilter([{"column": written}]).matching({"column": wanted}).any()


def test_an_unknown_column_is_named_with_those_near_it() -> None:
    items = CatalogFilter([{"Genre": "jazz", "year": "2001", "years": ""}])
    with pytest.raises(ModelError, match=r"no column 'genre'; did you mean 'Genre'\?; it has Genre, year, years"):
        items.matching({"genre": "jazz"})
    with pytest.raises(ModelError, match=r"no column 'yeaar'; did you mean 'year' or 'years'\?"):
        items.matching({"yeaar": 2001})
    with pytest.raises(ModelError, match=r"no column 'colour'; it has Genre, year, years"):
        items.matching({"colour": "red"})
