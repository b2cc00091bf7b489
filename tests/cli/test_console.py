"""Consoles that cannot show every letter, and an installation of which a part is missing."""

from __future__ import annotations

import io
import json
import sys

import pytest

import mmrec.cli
from mmrec.cli import main
from mmrec.cli.output import escape_what_cannot_be_shown

WORDS = "Björk 雨 🎬"


def console(encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)


def shown(stream: io.TextIOWrapper) -> str:
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode(stream.encoding)


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", r"Bj\u00f6rk \u96e8 \ud83c\udfac"),
        ("cp1252", r"Björk \u96e8 \ud83c\udfac"),
        ("utf-8", WORDS),
    ],
)
def test_letters_that_a_console_lacks_are_escaped(
    monkeypatch: pytest.MonkeyPatch, encoding: str, expected: str
) -> None:
    monkeypatch.setattr(sys, "stdout", console(encoding))
    escape_what_cannot_be_shown()
    print(json.dumps({"title": WORDS}, ensure_ascii=False))  # noqa: T201
    assert isinstance(sys.stdout, io.TextIOWrapper)
    line = shown(sys.stdout)
    assert line == f'{{"title": "{expected}"}}\n'
    assert json.loads(line) == {"title": WORDS}


def test_names_that_are_no_text_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", console("utf-8"))
    assert main(["status", "--store", "no store \udcff"]) == 1
    assert isinstance(sys.stderr, io.TextIOWrapper)
    assert r"no store \udcff" in shown(sys.stderr)


def test_a_command_on_a_console_without_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", console("ascii"))
    assert main(["status", "--store", WORDS]) == 1
    assert isinstance(sys.stderr, io.TextIOWrapper)
    assert r"Bj\u00f6rk" in shown(sys.stderr)


def test_a_library_that_cannot_be_loaded_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> None:
        raise ImportError("libavcodec.so.62: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(mmrec.cli, "refuse_shadowed_packages", refuse)
    assert main(["presets"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "libavcodec.so.62" in line
