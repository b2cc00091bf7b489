"""What a catalog costs on a cluster, from a benchmark: core-hours, GPU-hours, storage, money; checked by simulation.

    python scripts/bench_embed.py --preset base --out measured.json
    python scripts/plan_cluster.py measured.json --items 10000000 --hours 24 [--core-price 0.04] [--gpu-price 3.0]

`measured.json` tells of each preset how long its encoders take for a thousand clips, and how many cores decode as fast
as that; it should come from a machine of the kind that is planned with, and from clips like those of the catalog
(`--length` says how many times as long to decode they are). The plan takes as many encoders (GPUs, or processes of one
core where the benchmark had no GPU) and decoding cores as finish in `--hours`. The simulation then lets items, some of
them `--spread` times as long as others, go through these cores and encoders with a bounded number of decoded items
between them, as a job does, and says how long that takes.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import sys
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from benching import print_table

SIMULATED_ITEMS = 100_000
DECODED_PER_CORE = 4  # items that may wait for the encoders


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Seconds an item: of one core that decodes, and of one encoder (a GPU, or a core)."""

    decode: float
    encode: float
    has_gpu: bool


@dataclass(frozen=True, kw_only=True)
class Plan:
    decode_cores: int
    encoders: int
    decode_cores_per_encoder: float
    hours: float
    simulated_hours: float
    core_hours: float
    gpu_hours: float
    storage_gb: float
    money: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("measured", type=Path, help="what bench_embed.py wrote with --out")
    parser.add_argument("--preset", default="base")
    parser.add_argument("--items", type=int, required=True)
    parser.add_argument("--hours", type=float, default=24.0, help="to be done in (default: 24)")
    parser.add_argument("--length", type=float, default=1.0, help="of an item, in those of the benchmark (default: 1)")
    parser.add_argument(
        "--spread", type=float, default=10.0, help="of the longest hundredth to the median (default: 10)"
    )
    parser.add_argument("--kilobytes", type=float, default=60.0, help="of an item in the store (default: 60)")
    parser.add_argument("--core-price", type=float, default=0.04, help="of an hour (default: 0.04)")
    parser.add_argument("--gpu-price", type=float, default=3.0, help="of an hour (default: 3)")
    parser.add_argument("--out", type=Path, help="write the plan as JSON")
    arguments = parser.parse_args()
    measured = read(arguments.measured, arguments.preset, arguments.length)
    made = plan(measured, arguments)
    print_table(f"{arguments.items:,} items in {arguments.hours:g} h", [asdict(made)])
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(asdict(made), indent=2) + "\n", encoding="utf-8")
    return 0


def read(path: Path, preset: str, length: float) -> Measured:
    report = json.loads(path.read_text(encoding="utf-8"))
    of_presets = {result["preset"]: result for result in report["results"]}
    if preset not in of_presets:
        raise SystemExit(f"{path} measured {', '.join(of_presets)}, not {preset}")
    result = of_presets[preset]
    encode = result["encode"] / 1000  # seconds a clip, of the encoders of one machine
    has_gpu = report["machine"]["cuda"] is not None
    encoders = 1 if has_gpu else report["machine"]["threads"]
    return Measured(decode=length * result["cores"] * encode, encode=encode * encoders, has_gpu=has_gpu)


def plan(measured: Measured, arguments: argparse.Namespace) -> Plan:
    rate = arguments.items / (3600 * arguments.hours)
    cores, encoders = math.ceil(rate * measured.decode), math.ceil(rate * measured.encode)
    hours = arguments.items * max(measured.decode / cores, measured.encode / encoders) / 3600
    slowdown = simulated(measured, cores, encoders, arguments.spread)
    gpu_hours = encoders * hours * slowdown * measured.has_gpu
    core_hours = (cores + encoders) * hours * slowdown
    return Plan(
        decode_cores=cores,
        encoders=encoders,
        decode_cores_per_encoder=measured.decode / measured.encode,
        hours=hours,
        simulated_hours=hours * slowdown,
        core_hours=core_hours,
        gpu_hours=gpu_hours,
        storage_gb=arguments.items * arguments.kilobytes / 1e6,
        money=core_hours * arguments.core_price + gpu_hours * arguments.gpu_price,
    )


def simulated(measured: Measured, cores: int, encoders: int, spread: float) -> float:
    """How many times as long as its mean rates promise a cluster takes, whose items differ in length."""
    sigma = math.log(spread) / 2.33 if spread > 1 else 0.0  # of a log-normal: its hundredth quantile
    count = max(SIMULATED_ITEMS, 50 * cores)
    factors = np.random.default_rng(0).lognormal(-(sigma**2) / 2, sigma, count)
    decoders, free = [0.0] * cores, [0.0] * encoders
    decoded: list[float] = []  # when
    begun: deque[float] = deque()  # when an encoder takes an item, of those that wait for one

    def encode(ready: float) -> None:
        begin = max(ready, heapq.heappop(free))
        heapq.heappush(free, begin + measured.encode)
        begun.append(begin)

    for factor in factors:
        start = heapq.heappop(decoders)
        while decoded and decoded[0] <= start:
            encode(heapq.heappop(decoded))
        while begun and begun[0] <= start:
            begun.popleft()
        if len(begun) >= DECODED_PER_CORE * cores:  # decoding waits
            start = begun.popleft()
        heapq.heappush(decoded, start + measured.decode * float(factor))
        heapq.heappush(decoders, start + measured.decode * float(factor))
    while decoded:
        encode(heapq.heappop(decoded))
    promised = count * max(measured.decode / cores, measured.encode / encoders)
    return max(free) / promised


if __name__ == "__main__":
    sys.exit(main())
