"""Times mmrec's sampling of frames against TorchCodec, decord and OpenCV, on the same files, in one process.

    python scripts/bench_decode.py [--quick] [--media DIR] [--threads 1 2] [--out FILE]

Wanted are 16 frames of each file at the size of an encoder, short side 224. Before anything is timed, each contestant's
frames are compared with a plain decode from start to end: mmrec's must be the same to the last bit, the others' must be
nearer to the right frame than to its neighbours. Those with wrong frames are shown, and no measure for the bar. The
rounds take turns; figures are medians, and a ratio is the median of the rounds' own ratios, which a busy machine
disturbs least. The bars are on the time that passes; beside it stands the processor time of all threads. TorchCodec
comes without FFmpeg, so it is lent the one inside PyAV.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np
from benching import describe_machine
from reference_clips import COUNT, SHORT_SIDE, Clip, Image, clips

from mmrec.media import FramePlan, FrameSampling, decode_media

PACKAGES = ("av", "torchcodec", "decord", "opencv-python-headless", "numpy", "torch")

UNIFORM_BAR, KEYFRAMES_BAR = 1.0, 10.0
NEAR = 8.0  # mean difference of pixel values that other ways of scaling and of converting colours may make
LENT = "MMREC_BENCH_LENT_FFMPEG"

Sample = Callable[[], Any]


@dataclass
class Result:
    file: str
    threads: int
    contestant: str
    milliseconds: float | None = None
    processor_milliseconds: float | None = None  # of all its threads
    times_slower: float | None = None  # than mmrec uniform
    times_the_work: float | None = None  # of mmrec uniform, in processor time
    frames: str = "right"  # or what is wrong with them


@dataclass
class Verdict:
    file: str
    threads: int
    name: str
    against: str
    ratio: float
    processor_ratio: float
    bar: float

    @property
    def is_met(self) -> bool:
        return self.ratio >= self.bar


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="small files, two rounds: whether it runs, not how fast")
    parser.add_argument("--media", type=Path, help="a folder of clips (default: ../shared/media where that exists)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="decoding threads of every contestant")
    parser.add_argument("--seconds", type=float, default=30.0, help="of rounds for each file, three at the least")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    if find_spec("torchcodec") and LENT not in os.environ:
        return run_with_ffmpeg_lent()
    av.logging.set_level(av.logging.PANIC)
    seconds, threads = (0.0, arguments.threads[:1]) if arguments.quick else (arguments.seconds, arguments.threads)
    results: list[Result] = []
    verdicts: list[Verdict] = []
    with tempfile.TemporaryDirectory() as folder:
        for clip in clips(Path(folder), arguments.media, arguments.quick):
            for count in threads:
                contest = race(clip, count, seconds)
                judged = judge(clip, contest)
                print_contest(clip, contest, judged)
                results += contest
                verdicts += judged
    missed = [verdict for verdict in verdicts if not verdict.is_met]
    print(f"\n{len(verdicts) - len(missed)} of {len(verdicts)} bars met")
    if arguments.out:
        tables = {
            "results": [asdict(r) for r in results],
            "verdicts": [asdict(v) | {"met": v.is_met} for v in verdicts],
        }
        ffmpeg = ".".join(map(str, av.library_versions["libavcodec"]))
        arguments.out.write_text(
            json.dumps({"machine": describe_machine(PACKAGES, libavcodec=ffmpeg), **tables}, indent=2)
        )
    return int(any(r.contestant == "mmrec uniform" and r.frames == "other frames" for r in results))


def run_with_ffmpeg_lent() -> int:
    """Run again where the loader finds the FFmpeg libraries of PyAV under their usual names."""
    bundled = Path(av.__file__).parent.with_name("av.libs")
    with tempfile.TemporaryDirectory() as folder:
        for library in bundled.glob("lib*.so.*"):
            if found := re.fullmatch(r"(lib(?:av|sw)\w+)-[0-9a-f]+\.so\.(\d+)\..*", library.name):
                (Path(folder) / f"{found[1]}.so.{found[2]}").symlink_to(library)
        paths = [folder, str(bundled), os.environ.get("LD_LIBRARY_PATH", "")]
        lent = {"LD_LIBRARY_PATH": ":".join(filter(None, paths)), LENT: "1"}
        return subprocess.run([sys.executable, *sys.argv], env=os.environ | lent, check=False).returncode


# --- contestants ------------------------------------------------------------------------------------------------------


def contestants(clip: Clip, threads: int) -> dict[str, Callable[[], Sample]]:
    """What makes ready each way to sample the clip; a sample is its frames, (N, H, W, 3) or a list of (H, W, 3)."""
    return {
        "mmrec uniform": lambda: mmrec_way(clip, "uniform", threads),
        "mmrec keyframes": lambda: mmrec_way(clip, "keyframes", threads),
        "TorchCodec exact": lambda: torchcodec_way(clip, "exact", threads),
        "TorchCodec approximate": lambda: torchcodec_way(clip, "approximate", threads),
        "decord": lambda: decord_way(clip, threads),
        "OpenCV grab": lambda: opencv_way(clip, threads, seek=False),
        "OpenCV seek": lambda: opencv_way(clip, threads, seek=True),
    }


def mmrec_way(clip: Clip, mode: Any, threads: int) -> Sample:
    sampling = FrameSampling(mode=mode, count=COUNT)
    plan = FramePlan(sampling=sampling, height=SHORT_SIDE, width=SHORT_SIDE, interpolation="bilinear")

    def sample() -> Any:
        decoded = decode_media(clip.path, plan, None, threads=threads)
        assert decoded.frames_TFHWC is not None, decoded.visual_problem
        return decoded.frames_TFHWC[:, 0]

    return sample


def torchcodec_way(clip: Clip, mode: Any, threads: int) -> Sample:
    import torch
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    torch.set_num_threads(1)
    width, height = clip.size

    def sample() -> Any:
        decoder = VideoDecoder(
            clip.path,
            seek_mode=mode,
            num_ffmpeg_threads=threads,
            dimension_order="NHWC",
            transforms=[Resize((height, width))],
        )
        return decoder.get_frames_played_at(clip.times).data.numpy()

    return sample


def decord_way(clip: Clip, threads: int) -> Sample:
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    width, height = clip.size

    def sample() -> Any:
        reader = decord.VideoReader(str(clip.path), width=width, height=height, num_threads=threads)
        starts = reader.get_frame_timestamp(range(len(reader)))[:, 0]
        numbers = np.searchsorted(starts, np.array(clip.times) + 1e-6, side="right") - 1
        return reader.get_batch(numbers.clip(0)).asnumpy()

    return sample


def opencv_way(clip: Clip, threads: int, *, seek: bool) -> Sample:
    import cv2

    cv2.setNumThreads(1)

    def sample() -> Any:
        reader = cv2.VideoCapture(str(clip.path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, threads])
        rate = reader.get(cv2.CAP_PROP_FPS)
        frames, at = [], -1
        for moment in clip.times:
            number = int((moment - clip.times[0] + clip.seconds / COUNT / 2) * rate + 1e-6)
            if seek:
                reader.set(cv2.CAP_PROP_POS_FRAMES, number)
                at = number - 1
            while at < number:
                reader.grab()
                at += 1
            found, frame = reader.retrieve()
            if found:
                small = cv2.resize(frame, clip.size, interpolation=cv2.INTER_AREA)
                frames.append(cv2.cvtColor(small, cv2.COLOR_BGR2RGB))
        return frames

    return sample


# --- the race ---------------------------------------------------------------------------------------------------------


def race(clip: Clip, threads: int, seconds: float) -> list[Result]:
    results: dict[str, Result] = {}
    running: dict[str, Sample] = {}
    for name, prepare in contestants(clip, threads).items():
        results[name] = Result(clip.path.name, threads, name)
        try:
            sample = prepare()
        except (ImportError, OSError, RuntimeError) as error:
            results[name].frames = f"not available: {str(error).splitlines()[0]}"
            continue
        results[name].frames = compare(clip, name, sample)
        if not results[name].frames.startswith("failed"):
            running[name] = sample
    rounds: list[dict[str, tuple[float, float]]] = []
    start = time.perf_counter()
    while len(rounds) < 2 or (seconds and (len(rounds) < 3 or time.perf_counter() - start < seconds)):
        rounds.append({name: timed(sample) for name, sample in running.items()})
    for name in running:
        results[name].milliseconds = 1000 * statistics.median(turn[name][0] for turn in rounds)
        results[name].processor_milliseconds = 1000 * statistics.median(turn[name][1] for turn in rounds)
        against = [(turn[name], turn["mmrec uniform"]) for turn in rounds]
        results[name].times_slower = statistics.median(other[0] / own[0] for other, own in against)
        results[name].times_the_work = statistics.median(other[1] / own[1] for other, own in against)
    return list(results.values())


def timed(sample: Sample) -> tuple[float, float]:
    """Seconds that pass, and seconds of the processors."""
    start, processor_start = time.perf_counter(), time.process_time()
    sample()
    return time.perf_counter() - start, time.process_time() - processor_start


def compare(clip: Clip, name: str, sample: Sample) -> str:
    """What a contestant's frames are, measured by the right ones."""
    try:
        frames = sample()
    except Exception as error:  # each library has its own
        if name.startswith("mmrec"):
            raise
        return f"failed: {type(error).__name__}"
    if name == "mmrec keyframes":
        return "right"  # others than these; tests compare them with a plain decode
    if name == "mmrec uniform":
        distinct = [right for k, (_, right, _) in enumerate(clip.right) if k == 0 or right is not clip.right[k - 1][1]]
        same = len(frames) == len(distinct) and all(map(np.array_equal, frames, map(middle, distinct)))
        return "right" if same else "other frames: the file is damaged" if clip.damaged else "other frames"
    if len(frames) != len(clip.right):
        return f"{len(frames)} frames instead of {len(clip.right)}"
    wrong = sum(not is_right(frame, *clip.right[k]) for k, frame in enumerate(frames))
    return f"{wrong} wrong frames" if wrong else "right"


