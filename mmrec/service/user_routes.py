"""Users: lists, scores, what they did, and why an item stands in a list."""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from mmrec.errors import ModelError
from mmrec.recommending import UserState
from mmrec.service.problems import RequestProblem
from mmrec.service.resources import Resources
from mmrec.service.schemas import (
    LONGEST_ID,
    NO_ZERO,
    AddedAnswer,
    ForgottenAnswer,
    HistoryEntry,
    InteractionsRequest,
    Page,
    RecommendAnswer,
    RecommendedList,
    RecommendRequest,
    ScoreAnswer,
    ScoreRequest,
    UserAnswer,
    UserCount,
)
from mmrec.service.shared import ItemId, Limit, ModelName, Offset, Opened, UserId, scored, shortly, slowly

user_routes = APIRouter(tags=["users"])
Prefix = Annotated[str, Query(max_length=LONGEST_ID, pattern=NO_ZERO)]


@user_routes.get("/users")
def users(
    opened: Opened, offset: Offset = 0, limit: Limit = 50, prefix: Prefix = "", model: ModelName = None
) -> Page[UserCount]:
    """The users of the fit and those who came since, by their ids."""
    loaded = opened.model(model)
    names = loaded.named_users(prefix)
    counts = [
        UserCount(user_id=name, num_interactions=len(loaded.history(name))) for name in names[offset : offset + limit]
    ]
    return Page(items=counts, offset=offset, limit=limit, total=len(names))


@user_routes.get("/user")
def user(opened: Opened, user_id: UserId, model: ModelName = None, limit: Limit = 200) -> UserAnswer:
    """What a user did, the newest first, at most `limit` interactions."""
    loaded = opened.model(model)
    events = loaded.history(user_id)[:limit]
    items = opened.items.summaries([item_id for item_id, _, _ in events], loaded.title)
    history = [
        HistoryEntry(item=item, timestamp=timestamp, weight=weight)
        for item, (_, timestamp, weight) in zip(items, events, strict=True)
    ]
    return UserAnswer(user_id=user_id, known=loaded.knows(user_id), history=history)


@user_routes.delete("/user")
async def forget(request: Request, opened: Opened, user_id: UserId) -> ForgottenAnswer:
    """Delete what is known of a user: live interactions, and the history in the models with all earlier versions."""
    await slowly(lambda: opened.forget(user_id), request)
    return ForgottenAnswer(forgotten=True)


@user_routes.post("/recommend")
async def recommend(opened: Opened, body: RecommendRequest) -> RecommendAnswer:
    """The best items for each user."""
    return await shortly(len(body.users), lambda: _lists(opened, body))


def _lists(opened: Resources, body: RecommendRequest) -> RecommendAnswer:
    loaded = opened.model(body.model)
    named: list[Any] = [
        loaded.passing(user_id, body.watched) if body.watched else loaded.user(user_id) for user_id in body.users
    ]
    ids_UK, scores_UK = loaded.model.recommend(
        named,
        body.k,
        exclude_seen=body.exclude_seen,
        exclude=body.exclude,
        where=body.where,
        candidates=body.candidates,
        diversity=body.diversity,
        explore_share=body.explore_share,
        fold=opened.copies,
    )
    lists = [
        RecommendedList(
            user_id=user_id,
            results=scored(opened, [(i, s) for i, s in zip(ids, scores, strict=True) if i], loaded.title),
        )
        for user_id, ids, scores in zip(body.users, ids_UK, scores_UK.tolist(), strict=True)
    ]
    return RecommendAnswer(lists=lists)


@user_routes.post("/score")
async def score(opened: Opened, body: ScoreRequest) -> ScoreAnswer:
    """Fused scores: of a user for each of the items, or of pairs of a user and an item."""
    return await shortly(len({name for name, _ in body.pairs or ()}), lambda: _scores(opened, body))


def _scores(opened: Resources, body: ScoreRequest) -> ScoreAnswer:
    loaded = opened.model(body.model)
    if body.pairs is not None and body.user_id is None and body.items is None:
        users = {name: loaded.user(name) for name in dict.fromkeys(name for name, _ in body.pairs)}
        named: Any = [users[name] for name, _ in body.pairs]
        scores = loaded.model.score(named, [item_id for _, item_id in body.pairs])
    elif body.pairs is None and body.user_id is not None and body.items is not None:
        scores = loaded.model.score(loaded.user(body.user_id), body.items)
    else:
        raise RequestProblem(HTTPStatus.BAD_REQUEST, "name a user_id and items, or pairs, and not both")
    return ScoreAnswer(scores=scores.tolist())


@user_routes.post("/interactions")
def add_interactions(opened: Opened, body: InteractionsRequest) -> AddedAnswer:
    """Take up what users did, all of it or nothing: it is on disk when this is answered, and counts from then on."""
    for interaction in body.interactions:
        opened.check_item(interaction.item_id)
    rows = [(i.user_id, i.item_id, i.timestamp, i.weight) for i in body.interactions]
    return AddedAnswer(added=opened.log.add(rows))


@user_routes.get("/explain")
async def explain(
    request: Request, opened: Opened, user_id: UserId, item_id: ItemId, model: ModelName = None
) -> dict[str, Any]:
    """Why an item stands where it does in a user's list, as `mmrec explain --json` says it."""
    return await slowly(lambda: _explanation(opened, user_id, item_id, model), request)


def _explanation(opened: Resources, user_id: str, item_id: str, model: str | None) -> dict[str, Any]:
    loaded = opened.model(model)
    loaded.check_item(item_id)
    loaded.check_user(user_id)
    user = loaded.user(user_id)
    state = user if isinstance(user, UserState) else loaded.model.user_state(user, kept=False)
    try:
        why = loaded.model.explain(state, item_id, store=opened.store)
    except ModelError:  # the store has other tokens by now
        why = loaded.model.explain(state, item_id)
    return replace(why, user_id=user_id).to_dict()
