"""The life of the daemon: listen, serve, drain on a signal, go."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from aiohttp import web

from lora_server.config import ServerConfig
from lora_server.errors import CannotListen
from lora_server.web.keys import CONFIG, DRAIN
from lora_server.web.protocol import Runner

log = structlog.get_logger(__name__)

KEEPALIVE_S = 75.0  # also how long a head may take to arrive
CLEANUP_S = 5.0  # for the short requests that are left after uploads have drained


@asynccontextmanager
async def listening(app: web.Application) -> AsyncIterator[int]:
    """Serve until the end of the block, then drain; yields the port.

    Raises:
        CannotListen: the address is taken, or not one of this host.

    The body of a request is never inflated, and answers to refused uploads are drained by
    `problems.send_early` alone, so aiohttp's own versions of both are off.
    """
    server = app[CONFIG].server
    runner = Runner(
        app,
        handle_signals=False,
        access_log=None,
        auto_decompress=False,
        keepalive_timeout=KEEPALIVE_S,
        lingering_time=0,
        shutdown_timeout=CLEANUP_S,
    )
    try:
        await runner.setup()
        site = web.TCPSite(runner, server.host, server.port, backlog=1024)
        await _start(site, server)
        yield runner.addresses[0][1]
        await _drain(app, site, server)
    finally:
        await runner.cleanup()


async def _start(site: web.TCPSite, server: ServerConfig) -> None:
    try:
        await site.start()
    except OSError as error:
        raise CannotListen(server.host, server.port, os.strerror(error.errno or 0)) from error


async def _drain(app: web.Application, site: web.TCPSite, server: ServerConfig) -> None:
    """Stop listening first: connections that exist go on, and their uploads may finish."""
    app[DRAIN].draining = True
    await site.stop()
    log.info("server.draining", uploads=app[DRAIN].in_flight, grace_s=server.shutdown_grace)
    await app[DRAIN].finish(server.shutdown_grace)


async def serve_until_signalled(app: web.Application) -> None:
    """Run until SIGTERM or SIGINT."""
    signalled = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled.set)
    async with listening(app) as port:
        log.info("server.listening", host=app[CONFIG].server.host, port=port)
        await signalled.wait()
    log.info("server.stopped")
