"""What a request cannot have, as `application/problem+json` (RFC 9457) in the words of the command line."""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from mmrec.errors import EncoderError, MMRecError, StoreError
from mmrec.service.interaction_log import InteractionLogError
from mmrec.service.schemas import ProblemDetails

logger = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"
DOCUMENTED: dict[int | str, dict[str, Any]] = {
    status: {"description": words, "content": {MEDIA_TYPE: {"schema": ProblemDetails.model_json_schema()}}}
    for status, words in (("4XX", "What the request cannot have"), ("5XX", "What the service cannot do now"))
}
"""Of every operation."""


class RequestProblem(MMRecError):
    """A request that is answered with a status of its own."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def not_found(detail: str) -> RequestProblem:
    return RequestProblem(HTTPStatus.NOT_FOUND, detail)


def problem(status: int, detail: str, request_id: str) -> Response:
    """One problem as a response; its detail is one line."""
    said = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": " ".join(detail.split()),
        "request_id": request_id,
    }
    # ASCII alone: texts of requests may hold halves of surrogate pairs, which no encoding has.
    return Response(json.dumps(said), status_code=status, media_type=MEDIA_TYPE)


def add_problem_handlers(app: FastAPI) -> None:
    """Answer what was refused or cannot be had with a problem."""

    @app.exception_handler(MMRecError)
    def of_mmrec(request: Request, error: MMRecError) -> Response:
        if isinstance(error, RequestProblem):
            status = error.status
        elif isinstance(error, StoreError | EncoderError | InteractionLogError):
            status = HTTPStatus.SERVICE_UNAVAILABLE
            logger.error("%s", error)
        else:
            status = HTTPStatus.BAD_REQUEST
        return problem(status, str(error), request_id(request))

    @app.exception_handler(RequestValidationError)
    def of_validation(request: Request, error: RequestValidationError) -> Response:
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "; ".join(map(_in_words, error.errors())), request_id(request))

    @app.exception_handler(HTTPException)
    def of_http(request: Request, error: HTTPException) -> Response:
        answer = problem(error.status_code, str(error.detail), request_id(request))
        answer.headers.update(error.headers or {})
        return answer


def request_id(request: Request) -> str:
    return str(request.scope.get("state", {}).get("request_id", ""))


def _in_words(error: dict[str, object]) -> str:
    where = error.get("loc", ())
    place = ".".join(str(part) for part in where if part not in ("body", "query")) if isinstance(where, tuple) else ""
    return f"{place or 'the body'}: {error.get('msg', 'not valid')}"
