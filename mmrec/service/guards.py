"""What stands before every request: who may ask, how often, how much; and what every answer says to browsers."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import time
import uuid
from collections import OrderedDict
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmrec.service.config import ServiceConfig
from mmrec.service.observing import Figures
from mmrec.service.problems import problem

logger = logging.getLogger("mmrec.service")
COOKIE = "mmrec_session"
API = "/api/v1"
OPEN = (f"{API}/health", f"{API}/ready", f"{API}/session")
"""What is answered without a token: whether it lives, and the exchange of the token for a cookie."""
SAFE_METHODS = ("GET", "HEAD")
MOST_CLIENTS = 10_000
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
        "connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class Guards:
    """Wraps the application: a request id, a log line and a figure for each request, and what is refused before it.

    Refused are: names of this machine that are not its own (so that no website reaches a service without a token by
    renaming itself), requests that another website sends, missing tokens, too many requests, and bodies that are too
    large or too slow.
    """

    def __init__(self, app: ASGIApp, config: ServiceConfig, figures: Figures) -> None:
        self._app, self._config, self._figures = app, config, figures
        self._rates = Rates(config.requests_per_second)
        self._session = session_value(config.token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, headers = time.perf_counter(), _headers(scope)
        request_id = headers.get("x-request-id", "")
        request_id = request_id if _ID.fullmatch(request_id) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                added = {**_HEADERS, "x-request-id": request_id}
                if scope["path"].startswith(API):
                    added.setdefault("cache-control", "no-store")
                there = {name for name, _ in message["headers"]}
                pairs = [(name.encode(), value.encode()) for name, value in added.items()]
                message["headers"] = [*message["headers"], *(pair for pair in pairs if pair[0] not in there)]
            await send(message)

        try:
            self._check(scope, headers)
            await self._app(scope, self._limited(scope, headers, receive), send_guarded)
        except HTTPException as refused:
            answer = problem(refused.status_code, refused.detail, request_id)
            answer.headers.update(refused.headers or {})
            await answer(scope, receive, send_guarded)
        except Exception:
            logger.exception("the request failed", extra={"request_id": request_id})
            if status:
                raise
            failed = problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the service failed; its log says why", request_id)
            await failed(scope, receive, send_guarded)
        finally:
            self._tell(scope, status or 500, time.perf_counter() - started, request_id)

    def _check(self, scope: Scope, headers: dict[str, str]) -> None:
        host = headers.get("host", "")
        if not self._config.token and _name(host) not in ("localhost", "127.0.0.1", "::1", self._config.host):
            raise HTTPException(HTTPStatus.MISDIRECTED_REQUEST, f"this service is not named {host!r}")
        origin = headers.get("origin")
        if scope["method"] not in SAFE_METHODS and origin is not None and urlsplit(origin).netloc != host:
            raise HTTPException(HTTPStatus.FORBIDDEN, "requests of other websites are not answered")
        if not self._rates.may_ask(_client(scope)):
            raise HTTPException(HTTPStatus.TOO_MANY_REQUESTS, "too many requests: wait a second", {"Retry-After": "1"})
        is_open = scope["path"] in OPEN or not scope["path"].startswith(API)
        if self._config.token and not is_open and not self._is_known(scope["method"], headers):
            raise HTTPException(
                HTTPStatus.UNAUTHORIZED, "a token is needed: Authorization: Bearer ...", {"WWW-Authenticate": "Bearer"}
            )

    def _is_known(self, method: str, headers: dict[str, str]) -> bool:
        """By the token, or for what only reads by the cookie that it was exchanged for."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return is_token(self._config, token.strip())
        return method in SAFE_METHODS and _same(_cookie(headers), self._session)

    def _limited(self, scope: Scope, headers: dict[str, str], receive: Receive) -> Receive:
        """The body, as long as it is neither too large nor too slow."""
        is_upload = scope["path"] == f"{API}/search/file"
        most = self._config.max_upload_bytes if is_upload else self._config.max_body_bytes
        length = headers.get("content-length", "0")
        too_large = HTTPException(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is too large: expected at most {most} bytes"
        )
        if length.isdecimal() and int(length) > most:
            raise too_large
        received, is_whole = 0, False
        deadline = time.monotonic() + self._config.upload_seconds

        async def receive_limited() -> Message:
            nonlocal received, is_whole
            if is_whole:
                return await receive()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, "the body did not arrive in time") from None
            received += len(message.get("body", b""))
            if received > most:
                raise too_large
            is_whole = not message.get("more_body", False)
            return message

        return receive_limited

    def _tell(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self._figures.count(route, scope["method"] if scope["method"] in _METHODS else "other", status, seconds)
        said = {
            "request_id": request_id, "method": scope["method"], "route": route, "status": status,
            "milliseconds": round(1000 * seconds, 2), "client": _client(scope),
        }  # fmt: skip
        logger.info("request", extra=said)


_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Rates:
    """A bucket of tokens for each client, which fills by so many a second and holds twice as many.

    >>> from mmrec.service.guards import Rates
    >>> rates = Rates(1)
    >>> [rates.may_ask("127.0.0.1", now=now) for now in (0, 0, 0, 1)]
    [True, True, False, True]
    """

    def __init__(self, per_second: float) -> None:
        self._per_second, self._most = per_second, 2 * per_second
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def may_ask(self, client: str, now: float | None = None) -> bool:
        if not self._per_second:
            return True
        now = time.monotonic() if now is None else now
        left, at = self._buckets.pop(client, (self._most, now))
        left = min(self._most, left + (now - at) * self._per_second)
        self._buckets[client] = (left - 1, now) if left >= 1 else (left, now)
        if len(self._buckets) > MOST_CLIENTS:
            self._buckets.popitem(last=False)
        return left >= 1


def session_value(token: str) -> str:
    """What the cookie of a session holds: made from the token, which cannot be told from it."""
    return hmac.new(token.encode(), b"session of mmrec", hashlib.sha256).hexdigest()


def is_token(config: ServiceConfig, token: str) -> bool:
    return bool(config.token) and _same(token, config.token)


def _same(given: str, wanted: str) -> bool:
    """Compared in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode())


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _client(scope: Scope) -> str:
    return str((scope.get("client") or ("unknown",))[0])


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _cookie(headers: dict[str, str]) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value
