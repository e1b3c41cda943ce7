"""The body of a request that is no upload: read for its handler, within a size and a time."""

import asyncio

from aiohttp import web

from lora_server.errors import UploadCut, UploadStalled
from lora_server.web import expectations
from lora_server.web.keys import AUDIT, CONFIG
from lora_server.web.routing import Handler


async def admitted(request: web.Request, handler: Handler, max_bytes: int) -> web.StreamResponse:
    """Ask for the body unless it is too large, read it, and have the request handled.

    Raises:
        UploadStalled, UploadCut: it did not arrive.

    """
    sized = request.clone(client_max_size=max_bytes)
    length = request.content_length or 0
    if length > max_bytes:
        raise web.HTTPRequestEntityTooLarge(max_bytes, length)
    await expectations.answer(request)
    await _arrived(sized)
    try:
        return await handler(sized)
    finally:  # a clone has its own notes
        request[AUDIT] = sized.get(AUDIT, {})


async def _arrived(request: web.Request) -> None:
    seconds = request.app[CONFIG].server.upload_idle_timeout
    try:
        async with asyncio.timeout(seconds):
            await request.read()
    except web.RequestPayloadError as error:
        raise UploadCut("The body's transfer coding is malformed.") from error
    except ConnectionError as error:
        raise UploadCut("The connection was lost.") from error
    except TimeoutError as error:
        raise UploadStalled(f"The body did not arrive within {seconds:g} s") from error
