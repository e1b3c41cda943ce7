"""`Expect: 100-continue`: the framework leaves it unanswered, and it is answered here.

aiohttp would send the interim answer before anything is known of the request.
"""

from aiohttp import web


def check(request: web.Request) -> None:
    """Refuse an expectation that this server cannot meet."""
    if _expectation(request) not in ("", "100-continue"):
        raise web.HTTPExpectationFailed


async def answer(request: web.Request) -> None:
    """Ask for the body now, of a client that waits for that; HTTP/1.0 knows no such answer."""
    if _expectation(request) and request.version >= (1, 1):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # aiohttp: nothing of the answer itself is sent yet


def _expectation(request: web.Request) -> str:
    return ",".join(request.headers.getall("Expect", [])).strip().lower()
