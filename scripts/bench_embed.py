"""Times the embedding job against bare decoding and bare encoding, on a catalog of small clips.

    python scripts/bench_embed.py [--quick] [--preset light|base] [--clips N] [--growth N ...] [--out FILE]

Efficiency is the throughput of `mmrec embed` over that of the slower of its two halves alone: the decoding workers with
nobody encoding, and the encoders, in the job's threads, with everything decoded beforehand. The job starts when its
libraries are imported; loading the encoders counts, and is shown beside it ("start"). On a CPU the halves share their
processors, so no job can be as fast as the slower half; "shared" compares with one half after the other instead.
"work" is the share of the job's processor time, imports and all, that bare decoding and encoding take: it holds on a
busy machine too.

"fed" is the job without its decoding, from decoded clips in memory to the store, over the bare encoders: what packing,
copying and writing leave of them. "cores" is how many cores decode as fast as the encoders encode.

`base` has full-size models with random weights: their vectors mean nothing, their speed is that of the real ones.
`--growth` embeds catalogs of words alone, of growing size: seconds, peak memory and disk.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from benching import describe_machine
from synthetic_catalog import sentence, write_catalog

from mmrec.catalog import Item, read_catalog
from mmrec.embedding import DecodeLimits, decode_items
from mmrec.media import DecodedMedia
from mmrec.store import Modality

PACKAGES = ("torch", "av", "lancedb", "transformers", "open_clip_torch")

if TYPE_CHECKING:  # torch and what needs it are imported late: every decoding worker imports this file
    from mmrec.embedding import EncoderThreads, PresetEncoders


BAR, FED_BAR = 0.9, 0.8
FED_SECONDS = {"cpu": 2.0, "mps": 2.0, "cuda": 10.0}


Sample = list[tuple[Item, DecodedMedia]]


@dataclass
class Cost:
    """Seconds a clip, by the clock and of all processors together."""

    seconds: float
    cpu_seconds: float


class Costs(NamedTuple):
    """Of bare decoding, bare encoding, the job without its decoding, and the job."""

    decode: Cost
    encode: Cost
    fed: Cost
    job: Cost


@dataclass
class Result:
    """Seconds a thousand clips, except `start`, which is a job's own; and what follows from them."""

    preset: str
    clips: int
    decode: float
    encode: float
    job: float
    start: float
    efficiency: float
    efficiency_without_start: float
    shared: float
    work: float
    reported_efficiency: float
    fed: float
    cores: float
    fed_bar: float | None
    bar: float = BAR


@dataclass
class Growth:
    items: int
    seconds: float
    peak_mib: float
    disk_mib: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a few clips, light alone: whether it runs, not how fast")
    parser.add_argument("--preset", choices=["light", "base"], action="append", help="default: both")
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--sample", type=int, help="clips that encoding is measured on (default: 100; all on CUDA)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--growth", type=int, nargs="+", metavar="ITEMS", help="sizes of catalogs, such as 1000 10000")
    parser.add_argument("--growth-only", action="store_true")
    parser.add_argument("--plot", type=Path, help="draw the growth, with matplotlib")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.clips, arguments.sample, arguments.rounds, arguments.preset = 12, 6, 1, ["light"]
    report: dict[str, Any] = {"machine": describe_machine(PACKAGES), "results": [], "growth": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not arguments.growth_only:
            catalog = write_catalog(folder / "clips", arguments.clips)
            print_heading()
            for preset in arguments.preset or ["light", "base"]:
                result = measure(preset, catalog, folder, arguments)
                print_row(result)
                report["results"].append(asdict(result))
        for items in arguments.growth or []:
            growth = grow(folder, items)
            print(f"{growth.items:>8} items {growth.seconds:8.1f} s {growth.peak_mib:8.0f} MiB memory", end="")
            print(f" {growth.disk_mib:8.1f} MiB disk", flush=True)
            report["growth"].append(asdict(growth))
    if arguments.plot and report["growth"]:
        plot(report["growth"], arguments.plot)
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=2))
    return 0


