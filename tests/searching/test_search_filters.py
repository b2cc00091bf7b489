"""The grammar of filters."""

from __future__ import annotations

import pytest

from mmrec.errors import MMRecError, SearchError
from mmrec.searching.filters import to_sql
from mmrec.store import SearchColumns

COLUMNS = SearchColumns.of([{"year": "2001", "studio": "A"}, {"year": "1999", "Größe (cm)": "12"}])


@pytest.mark.parametrize(
    ("where", "sql"),
    [
        ("year >= 2001", "(c2 >= 2001.0)"),
        ("year = '2001'", "(c2 = 2001.0)"),
        ("studio = 'A' or studio <> 'B' and year < 5", "((c1 = 'A') OR ((c1 != 'B') AND (c2 < 5.0)))"),
        ("(studio = 'A' OR title = 'B') And NOT year < 5", "(((c1 = 'A') OR (title = 'B')) AND (NOT (c2 < 5.0)))"),
        ("language not in ('zh', 'ja')", "(NOT (language IN ('zh', 'ja')))"),
        ("tags = 'calm'", "array_has(tags, 'calm')"),
        ("tags in ('a', 'b')", "(array_has(tags, 'a') OR array_has(tags, 'b'))"),
        ('"Größe (cm)" == 12', "(c0 = 12.0)"),
        ("studio = 1984", "(c1 = '1984')"),
        ("title = 'it''s; DROP -- \\'", "(title = 'it''s; DROP -- \\')"),
    ],
)
def test_filters_are_read(where: str, sql: str) -> None:
    assert to_sql(where, COLUMNS) == sql


@pytest.mark.parametrize(
    ("where", "complaint"),
    [
        ("yaer = 2001", "did you mean 'year'"),
        ("year = 'soon'", "holds numbers"),
        ("language = zh", "language = 'zh'"),
        ("year 2001", "one of ="),
        ("year >= ", "at its end"),
        ("year = 1 year = 2", "and, or, or the end"),
        ("(year = 1", "closing bracket"),
        ("title = 'open", "a quote has no end"),
        ("year = 1; drop", "cannot be read from '; drop'"),
        ("tags < 'a'", "holds lists"),
        ("year in ()", "expected a number"),
        ("not " * 99 + "year = 1", "deep"),
        ("= 3", "expected a column"),
        ("title = 'a\0'", "zero byte"),
    ],
)
def test_what_is_no_filter_is_named(where: str, complaint: str) -> None:
    with pytest.raises(MMRecError, match=complaint) as found:
        to_sql(where, COLUMNS)
    assert "\n" not in str(found.value)
    assert isinstance(found.value, SearchError) or "zero" in complaint
