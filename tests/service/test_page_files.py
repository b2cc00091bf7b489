"""What the files of the page may hold, read without a browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import mmrec.service

PAGE = Path(mmrec.service.__file__).parent / "page"
SCRIPTS = sorted(PAGE.rglob("*.js"))
SVG_NAMESPACE = "http://www.w3.org/2000/svg"
MARKUP_OR_CODE_FROM_TEXT = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|\beval\(|new Function"
    r"|setAttribute\(\s*[\"']style"
)
MOST_LINES, MOST_BYTES = 400, 150_000


class _Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def test_the_document_keeps_to_the_strict_policy() -> None:
    tags = _Tags((PAGE / "index.html").read_text(encoding="utf-8")).seen
    for tag, attributes in tags:
        assert tag != "style", "an inline style"
        assert tag != "script" or attributes.get("src"), "an inline script"
        assert not [name for name in attributes if name == "style" or name.startswith("on")], (tag, attributes)
        for name in ("src", "href"):
            address = attributes.get(name) or "#"
            assert address.startswith(("#", "static/")), address
            assert not address.startswith("static/") or (PAGE / address.removeprefix("static/")).is_file(), address


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_makes_no_markup_of_text_and_asks_no_other_host(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert MARKUP_OR_CODE_FROM_TEXT.findall(text) == []
    assert set(re.findall(r"https?://[^\s\"'`]+", text)) <= {SVG_NAMESPACE}
    for module in re.findall(r"(?:from|import\()\s*[\"']([^\"']+)[\"']", text):
        assert module.startswith("."), module
        assert (path.parent / module).resolve().is_file(), module
    assert len(text.splitlines()) <= MOST_LINES


def test_the_page_is_small() -> None:
    assert sum(path.stat().st_size for path in PAGE.rglob("*") if path.is_file()) < MOST_BYTES
    assert "url(" not in (PAGE / "style.css").read_text(encoding="utf-8")
