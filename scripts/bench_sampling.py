"""How well sampled frames stand for a whole video, and what they cost: why eight uniform frames are the default.

    python scripts/bench_sampling.py [--quick] [--media DIR] [--checkpoint FOLDER] [--out FILE]

Each video is embedded twice: by the frames of a plan, and by all of its frames. The figure is the cosine of the two
mean vectors; the cost is the processor time of decoding alone, and its share of what all frames cost. Vectors are the
light descriptors and those of an open_clip checkpoint, by default a full-size CLIP ViT-B/32 with random weights, which
tells pictures apart without knowing what is on them. The videos are one that it writes, with a cut every seven seconds,
and those of a folder, if they are whole and have 64 to 4,096 frames.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from benching import describe_machine, print_table
from make_random_checkpoint import write_clip
from reference_clips import SUFFIXES, frames_of, write_video

from encoders.base import VisualEncoder, load_encoder
from mmrec.media import MAX_FRAMES, FramePlan, FrameSampling, decode_media

PACKAGES = ("av", "torch", "open_clip_torch", "numpy")
PLANS = {f"uniform {count}": FrameSampling(mode="uniform", count=count) for count in (2, 4, 8, 16, 32)}
PLANS |= {"keyframes": FrameSampling(mode="keyframes", count=8), "one a second": FrameSampling(mode="fps", count=64)}
DEFAULT = FrameSampling()
ROUNDS, LEAST_FRAMES = 3, 64


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="one small video and the descriptors alone")
    parser.add_argument("--media", type=Path, help="a folder of videos (default: ../shared/media where that exists)")
    parser.add_argument("--checkpoint", help="an open_clip folder or hub repository in place of random weights")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        encoders: list[Any] = [load_encoder("descriptors")]
        if not arguments.quick:
            encoders.append(load_encoder("open-clip", checkpoint=arguments.checkpoint or random_clip(folder)))
        figures = [
            figure
            for path in videos(folder, arguments.media, quick=arguments.quick)
            for figure in compare(path, encoders)
        ]
    print_table("Mean vector of the sampled frames against that of all", list(summary(figures)))
    if arguments.out:
        report = {"machine": describe_machine(PACKAGES), "figures": figures, "summary": list(summary(figures))}
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


def random_clip(folder: Path) -> str:
    checkpoint = folder / "clip"
    checkpoint.mkdir()
    write_clip(checkpoint)
    return str(checkpoint)


def videos(folder: Path, media: Path | None, *, quick: bool) -> Iterator[Path]:
    own = folder / "scenes.mp4"
    write_video(own, (160, 120) if quick else (640, 360), seconds=10 if quick else 60, keyframe_every=250)
    yield own
    media = media or Path(__file__).resolve().parents[2] / "shared" / "media"
    if media.is_dir() and not quick:
        yield from (path for path in sorted(media.iterdir()) if path.suffix in SUFFIXES)


def compare(path: Path, encoders: list[Any]) -> Iterator[dict[str, Any]]:
    """A row for each plan, of a whole video that is longer than a few frames."""
    errors: list[av.FFmpegError] = []
    num_frames = sum(1 for _ in frames_of(path, errors))
    if errors or not LEAST_FRAMES <= num_frames <= MAX_FRAMES:
        return
    every = FrameSampling(mode="uniform", count=num_frames)
    wholes = [mean_vector(path, every, encoder) for encoder in encoders]
    cost = processor_ms(path, every, encoders[0])
    for name, sampling in PLANS.items():
        row: dict[str, Any] = {"plan": name, "file": path.name, "frames": num_frames}
        for encoder, whole_D in zip(encoders, wholes, strict=True):
            row[encoder.name.split()[0]] = float(mean_vector(path, sampling, encoder) @ whole_D)
        spent = processor_ms(path, sampling, encoders[0])
        yield row | {"processor_ms": spent, "share": spent / cost}


def mean_vector(path: Path, sampling: FrameSampling, encoder: VisualEncoder) -> torch.Tensor:
    frames_TFHWC = decoded(path, sampling, encoder)
    vectors_TD = torch.cat(
        [encoder.encode(part).cpu() for part in np.array_split(frames_TFHWC, len(frames_TFHWC) // 256 + 1)]
    )
    return torch.nn.functional.normalize(vectors_TD.mean(dim=0), dim=0)


def processor_ms(path: Path, sampling: FrameSampling, encoder: VisualEncoder) -> float:
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        decoded(path, sampling, encoder)
        times.append(1e3 * (time.process_time() - start))
    return statistics.median(times)


def decoded(path: Path, sampling: FrameSampling, encoder: VisualEncoder) -> Any:
    height, width = encoder.frame_size
    plan = FramePlan(
        sampling=sampling,
        height=height,
        width=width,
        fit=encoder.frame_fit,
        interpolation=encoder.interpolation,
        offsets=encoder.frame_offsets,
    )
    media = decode_media(path, plan, None)
    assert media.frames_TFHWC is not None, media.visual_problem
    return media.frames_TFHWC


def summary(figures: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Over all videos: mean and least cosine by each encoder, and what the plan costs."""
    for name, sampling in PLANS.items():
        rows = [row for row in figures if row["plan"] == name]
        line: dict[str, Any] = {"plan": name + (", the default" if sampling == DEFAULT else ""), "videos": len(rows)}
        for encoder in ("descriptors", "open-clip"):
            if cosines := [row[encoder] for row in rows if encoder in row]:
                line[encoder] = f"{statistics.mean(cosines):.4f} / {min(cosines):.4f}"
        line["processor_ms"] = statistics.mean(row["processor_ms"] for row in rows)
        yield line | {"share of all frames": statistics.mean(row["share"] for row in rows)}


if __name__ == "__main__":
    sys.exit(main())
