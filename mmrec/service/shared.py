"""What the routes share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import Depends, Query, Request

from mmrec.service.resources import Resources
from mmrec.service.schemas import LONGEST_ID, LONGEST_TEXT, MOST_RESULTS, NO_ZERO, ScoredItem

T = TypeVar("T")
FEW_USERS = 4


def opened(request: Request) -> Resources:
    resources: Resources = request.app.state.resources
    return resources


Opened = Annotated[Resources, Depends(opened)]
ItemId = Annotated[str, Query(min_length=1, max_length=LONGEST_ID, pattern=NO_ZERO)]
UserId = Annotated[str, Query(min_length=1, max_length=LONGEST_ID, pattern=NO_ZERO)]
Text = Annotated[str, Query(max_length=LONGEST_TEXT, pattern=NO_ZERO)]
ModelName = Annotated[str | None, Query(max_length=LONGEST_ID)]
K = Annotated[int, Query(ge=1, le=MOST_RESULTS)]
Offset = Annotated[int, Query(ge=0, le=1_000_000)]
Limit = Annotated[int, Query(ge=1, le=MOST_RESULTS)]


async def shortly(num_users: int, work: Callable[[], T]) -> T:
    """Do what takes a millisecond or two a user: of few users here, as a thread would take as long to come to it."""
    return work() if num_users <= FEW_USERS else await run_sync(work)


async def slowly(work: Callable[[], T], request: Request) -> T:
    """Do what takes long, as decoding does, in one of few threads, so that what is fast never waits for it."""
    limiter: CapacityLimiter = request.app.state.slow
    return await run_sync(work, limiter=limiter)


def scored(
    opened: Resources, pairs: Sequence[tuple[str, float]], titles: Callable[[str], str] = lambda item_id: ""
) -> list[ScoredItem]:
    """Items as lists show them, with their scores."""
    items = opened.items.summaries([item_id for item_id, _ in pairs], titles)
    return [ScoredItem(item=item, score=score) for item, (_, score) in zip(items, pairs, strict=True)]
