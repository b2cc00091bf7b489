"""The items of the store: lists, details, media, duplicates, failures, runs, and the map."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse

from mmrec.service.remote_media import handed_on
from mmrec.service.schemas import (
    Duplicate,
    DuplicateGroup,
    DuplicatesAnswer,
    FailedItem,
    Item,
    ItemDetails,
    MapAnswer,
    Page,
    Run,
    RunsAnswer,
    Waveform,
)
from mmrec.service.shared import ItemId, Limit, ModelName, Offset, Opened, Text, slowly
from mmrec.store import Status

catalog_routes = APIRouter(tags=["catalog"])
A_PICTURE: dict[int | str, Any] = {200: {"content": {"image/jpeg": {}}}}
A_FILE: dict[int | str, Any] = {
    status: {"description": words, "content": {kind: {} for kind in ("video/*", "audio/*", "image/*")}}
    for status, words in ((200, "The file"), (206, "The range that was asked for"))
}
CACHED = {"cache-control": "private, max-age=3600"}
Seconds = Annotated[float | None, Query(ge=0, le=1e7, allow_inf_nan=False)]
Width = Annotated[int, Query(ge=16, le=1280)]
Points = Annotated[int, Query(ge=1, le=4096)]


@catalog_routes.get("/items")
def items(
    opened: Opened, offset: Offset = 0, limit: Limit = 50, where: Text = "", status: Status | None = None
) -> Page[Item]:
    """The items in the store's order; `where` as in `mmrec search --where`."""
    kept = opened.searcher.matching(where) if where.strip() else None
    found, total = opened.items.page(kept, status, offset, limit)
    return Page(items=found, offset=offset, limit=limit, total=total)


@catalog_routes.get("/item")
def item(opened: Opened, item_id: ItemId) -> ItemDetails:
    """All that is known of an item but its tokens."""
    return opened.items.details(item_id)


@catalog_routes.head("/media", include_in_schema=False)
@catalog_routes.get("/media", response_class=FileResponse, responses=A_FILE)
def media(request: Request, opened: Opened, item_id: ItemId) -> Response:
    """The media file of an item, or the range of it that is asked for."""
    place, kind = opened.media(item_id)
    if isinstance(place, Path):
        return FileResponse(place, media_type=kind, headers=CACHED)
    return handed_on(item_id, place, kind, opened.access, request, CACHED)


@catalog_routes.get("/thumbnail", response_class=Response, responses=A_PICTURE)
async def thumbnail_of(
    request: Request, opened: Opened, item_id: ItemId, seconds: Seconds = None, width: Width = 320
) -> Response:
    """A picture of an item as JPEG: the frame at `seconds`, upright, so many pixels wide."""
    path, _ = opened.media(item_id)
    picture = await slowly(lambda: opened.previews.thumbnail(item_id, path, seconds, width), request)
    return Response(picture, media_type="image/jpeg", headers=CACHED)


@catalog_routes.get("/waveform")
async def waveform_of(request: Request, opened: Opened, item_id: ItemId, points: Points = 500) -> Waveform:
    """The loudest of each part of an item's sound, in so many parts."""
    path, _ = opened.media(item_id)
    peaks = await slowly(lambda: opened.previews.waveform(item_id, path, points), request)
    return Waveform(peaks=peaks, seconds=opened.items.summaries([item_id])[0].duration_seconds)


@catalog_routes.get("/map")
async def item_map(request: Request, opened: Opened, color: Text = "", model: ModelName = None) -> MapAnswer:
    """All items as points of a plane, near where they are alike: by the model, else by a modality of the store."""
    placed = await slowly(lambda: opened.place_items(model), request)
    values = opened.items.column(color, placed.item_ids) if color else None
    return MapAnswer(item_ids=placed.item_ids, x=placed.x, y=placed.y, color=values, by=placed.by)


@catalog_routes.get("/duplicates")
async def duplicates(request: Request, opened: Opened) -> DuplicatesAnswer:
    """The items that hold the same content again, as `mmrec duplicates` finds them."""
    found = await slowly(opened.duplicates, request)
    groups = []
    for group in found:
        summaries = opened.items.summaries([group.item_id, *(pair.second for pair in group.duplicates)])
        pairs = zip(summaries[1:], group.duplicates, strict=True)
        same = [Duplicate(item=item, **asdict(pair)) for item, pair in pairs]
        groups.append(DuplicateGroup(item=summaries[0], duplicates=same))
    return DuplicatesAnswer(groups=groups)


@catalog_routes.get("/failures")
def failures(opened: Opened, offset: Offset = 0, limit: Limit = 50) -> Page[FailedItem]:
    """The items with a fault, and its reason."""
    found, total = opened.items.failures(offset, limit)
    return Page(items=found, offset=offset, limit=limit, total=total)


@catalog_routes.get("/runs")
def runs(opened: Opened) -> RunsAnswer:
    """What ran on the store, the newest first."""
    return RunsAnswer(
        runs=[
            Run(**{**asdict(run), "start": run.start.isoformat(), "end": run.end and run.end.isoformat()})
            for run in opened.store.runs()
        ]
    )