# --- what is embedded -------------------------------------------------------------------------------------------------


def preset_file(name: str, folder: Path) -> str:
    """`light` as it is; `base` with checkpoints written here."""
    if name == "light":
        return name
    import torch
    from make_random_checkpoint import write_clip as write_clip_model
    from make_random_checkpoint import write_minilm, write_wav2vec2

    for model, write in (("clip", write_clip_model), ("wav2vec2", write_wav2vec2), ("minilm", write_minilm)):
        (folder / model).mkdir()
        torch.manual_seed(0)
        write(folder / model)
    preset = {
        "visual": {"kind": "open-clip", "checkpoint": str(folder / "clip")},
        "audio": {"kind": "wav2vec2", "checkpoint": str(folder / "wav2vec2"), "layers": "mean"},
        "text": {"kind": "sentence-transformer", "checkpoint": str(folder / "minilm")},
        "frames": {"mode": "uniform", "count": 8},
        "sound": {"mode": "windows", "window_seconds": 5.0, "count": 8},
    }
    path = folder / "base.yaml"
    path.write_text(json.dumps(preset), encoding="utf-8")  # JSON is YAML
    return str(path)


# --- measuring --------------------------------------------------------------------------------------------------------


@dataclass
class Task:
    item: Item
    todo: frozenset[Modality] = frozenset({"visual", "audio"})


