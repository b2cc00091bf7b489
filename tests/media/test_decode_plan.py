"""Decode plans: where decoding starts, and which packets a wanted frame needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from mmrec.media.planning import LOOKAHEAD, Stretch, packets_needed, plan_stretches


@dataclass(frozen=True)
class Packet:
    pts: int | None
    dts: int | None


def keyframe_every(period: int, tick: int) -> int:
    return tick // period * period


def plan(wanted: Sequence[int], period: int, least_gap: int = 3) -> list[Stretch]:
    return plan_stretches(wanted, lambda tick: keyframe_every(period, tick), begin=0, least_gap=least_gap)


def test_ticks_of_one_group_of_pictures_are_decoded_in_one_go() -> None:
    assert plan([10, 40, 90], 100) == [Stretch(False, [10, 40, 90])]


def test_a_seek_where_it_skips_enough() -> None:
    assert plan([110, 150, 310], 100) == [Stretch(True, [110, 150]), Stretch(True, [310])]
    assert plan([98, 101], 100) == [Stretch(False, [98, 101])], "two frames are not worth a seek"


def test_intra_only_video_is_all_seeks() -> None:
    assert [stretch.seeks for stretch in plan([5, 15, 25], 1)] == [True, True, True]


def test_without_an_index_decoding_goes_on() -> None:
    unknown = plan_stretches([5, 500, 5000], lambda tick: None, begin=0, least_gap=3)
    assert unknown == [Stretch(False, [5, 500, 5000])]


@given(st.lists(st.integers(0, 10_000), min_size=1, unique=True).map(sorted), st.integers(1, 500), st.integers(1, 50))
def test_every_tick_is_in_one_stretch_and_only_the_first_may_start_without_a_seek(
    wanted: list[int], period: int, least_gap: int
) -> None:
    stretches = plan(wanted, period, least_gap)
    assert [tick for stretch in stretches for tick in stretch.wanted] == wanted
    assert all(stretch.seeks for stretch in stretches[1:])


@st.composite
def streams(draw: st.DrawFn) -> list[Packet]:
    """Packets in the order of decoding: frames of uneven length, each decoded at most 16 places early."""
    stamps = [0]
    for length in draw(st.lists(st.integers(1, 5), min_size=1, max_size=120)):
        stamps.append(stamps[-1] + length)
    places = {stamp: k + draw(st.integers(0, 16)) for k, stamp in enumerate(stamps)}
    in_order = sorted(stamps, key=lambda stamp: (places[stamp], stamp))
    dts: list[int] = []
    for k in range(len(in_order)):  # the latest times of decoding that are ahead of all that is still to come
        dts.append(min(in_order[k:]))
    return [Packet(pts, time) for pts, time in zip(in_order, dts, strict=True)]


@given(streams(), st.lists(st.integers(0, 700), min_size=1, max_size=20, unique=True).map(sorted), st.booleans())
def test_each_wanted_tick_gets_the_packet_that_is_shown_then(
    packets: list[Packet], wanted: list[int], decoding_times: bool
) -> None:
    if not decoding_times:
        packets = [Packet(packet.pts, None) for packet in packets]
    needed = list(packets_needed(iter(packets), wanted))
    assert [packet for packet, _ in needed] == packets[: len(needed)], "no reference may be missing"
    for tick in wanted:
        shown = max(packet.pts for packet in packets if packet.pts is not None and packet.pts <= tick)
        assert shown in [packet.pts for packet, ticks in needed if tick in ticks]
    assert needed[-1][1], "nothing is decoded after the last that is shown"


def test_frames_between_wanted_ones_are_not_marked() -> None:
    packets = [Packet(k, k) for k in range(100)]
    marked = [packet.pts for packet, ticks in packets_needed(packets, [10, 60]) if ticks]
    assert marked == [10, 60]


def test_reading_stops_behind_the_last_wanted_tick() -> None:
    packets = iter([Packet(k, k) for k in range(1000)])
    list(packets_needed(packets, [10]))
    assert next(packets).pts == 12


def test_few_packets_are_held_back() -> None:
    held = read = 0

    def counted() -> object:
        nonlocal read
        for k in range(10_000):
            read += 1
            yield Packet(k, k)

    for given_out, _ in enumerate(packets_needed(counted(), [9_000])):  # type: ignore[arg-type]
        held = max(held, read - given_out)
    assert held <= LOOKAHEAD + 1


def test_packets_without_time_stamps_are_all_decoded() -> None:
    packets = [Packet(None, None)] * 50
    assert [len(ticks) for _, ticks in packets_needed(packets, [3])] == [0] * 50
