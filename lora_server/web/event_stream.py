"""Server-sent events (WHATWG HTML, section 9.2): an evaluation followed as it happens."""

import json
import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from lora_server.evaluation.feeds import DONE, STATE
from lora_server.records import Evaluation
from lora_server.web.keys import DRAIN, EVALUATIONS

HEARTBEAT_S = 15.0
LOOK_S = 1.0  # how often a stream looks whether the server goes down
MAX_STREAM_S = 3600.0  # then the client connects again, by itself
_DIGITS = 9


async def stream(request: web.Request, evaluation: Evaluation) -> web.StreamResponse:
    """Send the events of an evaluation until its end, or until the server goes down."""
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
    )
    await response.prepare(request)
    after = _last_event_id(request)
    if after == 0:  # whoever begins here sees first how things stand
        await response.write(_event(STATE, _facts(evaluation)))
    ended = evaluation.ended
    if not ended:
        ended = await _follow(request, response, evaluation.id, after)
    if ended:
        last = await request.app[EVALUATIONS].evaluator.get(evaluation.id)
        name = DONE if last.ended else STATE  # nobody works at it where evaluations are off
        await response.write(_event(name, _facts(last)))
    await response.write_eof()
    return response


async def _follow(
    request: web.Request, response: web.StreamResponse, evaluation_id: str, after: int
) -> bool:
    """Pass events on; tells whether the evaluation has ended."""
    began = heard = time.monotonic()
    feeds = request.app[EVALUATIONS].evaluator.feeds
    async for event in feeds.follow(evaluation_id, after, silence_s=LOOK_S):
        now = time.monotonic()
        if event and event.name == DONE:
            return True
        if request.app[DRAIN].draining or now - began > MAX_STREAM_S:
            return False
        if event:
            await response.write(_event(event.name, event.data, event.id))
        elif now - heard >= HEARTBEAT_S:
            await response.write(b": still here\n\n")
        else:
            continue
        heard = now
    return True


def _last_event_id(request: web.Request) -> int:
    raw = request.headers.get("Last-Event-ID", "")
    return int(raw) if raw.isascii() and raw.isdigit() and len(raw) <= _DIGITS else 0


def _event(name: str, data: Mapping[str, Any], event_id: int | None = None) -> bytes:
    number = f"id: {event_id}\n" if event_id else ""
    return f"{number}event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def _facts(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "id": evaluation.id,
        "status": evaluation.status,
        "verdict": evaluation.verdict,
        "stage": evaluation.stage,
        "progress": evaluation.progress,
        "problem": evaluation.problem,
        "message": evaluation.message,
    }
