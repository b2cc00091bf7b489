"""How results look in a notebook."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape


def html_table(rows: Iterable[tuple[object, object]]) -> str:
    """A table of names and values, escaped.

    >>> from mmrec.store import html_table
    >>> html_table([("items", 16), ("<b>", "R&B")])
    '<table><tr><th>items</th><td>16</td></tr><tr><th>&lt;b&gt;</th><td>R&amp;B</td></tr></table>'
    """
    cells = (f"<tr><th>{escape(str(name))}</th><td>{escape(str(value))}</td></tr>" for name, value in rows)
    return f"<table>{''.join(cells)}</table>"
