"""Errors become answers: one table, one shape, and a bounded drain of what is still coming."""

import asyncio
import re
from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import web
from pydantic import BaseModel

from lora_server import errors
from lora_server.errors import Complaint, LoraServerError
from lora_server.web import schemas
from lora_server.web.answers import respond

DRAIN_BYTES = 16 * 1024 * 1024
DRAIN_S = 2.0
RETRY_AFTER_S = 5  # for conditions that pass by themselves
_CHALLENGE = "Bearer"
_MAX_LOC_CHARS = 64  # a client may name a field as it likes, but only so much of it comes back

STATUS: Mapping[type[LoraServerError], HTTPStatus] = {
    errors.Unauthenticated: HTTPStatus.UNAUTHORIZED,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.LoraNotFound: HTTPStatus.NOT_FOUND,
    errors.EvaluationNotFound: HTTPStatus.NOT_FOUND,
    errors.UploadStalled: HTTPStatus.REQUEST_TIMEOUT,
    errors.UploadCut: HTTPStatus.BAD_REQUEST,  # nobody is there to read it; the log is
    errors.NameTaken: HTTPStatus.CONFLICT,
    errors.MovedMeanwhile: HTTPStatus.CONFLICT,
    errors.UploadTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.UnsupportedUpload: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.MalformedUpload: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.FieldsInvalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.FieldInvalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.FileRefused: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.TooManyFailures: HTTPStatus.TOO_MANY_REQUESTS,
    errors.TooManyUploads: HTTPStatus.TOO_MANY_REQUESTS,  # 503 when the server as a whole is full
    errors.EvaluationQueueFull: HTTPStatus.TOO_MANY_REQUESTS,
    errors.EvaluatorUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ReportInvalid: HTTPStatus.INTERNAL_SERVER_ERROR,  # it was written by this server
    errors.StorageUnusable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.CatalogUnusable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.JudgeUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ShuttingDown: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.StorageFull: HTTPStatus.INSUFFICIENT_STORAGE,
}

_SENTENCES: Mapping[int, str] = {
    HTTPStatus.BAD_REQUEST: "This cannot be read as an HTTP request; mend what sends it.",
    HTTPStatus.NOT_FOUND: "Nothing is at this path; /openapi.json lists all that there are.",
    HTTPStatus.METHOD_NOT_ALLOWED: "This path takes only the methods that the Allow header names.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is larger than this path takes; send less.",
    HTTPStatus.EXPECTATION_FAILED: "Only 'Expect: 100-continue' can be met; send no other.",
    HTTPStatus.INTERNAL_SERVER_ERROR: "The server failed; tell the operator, whose log says why.",
}


def answer(error: LoraServerError) -> web.Response:
    """Return the answer to an error, in FastAPI's shape."""
    status = _status(error)
    return respond(_body(error), status, _headers(error, status))


def answer_http(error: web.HTTPException) -> web.Response:
    """Return the framework's own refusal in the same shape."""
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    return respond(schemas.Problem(detail=sentence(error.status)), error.status, headers)


def sentence(status: int) -> str:
    """Return what to do about a refusal of the framework's own; nothing of the request is in it."""
    return _SENTENCES.get(status, HTTPStatus(status).phrase)


def reasons(error: LoraServerError) -> list[schemas.ValidationError]:
    """Return what an upload would have been refused for, in the shape of a 422's details."""
    body = _body(error)
    if isinstance(body, schemas.HTTPValidationError):
        return body.detail
    return [schemas.ValidationError(loc=["body", "file"], msg=str(error), type=_kind(error))]


def _kind(error: LoraServerError) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()


async def send_early(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Answer while the body is still coming, then read on for a bounded while.

    A client that has sent all of it, or stops when it sees the answer, reads the answer in
    full. One that sends more than DRAIN_BYTES, or for longer than DRAIN_S, is cut off.
    """
    response.force_close()
    try:
        await response.prepare(request)
        await response.write_eof()
        if request.transport is not None:
            request.transport.write_eof()  # a client that waits for the end need not wait for us
        async with asyncio.timeout(DRAIN_S):
            await _drain(request)
    except (OSError, web.RequestPayloadError):  # a TimeoutError is an OSError too
        pass  # the connection is closed next, whatever came of this
    return response


async def _drain(request: web.Request) -> None:
    drained = 0
    while drained < DRAIN_BYTES and (chunk := await request.content.readany()):
        drained += len(chunk)


def _status(error: LoraServerError) -> HTTPStatus:
    if isinstance(error, errors.TooManyUploads) and not error.of_principal:
        return HTTPStatus.SERVICE_UNAVAILABLE
    return STATUS[type(error)]


def _body(error: LoraServerError) -> BaseModel:
    match error:
        case errors.FieldsInvalid(complaints=complaints):
            return _invalid(*complaints)
        case errors.FileRefused(code=code, reason=reason):
            return _invalid(Complaint(("body", "file"), reason, code))
        case errors.MalformedUpload():
            return _invalid(Complaint(("body",), str(error), "multipart_invalid"))
        case _:
            return schemas.Problem(detail=str(error))


def _invalid(*complaints: Complaint) -> schemas.HTTPValidationError:
    details = [
        schemas.ValidationError(loc=[_short(part) for part in c.loc], msg=c.msg, type=c.kind)
        for c in complaints
    ]
    return schemas.HTTPValidationError(detail=details)


def _short(part: str | int) -> str | int:
    return part[:_MAX_LOC_CHARS] if isinstance(part, str) else part


def _headers(error: LoraServerError, status: HTTPStatus) -> dict[str, str]:
    """RFC 6750, section 3: no error code where no token was sent."""
    match error:
        case errors.Unauthenticated(token_sent=True):
            return {"WWW-Authenticate": f'{_CHALLENGE} error="invalid_token"'}
        case errors.Unauthenticated():
            return {"WWW-Authenticate": _CHALLENGE}
        case errors.Forbidden(scope=scope):
            return {"WWW-Authenticate": f'{_CHALLENGE} error="insufficient_scope", scope="{scope}"'}
        case errors.TooManyFailures(retry_after_s=seconds):
            return {"Retry-After": str(seconds)}
    waits = status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS)
    return {"Retry-After": str(RETRY_AFTER_S)} if waits else {}
