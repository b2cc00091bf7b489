"""Sampling plans: how many moments, where, and what is refused."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrec.errors import MMRecError
from mmrec.media.sampling import FramePlan, FrameSampling, SoundPlan, SoundSampling, evenly_chosen

durations = st.floats(0.01, 1e5)


def test_uniform_frames_are_the_middles_of_equal_parts() -> None:
    assert FrameSampling(mode="uniform", count=4).times(8.0) == [1.0, 3.0, 5.0, 7.0]
    assert FrameSampling(mode="uniform", count=1).times(8.0) == [4.0]


def test_fps_frames_are_one_period_apart() -> None:
    assert FrameSampling(mode="fps", fps=2.0, count=100).times(2.0) == [0.25, 0.75, 1.25, 1.75]


def test_fps_thins_evenly_where_there_would_be_too_many() -> None:
    assert FrameSampling(mode="fps", fps=2.0, count=4).times(8.0) == [1.0, 3.0, 5.0, 7.0]


def test_fps_finds_a_frame_in_a_clip_shorter_than_its_period() -> None:
    assert FrameSampling(mode="fps", fps=0.5, count=8).times(1.0) == [0.5]


@given(durations, st.integers(1, 64), st.sampled_from(["uniform", "fps"]), st.floats(0.1, 60))
def test_frame_times_ascend_inside_the_file(duration: float, count: int, mode: Any, fps: float) -> None:
    times = FrameSampling(mode=mode, count=count, fps=fps).times(duration)
    assert 1 <= len(times) <= count
    assert times == sorted(set(times))
    assert times[0] > 0
    assert times[-1] < duration


def test_a_duration_of_zero_asks_for_the_first_moment() -> None:
    assert set(FrameSampling(mode="uniform", count=4).times(0.0)) == {0.0}
    assert FrameSampling(mode="fps", count=4).times(0.0) == [0.0]


def test_sound_windows_reach_from_the_start_to_the_end() -> None:
    spans = SoundSampling(mode="windows", window_seconds=2.0, count=3).spans(20.0)
    assert spans == [(0.0, 2.0), (9.0, 11.0), (18.0, 20.0)]


def test_one_sound_window_is_the_middle() -> None:
    assert SoundSampling(mode="windows", window_seconds=2.0, count=1).spans(20.0) == [(9.0, 11.0)]


def test_all_of_a_sound_ends_with_a_window_moved_back() -> None:
    spans = SoundSampling(mode="all", window_seconds=2.0, count=10).spans(5.0)
    assert spans == [(0.0, 2.0), (2.0, 4.0), (3.0, 5.0)]
    assert SoundSampling(mode="all", window_seconds=2.0, count=10).spans(4.0) == [(0.0, 2.0), (2.0, 4.0)]


def test_all_of_a_sound_that_exceeds_the_count_is_sampled_evenly() -> None:
    spans = SoundSampling(mode="all", window_seconds=2.0, count=3).spans(100.0)
    assert spans == [(0.0, 2.0), (49.0, 51.0), (98.0, 100.0)]


@pytest.mark.parametrize("mode", ["windows", "all"])
@pytest.mark.parametrize("duration", [0.0, 0.5, 2.0])
def test_a_short_sound_is_one_window_of_its_own_length(mode: Any, duration: float) -> None:
    assert SoundSampling(mode=mode, window_seconds=2.0).spans(duration) == [(0.0, duration)]


@given(st.floats(0.0, 1e5), st.floats(0.1, 60), st.integers(1, 64))
def test_evenly_spaced_windows_never_overlap(duration: float, window: float, count: int) -> None:
    spans = SoundSampling(mode="windows", window_seconds=window, count=count).spans(duration)
    assert 1 <= len(spans) <= count
    assert spans[0][0] >= 0.0
    assert spans[-1][1] <= duration + 1e-6
    assert all(b[0] >= a[1] - 1e-6 for a, b in pairwise(spans))
    if len(spans) > 1:
        assert spans[0][0] == 0.0
        assert spans[-1][1] == pytest.approx(duration)


@given(st.floats(0.1, 600), st.floats(0.5, 60))
def test_all_windows_leave_no_gap(duration: float, window: float) -> None:
    spans = SoundSampling(mode="all", window_seconds=window, count=4096).spans(duration)
    assert spans[0][0] == 0.0
    assert spans[-1][1] == pytest.approx(duration, abs=1e-5)
    assert all(b[0] <= a[1] + 1e-6 for a, b in pairwise(spans))


@given(st.lists(st.integers(), max_size=50), st.integers(1, 60))
def test_evenly_chosen_keeps_order_and_count(values: list[int], count: int) -> None:
    numbered = list(enumerate(values))
    chosen = evenly_chosen(numbered, count)
    assert len(chosen) == min(len(values), count)
    assert chosen == sorted(set(chosen))


def test_evenly_chosen_takes_the_middles() -> None:
    assert evenly_chosen(range(100), 4) == [12, 37, 62, 87]


nan = float("nan")
BAD_PLANS: list[Any] = [
    (FrameSampling, {"mode": "random"}),
    (FrameSampling, {"count": 0}),
    (FrameSampling, {"count": 4097}),
    (FrameSampling, {"fps": 0.0}),
    (FrameSampling, {"fps": nan}),
    (SoundSampling, {"mode": "uniform"}),
    (SoundSampling, {"window_seconds": 0.0}),
    (SoundSampling, {"window_seconds": nan}),
    (SoundSampling, {"window_seconds": 601}),
    (SoundSampling, {"count": 0}),
    (SoundPlan, {"sampling": SoundSampling(), "sample_rate": 999}),
    (FramePlan, {"sampling": FrameSampling(), "height": 0, "width": 8}),
    (FramePlan, {"sampling": FrameSampling(), "height": 8, "width": 4097}),
    (FramePlan, {"sampling": FrameSampling(), "height": 8, "width": 8, "fit": "stretch"}),
    (FramePlan, {"sampling": FrameSampling(), "height": 8, "width": 8, "interpolation": "area"}),
    (FramePlan, {"sampling": FrameSampling(), "height": 8, "width": 8, "offsets": ()}),
    (FramePlan, {"sampling": FrameSampling(), "height": 8, "width": 8, "offsets": (0.5,)}),
]


@pytest.mark.parametrize(("kind", "values"), BAD_PLANS)
def test_a_plan_refuses_bad_values_with_what_it_expects(kind: Any, values: dict[str, Any]) -> None:
    with pytest.raises(MMRecError, match="expected"):
        kind(**values)


@pytest.mark.parametrize("values", [{"count": "8"}, {"count": 2.5}, {"count": True}, {"fps": "1"}, {"fps": None}])
def test_frame_sampling_refuses_wrong_types(values: dict[str, Any]) -> None:
    with pytest.raises(MMRecError, match="expected"):
        FrameSampling(**values)


@pytest.mark.parametrize("values", [{"count": "8"}, {"count": 2.5}, {"window_seconds": "5"}, {"window_seconds": [5]}])
def test_sound_sampling_refuses_wrong_types(values: dict[str, Any]) -> None:
    with pytest.raises(MMRecError, match="expected"):
        SoundSampling(**values)
