"""What `where` may say, and what it is to the engine: a small grammar, so that no text of a user reaches a query.

filter     = either {"or" either}
either     = both {"and" both}
both       = "not" both | "(" filter ")" | column operator value | column ["not"] "in" "(" value {"," value} ")"
column     = a name of letters, digits, _ , - and . | a name of any characters in double quotes
operator   = "=" | "!=" | "<" | "<=" | ">" | ">="
value      = a number | a text in single quotes, where '' is one | true | false
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NoReturn

from mmrec.errors import SearchError
from mmrec.store import SearchColumn, text_literal

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.-]))
    |(?P<text>'(?:[^']|'')*')
    |(?P<quoted>"[^"]+")
    |(?P<operator><=|>=|!=|<>|==|=|<|>)
    |(?P<mark>[(),])
    |(?P<name>[^\W\d][\w.-]*)
    )""",
    re.VERBOSE,
)
_KEYWORDS = ("and", "or", "not", "in")
_OPERATORS = {"==": "=", "<>": "!="}
DEEPEST = 50


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    place: int


def to_sql(where: str, columns: Mapping[str, SearchColumn]) -> str:
    """The filter of a search in the engine's SQL. Raises `SearchError` where it does not parse.

    >>> from mmrec.store import SearchColumns
    >>> to_sql("year >= 2001 and not language in ('zh', 'ja')", SearchColumns.of([{"year": 2001}]))
    "((c0 >= 2001.0) AND (NOT (language IN ('zh', 'ja'))))"
    """
    return _Parser(where, columns).parse()


class _Parser:
    def __init__(self, where: str, columns: Mapping[str, SearchColumn]) -> None:
        self._where, self._columns = where, columns
        self._tokens = list(self._split())
        self._next, self._depth = 0, 0

    def parse(self) -> str:
        sql = self._either()
        if self._token.kind != "end":
            self._fail("and, or, or the end")
        return sql

    def _split(self) -> list[_Token]:
        tokens, place = [], 0
        while self._where[place:].strip():
            found = _TOKEN.match(self._where, place)
            if found is None:
                rest = self._where[place:].strip()
                hint = ": a quote has no end" if rest[0] in "'\"" else ""
                raise SearchError(f"--where {self._where!r} cannot be read from {rest!r} on{hint}")
            kind = str(found.lastgroup)
            text = found[kind]
            if kind == "name" and text.lower() in _KEYWORDS:
                kind, text = "keyword", text.lower()
            tokens.append(_Token(kind, text, place))
            place = found.end()
        return [*tokens, _Token("end", "", len(self._where))]

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, *texts: str) -> bool:
        if self._token.kind in ("keyword", "mark") and self._token.text in texts:
            self._next += 1
            return True
        return False

    def _fail(self, expected: str) -> NoReturn:
        where = f"at {self._where[self._token.place :].strip()!r}" if self._token.kind != "end" else "at its end"
        raise SearchError(
            f"--where {self._where!r}: expected {expected} {where}, as in year >= 2001 and language = 'zh'"
        )

    def _either(self) -> str:
        parts = [self._both()]
        while self._take("or"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else f"({' OR '.join(parts)})"

    def _both(self) -> str:
        parts = [self._one()]
        while self._take("and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else f"({' AND '.join(parts)})"

    def _one(self) -> str:
        self._depth += 1
        if self._depth > DEEPEST:
            raise SearchError(f"--where is nested more than {DEEPEST} deep")
        if self._take("not"):
            sql = f"(NOT {self._one()})"
        elif self._take("("):
            sql = self._either()
            if not self._take(")"):
                self._fail("a closing bracket")
        else:
            sql = self._comparison()
        self._depth -= 1
        return sql

    def _comparison(self) -> str:
        token = self._token
        if token.kind not in ("name", "quoted"):
            self._fail("a column")
        self._next += 1
        name = token.text.strip('"') if token.kind == "quoted" else token.text
        column = self._column(name)
        negated = self._take("not")
        if self._take("in"):
            sql = self._membership(name, column)
            return f"(NOT {sql})" if negated else sql
        if negated or self._token.kind != "operator":
            self._fail("in" if negated else "one of = != < <= > >= in")
        operator = _OPERATORS.get(self._token.text, self._token.text)
        self._next += 1
        value = self._value(name, column)
        if column.kind != "list":
            return f"({column.place} {operator} {value})"
        if operator not in ("=", "!="):
            raise SearchError(f"--where: {name} holds lists, which are asked by = and !=, not by {operator}")
        has = f"array_has({column.place}, {value})"
        return has if operator == "=" else f"(NOT {has})"

    def _membership(self, name: str, column: SearchColumn) -> str:
        if not self._take("("):
            self._fail("values in brackets")
        values = [self._value(name, column)]
        while self._take(","):
            values.append(self._value(name, column))
        if not self._take(")"):
            self._fail("a comma or a closing bracket")
        if column.kind == "list":
            return f"({' OR '.join(f'array_has({column.place}, {value})' for value in values)})"
        return f"({column.place} IN ({', '.join(values)}))"

    def _column(self, name: str) -> SearchColumn:
        if name in self._columns:
            return self._columns[name]
        plain = {known.casefold(): known for known in self._columns}
        near = [plain[found] for found in get_close_matches(name.casefold(), plain)]
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise SearchError(f"the catalog has no column {name!r}{hint}; it has {', '.join(sorted(self._columns))}")

    def _value(self, name: str, column: SearchColumn) -> str:
        token = self._token
        if token.kind == "name" and token.text.lower() not in ("true", "false"):
            raise SearchError(f"--where {self._where!r}: texts stand in quotes, as in {name} = '{token.text}'")
        if token.kind not in ("number", "text", "name"):
            self._fail("a number, or a text in single quotes")
        self._next += 1
        text = token.text[1:-1].replace("''", "'") if token.kind == "text" else token.text
        if column.kind != "number":
            return text_literal(text)
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise SearchError(f"--where: {name} holds numbers, and {text!r} is none")
        return repr(number)
