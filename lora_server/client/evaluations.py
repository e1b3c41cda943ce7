"""Evaluations: asked for, followed as they happen, read."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import aiohttp

from lora_server.client.answers import Raw, part
from lora_server.client.connection import Connection, pieces, read
from lora_server.client.errors import NoServer

AGAIN_S = 1.0  # between two streams that end without an end
MAX_EVENT_BYTES = 1024 * 1024

_ENDED = frozenset({"succeeded", "failed", "cancelled", "timed_out"})

Hear = Callable[[str, float], None]  # a stage, and how much of it is done: 0 … 1


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation as it is now; `raw` is the server's answer, with the report once it ends."""

    raw: Raw
    id: str
    status: str
    verdict: str | None

    @classmethod
    def of(cls, raw: Raw) -> "Evaluation":
        """Read one; NoServer where it is none."""
        evaluation_id, status, verdict = (raw.get(name) for name in ("id", "status", "verdict"))
        if not isinstance(evaluation_id, str) or not isinstance(status, str):
            raise NoServer("the server's answer is no evaluation; check its version")
        return cls(raw, evaluation_id, status, verdict if isinstance(verdict, str) else None)

    @property
    def ended(self) -> bool:
        """Whether it has come to its end, good or bad."""
        return self.status in _ENDED

    @property
    def report(self) -> Raw | None:
        """The report, where there is one."""
        return part(self.raw, "report") or None

    @property
    def problem(self) -> str:
        """Why there is no report."""
        message = part(self.raw, "problem").get("message")
        return str(message or f"it ended as {self.status.replace('_', ' ')}")


async def evaluate(connection: Connection, wanted: Mapping[str, Any], *, wait_s: int) -> Evaluation:
    """Ask for an evaluation, and wait some seconds for its end; for admins.

    An equal one that is there or under way is the answer, unless `force` is wanted.
    """
    answer = await connection.ask(
        "POST",
        "evaluation",
        "",
        members=wanted,
        headers={"Prefer": f"wait={wait_s}"},
        repeatable=not wanted.get("force"),
    )
    return Evaluation.of(answer.data)


async def get(connection: Connection, evaluation_id: str) -> Evaluation:
    """Return an evaluation as it is now; for admins."""
    return Evaluation.of((await connection.ask("GET", "evaluation", evaluation_id)).data)


async def follow(connection: Connection, evaluation_id: str, hear: Hear) -> Evaluation:
    """Wait for the end of an evaluation, however long, and hear of its stages on the way."""
    url = connection.address.of("evaluation", evaluation_id, "events")
    last_id = "0"

    async def once() -> bool:
        """Hear one stream out; tells whether it came to the end of the evaluation."""
        nonlocal last_id
        headers = {"Last-Event-ID": last_id} if last_id != "0" else {}
        async with connection.sent("GET", url, headers=headers) as (response, idle):
            if response.status != HTTPStatus.OK:
                await read(response, idle)
            async for event in _events(response, idle.moved):
                last_id = event.id or last_id
                if event.name == "done":
                    return True
                _tell(event, hear)
        return False

    while True:
        if await connection.patience.attempts(once, repeatable=True):
            return await get(connection, evaluation_id)
        await asyncio.sleep(AGAIN_S)


@dataclass(frozen=True, slots=True)
class _Event:
    """One server-sent event (WHATWG HTML, section 9.2)."""

    id: str
    name: str
    data: Raw


async def _events(
    response: aiohttp.ClientResponse, moved: Callable[[], None]
) -> AsyncIterator[_Event]:
    waiting = b""
    async for piece in pieces(response, moved):
        *whole, waiting = (waiting + piece).split(b"\n\n")
        if len(waiting) > MAX_EVENT_BYTES:
            raise NoServer("the server sends no events that can be read; check its version")
        for text in whole:
            yield _event(text.decode(errors="replace"))


def _event(text: str) -> _Event:
    fields = dict(line.partition(": ")[::2] for line in text.splitlines())
    try:
        data = json.loads(fields.get("data", "{}"))
    except (ValueError, RecursionError):
        data = {}
    return _Event(
        fields.get("id", ""), fields.get("event", ""), data if isinstance(data, dict) else {}
    )


def _tell(event: _Event, hear: Hear) -> None:
    stage = event.data.get("stage") or event.data.get("status")
    progress = event.data.get("progress")
    if isinstance(stage, str):
        hear(stage, float(progress) if isinstance(progress, int | float) else 0.0)
