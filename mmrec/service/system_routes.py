"""Whether the service lives and is ready, its figures, what it serves, and the exchange of a token for a cookie."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from mmrec.service.guards import API, COOKIE, is_token, session_value
from mmrec.service.problems import RequestProblem
from mmrec.service.schemas import (
    About,
    ColumnAbout,
    Features,
    Health,
    ModalityAbout,
    ModelAbout,
    SessionRequest,
    StoreAbout,
)
from mmrec.service.shared import Opened

system_routes = APIRouter(tags=["service"])


@system_routes.get("/health")
async def health() -> Health:
    """Whether the process lives."""
    return Health(status="ok")


@system_routes.get("/ready")
async def ready(opened: Opened) -> Health:
    """Whether requests are answered: 503 while the service stops."""
    if opened.is_stopping:
        raise RequestProblem(HTTPStatus.SERVICE_UNAVAILABLE, "the service is stopping")
    return Health(status="ready")


@system_routes.get("/metrics", response_class=PlainTextResponse)
def metrics(request: Request) -> Response:
    """Figures in Prometheus's text format."""
    text, content_type = request.app.state.figures.text()
    return Response(text, media_type=content_type)


@system_routes.post("/session", status_code=HTTPStatus.NO_CONTENT)
async def session(body: SessionRequest, request: Request, response: Response) -> None:
    """Exchange the token for a cookie that no script can read, which opens what only reads: pictures, sound, video."""
    config = request.app.state.config
    if config.token and not is_token(config, body.token):
        raise RequestProblem(HTTPStatus.UNAUTHORIZED, "the token is another one")
    response.set_cookie(
        COOKIE,
        session_value(config.token),
        path=API,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )


@system_routes.get("/about")
def about(opened: Opened) -> About:
    """What is served: the store, the columns that filters know, the models."""
    from mmrec import __version__

    items, (columns, modalities) = opened.items, opened.described()
    return About(
        version=__version__,
        store=StoreAbout(
            items=len(items),
            statuses=items.statuses,
            modalities=[ModalityAbout(**modality) for modality in modalities],
            languages=items.languages,
        ),
        columns=[ColumnAbout(name=name, kind=column.kind) for name, column in columns.items()],
        models=[
            ModelAbout(
                name=served.name,
                version=served.loaded.version,
                items=len(served.loaded.item_ids),
                users=len(served.loaded.user_ids),
                metrics=dict(served.loaded.model.report.metrics),
            )
            for served in opened.models.values()
        ],
        features=Features(map=True, tags=bool(opened.store.labels.names())),
    )