def measure(name: str, catalog: Path, folder: Path, arguments: argparse.Namespace) -> Result:
    """The round of median efficiency; the parts of a round run one after the other."""
    from mmrec.embedding import load_preset, load_preset_encoders

    preset = preset_file(name, folder)
    loaded = load_preset_encoders(load_preset(preset), device=arguments.device)
    items, limits = list(read_catalog(catalog).items()), DecodeLimits(workers=arguments.workers)
    keep = arguments.sample or (len(items) if loaded.device.type == "cuda" else 100)
    results = []
    for _ in range(arguments.rounds):
        sample, decode = bare_decoding(items, loaded, limits, keep=keep)
        encode = bare_encoding(sample, loaded)
        fed = fed_job(sample, loaded, encode, folder / "store")
        report, job = run_job(catalog, folder / "store", preset, arguments)
        fed_bar = FED_BAR if loaded.device.type == "cuda" else None
        results.append(score(name, Costs(decode, encode, fed, job), report, fed_bar))
    return sorted(results, key=lambda result: result.efficiency)[len(results) // 2]


def bare_decoding(items: list[Item], loaded: PresetEncoders, limits: DecodeLimits, *, keep: int) -> tuple[Sample, Cost]:
    """Some of the decoded items, and what all of them cost; the start of the workers is in the processor time alone."""
    kept: Sample = []
    tasks = [Task(item) for item in items]
    warm_up = tasks[: 4 * limits.num_workers]
    cpu = cpu_seconds()
    done = decode_items(warm_up + tasks, loaded.frames, loaded.sound, limits)
    for _ in warm_up:
        next(done)
    start = time.perf_counter()
    for number, (task, media) in enumerate(done):
        if number < keep:
            kept.append((task.item, media))
    seconds = time.perf_counter() - start
    return kept, Cost(seconds / len(items), (cpu_seconds() - cpu) / (len(items) + len(warm_up)))


def bare_encoding(sample: Sample, loaded: PresetEncoders) -> Cost:
    """The encoders alone, in the job's threads, with full batches that wait for them."""
    from encoders.cuda_graphs import RUNS_BEFORE_RECORDING
    from mmrec.embedding import EncoderThreads

    def encode(modality: Any, batch: Any) -> None:
        loaded.encoders[modality].encode(batch).float().cpu().numpy()

    with EncoderThreads(loaded.device) as threads:
        batches = [batch for modality in loaded.encoders for batch in batches_of(modality, sample, loaded, threads)]

        def run(times: int) -> Cost:
            start, cpu, clips = time.perf_counter(), cpu_seconds(), times * len(sample)
            for future in [threads.submit(encode, *batch) for _ in range(times) for batch in batches]:
                future.result()
            return Cost((time.perf_counter() - start) / clips, (cpu_seconds() - cpu) / clips)

        # a shape is recorded on CUDA when it comes the third time
        warm = run(RUNS_BEFORE_RECORDING + 1 if loaded.device.type == "cuda" else 1)
        return run(repeats_of(sample, warm, loaded))


def repeats_of(sample: Sample, cost: Cost, loaded: PresetEncoders) -> int:
    """How often to encode the sample, so that it takes long enough to be timed."""
    return max(1, round(FED_SECONDS[loaded.device.type] / (cost.seconds * len(sample))))


def fed_job(sample: Sample, loaded: PresetEncoders, encode: Cost, store: Path) -> Cost:
    """The job without decoding, on as many clips as keep bare encoders busy for a while."""
    from mmrec.embedding import EmbedReport, Task, Writer, encoded
    from mmrec.store import FeatureStore

    repeats = repeats_of(sample, encode, loaded)
    decoded = (
        (Task(replace(item, item_id=f"{item.item_id} {number}"), loaded.preset.text_of(item)), media)
        for number in range(repeats)
        for item, media in sample
    )
    report, target = EmbedReport(), FeatureStore(store, create=True)
    start, cpu = time.perf_counter(), cpu_seconds()
    with target.lock():
        target.add_encoders(loaded.records())
        with Writer(target, target.keys(), report) as writer:
            for features in encoded(decoded, loaded, None, report):
                writer.put(features)
                report.count(features)
    seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu
    assert report.ok == repeats * len(sample), f"not all clips were embedded: {report}"
    shutil.rmtree(store)
    return Cost(seconds / report.ok, cpu / report.ok)


def batches_of(
    modality: Any, sample: Sample, loaded: PresetEncoders, threads: EncoderThreads
) -> Iterator[tuple[Any, Any]]:
    from mmrec.embedding import BATCH_SIZES

    size = BATCH_SIZES[loaded.device.type][modality]
    groups: dict[Any, list[Any]] = {}
    for item, media in sample:
        for part in parts_of(modality, item, media, loaded):
            groups.setdefault(getattr(part, "shape", None), []).append(part)
    for group in groups.values():
        for at in range(0, len(group), size):
            batch = group[at : at + size]
            yield modality, batch if modality == "text" else threads.stacked(batch)


def parts_of(modality: Any, item: Item, media: DecodedMedia, loaded: PresetEncoders) -> list[Any]:
    if modality == "visual":
        return [] if media.frames_TFHWC is None else list(media.frames_TFHWC)
    return media.windows if modality == "audio" else [loaded.preset.text_of(item)]


def run_job(catalog: Path, store: Path, preset: str, arguments: argparse.Namespace) -> tuple[dict[str, Any], Cost]:
    """The report of the command, and what it cost: the seconds that it reports, the processor time of all of it."""
    command = [sys.executable, "-m", "mmrec", "embed", str(catalog), "--store", str(store), "--preset", preset]
    command += ["--device", arguments.device, "--workers", str(arguments.workers), "--json"]
    cpu = cpu_seconds()
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert report["ok"] == report["items"], f"not all clips were embedded: {report}"
    shutil.rmtree(store)
    return report, Cost(report["seconds"] / report["items"], (cpu_seconds() - cpu) / report["items"])


def cpu_seconds() -> float:
    """Of this process and its children that ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def score(name: str, costs: Costs, report: dict[str, Any], fed_bar: float | None) -> Result:
    decode, encode, fed, job = costs
    start, clips = report["stage_seconds"]["start"], report["items"]
    slower = max(decode.seconds, encode.seconds)
    return Result(
        preset=name,
        clips=clips,
        decode=1000 * decode.seconds,
        encode=1000 * encode.seconds,
        job=1000 * job.seconds,
        start=start,
        efficiency=slower / job.seconds,
        efficiency_without_start=slower / (job.seconds - start / clips),
        shared=(decode.seconds + encode.seconds) / job.seconds,
        work=(decode.cpu_seconds + encode.cpu_seconds) / job.cpu_seconds,
        reported_efficiency=report["efficiency"],
        fed=encode.seconds / fed.seconds,
        cores=report["workers"] * decode.seconds / encode.seconds,
        fed_bar=fed_bar,
    )


def print_heading() -> None:
    print("seconds a thousand clips; efficiency is the job's throughput over the slower of bare decoding and encoding")
    print(f"{'preset':8}{'clips':>6}{'decode':>8}{'encode':>8}{'job':>8}{'start':>7}", end="")
    print(f"{'efficiency':>12}{'bar':>5}{'no start':>10}{'shared':>8}{'work':>6}{'reported':>10}{'fed':>6}{'cores':>7}")


def print_row(r: Result) -> None:
    print(f"{r.preset:8}{r.clips:6}{r.decode:8.1f}{r.encode:8.1f}{r.job:8.1f}{r.start:7.1f}", end="")
    print(f"{r.efficiency:12.2f}{r.bar:5}{r.efficiency_without_start:10.2f}{r.shared:8.2f}{r.work:6.2f}", end="")
    print(f"{r.reported_efficiency:10.2f}{r.fed:6.2f}{r.cores:7.1f}", end="")
    print(f"  efficiency {'met' if r.efficiency >= r.bar else 'NOT MET'}", end="")
    fed = "" if r.fed_bar is None else f"; fed, bar {r.fed_bar}: {'met' if r.fed >= r.fed_bar else 'NOT MET'}"
    print(fed, flush=True)


# --- growth -----------------------------------------------------------------------------------------------------------


def grow(folder: Path, items: int) -> Growth:
    """Embed a catalog of words alone, with hashed n-grams, in a process of its own."""
    own = folder / f"growth{items}"
    own.mkdir()
    rng = np.random.default_rng(0)
    with (own / "catalog.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["item_id", "title", "description"])
        rows.writerows([n, sentence(rng, 6), sentence(rng, 30)] for n in range(items))
    (own / "words.yaml").write_text(json.dumps({"text": {"kind": "hashed-ngrams"}}))
    command = [sys.executable, "-m", "mmrec", "embed", str(own / "catalog.csv"), "--store", str(own / "store")]
    start = time.perf_counter()
    subprocess.run([*command, "--preset", str(own / "words.yaml")], check=True, capture_output=True)
    seconds = time.perf_counter() - start
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # of the largest so far: sizes must grow
    disk = sum(file.stat().st_size for file in (own / "store").rglob("*") if file.is_file())
    shutil.rmtree(own)
    return Growth(items, seconds, peak_kib / 1024, disk / 2**20)


def plot(growth: list[dict[str, Any]], path: Path) -> None:
    try:
        from matplotlib import pyplot
    except ImportError:
        print("no plot: matplotlib is not installed", file=sys.stderr)
        return
    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.5), layout="constrained")
    items = [row["items"] for row in growth]
    names = (("seconds", "seconds"), ("peak_mib", "peak memory, MiB"), ("disk_mib", "store on disk, MiB"))
    for axis, (key, label) in zip(axes, names, strict=True):
        values = [row[key] for row in growth]
        axis.loglog(items, values, "o-")
        axis.set(xlabel="items", ylabel=label, ylim=(min(values) / 4, max(values) * 4))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("")
        axis.grid(True, which="both", alpha=0.3)
    figure.savefig(path)


if __name__ == "__main__":
    sys.exit(main())
