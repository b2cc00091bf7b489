"""Sounds that may be the same are listened to: each file is decoded once, and pairs are laid upon each other."""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from mmrec.embedding import DecodeLimits, Task, decode_items
from mmrec.media import DecodedMedia, SoundPlan, SoundSampling
from mmrec.searching.acoustics import LEAST_FRAMES, SAMPLE_RATE, Levels, SoughtSound, fingerprint
from mmrec.searching.alignment import Alignment
from mmrec.store import Features

LEAST_AGREEMENT = 0.5
"""From which two sounds are the same. Chosen on half of the sounds of `scripts/bench_duplicates.py`."""
LONGEST_SECONDS = 3600.0
WINDOW_SECONDS = 600.0
PLAN = SoundPlan(
    sampling=SoundSampling(mode="all", window_seconds=WINDOW_SECONDS, count=int(LONGEST_SECONDS / WINDOW_SECONDS) + 2),
    sample_rate=SAMPLE_RATE,
)

logger = logging.getLogger(__name__)


def listen(rows: Collection[Features], limits: DecodeLimits) -> dict[str, Levels]:
    """The fingerprints of the sounds of items, decoded in worker processes; those without one are counted in the log.

    Each file is decoded once. What is longer than an hour, or shorter than a second, is not listened to.
    """
    started = time.perf_counter()
    problems = Counter({"longer than an hour": sum(row.duration_seconds > LONGEST_SECONDS for row in rows)})
    tasks = (
        Task(row.item, text="", todo=frozenset({"audio"})) for row in rows if row.duration_seconds <= LONGEST_SECONDS
    )
    heard: dict[str, Levels] = {}
    with closing(decode_items(tasks, None, PLAN, limits)) as decoded:
        for task, media in decoded:
            levels_TB = fingerprint(_joined(media)) if media.windows else None
            if levels_TB is not None and len(levels_TB) > LEAST_FRAMES:
                heard[task.item.item_id] = levels_TB
            else:
                problem = media.audio_problem
                problems["shorter than a second" if problem is None else problem.reason.replace("_", " ")] += 1
    logger.info("%d sounds listened to in %.1f s", len(heard), time.perf_counter() - started)
    if missing := +problems:
        why = ", ".join(f"{count} {reason}" for reason, count in missing.most_common())
        logger.warning(
            "%d of %d sounds cannot be listened to (%s): their tokens are compared, which misses most edited copies",
            missing.total(),
            len(rows),
            why,
        )
    return heard


def laid_upon_each_other(
    pairs: Iterable[tuple[str, str]], heard: Mapping[str, Levels]
) -> dict[tuple[str, str], Alignment | None]:
    """How the second of each pair lies upon the first, None where it does not; pairs of which one is not heard are left
    out."""
    firsts_of: dict[str, list[str]] = defaultdict(list)
    for first, second in pairs:
        if first in heard and second in heard:
            firsts_of[second].append(first)
    laid: dict[tuple[str, str], Alignment | None] = {}
    for second, firsts in firsts_of.items():
        sought = SoughtSound(heard[second])
        for first in firsts:
            laid[first, second] = sought.within(heard[first], LEAST_AGREEMENT)
    return laid


def _joined(media: DecodedMedia) -> NDArray[np.float32]:
    """The windows as one sound; the last one begins before the one before it ends."""
    begins = [round(begin * SAMPLE_RATE) for begin, _ in media.window_spans]
    samples_S = np.zeros(max(begin + len(w) for begin, w in zip(begins, media.windows, strict=True)), np.float32)
    for begin, window_S in zip(begins, media.windows, strict=True):
        samples_S[begin : begin + len(window_S)] = window_S
    return samples_S
