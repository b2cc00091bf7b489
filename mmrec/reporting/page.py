"""The report as one HTML file: style, script, pictures and data in it, and nothing else that it may load or run."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import datetime
from importlib.resources import files
from typing import Any

import numpy as np

from mmrec.reporting.items import Column
from mmrec.reporting.report import Report

MAX_TITLE_LENGTH = 80
PLACES = 4095  # of a point on the map, from one side to the other


def render(report: Report) -> str:
    """The page. Whatever comes from the catalog is text in it, never markup, and no address is ever asked for.

    >>> from mmrec import FeatureStore
    >>> from mmrec.reporting.page import render
    >>> from mmrec.reporting.report import make_report
    >>> page = render(make_report(FeatureStore("store")))
    >>> page.startswith("<!doctype html>"), "http://" in page or "https://" in page
    (True, False)
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("mmrec.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    environment.filters |= {
        "count": count,
        "percent": percent,
        "duration": duration,
        "megabytes": megabytes,
        "moment": moment,
        "data_uri": data_uri,
        "polyline": polyline,
        "wave": wave,
    }
    style, script = _file("report.css"), _file("map.js")
    return environment.get_template("report.html").render(
        report=report,
        name=report.items.name,
        shares_of=shares_of,
        map_data=None if report.map is None else map_data(report),
        style=style,
        script=script,
        policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
    )


def map_data(report: Report) -> dict[str, Any]:
    """What the script draws the map of: places, names, columns as one character an item, pictures by item."""
    drawn, items = report.map, report.items
    assert drawn is not None
    xs, ys = (drawn.places_P2 * PLACES).round().astype(int).T.tolist()
    ids = [items.ids[row] for row in drawn.rows_P]
    return {
        "x": xs,
        "y": ys,
        "places": PLACES,
        "ids": ids,
        "titles": [items.titles[row][:MAX_TITLE_LENGTH] for row in drawn.rows_P],
        "columns": [_coded(column.aligned(drawn.rows_P)) for column in drawn.columns],
        "pictures": {
            place: data_uri(report.thumbnails[item_id])
            for place, item_id in enumerate(ids)
            if item_id in report.thumbnails
        },
    }


def _coded(column: Column) -> dict[str, Any]:
    letters = np.array(list("-0123456789"))
    return {
        "name": column.name,
        "labels": column.labels,
        "ordered": column.ordered,
        "codes": "".join(letters[column.codes_I + 1].tolist()),
    }


def _file(name: str) -> str:
    return files("mmrec.reporting").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# --- how values are shown ---------------------------------------------------------------------------------------------


def count(number: float) -> str:
    """A whole number with its thousands apart.

    >>> count(1234567)
    '1,234,567'
    """
    return f"{number:,.0f}"


def percent(share: float) -> str:
    """A share in per cent; small ones with two digits.

    >>> percent(0.256), percent(0.004), percent(0)
    ('26 %', '0.4 %', '0 %')
    """
    return f"{share:.0%}".replace("%", " %") if share >= 0.1 or share == 0 else f"{100 * share:.2g} %"


def duration(seconds: float) -> str:
    """A time in words.

    >>> duration(0.4), duration(75), duration(7300)
    ('0.4 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{count(hours)} h {minute} min" if hours else f"{minute} min {second} s"


def megabytes(num_bytes: float) -> str:
    """A size in millions of bytes.

    >>> megabytes(12_345_678)
    '12.3 MB'
    """
    return f"{num_bytes / 1e6:,.1f} MB"


def moment(time: datetime) -> str:
    """A time to the minute.

    >>> moment(datetime(2026, 3, 1, 12, 5))
    '2026-03-01 12:05 UTC'
    """
    return f"{time:%Y-%m-%d %H:%M} UTC"


def data_uri(jpeg: bytes) -> str:
    """A picture as the address of an `img`."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def polyline(values: Sequence[float], width: int, height: int) -> str:
    """The points of a curve in a box, from its least value at the bottom to its greatest at the top.

    >>> polyline([0.0, 1.0, 0.5], width=10, height=4)
    '0.0,4.0 5.0,0.0 10.0,2.0'
    """
    low, high = min(values), max(values)
    step = width / max(1, len(values) - 1)
    extent = (high - low) or 1
    points = ((place * step, height * (1 - (value - low) / extent)) for place, value in enumerate(values))
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def shares_of(values: Sequence[float], low: float, high: float) -> list[str]:
    """Where values lie in a drawing from `low` to `high`, which has a little room at both sides.

    >>> shares_of([0.0, 0.5], low=0.0, high=1.0)
    ['2.00%', '50.00%']
    """
    return [f"{2 + 96 * (value - low) / ((high - low) or 1):.2f}%" for value in values]


def wave(peaks: Sequence[float], height: int) -> str:
    """The path of a waveform, one column a peak, about the middle; the loudest reaches the edges.

    >>> wave([0.5, 0.25], height=8)
    'M0.5 0.0V8.0M1.5 2.0V6.0'
    """
    loudest = max(peaks) or 1
    halves = (max(0.3, peak / loudest * height / 2) for peak in peaks)
    return "".join(f"M{x + 0.5} {height / 2 - half:.1f}V{height / 2 + half:.1f}" for x, half in enumerate(halves))
