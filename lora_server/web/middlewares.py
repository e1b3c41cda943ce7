"""What happens to every request around its handler, outermost first."""

import re
import time
import uuid
from collections.abc import Mapping
from typing import Any

import structlog
from aiohttp import web
from structlog.contextvars import bound_contextvars

from lora_server.errors import (
    Forbidden,
    LoraServerError,
    ShuttingDown,
    Unauthenticated,
)
from lora_server.records import Principal
from lora_server.web import admission, expectations, problems, small_bodies
from lora_server.web.keys import (
    AUDIT,
    BOUNDARY,
    CONFIG,
    DRAIN,
    LIBRARY,
    LOGINS,
    METRICS,
    PRINCIPAL,
    REQUEST_ID,
    ROUTES,
    SLOT,
    SLOTS,
    VERIFIER,
)
from lora_server.web.logins import client_address
from lora_server.web.routing import Access, Handler, Route

log = structlog.get_logger(__name__)
audit = structlog.get_logger("audit")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@web.middleware
async def drained(request: web.Request, handler: Handler) -> web.StreamResponse:
    """See to it that a client which is still sending can read its answer."""
    response = await handler(request)
    if request.content.is_eof():
        return response
    return await problems.send_early(request, response)


@web.middleware
async def observed(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request an id, and log and count how it ended."""
    request[REQUEST_ID] = _request_id(request.headers)
    route = request.app[ROUTES].of(request)
    began = time.perf_counter()
    status = 499  # the client went away, or the server goes down
    with bound_contextvars(request_id=request[REQUEST_ID], remote=_client(request)):
        try:
            response = await handler(request)
            status = response.status
            return response
        finally:
            _count(request, route, status, time.perf_counter() - began)


@web.middleware
async def errors_answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn errors into answers; this is the one place where an unknown error becomes a 500."""
    try:
        return await handler(request)
    except LoraServerError as error:
        _note_refusal(request, error)
        return problems.answer(error)
    except web.HTTPException as error:
        return problems.answer_http(error)
    except Exception:  # a fault of ours, whatever it is: told in the log, never to the client
        log.exception("request.failed")
        return problems.answer_http(web.HTTPInternalServerError())


@web.middleware
async def refused_while_draining(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Take nothing new once the daemon goes down, but let probes and metrics see it."""
    route = request.app[ROUTES].of(request)
    if request.app[DRAIN].draining and route and route.access is not Access.ANYONE:
        raise ShuttingDown
    return await handler(request)


@web.middleware
async def authorised(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let only those in whom the route is for; the principal is known from here on."""
    route = request.app[ROUTES].of(request)
    if route and route.access is not Access.ANYONE:
        principal = await _authenticated(request)
        _check_scope(request, principal, route.access)
        request[PRINCIPAL] = principal
    return await handler(request)


@web.middleware
async def admitted(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Decide on the head of an upload; only then is `Expect: 100-continue` answered."""
    route = request.app[ROUTES].of(request)
    expectations.check(request)
    if route and route.upload:
        return await _upload_admitted(request, handler)
    if route and route.body:
        return await small_bodies.admitted(request, handler, route.max_body_bytes)
    return await handler(request)


async def _upload_admitted(request: web.Request, handler: Handler) -> web.StreamResponse:
    storage, slots, head = request.app[CONFIG].storage, request.app[SLOTS], _head(request)
    free = await request.app[LIBRARY].store.free_bytes()
    room = admission.Room(storage.max_file_size, free, slots.promised, storage.min_free_space)
    request[BOUNDARY] = admission.admit(head, room)
    slot = slots.taken(request[PRINCIPAL].subject, head.most_bytes(storage.max_file_size))
    async with request.app[DRAIN].upload():
        with slot as request[SLOT]:
            await expectations.answer(request)
            return await handler(request)


MIDDLEWARES = (
    drained,
    observed,
    errors_answered,
    refused_while_draining,
    authorised,
    admitted,
)


async def stamp(request: web.Request, response: web.StreamResponse) -> None:
    """Put on every response what all of them carry (an `on_response_prepare` signal)."""
    response.headers["Server"] = "lora_server"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.setdefault("Cache-Control", "no-store")
    if request.app[DRAIN].leaving:
        response.force_close()  # the next request has to find another server, or a restarted one
        response.headers["Connection"] = "close"  # aiohttp has chosen its own by now
    if request_id := request.get(REQUEST_ID):
        response.headers["X-Request-ID"] = request_id


async def _authenticated(request: web.Request) -> Principal:
    try:
        return request.app[VERIFIER].verify(_bearer_token(request))
    except Unauthenticated as error:
        if error.token_sent:
            audit.warning("login.failed", reason=error.reason)
            await request.app[LOGINS].count(_client(request))
        raise


def _bearer_token(request: web.Request) -> str:
    values = request.headers.getall("Authorization", [])
    if not values:
        raise Unauthenticated("no Authorization header", token_sent=False)
    scheme, _, token = values[0].partition(" ")
    if len(values) > 1 or scheme.lower() != "bearer":
        raise Unauthenticated("not one bearer token", token_sent=False)
    if not token.strip():
        raise Unauthenticated("empty bearer token", token_sent=False)
    return token.strip()


def _check_scope(request: web.Request, principal: Principal, access: Access) -> None:
    auth = request.app[CONFIG].auth
    needed = {
        Access.TOKEN: set(principal.scopes),
        Access.READ: {auth.read_scope, auth.admin_scope},
        Access.ADMIN: {auth.admin_scope},
    }[access]
    if access is not Access.TOKEN and not needed & principal.scopes:
        raise Forbidden(auth.read_scope if access is Access.READ else auth.admin_scope)


def _head(request: web.Request) -> admission.Head:
    return admission.Head(
        content_type=request.headers.get("Content-Type", ""),
        content_encoding=request.headers.get("Content-Encoding", ""),
        content_length=request.content_length,
    )


def _client(request: web.Request) -> str:
    trusted = request.app[CONFIG].server.trusted_proxies
    return client_address(request.remote, request.headers.getall("X-Forwarded-For", []), trusted)


def _request_id(headers: Mapping[str, str]) -> str:
    given = headers.get("X-Request-ID", "")
    if _REQUEST_ID.fullmatch(given):
        return given
    traced = _TRACEPARENT.fullmatch(headers.get("traceparent", ""))
    return traced[1] if traced else uuid.uuid4().hex


def _note_refusal(request: web.Request, error: LoraServerError) -> None:
    reason = getattr(error, "code", None) or type(error).__name__
    request.app[METRICS].refusals.labels(reason).inc()
    request[AUDIT] = {**request.get(AUDIT, {}), "reason": reason}
    if why := getattr(error, "why", None):  # the disk or the database failed
        log.error("request.failed", reason=reason, why=why)


def _count(request: web.Request, route: Route | None, status: int, seconds: float) -> None:
    template = route.path if route else "none"
    labels = (request.method if route else "other", template, str(status))
    request.app[METRICS].requests.labels(*labels).observe(seconds)
    if route and route.action:
        _write_audit(request, route.action, status)
    log.info(
        "request", method=request.method, route=template, status=status, seconds=round(seconds, 4)
    )


def _write_audit(request: web.Request, action: str, status: int) -> None:
    principal = request.get(PRINCIPAL)
    who: dict[str, Any] = {"actor": principal.subject, "jti": principal.jti} if principal else {}
    audit.info(action, status=status, **who, **request.get(AUDIT, {}))
    if action == "upload":
        result = "stored" if status == 200 else "refused"  # noqa: PLR2004
        request.app[METRICS].uploads.labels(result).inc()
