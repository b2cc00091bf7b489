"""How fast `mmrec serve` answers under load, what it takes, and what it does when it is abused or killed.

    python scripts/bench_service.py [--quick] [--items 100000] [--workers 2] [--folder DIR] [--out service.json]

Makes a store of items whose text tokens are random, under titles of made-up words, and fits a model to random
interactions, with an index as `mmrec index` makes it: what is timed does not depend on what they mean. Closed loop: so
many clients, each asking again as soon as it was answered, on the same processors as the service. Words are encoded as
the preset `light` does (extra `offline`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from benching import describe_machine
from rich.console import Console
from rich.table import Table
from synthetic_catalog import sentence

from fusion.config import FusionConfig
from mmrec import Features, FeatureStore, Item, Recommender, Tokens
from mmrec.evaluation import make_interactions
from mmrec.recommending import RecommenderConfig
from mmrec.service.interaction_log import InteractionLog
from mmrec.store import EncoderRecord, SearchTables

PACKAGES = ("fastapi", "starlette", "uvicorn", "httpx", "lancedb", "torch", "numpy")
ENCODER = {"kind": "universal-sentences"}
WIDTH, ROWS_AT_ONCE, PER_USER = 512, 4096, 10
SCORED, LISTED = 100, 20
USED_SECONDS, SECONDS_TO_A_KILL = 3.0, 1.0
Ask = Callable[["Connection", random.Random], Awaitable[None]]
Figure = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few items, requests and kills: for CI")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20.0, help="of load, for each kind of request")
    parser.add_argument("--hostile", type=int, default=10_000, help="requests that nobody should send")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="keep the store and the model here, for the next time")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.items, arguments.seconds, arguments.hostile, arguments.kills = 2000, 2.0, 500, 2
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        num_users = make(folder, arguments.items)
        figures = measure(folder, num_users, arguments)
    print_table(figures)
    if arguments.out:
        report = {"machine": describe_machine(PACKAGES), "items": arguments.items, "figures": figures}
        arguments.out.write_text(json.dumps(report, indent=1), encoding="utf-8")


# --- what is served ---------------------------------------------------------------------------------------------------


def make(folder: Path, num_items: int) -> int:
    """A store that can be searched and a fitted model, if they are not there; returns the number of users."""
    num_users = max(100, num_items // 5)
    if (folder / "model").is_dir():
        return num_users
    rng = np.random.default_rng(0)
    store = FeatureStore(folder / "store", create=True)
    record = EncoderRecord(fingerprint="t", modality="text", name=ENCODER["kind"], dim=WIDTH, spec=ENCODER)
    store.add_encoders([record])
    for start in range(0, num_items, ROWS_AT_ONCE):
        store.write(list(made_rows(rng, range(start, min(start + ROWS_AT_ONCE, num_items)))))
    SearchTables(store).refresh()
    users = np.repeat(np.arange(num_users), PER_USER)
    items = rng.integers(num_items, size=len(users))
    pairs = make_interactions([f"u{u}" for u in users], [f"i{i}" for i in items])
    config = RecommenderConfig(fusion=FusionConfig(dim=64, max_epochs=1, batch_size=1024))
    model = Recommender.fit(store, pairs, config=config)
    model.build_index()
    model.save(folder / "model")
    return num_users


def made_rows(rng: np.random.Generator, numbers: range) -> Iterator[Features]:
    vectors_BD = rng.normal(size=(len(numbers), WIDTH)).astype(np.float32)
    for number, vector_D in zip(numbers, vectors_BD, strict=True):
        item = Item(item_id=f"i{number}", title=sentence(rng, 6), metadata={"year": str(1950 + number % 75)})
        tokens = Tokens(vector_D[None], np.zeros((1, 2)))
        yield Features(item, {"text": tokens}, fingerprints={"text": "t"}, keys={"text": f"{number + 1:016x}"})


class Service:
    """A running `mmrec serve`."""

    def __init__(self, folder: Path, state: Path, workers: int) -> None:
        command = [sys.executable, "-m", "mmrec", "serve", "--store", folder / "store", "--model", folder / "model"]
        command += ["--state", state, "--port", "0", "--rate", "0", "--workers", workers]
        self.log = folder / "service.log"
        started = time.perf_counter()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(list(map(str, command)), stderr=log, start_new_session=True)
        self.url = self._url()
        while not self._is_ready():
            time.sleep(0.01)
        self.seconds_to_ready = time.perf_counter() - started

    def _url(self) -> str:
        while self.process.poll() is None:
            for line in self.log.read_text().splitlines():
                if "listening on " in line:
                    return str(json.loads(line)["message"].rsplit(" ", 1)[1])
            time.sleep(0.01)
        raise SystemExit("the service did not start")

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/api/v1/ready").status_code == 200
        except httpx.TransportError:
            return False

    def memory_bytes(self) -> int:
        """Of all its processes, shared pages counted once (PSS)."""
        return sum(map(pss_bytes, processes_of(self.process.pid)))

    def end(self, sign: signal.Signals = signal.SIGTERM) -> None:
        os.killpg(self.process.pid, sign)
        self.process.wait()


def processes_of(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(other for child in children for other in processes_of(int(child)))]


def pss_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


# --- measures ---------------------------------------------------------------------------------------------------------


def measure(folder: Path, num_users: int, arguments: argparse.Namespace) -> list[Figure]:
    asks = Asks(arguments.items, num_users)
    state = folder / "bench.sqlite"
    figures = []
    service = Service(folder, state, 1)
    figures.append(figure("start to ready", "s", service.seconds_to_ready, 5.0))
    asyncio.run(use(service.url, asks, arguments.clients))
    memory_of_one = service.memory_bytes()
    service.end()
    service = Service(folder, state, arguments.workers)
    asyncio.run(use(service.url, asks, arguments.clients))
    more = (service.memory_bytes() - memory_of_one) / max(1, arguments.workers - 1)
    figures.append(figure("memory of another worker", "MB", more / 1e6, 200.0))
    for name, ask, bars in (
        ("recommend", asks.recommend, {50: 15.0, 99: 50.0}),
        (f"score of {SCORED} items", asks.score, {99: 20.0}),
        ("search by words", asks.search, {99: 100.0}),
        ("add, and see the list change", asks.add_and_see, {50: 20.0}),
    ):
        times = asyncio.run(load(service.url, ask, arguments.clients, arguments.seconds))
        for percent, bar in bars.items():
            figures.append(figure(f"{name}, p{percent}", "ms", 1e3 * float(np.percentile(times, percent)), bar))
        figures.append(figure(f"{name}, requests a second", "1/s", len(times) / arguments.seconds))
    statuses = asyncio.run(hostile(service.url, arguments.hostile, arguments.clients))
    figures.append(figure(f"failures in {statuses.total()} hostile requests", "", failures(statuses), 1))
    figures.append(figure("files that hostile requests got", "", statuses["file"], 1))
    service.end()
    figures.append(figure(f"interactions lost by {arguments.kills} kills", "", lost(folder, arguments), 1))
    return figures


def figure(name: str, unit: str, value: float, bar: float | None = None) -> Figure:
    return {"name": name, "unit": unit, "value": value, "bar": bar, "met": None if bar is None else value < bar}


class Asks:
    """The requests of a client; each raises where the answer is not what it should be."""

    def __init__(self, num_items: int, num_users: int) -> None:
        self._num_items, self._num_users, self._rng = num_items, num_users, np.random.default_rng(1)

    def _user(self, rng: random.Random) -> str:
        return f"u{rng.randrange(self._num_users)}"

    async def recommend(self, http: Connection, rng: random.Random) -> None:
        await self._list(http, self._user(rng))

    async def score(self, http: Connection, rng: random.Random) -> None:
        items = [f"i{rng.randrange(self._num_items)}" for _ in range(SCORED)]
        scores = (await http.post("score", {"user_id": self._user(rng), "items": items}))["scores"]
        assert len(scores) == SCORED

    async def search(self, http: Connection, rng: random.Random) -> None:
        words = sentence(np.random.default_rng(rng.randrange(2**32)), 3)
        results = (await http.post("search", {"words": [words], "k": LISTED}))["results"]
        assert len(results) == LISTED

    async def add_and_see(self, http: Connection, rng: random.Random) -> None:
        user = f"new {rng.randrange(2**40)}"
        item = f"i{rng.randrange(self._num_items)}"
        await http.post("interactions", {"interactions": [{"user_id": user, "item_id": item}]})
        assert item not in await self._list(http, user)

    async def _list(self, http: Connection, user: str) -> list[str]:
        results = (await http.post("recommend", {"users": [user], "k": LISTED}))["lists"][0]["results"]
        assert len(results) == LISTED
        return [result["item"]["item_id"] for result in results]


class Connection:
    """A client that takes next to no time itself, as it shares the processors with what it measures."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, url: str) -> Connection:
        to = httpx.URL(url)
        return cls(*await asyncio.open_connection(to.host, to.port))

    async def post(self, what: str, body: dict[str, Any]) -> Any:
        """The answer; raises `ConnectionError` where the service is gone."""
        text = json.dumps(body).encode()
        head = f"POST /api/v1/{what} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        self._writer.write(f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text)
        try:
            first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines if line)
            answer = await self._reader.readexactly(int(headers["content-length"]))
        except asyncio.IncompleteReadError as error:
            raise ConnectionError("no whole answer") from error
        assert " 200 " in first, answer
        return json.loads(answer)

    def close(self) -> None:
        self._writer.close()


