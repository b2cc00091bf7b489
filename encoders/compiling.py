"""Functions that numba compiles, and keeps in files."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from types import FunctionType

import numba
import numba.core.config


@cache
def ensure_compiler_cache(path: str) -> None:
    """Let numba compile the functions of the source file `path` that ask for a cache of what is compiled.

    Numba refuses to, where it can write neither beside the file nor into the user's folder of caches: an installation
    that is read-only, a user without a home. Then what this process compiles is kept in a folder that ends with it.

    >>> from encoders.compiling import ensure_compiler_cache
    >>> ensure_compiler_cache(__file__)
    """
    if _has_cache(path):
        return
    folder = tempfile.mkdtemp(prefix="mmrec-numba-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    numba.core.config.CACHE_DIR = folder  # type: ignore[attr-defined]


def _has_cache(path: str) -> bool:
    def nothing() -> None:
        pass

    try:
        numba.njit(cache=True)(FunctionType(nothing.__code__.replace(co_filename=path), {}))
    except RuntimeError:
        return False
    return True
