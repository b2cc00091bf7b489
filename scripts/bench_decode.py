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
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np
from benching import describe_machine
from numpy.typing import NDArray

from mmrec.media import FramePlan, FrameSampling, decode_media

PACKAGES = ("av", "torchcodec", "decord", "opencv-python-headless", "numpy", "torch")

COUNT, SHORT_SIDE = 16, 224
UNIFORM_BAR, KEYFRAMES_BAR = 1.0, 10.0
SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts"}
NEAR = 8.0  # mean difference of pixel values that other ways of scaling and of converting colours may make
LENT = "MMREC_BENCH_LENT_FFMPEG"

Image = NDArray[np.uint8]
Sample = Callable[[], Any]


@dataclass
class Clip:
    """A file, the moments wanted of it, and the right frames: each with the one before and the one after it."""

    path: Path
    seconds: float
    size: tuple[int, int]  # (width, height), scaled
    times: list[float]
    right: list[tuple[Image, Image, Image]] = field(repr=False)
    damaged: bool
    sparse_keyframes: bool = False


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


# --- files ------------------------------------------------------------------------------------------------------------


def clips(folder: Path, media: Path | None, quick: bool) -> Iterator[Clip]:
    """Written here: a long file with a keyframe every 250 frames and a short clip; and those of the folder given."""
    long, short = folder / "long.mp4", folder / "short.mp4"
    if quick:
        write_video(long, (320, 240), seconds=6, keyframe_every=100)
        write_video(short, (160, 120), seconds=1, keyframe_every=250)
    else:
        write_video(long, (1280, 720), seconds=60, keyframe_every=250)
        write_video(short, (426, 240), seconds=6, keyframe_every=250)
    yield read_clip(long, sparse_keyframes=not quick)
    yield read_clip(short)
    media = media or Path(__file__).resolve().parents[2] / "shared" / "media"
    if media.is_dir() and not quick:
        for path in sorted(media.iterdir()):
            if path.suffix in SUFFIXES:
                yield read_clip(path)


def write_video(path: Path, size: tuple[int, int], *, seconds: int, keyframe_every: int, rate: int = 30) -> None:
    """H.264 with B-frames: a camera that pans over textured scenes with grain, an object that moves across them."""
    rng = np.random.default_rng(0)
    width, height = size
    grain = rng.normal(0, 3, (8, height, width)).astype(np.int16)
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "crf": "23", "sc_threshold": "0", "bf": "3"}
        stream = container.add_stream("libx264", rate=rate, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = keyframe_every
        for number in range(seconds * rate):
            step = number % (7 * rate)
            if step == 0:
                luma, chroma = texture(rng, height + 128, width + 512), texture(rng, height + 128, width + 512)
            x, y = 2 * (step // 2 * 2) // 2, 2 * int(32 + 30 * np.sin(step / 40))
            image_HW = np.empty((height * 3 // 2, width), np.int16)
            image_HW[:height] = luma[y : y + height, x : x + width] + grain[number % 8]
            colours = chroma[y : y + height : 2, x : x + width : 2]
            image_HW[height:] = np.concatenate([colours, 255 - colours]).reshape(height // 2, width)
            left = 5 * number % (width - width // 6)
            image_HW[height // 3 : height // 2, left : left + width // 6] = 40 + number % 180
            frame = av.VideoFrame.from_ndarray(image_HW.clip(0, 255).astype(np.uint8), format="yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def texture(rng: np.random.Generator, height: int, width: int) -> NDArray[np.int16]:
    """Smooth noise in octaves, (height, width), around 128."""
    total = np.full((height, width), 128.0)
    for grid in (128, 64, 32, 16, 8, 4):
        coarse = (128 + 32 * rng.standard_normal((height // grid + 2, width // grid + 2))).clip(0, 255).astype(np.uint8)
        fine = av.VideoFrame.from_ndarray(coarse, format="gray").reformat(width, height, interpolation="BICUBIC")
        total += (fine.to_ndarray() - 128.0) * grid**0.5 / 8
    return total.clip(0, 255).astype(np.int16)


def read_clip(path: Path, *, sparse_keyframes: bool = False) -> Clip:
    """Decode all of a file plainly, and keep the right frames."""
    stamps, size, begin, seconds, damaged = survey(path)
    times = [begin + (k + 0.5) / COUNT * seconds for k in range(COUNT)]
    shown = [max(int(np.searchsorted(stamps, moment + 1e-9, side="right")) - 1, 0) for moment in times]
    wanted = {min(max(number + step, 0), len(stamps) - 1) for number in shown for step in (-1, 0, 1)}
    images = {number: scaled(frame, size) for number, frame in enumerate(frames_of(path, [])) if number in wanted}
    last = len(stamps) - 1
    right = [(images[max(n - 1, 0)], images[n], images[min(n + 1, last)]) for n in shown]
    return Clip(path, seconds, size, times, right, damaged, sparse_keyframes)


def survey(path: Path) -> tuple[NDArray[np.float64], tuple[int, int], float, float, bool]:
    """When each frame starts; the upright size, scaled; begin and length in seconds; whether it is damaged."""
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        assert isinstance(stream, av.VideoStream) and stream.time_base is not None and stream.duration is not None
        begin, seconds = float((stream.start_time or 0) * stream.time_base), float(stream.duration * stream.time_base)
    errors: list[av.FFmpegError] = []
    frames = [(float(f.pts * f.time_base), f.width, f.height, f.rotation) for f in frames_of(path, errors)]
    _, width, height, rotation = frames[0]
    if rotation % 180:
        width, height = height, width
    ratio = SHORT_SIDE / min(width, height)
    size = (max(int(width * ratio + 1e-6), SHORT_SIDE), max(int(height * ratio + 1e-6), SHORT_SIDE))
    return np.array([start for start, *_ in frames]), size, begin, seconds, bool(errors)


def frames_of(path: Path, errors: list[av.FFmpegError]) -> Iterator[Any]:
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams.best("video")):
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                errors.append(error)
                continue
            yield from frames


def scaled(frame: Any, size: tuple[int, int]) -> Image:
    width, height = size[::-1] if frame.rotation % 180 else size
    small = frame.reformat(width=width, height=height, format="gbrp", interpolation="BILINEAR", threads=1)
    return np.ascontiguousarray(np.rot90(small.to_ndarray(), round(frame.rotation / 90)))


if __name__ == "__main__":
    sys.exit(main())
