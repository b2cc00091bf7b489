"""Stores in a bucket: all that a local one does, and what two jobs at once do there."""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from embedding_jobs import words_only
from object_stores import BUCKET, Watched, times

from mmrec.cli import main
from mmrec.embedding import embed
from mmrec.errors import StoreError
from mmrec.remote import Url, has_files, listed, objects, open_file
from mmrec.searching import Query, Searcher
from mmrec.store import FeatureStore, Finding, Findings, LabelledItem, SearchTables

NUM_ITEMS = 12
Words = Path


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Words:
    """A folder with a catalog of words, in which no folder `s3:` may be made."""
    monkeypatch.chdir(tmp_path)
    return words_only(tmp_path, NUM_ITEMS)


@pytest.fixture
def url(bucket: Watched, request: pytest.FixtureRequest) -> str:
    return f"s3://{BUCKET}/{request.node.name}/store"


def embed_words(folder: Words, store: str, **options: object) -> None:
    report = embed(folder / "catalog.csv", store, preset=folder / "small.yaml", **options)  # type: ignore[arg-type]
    assert not report.problem


def test_a_store_in_a_bucket_does_what_a_local_one_does(words: Words, url: str) -> None:
    embed_words(words, url)
    embed_words(words, str(words / "local"))
    remote, local = FeatureStore(url), FeatureStore(words / "local")
    assert repr(remote) == f"FeatureStore('{url}', {NUM_ITEMS} items, text 1024)"
    assert remote.status().statuses == local.status().statuses and remote.status().bytes_on_disk > 0
    assert [run.exit for run in remote.runs()] == [0]
    ids, vectors_ID = remote.vectors("text")
    assert ids == local.vectors("text")[0] and (vectors_ID == local.vectors("text")[1]).all()
    assert embed(words / "catalog.csv", url, preset=words / "small.yaml").skipped == NUM_ITEMS
    assert len(pickle.loads(pickle.dumps(remote))) == NUM_ITEMS  # noqa: S301
    before = remote.version
    remote.prune(ids[:3])
    assert len(remote) == 3
    remote.restore(before)
    assert len(remote) == NUM_ITEMS
    remote.compact()
    with FeatureStore(url, create=True, encoder_set="other").lock():
        assert sorted(remote.sets()) == ["", "other"]
    assert not list(Path.cwd().glob("s3:*")), "no local folder was made"


def test_what_is_beside_the_items_is_in_the_bucket(words: Words, url: str) -> None:
    embed_words(words, url)
    store = FeatureStore(url)
    assert SearchTables(store).refresh() > 0 and SearchTables(FeatureStore(url)).refresh() == 0
    assert Searcher(store).search(Query(words=["number 7"]), k=1)[0] == ["7"]
    store.labels.write("mood", [LabelledItem(item_id="1", labels=["calm"], scores={"calm": 0.5})])
    assert FeatureStore(url).labels.names() == ["mood"]
    findings = Findings(store)
    with findings.lock():
        findings.put([Finding(item_id="1", task="seen", key="k", value={"passages": [[0.0, 0.0, "RAIN"]]})])
    assert Findings(FeatureStore(url)).keys("seen") == {"1": "k"}
    names = {found.key.partition("/store/")[2] for found, _ in listed(Url.parse(url))}
    assert {"encoders.json", "search.json"} <= names
    assert not {"writer.lock", "findings.lock"} & names, "no lock is left behind"