async def use(url: str, asks: Asks, clients: int) -> None:
    """Ask for everything, so that all that is loaded by the first of each request is there."""
    for ask in (asks.recommend, asks.score, asks.search, asks.add_and_see):
        await load(url, ask, clients, USED_SECONDS)


async def load(url: str, ask: Ask, clients: int, seconds: float) -> list[float]:
    """Seconds of each request of some clients, who ask one after another for so long."""
    end = time.perf_counter() + seconds
    times: list[float] = []

    async def client(number: int) -> None:
        rng = random.Random(number)
        http = await Connection.open(url)
        try:
            while time.perf_counter() < end:
                started = time.perf_counter()
                await ask(http, rng)
                times.append(time.perf_counter() - started)
        finally:
            http.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return times


# --- abuse ------------------------------------------------------------------------------------------------------------

IDS = ["../" * 8 + "etc/passwd", "/etc/passwd", "%2e%2e%2f", "\0", "a" * 5000, "'; DROP TABLE x; --", "\u202e", "i1"]
TEXTS = ["[" * 5000, "{", "null", '{"k": -1}', '{"k": 1e999}', '{"words": ["\\ud800"]}', '{"where": "((((("}', "\xff"]
GETS = ("item", "media", "thumbnail", "waveform", "similar", "explain", "user", "items", "users", "map", "failures")
POSTS = ("search", "recommend", "score", "interactions", "session", "search/file", "health")


