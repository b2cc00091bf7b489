"""Moments with known times: in clips and sounds that are spliced from recordings, by other cuts and by stills of them.

A hit is a moment whose middle lies in the recording that was asked for, a second before and after it included; for a
still, one that has the second from which the still was taken, within a second. Another cut is encoded anew, smaller and
coarser.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from duplicate_variants import SOUND_RATE, cut, duration, encode_sound, images, read_sound, write_clip

import mmrec
from mmrec.searching import Moment, Query, Searcher

SECONDS = 7.0
"""Of each recording in a splice: not a multiple of what a frame or a window of sound spans there."""
WITHIN = 1.0
LEAST_HITS = 0.95
CLIPS, SOUNDS = (".mp4",), (".ogg", ".wav")
IN_A_SPLICE = 4
STILLS = (1.0, 3.5, 6.0)
CUT = (1.5, 5.5)

Splices = dict[str, list[Path]]
"""By item: its recordings, one after the other."""


def measure_moments(media: Path, work: Path, preset: str) -> list[dict[str, Any]]:
    paths = [path for path in sorted(media.iterdir()) if path.stem != "corrupted"]
    clips = [path for path in paths if path.suffix in CLIPS and duration(path) > SECONDS]
    sounds = [path for path in paths if path.suffix in SOUNDS and duration(path) > SECONDS]
    splices = {**_splices(clips, work, "clips"), **_splices(sounds, work, "sounds")}
    with (work / "catalog.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("item_id", "media"), *((name, str((work / name).absolute())) for name in splices)])
    for name, recordings in splices.items():
        if not (work / name).exists():
            _write(work / name, [(path, 0.0, SECONDS) for path in recordings])
    mmrec.embed(work / "catalog.csv", work / preset, preset=preset)
    searcher = Searcher(mmrec.FeatureStore(work / preset))
    rows = [_by_cuts("clips", clips, searcher, splices, work), _by_stills(clips, searcher, splices, work)]
    return [*rows, _by_cuts("sounds", sounds, searcher, splices, work)]


def _splices(recordings: Sequence[Path], work: Path, kind: str) -> Splices:
    """Each recording stands at each place, before and after different ones."""
    suffix = ".mp4" if kind == "clips" else ".m4a"
    made = {}
    for step in (1, len(recordings) - 1):
        for first in range(len(recordings)):
            places = [(first + step * place) % len(recordings) for place in range(IN_A_SPLICE)]
            made[f"{kind}-{step}-{first}{suffix}"] = [recordings[place] for place in places]
    return made


def _by_cuts(kind: str, recordings: Sequence[Path], searcher: Searcher, splices: Splices, work: Path) -> dict[str, Any]:
    def asked() -> Iterator[tuple[Path, Path, Callable[[float, Moment], bool]]]:
        for recording in recordings:
            path = work / f"cut-{recording.stem}{'.mp4' if kind == 'clips' else '.m4a'}"
            _write(path, [(recording, *CUT)], scale=0.5, crf=34)
            yield recording, path, lambda begin, m: begin - WITHIN <= (m.start + m.end) / 2 <= begin + SECONDS + WITHIN

    return _hits(f"{kind} by another cut", kind, asked(), searcher, splices)


def _by_stills(clips: Sequence[Path], searcher: Searcher, splices: Splices, work: Path) -> dict[str, Any]:
    def asked() -> Iterator[tuple[Path, Path, Callable[[float, Moment], bool]]]:
        for clip in clips:
            for second in STILLS:
                path = work / f"still-{clip.stem}-{second}.png"
                _write_still(clip, second, path)
                yield clip, path, lambda begin, m, at=second: m.start - WITHIN <= begin + at <= m.end + WITHIN

    return _hits("clips by a still", "clips", asked(), searcher, splices)


def _hits(
    what: str,
    kind: str,
    asked: Iterator[tuple[Path, Path, Callable[[float, Moment], bool]]],
    searcher: Searcher,
    splices: Splices,
) -> dict[str, Any]:
    hits: list[bool] = []
    lengths: list[float] = []
    modality: Any = "visual" if kind == "clips" else "audio"
    for recording, path, is_hit in asked:
        found = searcher.moments(Query(media=[path], modalities=[modality]), k=len(splices))
        moments = {moment.item_id: moment for moment in found}
        for name, recordings in splices.items():
            if name.startswith(kind) and recording in recordings:
                moment = moments.get(name)
                hits.append(moment is not None and is_hit(SECONDS * recordings.index(recording), moment))
                lengths += [] if moment is None else [moment.end - moment.start]
    share = float(np.mean(hits))
    figures = {"moments": len(hits), "within 1 s": share, "mean length, s": float(np.mean(lengths))}
    return {"what": what, **figures, "bar .95": "met" if share >= LEAST_HITS else "missed"}


def _write(path: Path, parts: Sequence[tuple[Path, float, float | None]], **options: Any) -> None:
    if path.suffix == ".mp4":
        write_clip(path, parts, **options)
        return
    samples_S = np.concatenate([cut(read_sound(file), begin, end) for file, begin, end in parts])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=SOUND_RATE, layout="mono")
        encode_sound(container, stream, samples_S, bit_rate=64_000)


def _write_still(clip: Path, second: float, path: Path) -> None:
    image_HWC = next(images(clip, second, second + 0.1, Fraction(10)))
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream("png", rate=1)
        stream.height, stream.width, stream.pix_fmt = *image_HWC.shape[:2], "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image_HWC), format="rgb24")))
        container.mux(stream.encode(None))
