"""An answer that is no success becomes an error that says what to do."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from lora_server.client.errors import (
    Busy,
    ClientError,
    NoServer,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    Refused,
)

_MAX_CHARS = 2000
_LONGEST_WAIT_S = 600.0
# The server itself says so before it acts; of what stands between it and us, nobody knows.
_PASSING = {
    HTTPStatus.REQUEST_TIMEOUT: True,
    HTTPStatus.TOO_MANY_REQUESTS: False,
    HTTPStatus.BAD_GATEWAY: True,
    HTTPStatus.SERVICE_UNAVAILABLE: False,
    HTTPStatus.GATEWAY_TIMEOUT: True,
}


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> ClientError:
    """Return the error that an answer with a status of 300 and more stands for."""
    said, code = _said(body)
    if status in _PASSING:
        detail = said or f"the server answered {_phrase(status)}"
        return Busy(detail, retry_after_s=_retry_after(headers), done=_PASSING[HTTPStatus(status)])
    if status == HTTPStatus.UNAUTHORIZED:
        return NotAuthenticated(
            "the server does not take this token; `lora-server token inspect` says what is in it, "
            "and whoever runs the server can mint another"
        )
    if location := headers.get("Location"):
        return NoServer(f"the server points elsewhere, to {location[:200]}; use that URL")
    return _spoken(status, said, code) if said else _of_another_tongue(status)


def _spoken(status: int, said: str, code: str) -> ClientError:
    """Return the error that a lora_server gives its reason for."""
    if status == HTTPStatus.FORBIDDEN:
        return NotAllowed(f"{said} Whoever runs the server can mint such a token.")
    if status != HTTPStatus.NOT_FOUND:
        return Refused(said, status=status, code=code)
    if said == HTTPStatus.NOT_FOUND.phrase:  # of the path, not of a LoRA
        return NoServer("there is no such path on this server; check the path in the URL")
    return NotFound(f"{said} `lora-server list` shows what there is.")


def _of_another_tongue(status: int) -> ClientError:
    return NoServer(
        f"what answered ({_phrase(status)}) does not speak the API of lora_server; "
        "check the URL and the path in it"
    )


def _phrase(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _said(body: bytes) -> tuple[str, str]:
    """Return FastAPI's `detail` as one line, and the first stable code in it."""
    try:
        detail = json.loads(body)["detail"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return "", ""
    if isinstance(detail, str):
        return detail[:_MAX_CHARS], ""
    complaints = (
        [item for item in detail if isinstance(item, dict)] if isinstance(detail, list) else []
    )
    said = "; ".join(complaint(item) for item in complaints)
    code = str(complaints[0].get("type", "")) if complaints else ""
    return said[:_MAX_CHARS], code[:64]


def complaint(item: Mapping[str, Any]) -> str:
    """Return one complaint of a 422 in a line: the field, unless it is the file, and why."""
    loc = item.get("loc")
    place = loc[1:] if isinstance(loc, list) else []
    field = ".".join(str(part) for part in place if part != "file")
    said = str(item.get("msg", "")).removeprefix("Value error, ")
    return f"{field}: {said}" if field else said


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks for; a date is not worth a clock."""
    asked = headers.get("Retry-After", "")
    return min(float(asked), _LONGEST_WAIT_S) if asked.isascii() and asked.isdigit() else None