async def hostile(url: str, count: int, clients: int) -> Counter[Any]:
    """The statuses of requests that nobody should send; `file` counts answers that are no JSON or text."""
    statuses: Counter[Any] = Counter()

    async def client(number: int) -> None:
        rng = random.Random(number)
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            for _ in range(count // clients):
                statuses[await outcome(http, rng)] += 1

    await asyncio.gather(*(client(number) for number in range(clients)))
    return statuses


async def outcome(http: httpx.AsyncClient, rng: random.Random) -> Any:
    """Of one request: its status, `file`, `dropped` where it got no answer, or `unsent` where it made no request."""
    names = ("item_id", "user_id", "where", "prefix", "by", "k", "offset", "width", "seconds", "color", "model")
    try:
        if rng.random() < 0.5:
            query = {name: rng.choice([*IDS, "-1", "NaN", "1e99"]) for name in rng.sample(names, 3)}
            answer = await http.get(f"/api/v1/{rng.choice(GETS)}", params=query)
        elif rng.random() < 0.3:
            answer = await http.get(rng.choice(["/static/", "/api/v1/", "//", "/..;/"]) + rng.choice(IDS[:3]))
        else:
            kind = rng.choice(["application/json", "text/plain", "multipart/form-data; boundary=x", "text/yaml"])
            headers = {"Content-Type": kind, "X-Request-ID": rng.choice(["a", "a" * 300]), "Origin": http.base_url.host}
            text = rng.choice([*TEXTS, json.dumps({"users": [rng.choice(IDS)], "k": 10**6, "items": IDS})])
            method = rng.choice(["POST", "PUT", "DELETE", "PATCH"])
            answer = await http.request(method, f"/api/v1/{rng.choice(POSTS)}", content=text.encode(), headers=headers)
    except httpx.InvalidURL:
        return "unsent"
    except httpx.TransportError:
        return "dropped"
    kind = answer.headers.get("content-type", "")
    return answer.status_code if kind.startswith(("application/", "text/")) or not answer.content else "file"


def failures(statuses: Counter[Any]) -> int:
    """Errors of the service, and requests that it did not answer."""
    return statuses["dropped"] + sum(n for status, n in statuses.items() if isinstance(status, int) and status >= 500)


def lost(folder: Path, arguments: argparse.Namespace) -> int:
    """How many interactions that were acknowledged are not there after as many kills under load."""
    state = folder / f"kills-{os.getpid()}.sqlite"
    acknowledged: set[str] = set()

    async def add(http: Connection, rng: random.Random) -> None:
        user = f"k{rng.randrange(2**60)}-{time.monotonic_ns()}"
        await http.post("interactions", {"interactions": [{"user_id": user, "item_id": "i0"}]})
        acknowledged.add(user)

    async def until_killed(service: Service) -> None:
        async def kill() -> None:
            before = len(acknowledged)
            while len(acknowledged) == before:
                await asyncio.sleep(0.01)
            await asyncio.sleep(SECONDS_TO_A_KILL)
            service.end(signal.SIGKILL)

        killing = asyncio.create_task(kill())
        with suppress(ConnectionError):
            await load(service.url, add, arguments.clients, 600.0)
        await killing

    for _ in range(arguments.kills):
        asyncio.run(until_killed(Service(folder, state, arguments.workers)))
    missing = acknowledged - set(InteractionLog(state).users())
    Console().print(f"{len(acknowledged)} interactions were acknowledged before {arguments.kills} kills")
    return len(missing)


def print_table(figures: list[Figure]) -> None:
    table = Table("figure", "value", "bar", "")
    for row in figures:
        unit = f" {row['unit']}" if row["unit"] else ""
        bar = "" if row["bar"] is None else f"< {row['bar']:g}{unit}"
        judged = {None: "", True: "met", False: "missed"}[row["met"]]
        table.add_row(row["name"], f"{row['value']:.4g}{unit}", bar, judged)
    Console().print(table)


if __name__ == "__main__":
    main()
