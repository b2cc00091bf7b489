"""Who runs what a command asks for: this machine, or a cluster of Ray."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

from mmrec.embedding.lazy_encoders import LazyEncoders
from mmrec.embedding.local_engine import LocalEngine
from mmrec.embedding.presets import Preset
from mmrec.embedding.stages import Engine
from mmrec.errors import MMRecError
from mmrec.remote import Place


def opened_engine(
    engine: str,
    preset: Preset,
    store: Place,
    loading: Mapping[str, Any],
    workers: int,
    address: str | None,
    gpus_per_encoder: float | None,
) -> AbstractContextManager[Engine]:
    """The engine of a job. Raises `MMRecError` for one that is not known, not installed or not to be reached."""
    if engine == "ray":
        opened: AbstractContextManager[Engine] = _ray().ray_engine(
            preset, loading, workers=workers, address=address, gpus_per_encoder=gpus_per_encoder
        )
        return opened
    if engine != "local":
        raise MMRecError(f"the engine is {engine!r}: expected 'local' or 'ray'")
    if address is not None or gpus_per_encoder is not None:
        raise MMRecError("address and gpus_per_encoder are for the engine 'ray' alone")
    return nullcontext(LocalEngine(LazyEncoders(preset, store, **loading)))


def _ray() -> ModuleType:
    try:
        from mmrec.embedding import ray_engine
    except ImportError:
        raise MMRecError("the engine 'ray' needs the package ray: pip install 'mmrec[ray]'") from None
    return ray_engine
