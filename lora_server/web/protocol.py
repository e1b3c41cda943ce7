"""What aiohttp answers itself, before there is a request: in our shape, and without an echo.

Its own answers and log lines quote what they could not parse, and that may be a token.
"""

import asyncio
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http import HttpProcessingError

from lora_server.web import problems

log = structlog.get_logger(__name__)


class Runner(web.AppRunner):
    """An AppRunner whose connections are of the kind below."""

    __slots__ = ()

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(made.request_handler, request_factory=made.request_factory, **self._kwargs)


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Protocol(self, loop=asyncio.get_running_loop(), **self._kwargs)


class _Protocol(web.RequestHandler):
    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        """Parse what came; a body that cannot be parsed further ends for its handler, too.

        aiohttp only queues the error, and the handler would wait for the rest of its body.
        """
        super().data_received(data)
        request = self._current_request
        malformed = bool(self._messages) and hasattr(self._messages[-1][0], "exc")
        if malformed and request is not None and not request.content.is_eof():
            request.content.set_exception(web.RequestPayloadError("it cannot be parsed"))

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it quotes the client
    ) -> web.StreamResponse:
        """Answer what could not be parsed, or what went wrong outside of every middleware."""
        if isinstance(exc, HttpProcessingError):
            log.info("request.malformed", remote=request.remote, why=type(exc).__name__)
        else:
            log.error("request.failed", remote=request.remote, status=status, exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is on its way already")
        body: dict[str, Any] = {"detail": problems.sentence(status)}
        response = web.json_response(body, status=status, headers={"Server": "lora_server"})
        response.force_close()
        return response
