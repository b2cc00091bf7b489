"""Plans for decoding the files of `media_files`, and what came of them."""

from __future__ import annotations

from media_files import frame_number

from mmrec.media.reading import DecodedMedia
from mmrec.media.sampling import FramePlan, FrameSampling, SoundPlan, SoundSampling

SOUND = SoundPlan(sampling=SoundSampling(window_seconds=1.0, count=4), sample_rate=16000, min_seconds=0.1)


def frame_plan(mode: str = "uniform", count: int = 4, **options: object) -> FramePlan:
    fps = options.pop("fps", 1.0)
    return FramePlan(
        sampling=FrameSampling(mode=mode, count=count, fps=fps),
        height=48,
        width=64,
        **options,  # type: ignore[arg-type]
    )


def numbers(decoded: DecodedMedia) -> list[int]:
    assert decoded.frames_TFHWC is not None, decoded.visual_problem
    return [frame_number(token[0]) for token in decoded.frames_TFHWC]


def starts(decoded: DecodedMedia) -> list[float]:
    return [start for start, _ in decoded.frame_spans]
