"""Who runs what a command asks for: this machine, or a cluster of Ray."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from mmrec.cluster import uses_ray
from mmrec.embedding.lazy_encoders import LazyEncoders
from mmrec.embedding.local_engine import LocalEngine
from mmrec.embedding.presets import Preset
from mmrec.embedding.stages import Engine
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
    if not uses_ray(engine, address=address, gpus_per_encoder=gpus_per_encoder):
        return nullcontext(LocalEngine(LazyEncoders(preset, store, **loading)))
    from mmrec.embedding.ray_engine import ray_engine

    return ray_engine(preset, loading, workers=workers, address=address, gpus_per_encoder=gpus_per_encoder)
