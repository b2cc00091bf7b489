"""The ASGI application: the routes, what they share, and what stands before them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, FastAPI
from fastapi.staticfiles import StaticFiles
from fastapi.telemetry import TelemetryConfig

from mmrec.service.catalog_routes import catalog_routes
from mmrec.service.config import ServiceConfig
from mmrec.service.guards import API, Guards
from mmrec.service.model_users import RETRY_SECONDS
from mmrec.service.observing import Figures
from mmrec.service.problems import DOCUMENTED, add_problem_handlers
from mmrec.service.resources import Resources
from mmrec.service.search_routes import search_routes
from mmrec.service.system_routes import system_routes
from mmrec.service.user_routes import user_routes

logger = logging.getLogger(__name__)
REFRESH_SECONDS = 1.0
SLOW_AT_ONCE = 2
NO_TELEMETRY: TelemetryConfig = {"auto_configure": False, "tracing": False, "metrics": False, "logs": False}
PAGE = Path(__file__).parent / "page"


def create_app(config: ServiceConfig, resources: Resources | None = None) -> FastAPI:
    """The service as an ASGI application, which any server of such runs.

    Args:
        resources: where they are open already; else they are opened as the application starts.

    >>> from mmrec.service import ServiceConfig, create_app
    >>> app = create_app(ServiceConfig(store="store"))
    >>> sorted(app.openapi()["paths"])[:3]
    ['/api/v1/about', '/api/v1/duplicates', '/api/v1/explain']
    """
    from mmrec import __version__

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.resources = resources or await run_sync(Resources, config)
        beside = [
            asyncio.create_task(_follow(app.state.resources, figures)),
            asyncio.create_task(_search_once(app.state.resources)),
        ]
        yield
        app.state.resources.is_stopping = True
        for task in beside:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await run_sync(app.state.resources.previews.close)

    app = FastAPI(
        title="mmrec", version=__version__, lifespan=lifespan,
        openapi_url=f"{API}/openapi.json", docs_url=None, redoc_url=None,
        generate_unique_id_function=lambda route: route.name, telemetry=NO_TELEMETRY,
    )  # fmt: skip
    figures = Figures()
    app.state.config, app.state.figures, app.state.slow = config, figures, CapacityLimiter(SLOW_AT_ONCE)
    add_problem_handlers(app)
    router = APIRouter(prefix=API, responses=DOCUMENTED)
    for routes in (system_routes, catalog_routes, search_routes, user_routes):
        router.include_router(routes)
    app.include_router(router)
    if PAGE.is_dir():
        app.mount("/static", StaticFiles(directory=PAGE))
        app.mount("/", StaticFiles(directory=PAGE, html=True))
    app.add_middleware(Guards, config=config, figures=figures)
    return app


async def _search_once(resources: Resources) -> None:
    """Nobody waits for it: a fault is told here, and again to whoever searches."""
    try:
        await run_sync(resources.search_once)
    except Exception:
        logger.exception("the first search failed")


async def _follow(resources: Resources, figures: Figures) -> None:
    """Take up what jobs publish; requests are answered from what is loaded, and a figure says what is not taken up.

    A fault of the service itself must not end this unseen: it is logged, counts as nothing taken up, and waits longer.
    """
    while True:
        await asyncio.sleep(REFRESH_SECONDS)
        try:
            left = await run_sync(resources.refresh)
        except Exception:
            logger.exception("what was published cannot be taken up")
            figures.not_taken_up(1 + len(resources.models))
            await asyncio.sleep(RETRY_SECONDS)
        else:
            figures.not_taken_up(left)
