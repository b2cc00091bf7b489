"""Times the embedding job with its catalog, media and store in an object store against the same on a disk.

    python scripts/bench_objects.py [--clips N] [--preset NAME|FILE] [--rounds N] [--out FILE]

The object store is moto's, a process of this machine: it takes processor time that a real one would not, which is told
beside each round, and answers without a network's delay. The rounds take turns; a throughput is clips a second without
the start of the job, a ratio is the median of the rounds' own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benching import describe_machine
from synthetic_catalog import write_catalog

import mmrec
from mmrec.remote import Url, written

PACKAGES = ("obstore", "moto", "lancedb", "av", "torch")
BAR = 0.8
BUCKET = "bench"


@contextmanager
def object_store() -> Iterator[int]:
    """A server with one bucket, which the environment names meanwhile; yields the number of its process."""
    import boto3

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.environ |= {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_REGION": "us-east-1"}
    os.environ |= {"AWS_ALLOW_HTTP": "true", "AWS_ENDPOINT_URL": endpoint}
    try:
        _wait_for(port)
        boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket=BUCKET)
        yield server.pid
    finally:
        server.terminate()
        server.wait()


def _wait_for(port: int, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def processor_seconds(process: int) -> float:
    """What a process took of the processor so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def embedded(catalog: str, store: str, arguments: argparse.Namespace, server: int) -> dict[str, float]:
    before = processor_seconds(server)
    report = mmrec.embed(catalog, store, preset=arguments.preset)
    assert report.ok == report.items, report
    start = report.stage_seconds["start"]
    found = {"start": start, "clips/s": report.items / (report.seconds - start)}
    found |= {"server's processor, s": processor_seconds(server) - before, "load": os.getloadavg()[0]}
    print(store, json.dumps(found), file=sys.stderr, flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=400)
    parser.add_argument("--preset", default="light")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, object_store() as server:
        catalog = write_catalog(Path(scratch) / "clips", arguments.clips)
        with written(Url("s3", BUCKET, "clips")) as folder:
            shutil.copytree(catalog.parent, folder)
        rounds = []
        for number in range(arguments.rounds):
            disk = embedded(str(catalog), f"{scratch}/store{number}", arguments, server)
            url = f"s3://{BUCKET}/clips/catalog.csv"
            bucket = embedded(url, f"s3://{BUCKET}/store{number}", arguments, server)
            rounds.append({"disk": disk, "object_store": bucket, "ratio": bucket["clips/s"] / disk["clips/s"]})
    ratio = statistics.median(one["ratio"] for one in rounds)
    figures = {"rounds": rounds, "ratio": ratio, "bar": BAR}
    figures |= {"clips": arguments.clips, "preset": arguments.preset}
    if arguments.out is not None:
        told = {**figures, "machine": describe_machine(PACKAGES)}
        arguments.out.write_text(json.dumps(told, indent=2), encoding="utf-8")
    print(json.dumps(figures))
    return 0 if ratio >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
