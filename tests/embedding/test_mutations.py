"""Whatever is done to the bytes of a good file, decoding it ends, and what comes out is whole or has a reason."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from media_files import write_image, write_sound, write_video

from mmrec.catalog.manifest import Item
from mmrec.embedding.decoding import DecodeLimits, decode_items
from mmrec.media.reading import DecodedMedia
from mmrec.media.sampling import FramePlan, FrameSampling, SoundPlan, SoundSampling
from mmrec.store import Modality

FRAMES = FramePlan(sampling=FrameSampling(count=4), height=24, width=32)
SOUND = SoundPlan(sampling=SoundSampling(window_seconds=0.5, count=3), sample_rate=8000)
FILES_AT_ONCE = 12


class Task(NamedTuple):
    item: Item
    todo: frozenset[Modality] = frozenset({"visual", "audio"})


class Damage(NamedTuple):
    """Something done to bytes; `place` is a share of their length."""

    kind: str
    place: float
    data: bytes

    def apply(self, content: bytes) -> bytes:
        start = int(self.place * len(content))
        match self.kind:
            case "cut":
                return content[:start]
            case "overwrite":
                return content[:start] + self.data + content[start + len(self.data) :]
            case "insert":
                return content[:start] + self.data + content[start:]
            case "remove":
                return content[:start] + content[start + len(self.data) :]
        raise ValueError(self.kind)


damages = st.builds(
    Damage,
    st.sampled_from(["cut", "overwrite", "overwrite", "insert", "remove"]),
    # the headers, at either end, are where damage does most
    st.one_of(st.floats(0, 0.05), st.floats(0, 1), st.floats(0.95, 1)),
    st.binary(min_size=1, max_size=64),
)


@pytest.fixture(scope="module")
def good_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("good")
    return [
        write_video(folder / "a.mp4", sound_seconds=2.0),
        write_video(folder / "a.mkv", sound_seconds=2.0),
        write_video(folder / "a.ts", sound_seconds=2.0),
        write_video(folder / "a.avi", codec="mpeg4", sound_seconds=2.0),
        write_video(folder / "a.webm", codec="libvpx"),
        write_sound(folder / "a.wav"),
        write_sound(folder / "a.mp3", codec="mp3", sample_rate=44100),
        write_sound(folder / "a.flac", codec="flac"),
        write_sound(folder / "a.ogg", codec="libopus", sample_rate=48000),
        write_image(folder / "a.png"),
        write_image(folder / "a.jpg"),
    ]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 10), st.lists(damages, min_size=1, max_size=4)), min_size=FILES_AT_ONCE))
def test_damaged_files_end_with_something_whole_or_a_reason(
    good_files: list[Path], tmp_path: Path, cases: list[tuple[int, list[Damage]]]
) -> None:
    tasks = []
    for number, (which, wounds) in enumerate(cases):
        source = good_files[which]
        content = source.read_bytes()
        for wound in wounds:
            content = wound.apply(content)
        path = tmp_path / f"{number}{source.suffix}"
        path.write_bytes(content)
        tasks.append(Task(Item(item_id=str(number), media=path)))
    limits = DecodeLimits(workers=2, timeout_seconds=20.0, memory_bytes=2**30)
    outcomes = {task.item.item_id: media for task, media in decode_items(tasks, FRAMES, SOUND, limits)}
    assert outcomes.keys() == {task.item.item_id for task in tasks}
    for media in outcomes.values():
        check(media)


def check(media: DecodedMedia) -> None:
    assert (media.frames_TFHWC is not None) or media.visual_problem is not None
    assert media.windows or media.audio_problem is not None
    for problem in (media.visual_problem, media.audio_problem):
        assert problem is None or problem.detail
    if media.frames_TFHWC is not None:
        assert media.frames_TFHWC.shape[1:] == (1, 24, 32, 3)
        assert len(media.frames_TFHWC) == len(media.frame_spans) <= 4
    assert len(media.windows) == len(media.window_spans) <= 3
    for window, (start, end) in zip(media.windows, media.window_spans, strict=True):
        assert np.isfinite(window).all() and np.abs(window).max(initial=0.0) <= 1.0
        assert end - start == pytest.approx(len(window) / 8000)
