"""Decoding in worker processes: limits, crashes, back-pressure, and nothing left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import spawn
from pathlib import Path
from typing import Any

import pytest
from embedding_jobs import Children
from media_files import write_image, write_sound, write_video

import mmrec
import mmrec.embedding.decoding
from mmrec.catalog.manifest import Item
from mmrec.embedding.decoding import LOOKAHEAD_PER_WORKER, MAX_LOOKAHEAD_PER_WORKER, DecodeLimits, decode_items
from mmrec.errors import MMRecError, Problem, Reason
from mmrec.media.reading import DecodedMedia, decode_media
from mmrec.media.sampling import FramePlan, FrameSampling, SoundPlan, SoundSampling
from mmrec.remote import Access
from mmrec.store import MODALITIES, Modality

FRAMES = FramePlan(sampling=FrameSampling(count=4), height=24, width=32)
SOUND = SoundPlan(sampling=SoundSampling(window_seconds=1.0, count=2), sample_rate=8000)


@dataclass
class Task:
    item: Item
    todo: frozenset[Modality] = frozenset(MODALITIES)


def task(path: Path | None, problem: Problem | None = None) -> Task:
    return Task(Item(item_id=str(path), media=path, problem=problem))


def decode(tasks: Any, **limits: Any) -> dict[str, DecodedMedia]:
    done = decode_items(tasks, FRAMES, SOUND, DecodeLimits(**{"workers": 1, **limits}))
    return {finished.item.item_id: media for finished, media in done}


def misbehave(
    path: str, frames: FramePlan | None, sound: SoundPlan | None, seconds: float, access: Access
) -> DecodedMedia:
    """Stands in for the decoder in a worker: does to the process what the file's name says."""
    match Path(path).stem:
        case "hang":
            time.sleep(60)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            signal.raise_signal(signal.SIGSEGV)
        case "exit":
            os._exit(3)
        case "greedy":
            bytearray(2**31)
        case "raise":
            raise ZeroDivisionError("the decoder's own mistake")
    return decode_media(path, frames, sound)


