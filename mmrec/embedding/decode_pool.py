"""Decoding for a service: files are asked for one at a time, and the workers stay for the next one."""

from __future__ import annotations

import threading
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from mmrec.embedding.decoding import REVIVALS_IN_A_ROW, DecodeLimits, problem_of, schedule, start_pool
from mmrec.errors import MMRecError
from mmrec.media import DecodedMedia, FramePlan, SoundPlan
from mmrec.remote import Place


class DecodePool:
    """Decodes files one at a time as they are asked for, by any thread, in worker processes that stay for the next one.

    >>> from pathlib import Path
    >>> from mmrec.embedding import DecodeLimits, DecodePool
    >>> from mmrec.media import FramePlan, FrameSampling
    >>> pool = DecodePool(DecodeLimits(workers=1))
    >>> plan = FramePlan(sampling=FrameSampling(count=2), height=32, width=32)
    >>> pool.decode(Path("media/football-0.mp4"), plan, None).frames_TFHWC.shape
    (2, 1, 32, 32, 3)
    >>> pool.close()
    """

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._pool: Any = None

    def decode(self, media: Place, frames: FramePlan | None, sound: SoundPlan | None) -> DecodedMedia:
        """What the plans ask of a file, or the problems of both. Raises `MMRecError` where no worker can be had."""
        for _ in range(REVIVALS_IN_A_ROW):
            pool = self._running()
            try:
                future = schedule(pool, media, frames, sound, self._limits.timeout_seconds, self._limits.access)
            except RuntimeError:  # the pool broke while no request was in it
                self._drop(pool)
                continue
            error = future.exception()
            if error is None:
                return future.result()
            if isinstance(error, BrokenProcessPool):
                self._drop(pool)
                continue
            problem = problem_of(error, self._limits)
            return DecodedMedia(visual_problem=problem, audio_problem=problem)
        raise MMRecError("the decoding workers die before they decode anything: standard error may say why")

    def close(self) -> None:
        if self._pool is not None:
            self._drop(self._pool)

    def _running(self) -> Any:
        with self._lock:
            if self._pool is None:
                self._pool = start_pool(self._limits)
            return self._pool

    def _drop(self, pool: Any) -> None:
        with self._lock:
            if pool is self._pool:
                self._pool = None
                pool.stop()
                pool.join()