def is_right(frame: Image, before: Image, right: Image, after: Image) -> bool:
    if frame.shape != right.shape:
        return False
    distances = [float(np.abs(frame.astype(int) - other).mean()) for other in (right, before, after)]
    return distances[0] <= NEAR and distances[0] <= min(distances) + 0.1


def middle(image: Image) -> Image:
    top, left = (round((length - SHORT_SIDE) / 2) for length in image.shape[:2])
    return image[top : top + SHORT_SIDE, left : left + SHORT_SIDE]


def judge(clip: Clip, results: list[Result]) -> list[Verdict]:
    """The bars: `uniform` against the fastest peer with right frames, and `keyframes` where keyframes are sparse."""
    peers = [r for r in results if not r.contestant.startswith("mmrec") and r.frames == "right" and r.times_slower]
    if not peers:
        return []
    best = min(peers, key=lambda r: r.times_slower or 0.0)
    least_work = min(r.times_the_work or 0.0 for r in peers)
    keyframes = next(r for r in results if r.contestant == "mmrec keyframes")
    assert best.times_slower and keyframes.times_slower and keyframes.times_the_work
    file, threads, name = clip.path.name, best.threads, best.contestant
    verdicts = [Verdict(file, threads, "uniform", name, best.times_slower, least_work, UNIFORM_BAR)]
    if clip.sparse_keyframes:
        ratios = best.times_slower / keyframes.times_slower, least_work / keyframes.times_the_work
        verdicts.append(Verdict(file, threads, "keyframes", name, *ratios, KEYFRAMES_BAR))
    return verdicts


def print_contest(clip: Clip, results: list[Result], verdicts: list[Verdict]) -> None:
    print(f"\n{clip.path.name}, {clip.seconds:.1f} s, decoding threads: {results[0].threads}")
    print(f"  {'':24}{'time':>9}      slower  processor")
    for result in results:
        figures = ""
        if result.milliseconds is not None:
            figures = (
                f"{result.milliseconds:9.1f} ms {result.times_slower:6.2f} x {result.processor_milliseconds:9.1f} ms"
            )
        wrong = "" if result.frames == "right" else f"  {result.frames}"
        print(f"  {result.contestant:24}{figures}{wrong}")
    for verdict in verdicts:
        word = "met" if verdict.is_met else "MISSED"
        print(f"  {verdict.name}: {verdict.ratio:.2f} times as fast as {verdict.against}; bar {verdict.bar:g}: {word}")
        work = f"{verdict.processor_ratio:.2f} times the processor time"
        print(f"  {'':{len(verdict.name)}}  the thriftiest peer takes {work}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
