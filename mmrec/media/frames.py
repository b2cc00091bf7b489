"""Frames on screen at given moments: those of a plain decode from start to end, for as little decoding as may be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from mmrec.media.container import StreamReader, is_intra
from mmrec.media.planning import Stretch, packets_needed, plan_stretches

LEAST_FRAMES_SKIPPED = 3
LEAST_SECONDS_SKIPPED = 4.0  # without an index, where a seek searches the file
SEEK_MARGIN_SECONDS = 1.0
STEP_BACK_SECONDS = 5.0

DISCARDING_CODECS = frozenset({"h264"})  # decoders that leave out frames that no other refers to, and only those
PROGRESSIVE = 1  # AV_FIELD_PROGRESSIVE


def frames_at(reader: StreamReader, wanted: list[int]) -> Iterator[Any]:
    """For each tick, ascending, the frame on screen then: the last that starts at or before it, else the first.

    The reader stands at the beginning. Where the packets promise other frames than come out, all is decoded plainly.
    """
    answered = 0
    for stretch in _plan(reader, wanted):
        for frame in _play(reader, stretch):
            if frame is None:
                yield from _on_screen(_plain(reader, reader.packets()), wanted[answered:])
                return
            yield frame
            answered += 1
        if reader.timed_out:
            return


def keyframe_at(reader: StreamReader, tick: int) -> Any:
    """The keyframe at or before a tick, decoded alone; None where there is none."""
    reader.seek(tick)
    packet = next(reader.packets(), None)
    frame = next(iter([] if packet is None else reader.decode(packet) + reader.decode(None)), None)
    if frame is None or frame.interlaced_frame:  # a picture may come in two fields, each in a packet of its own
        reader.seek(tick)
        frame = next(reader.frames(), None)
    return frame if frame is not None and is_intra(frame) else None


def _plan(reader: StreamReader, wanted: list[int]) -> list[Stretch]:
    reader.load_index()
    if reader.has_index:
        rate = float(reader.stream.average_rate or 25)
        return plan_stretches(
            wanted, reader.keyframe_before, begin=reader.begin, least_gap=reader.length(LEAST_FRAMES_SKIPPED / rate)
        )
    margin = reader.length(SEEK_MARGIN_SECONDS)
    return plan_stretches(
        wanted, lambda tick: tick - margin, begin=reader.begin, least_gap=reader.length(LEAST_SECONDS_SKIPPED)
    )


def _play(reader: StreamReader, stretch: Stretch) -> Iterator[Any]:
    """Frames on screen at the wanted ticks of a stretch; None, back at the beginning, where one is not as promised."""
    packets = _land(reader, stretch)
    first = next(packets, None)
    if first is None:
        return
    packets = chain([first], packets)
    if first.pts is None:
        yield from _on_screen(_plain(reader, packets), stretch.wanted)
        return
    promised: dict[int, int] = {}
    frames = _needed(reader, packets, stretch.wanted, promised)
    landed = next(frames, None)
    if landed is None:
        return
    broken = stretch.seeks and not is_intra(landed)
    for tick, frame in zip(stretch.wanted, _on_screen(chain([landed], frames), stretch.wanted), strict=False):
        kept = not broken and not frame.interlaced_frame and (promised.get(tick) == frame.pts or tick < frame.pts)
        if not kept and reader.problem is None and reader.rewind():
            yield None
            return
        yield frame


def _land(reader: StreamReader, stretch: Stretch) -> Iterator[Any]:
    """The packets from a keyframe that is shown at or before the first wanted tick."""
    if not stretch.seeks:
        return reader.packets()
    target = stretch.wanted[0] - (0 if reader.has_index else reader.length(SEEK_MARGIN_SECONDS))
    while target > reader.begin and reader.can_seek(target):
        packets = reader.packets()
        for packet in packets:
            time = packet.dts if packet.pts is None else packet.pts
            if time is None or time > stretch.wanted[0]:
                break
            if packet.is_keyframe:
                return chain([packet], packets)
        target -= reader.length(STEP_BACK_SECONDS)
    reader.rewind()
    return reader.packets()


def _needed(reader: StreamReader, packets: Iterable[Any], wanted: list[int], promised: dict[int, int]) -> Iterator[Any]:
    """Frames that lead to the wanted ticks; notes the time stamp of the one that is due at each."""
    context: Any = reader.stream.codec_context
    discards = context.name in DISCARDING_CODECS and context.field_order == PROGRESSIVE
    filled = (packet for packet in packets if packet.size)
    for packet, ticks in packets_needed(filled, wanted):
        pts = packet.pts
        for tick in ticks:
            promised[tick] = max(pts, promised.get(tick, pts))
        discarded = discards and not ticks and pts is not None
        context.skip_frame = "NONREF" if discarded else "DEFAULT"
        yield from reader.decode(packet)
        if discarded:
            reader.reached(pts + (packet.duration or 0))
    context.skip_frame = "DEFAULT"
    yield from reader.decode(None)


def _plain(reader: StreamReader, packets: Iterable[Any]) -> Iterator[Any]:
    for packet in packets:
        yield from reader.decode(packet)


def _on_screen(frames: Iterator[Any], wanted: list[int]) -> Iterator[Any]:
    shown = ahead = next(frames, None)
    for tick in wanted:
        while ahead is not None and ahead.pts <= tick:
            shown, ahead = ahead, next(frames, None)
        if shown is None:
            return
        yield shown