def test_every_command_takes_one(words: Words, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = f"s3://{BUCKET}/out"
    commands = [
        ["embed", "catalog.csv", "--store", url, "--preset", "small.yaml"],
        ["status", "--store", url],
        ["status", "--store", url, "--failed", "--out", f"{out}/failed.csv"],
        ["runs", "--store", url],
        ["versions", "--store", url],
        ["index", "--store", url],
        ["search", "number 7", "--store", url],
        ["export", "--store", url, "--format", "npy", "--out", f"{out}/npy"],
        ["export", "--store", url, "--format", "parquet", "--out", f"{out}/parquet"],
        ["fit", "--store", url, "--model", "model"],
        ["explain", "--model", "model", "--store", url, "--user", "x", "--item", "1"],
        ["restore", "--store", url, "--version", "1"],
    ]
    for command in commands:
        expected = 1 if command[0] == "explain" else 0  # nobody is a user of this model
        assert main(command) == expected, (command, capsys.readouterr().err)
    assert "'x'" in capsys.readouterr().err
    with open_file(Url.parse(f"{out}/parquet/items.parquet")) as file:
        assert pq.read_table(file).num_rows == NUM_ITEMS
    assert has_files(Url.parse(f"{out}/npy")) and not list(Path.cwd().glob("s3:*"))


def test_reports_and_lists_go_to_a_bucket(words: Words, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    embed_words(words, url)
    lines = [f"u{user},{item},{60 * item}" for user in range(4) for item in range(user, NUM_ITEMS, 2)]
    (words / "log.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(lines), encoding="utf-8")
    assert main(["fit", "--store", url, "--interactions", "log.csv", "--model", "model"]) == 0
    for out in ("list.csv", "list.jsonl", "list.parquet"):
        assert main(["recommend", "--model", "model", "--all", "--out", f"s3://{BUCKET}/lists/{out}"]) == 0
    assert b"u3" in objects.read_whole(Url("s3", BUCKET, "lists/list.csv"))
    page = f"s3://{BUCKET}/lists/report.html"
    assert main(["report", "--store", url, "--model", "model", "--out", page]) == 0
    assert b"</html>" in objects.read_whole(Url.parse(page))


@pytest.mark.parametrize(
    ("store", "words_of_it"),
    [
        ("s3://no-such-bucket/s", "store s3://no-such-bucket/s: there is no bucket s3://no-such-bucket"),
        (f"s3://{BUCKET}/nowhere", f"there is no store at s3://{BUCKET}/nowhere: make one with `mmrec embed"),
    ],
)
def test_what_is_not_there(bucket: Watched, store: str, words_of_it: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--store", store]) == 1
    shown = capsys.readouterr().err
    assert words_of_it in shown and len(shown.splitlines()) == 1


@pytest.mark.parametrize(
    ("fault", "told"), [("denied", "access denied: check the credentials"), ("expired", "have expired: renew them")]
)
def test_what_is_refused(words: Words, url: str, bucket: Watched, fault: str, told: str) -> None:
    bucket.fault = lambda _: fault
    with pytest.raises(StoreError, match=told):
        FeatureStore(url, create=True)


def test_what_is_refused_in_the_middle_is_said_in_one_line(words: Words, url: str, bucket: Watched) -> None:
    embed_words(words, url)
    store = FeatureStore(url)
    bucket.fault = lambda _: "denied"
    with pytest.raises(StoreError, match="access denied: check the credentials") as caught:
        store.to_arrow()
    assert "\n" not in str(caught.value)


def test_a_job_goes_on_while_the_bucket_is_busy(words: Words, url: str, bucket: Watched) -> None:
    for method in ("PUT", "GET"):
        bucket.fault = times(4, "busy", method=method)
        embed_words(words, url, replace=True)
    bucket.clear()
    assert len(FeatureStore(url)) == NUM_ITEMS


# --- two at once ------------------------------------------------------------------------------------------------------


def job(words: Words, store: str, catalog: str = "catalog.csv") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mmrec", "embed", catalog, "--store", store, "--preset", "small.yaml", "--json"]
    return subprocess.Popen(command, cwd=words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_of_two_jobs_on_one_store_nothing_is_lost(words: Words, url: str) -> None:
    (words / "other").mkdir()
    words_only(words / "other", NUM_ITEMS + 8)
    jobs = [job(words, url), job(words, url, "other/catalog.csv")]
    done = [(process.communicate(timeout=240), process.returncode) for process in jobs]
    for (_, said), code in done:
        assert code == 0 or "is being written by another job" in said, said
    assert 0 in [code for _, code in done]
    for catalog in ("catalog.csv", "other/catalog.csv"):  # who was refused comes again
        embed_words_of(words, catalog, url)
    ids = FeatureStore(url).to_arrow(["item_id"])["item_id"].to_pylist()
    assert sorted(ids, key=int) == [str(number) for number in range(NUM_ITEMS + 8)]


def embed_words_of(words: Words, catalog: str, store: str) -> None:
    assert not embed(words / catalog, store, preset=words / "small.yaml").problem


def test_a_job_that_is_killed_is_taken_up_at_once(words: Words, url: str) -> None:
    words_only(words, 3000)
    first = job(words, url)
    lock = Url.parse(url) / "writer.lock"
    until = time.monotonic() + 240
    while not has_lock(lock) and time.monotonic() < until:
        time.sleep(0.05)
    first.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(StoreError, match="is being written by another job"), FeatureStore(url, create=True).lock():
            pass
    finally:
        first.kill()
        first.wait()
    again = job(words, url)
    said, errors = again.communicate(timeout=240)
    assert again.returncode == 0, errors
    assert json.loads(said)["failed"] == 0
    ids = FeatureStore(url).to_arrow(["item_id"])["item_id"].to_pylist()
    assert len(ids) == len(set(ids)) == 3000


def has_lock(lock: Url) -> bool:
    return any(found == lock for found, _ in listed(lock.parent))


def test_who_lost_the_right_to_write_writes_no_more(words: Words, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    embed_words(words, url)
    store = FeatureStore(url)
    rows = list(store.features())
    with store.lock():
        store.write([], rows)
        monkeypatch.setattr("mmrec.remote.leases.SAFE_SECONDS", -1.0)
        with pytest.raises(StoreError, match="another may write by now: run the same command again"):
            store.write([], rows)
