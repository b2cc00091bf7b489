"""Decoding: one open of a file gives the pictures, the sound and their true times. The only package that reads with av.

Bad media never raises: what could be read is returned, with a `Problem` for each modality that suffered.
"""

from __future__ import annotations

import errno
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from mmrec.errors import Problem, Reason, RemoteError
from mmrec.media.container import Unreadable, choose_audio, choose_video, facts_of, open_container, words_of
from mmrec.media.orientation import Orientation
from mmrec.media.pictures import read_pictures
from mmrec.media.sampling import FramePlan, SoundPlan
from mmrec.media.sound import read_sound
from mmrec.media.tags import tags_of
from mmrec.remote import Access, to_place

PICTURE_SHARE, DECODE_SHARE = 0.6, 0.9  # of an item's seconds: when its pictures, and when all of it must be decoded


@dataclass(slots=True)
class DecodedMedia:
    """What one file gave.

    `frames_TFHWC`: uint8 RGB, upright, T tokens of F frames each; None without a picture.
    `frame_spans`: (start, end) in seconds of each token's first and last frame.
    `windows`: mono float32 sound at the plan's rate; all but a single short one have the plan's length.
    `window_spans`: (start, end) in seconds. Times count from the start of the file's presentation.
    `facts`: the format, codecs, sizes and rates, and of the tags `title`, `artist`, `album`, `genre` and `description`
    those that the file has, as one line of text each.

    >>> from mmrec.media import SoundPlan, SoundSampling, decode_media
    >>> media = decode_media("media/rain-0.wav", None, SoundPlan(sampling=SoundSampling(), sample_rate=8000))
    >>> media.duration_seconds, media.windows[0].shape, media.window_spans
    (1.0, (8000,), [(0.0, 1.0)])
    """

    frames_TFHWC: NDArray[np.uint8] | None = None
    frame_spans: list[tuple[float, float]] = field(default_factory=list)
    windows: list[NDArray[np.float32]] = field(default_factory=list)
    window_spans: list[tuple[float, float]] = field(default_factory=list)
    duration_seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    visual_problem: Problem | None = None
    audio_problem: Problem | None = None
    decode_seconds: float = 0.0

    @property
    def num_bytes(self) -> int:
        """Of the pictures and the sound."""
        frames = 0 if self.frames_TFHWC is None else self.frames_TFHWC.nbytes
        return frames + sum(window.nbytes for window in self.windows)


def decode_media(
    path: str | os.PathLike[str],
    frames: FramePlan | None,
    sound: SoundPlan | None,
    *,
    seconds: float = math.inf,
    threads: int = 1,
    access: Access | None = None,
) -> DecodedMedia:
    """Open `path`, which may be a URL, once and decode what the plans ask for; a plan that is None is not decoded.

    `access` says which hosts `https` may read from, and where that lies meanwhile which can only be read whole.

    `threads` decode the pictures, but for small ones, which one decodes as soon. One is right where worker processes
    share the cores: two take 5 to 30% more processor time for the same frames.

    Within `seconds`: the pictures get the first part of them, then the sound; what was decoded in time is kept, with
    the reason `timeout`. Raises nothing for bad media.

    >>> from mmrec.media import FramePlan, FrameSampling, SoundPlan, SoundSampling, decode_media
    >>> frames = FramePlan(sampling=FrameSampling(count=4), height=32, width=32)
    >>> sound = SoundPlan(sampling=SoundSampling(), sample_rate=16_000)
    >>> media = decode_media("media/football-0.mp4", frames, sound)
    >>> media.frames_TFHWC.shape, media.frame_spans
    ((4, 1, 32, 32, 3), [(0.25, 0.25), (0.75, 0.75), (1.25, 1.25), (1.75, 1.75)])
    >>> media.audio_problem.reason
    <Reason.NO_STREAM: 'no_stream'>
    """
    start = time.monotonic()
    media = DecodedMedia()
    try:
        container = open_container(to_place(path, RemoteError), access or Access())
    except Unreadable as error:
        media.visual_problem = media.audio_problem = error.problem
        return media
    with container:
        video, audio = choose_video(container), choose_audio(container)
        media.duration_seconds = (container.duration or 0) / av.time_base
        media.facts = facts_of(container, video, audio) | tags_of(container, audio)
        if frames is not None:
            pictures_by = start + PICTURE_SHARE * seconds
            pictures, media.visual_problem = _guarded(
                lambda: read_pictures(container, video, frames, pictures_by, threads)
            )
            if pictures is not None:
                media.frames_TFHWC, media.frame_spans = pictures.frames_TFHWC, pictures.spans
                media.facts |= _orientation_facts(pictures.orientation)
        if sound is not None:
            sound_by = start + DECODE_SHARE * seconds
            windows, media.audio_problem = _guarded(lambda: read_sound(container, audio, sound, sound_by))
            if windows is not None:
                media.windows, media.window_spans = windows.windows, windows.spans
    return media


def _orientation_facts(orientation: Orientation) -> dict[str, Any]:
    """By how many degrees the picture was turned, counterclockwise, and whether it was mirrored after that."""
    facts: dict[str, Any] = {}
    if orientation.quarter_turns:
        facts["rotation"] = 90 * orientation.quarter_turns
    if orientation.mirrored:
        facts["mirrored"] = True
    return facts


T = TypeVar("T")


def _guarded(read: Callable[[], tuple[T, Problem | None]]) -> tuple[T | None, Problem | None]:
    """Run one modality's reader; its failure must not take the other modality along."""
    try:
        return read()
    except Unreadable as error:
        return None, error.problem
    except RemoteError as error:
        return None, Problem(error.reason, str(error))
    except MemoryError:
        return None, _out_of_memory()
    except (av.error.FFmpegError, ValueError, ArithmeticError, LookupError) as error:
        if getattr(error, "errno", None) == errno.ENOMEM:
            return None, _out_of_memory()
        return None, Problem(Reason.CORRUPT, words_of(error))


def _out_of_memory() -> Problem:
    return Problem(Reason.OUT_OF_MEMORY, "decoding needs more memory than a worker may have")
