"""The decode plan: from where to decode towards the wanted moments, and which packets on the way are not needed.

All times are integer time stamps of the stream ("ticks").
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

LOOKAHEAD = 32  # packets; no codec shows a frame more than 16 later than it is decoded


@dataclass(frozen=True, slots=True)
class Stretch:
    """Wanted ticks that one run of decoding answers: after a seek to the first of them, or from the beginning."""

    seeks: bool
    wanted: list[int]


def plan_stretches(
    wanted: Sequence[int], keyframe_before: Callable[[int], int | None], *, begin: int, least_gap: int
) -> list[Stretch]:
    """Group the wanted ticks, ascending, into stretches: a new one where a seek skips at least `least_gap` ticks.

    `keyframe_before` gives the tick of the keyframe that decoding towards a tick may start at, None where it is not
    known. The first frame is at `begin`.
    """
    stretches: list[Stretch] = []
    position = begin
    for tick in wanted:
        keyframe = keyframe_before(tick)
        if keyframe is not None and keyframe - position >= least_gap:
            stretches.append(Stretch(True, [tick]))
        elif stretches:
            stretches[-1].wanted.append(tick)
        else:
            stretches.append(Stretch(False, [tick]))
        position = tick
    return stretches


class Stamped(Protocol):
    @property
    def pts(self) -> int | None: ...
    @property
    def dts(self) -> int | None: ...


P = TypeVar("P", bound=Stamped)


def packets_needed(packets: Iterable[P], wanted: Sequence[int]) -> Iterator[tuple[P, Sequence[int]]]:
    """The packets that lead to the wanted ticks, in the order of decoding, each with the ticks at which it is shown.

    A frame is shown from its own time stamp until the next one's. Packets that are not shown at any wanted tick need
    decoding only as far as others refer to them. Of what comes after the last packet shown, nothing is given.
    """
    window: deque[P] = deque()
    stamps: list[int] = []
    last = wanted[-1]
    for packet in packets:
        pts, dts = packet.pts, packet.dts
        if dts is not None and dts > last:
            break  # it and all after it are shown later
        window.append(packet)
        if pts is not None:
            insort(stamps, pts)
            if len(stamps) > 2 * LOOKAHEAD:
                del stamps[0]
        if len(window) > LOOKAHEAD:
            first = window.popleft()
            yield first, _shown_at(first, stamps, wanted)
    rest = [(packet, _shown_at(packet, stamps, wanted)) for packet in window]
    while rest and not rest[-1][1] and rest[-1][0].pts is not None:
        rest.pop()
    yield from rest


def _shown_at(packet: Stamped, stamps: list[int], wanted: Sequence[int]) -> Sequence[int]:
    pts = packet.pts
    if pts is None:
        return ()
    following = bisect_right(stamps, pts)
    begin = bisect_left(wanted, pts)
    end = bisect_left(wanted, stamps[following], begin) if following < len(stamps) else len(wanted)
    return wanted[begin:end]
