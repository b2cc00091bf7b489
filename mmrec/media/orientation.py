"""How a decoded picture is turned and mirrored to be seen upright, as its file says it."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, NamedTuple

import av
import av.filter
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

UNNAMED_SIDE_DATA = (29, 30, 31)  # AV_FRAME_DATA_LCEVC, _VIEW_ID and _EXIF, at which PyAV's list of side data fails


class Orientation(NamedTuple):
    """Turn counterclockwise by `quarter_turns`, then swap left and right if `mirrored`."""

    quarter_turns: int
    mirrored: bool

    def upright(self, image_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        turned = np.rot90(image_HWC, self.quarter_turns)
        return np.ascontiguousarray(turned[:, ::-1] if self.mirrored else turned)


def orientation_of(frame: VideoFrame) -> Orientation:
    """What a container's display matrix asks for, or EXIF, of which decoders make one; to the nearest quarter turn."""
    matrix = _display_matrix(frame)
    if matrix is None:
        return Orientation(0, mirrored=False)
    # a pixel (x, y), y downwards, is shown at (a x + c y, b x + d y)
    a, b, c, d = matrix.ravel().tolist()
    mirrored = a * d - b * c < 0
    if mirrored:
        a, c = -a, -c
    return Orientation(round(math.atan2(c - b, a + d) / (math.pi / 2)) % 4, mirrored)


def _display_matrix(frame: VideoFrame) -> NDArray[np.float64] | None:
    try:
        side_data = frame.side_data
    except ValueError:
        side_data = _without_unnamed_side_data(frame).side_data
    matrix: Any = side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return None
    fixed_point = np.frombuffer(memoryview(matrix), np.int32, count=9).reshape(3, 3)
    return fixed_point[:2, :2].astype(np.float64)


def _without_unnamed_side_data(frame: VideoFrame) -> VideoFrame:
    """The same picture, not copied."""
    graph = av.filter.Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1)
    )
    filters = [graph.add("sidedata", f"mode=delete:type={kind}") for kind in UNNAMED_SIDE_DATA]
    graph.link_nodes(source, *filters, graph.add("buffersink")).configure()
    graph.vpush(frame)
    return graph.vpull()
