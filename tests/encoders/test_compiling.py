"""Compiled functions, where their cache cannot be written."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import FunctionType

import numba
import numba.core.config
import pytest

from encoders.compiling import ensure_compiler_cache

READ_ONLY = "/proc/version"  # a file in a folder that not even root can write to


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not Path(READ_ONLY).exists():
        pytest.skip("no /proc")
    monkeypatch.setenv("HOME", "/proc/nohome")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", "")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ensure_compiler_cache.cache_clear()


def read_only_function() -> FunctionType:
    def double(number: int) -> int:
        return 2 * number

    return FunctionType(double.__code__.replace(co_filename=READ_ONLY), {})


@pytest.mark.usefixtures("no_home")
def test_functions_compile_where_no_folder_can_be_written() -> None:
    with pytest.raises(RuntimeError, match="no locator"):
        numba.njit(cache=True)(read_only_function())
    ensure_compiler_cache(READ_ONLY)
    assert numba.njit(cache=True)(read_only_function())(21) == 42


@pytest.mark.usefixtures("no_home")
def test_a_cache_folder_of_the_users_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", "/proc/none")
    ensure_compiler_cache(READ_ONLY)
    assert numba.njit(cache=True)(read_only_function())(4) == 8


@pytest.mark.usefixtures("no_home")
def test_a_folder_that_can_be_written_is_left_to_numba(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.touch()
    ensure_compiler_cache(str(source))
    assert numba.core.config.CACHE_DIR == ""
    assert not list(tmp_path.glob("mmrec-numba-*"))
