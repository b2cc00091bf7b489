"""Which engine is asked for."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from mmrec.errors import MMRecError


def uses_ray(engine: str, **options: Any) -> bool:
    """Whether the engine is a cluster of Ray, not this machine alone; `options` are those that only the former has.

    Raises `MMRecError` for an engine that is not known or not installed, and for options that it does not have.

    >>> uses_ray("local", address=None)
    False
    """
    if engine not in ("local", "ray"):
        raise MMRecError(f"the engine is {engine!r}: expected 'local' or 'ray'")
    if engine == "local":
        if given := [name for name, value in options.items() if value is not None]:
            raise MMRecError(f"only the engine 'ray' takes {' and '.join(given)}")
        return False
    if find_spec("ray") is None:
        raise MMRecError("the engine 'ray' needs the package ray: pip install 'mmrec[ray]'")
    return True