@pytest.fixture
def misbehaving(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes the path of a file that is a good clip, whose decoding does what its name says."""
    monkeypatch.setattr(mmrec.embedding.decoding, "_decode", misbehave)
    return lambda behaviour: Path("/nowhere") / f"{behaviour}.mp4"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    return [
        write_video(folder / f"clip 🎬 {number}.mp4", frames=12 + number, sound_seconds=1.0, sample_rate=8000)
        for number in range(4)
    ]


def test_workers_decode_what_this_process_would(clips: list[Path]) -> None:
    found = decode([task(path) for path in clips], workers=2)
    assert set(found) == {str(path) for path in clips}
    for path in clips:
        here, there = decode_media(path, FRAMES, SOUND), found[str(path)]
        assert here.frames_TFHWC is not None and there.frames_TFHWC is not None
        assert (here.frames_TFHWC == there.frames_TFHWC).all()
        assert [w.tobytes() for w in here.windows] == [w.tobytes() for w in there.windows]
        assert (here.frame_spans, here.window_spans, here.facts) == (there.frame_spans, there.window_spans, there.facts)
        assert there.decode_seconds > 0
        assert there.visual_problem is there.audio_problem is None


def test_a_plan_that_is_none_is_not_decoded(clips: list[Path]) -> None:
    limits = DecodeLimits(workers=1)
    ((_, pictures),) = decode_items([task(clips[0])], FRAMES, None, limits)
    assert pictures.frames_TFHWC is not None and pictures.windows == []
    ((_, sounds),) = decode_items([task(clips[0])], None, SOUND, limits)
    assert sounds.frames_TFHWC is None and len(sounds.windows) == 1


def test_items_that_may_not_be_opened_pass_through_with_their_problem(clips: list[Path]) -> None:
    forbidden = Problem(Reason.FORBIDDEN_PATH, "outside")
    found = decode([task(None), Task(Item(item_id="forbidden", media=clips[0], problem=forbidden))])
    assert found["None"].visual_problem == found["None"].audio_problem
    assert found["None"].visual_problem is not None and found["None"].visual_problem.reason is Reason.NO_MEDIA
    assert found["forbidden"].visual_problem == found["forbidden"].audio_problem == forbidden
    assert found["forbidden"].frames_TFHWC is None


def test_no_worker_starts_where_nothing_is_to_be_decoded(
    monkeypatch: pytest.MonkeyPatch, own_children: Children
) -> None:
    monkeypatch.setattr(mmrec.embedding.decoding, "_decode", None)
    tasks = [Task(Item(item_id=str(n), title="t")) for n in range(1000)]
    names: list[str] = []
    for finished, _ in decode_items(iter(tasks), FRAMES, SOUND, DecodeLimits(workers=2)):
        names.append(finished.item.item_id)
        assert own_children() == []
    assert names == [str(n) for n in range(1000)]


@pytest.mark.parametrize(
    ("behaviour", "reason", "detail"),
    [
        ("killed", Reason.CRASHED, "exit code -9"),
        ("segfault", Reason.CRASHED, "exit code -11"),
        ("exit", Reason.CRASHED, "exit code 3"),
        ("greedy", Reason.OUT_OF_MEMORY, "more than 1.0 GiB"),
        ("raise", Reason.CRASHED, "ZeroDivisionError: the decoder's own mistake"),
    ],
)
def test_a_failing_decoder_takes_only_its_own_item_along(
    misbehaving: Callable[[str], Path], clips: list[Path], behaviour: str, reason: Reason, detail: str
) -> None:
    bad = misbehaving(behaviour)
    found = decode([task(clips[0]), task(bad), task(clips[1]), task(clips[2])], memory_bytes=2**30)
    problem = found[str(bad)].visual_problem
    assert problem is not None and problem.reason is reason
    assert detail in problem.detail
    assert found[str(bad)].audio_problem == problem
    for path in clips[:3]:
        assert found[str(path)].visual_problem is None


def test_a_decoder_that_hangs_is_stopped(misbehaving: Callable[[str], Path], clips: list[Path]) -> None:
    start = time.monotonic()
    bad = misbehaving("hang")
    found = decode([task(bad), task(clips[0])], timeout_seconds=4.0)
    assert time.monotonic() - start < 30
    problem = found[str(bad)].visual_problem
    assert problem == Problem(Reason.TIMEOUT, "decoding took longer than 4 s")
    assert found[str(clips[0])].visual_problem is None


def test_a_picture_too_large_for_the_memory_limit(tmp_path: Path, clips: list[Path]) -> None:
    large = write_image(tmp_path / "large.png", size=(9_500, 9_500), pix_fmt="rgb48be")
    found = decode([task(large), task(clips[0])], memory_bytes=2**29)
    problem = found[str(large)].visual_problem
    assert problem is not None and problem.reason is Reason.OUT_OF_MEMORY
    assert found[str(clips[0])].visual_problem is None


def test_a_missing_and_a_damaged_file_have_their_own_reasons(tmp_path: Path) -> None:
    (tmp_path / "words.mp4").write_text("no film at all")
    cut = write_sound(tmp_path / "cut.flac", codec="flac")
    cut.write_bytes(cut.read_bytes()[:60])
    found = decode([task(tmp_path / name) for name in ("none.mp4", "words.mp4", "cut.flac")])
    reasons = {Path(name).name: media.audio_problem and media.audio_problem.reason for name, media in found.items()}
    assert reasons["none.mp4"] is Reason.MISSING_FILE
    assert reasons["words.mp4"] is Reason.NOT_MEDIA
    assert reasons["cut.flac"] in {Reason.NOT_MEDIA, Reason.CORRUPT, Reason.TOO_SHORT}


def test_tasks_are_taken_as_they_are_needed(clips: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmrec.embedding.decoding, "BYTES_IN_FLIGHT", 1)
    taken = 0

    def tasks() -> Iterator[Task]:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield Task(Item(item_id=str(number), media=clips[number % len(clips)]))

    for yielded, _ in enumerate(decode_items(tasks(), FRAMES, SOUND, DecodeLimits(workers=1)), start=1):
        assert taken - yielded <= LOOKAHEAD_PER_WORKER
    assert yielded == 100


def test_small_items_are_taken_well_ahead(clips: list[Path]) -> None:
    taken: list[str] = []

    def tasks() -> Iterator[Task]:
        for number in range(100):
            taken.append(str(number))
            yield Task(Item(item_id=str(number), media=clips[number % len(clips)]))

    ahead = [len(taken) - done for done, _ in enumerate(decode_items(tasks(), FRAMES, SOUND, DecodeLimits(workers=1)))]
    assert LOOKAHEAD_PER_WORKER < max(ahead) <= MAX_LOOKAHEAD_PER_WORKER + 1


def test_no_worker_outlives_the_job(clips: list[Path], own_children: Children) -> None:
    tasks = [task(path) for path in clips] * 10
    decode(tasks, workers=2)
    assert own_children() == []

    abandoned = decode_items(iter(tasks), FRAMES, SOUND, DecodeLimits(workers=2))
    next(abandoned)
    assert own_children() != []
    abandoned.close()  # type: ignore[attr-defined]
    assert own_children() == []


def test_a_worker_whose_job_ends_while_it_starts_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    context = mmrec.embedding.decoding._WorkerContext()
    semaphore = context.Lock()
    worker = context.Process(target=print, args=(semaphore,))
    worker.start()
    del semaphore
    worker.join(60)
    assert worker.exitcode == 0
    assert capfd.readouterr() == ("", "")


def test_an_error_of_the_catalog_stops_the_workers_too(clips: list[Path], own_children: Children) -> None:
    def tasks() -> Iterator[Task]:
        yield from [task(path) for path in clips] * 4
        raise MMRecError("the catalog changed")

    with pytest.raises(MMRecError, match="the catalog changed"):
        decode(tasks(), workers=2)
    assert own_children() == []


def script_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def run_script(folder: Path, text: str) -> subprocess.Popen[str]:
    path = folder / "script.py"
    path.write_text(textwrap.dedent(text))
    command = [sys.executable, str(path)]
    return subprocess.Popen(
        command, env=script_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_workers_vanish_when_the_job_is_killed(tmp_path: Path) -> None:
    script = """
        import multiprocessing, threading, time
        import mmrec.embedding.decoding, test_decoding
        from pathlib import Path

        def report():
            while len(children := multiprocessing.active_children()) < 2:
                time.sleep(0.05)
            print(*(child.pid for child in children), flush=True)

        if __name__ == "__main__":
            mmrec.embedding.decoding._decode = test_decoding.misbehave
            threading.Thread(target=report).start()
            test_decoding.decode([test_decoding.task(Path("hang.mp4"))] * 2, workers=2)
    """
    with run_script(tmp_path, script) as job:
        assert job.stdout is not None
        workers = [int(pid) for pid in job.stdout.readline().split()]
        assert len(workers) == 2
        time.sleep(1.0)
        job.kill()
    deadline = time.monotonic() + 15
    while any(is_running(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


PLAIN_SCRIPT = """
    from pathlib import Path
    import test_decoding

    print("started")
    (media,) = test_decoding.decode([test_decoding.task(Path({path!r}))]).values()
    print(media.visual_problem)
"""


def test_a_script_needs_no_guard_and_workers_do_not_run_it(tmp_path: Path, clips: list[Path]) -> None:
    with run_script(tmp_path, PLAIN_SCRIPT.format(path=str(clips[0]))) as job:
        output, errors = job.communicate(timeout=120)
    assert (job.returncode, output.split(), errors) == (0, ["started", "None"], "")


def test_a_script_from_standard_input(clips: list[Path]) -> None:
    script = textwrap.dedent(PLAIN_SCRIPT.format(path=str(clips[0])))
    done = subprocess.run(
        [sys.executable, "-"],
        input=script,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=script_environment(),
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["started", "None"], "")


def test_processes_of_others_import_the_script_as_before(clips: list[Path]) -> None:
    decode([task(clips[0])])
    assert spawn.get_preparation_data.__module__ == "multiprocessing.spawn"


def decode_in_daemon(path: Path) -> str:
    try:
        return str(decode([task(path)]))
    except MMRecError as error:
        return f"refused: {error}"


def embed_in_daemon(folder: Path) -> tuple[str, bool]:
    """What is said of a catalog with media, and whether that was before torch, which encoders need, was imported."""
    try:
        mmrec.embed(folder / "catalog.csv", folder / "store")
    except MMRecError as error:
        return str(error), "torch" not in sys.modules
    return "embedded", False


def test_a_job_in_a_daemonic_process_is_refused_before_encoders_are_loaded(tmp_path: Path) -> None:
    (tmp_path / "catalog.csv").write_text("item_id,media\na,clip.mp4\n")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        said, is_early = pool.map(embed_in_daemon, [tmp_path])[0]
    assert said.startswith("files are decoded in processes of their own") and not (tmp_path / "store").exists()
    assert is_early


def test_a_daemonic_process_is_told_that_it_may_have_no_workers(clips: list[Path]) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        (said,) = pool.map(decode_in_daemon, clips[:1])
    assert said.startswith("refused: files are decoded in processes of their own")
    assert "ProcessPoolExecutor" in said


def die_at_start(*_: object) -> None:
    os._exit(3)


def test_workers_that_die_at_their_start_end_the_job(clips: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmrec.embedding.decoding, "_start_worker", die_at_start)
    with pytest.raises(MMRecError, match="died 4 times in a row"):
        decode([task(clips[0])])


@pytest.mark.parametrize(
    "values",
    [{"workers": -1}, {"timeout_seconds": 0.0}, {"timeout_seconds": float("nan")}, {"memory_bytes": 2**28}],
)
def test_limits_that_make_no_sense_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(MMRecError):
        DecodeLimits(**values)


def test_workers_killed_while_they_wait_are_replaced(clips: list[Path], own_children: Children) -> None:
    tasks = [task(path) for path in clips]
    done = decode_items(iter(tasks), FRAMES, SOUND, DecodeLimits(workers=1))
    names = []
    for finished, media in done:
        names.append(finished.item.item_id)
        assert media.visual_problem is None
        if len(names) == 1:
            for child in own_children():
                child.kill()
            time.sleep(1.0)
    assert sorted(names) == sorted(str(path) for path in clips)


def test_a_script_that_imports_much_leaves_its_workers_their_memory(clips: list[Path], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import mmap
            reserved = mmap.mmap(-1, 3 * 2**30)  # as large libraries do at their import

            from mmrec.media.reading import decode_media
            from mmrec.embedding import DecodeLimits, Task, decode_items
            from mmrec.catalog.manifest import Item
            from mmrec.media.sampling import FramePlan, FrameSampling
            from pathlib import Path

            if __name__ == "__main__":
                plan = FramePlan(sampling=FrameSampling(count=2), height=24, width=32)
                task = Task(Item(item_id="a", media=Path({str(clips[0])!r})), text="")
                ((_, media),) = decode_items([task], plan, None, DecodeLimits(workers=1, memory_bytes=2**30))
                print(media.visual_problem)
            """
        ),
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "None"
