"""The life of the daemon: listen, serve, drain on a signal, go."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import structlog
from aiohttp import web

from lora_server import systemd
from lora_server.config import ServerConfig
from lora_server.errors import CannotListen
from lora_server.web.keys import CONFIG, DRAIN
from lora_server.web.protocol import Runner
from lora_server.web.supervision import report

log = structlog.get_logger(__name__)

KEEPALIVE_S = 75.0  # also how long a head may take to arrive
CLEANUP_S = 5.0  # for the short requests that are left after uploads have drained
LEAVING_S = 0.5  # a client that has just connected sends its request well within
BACKLOG = 4096  # connections that wait while a successor starts; the kernel's own limit


@asynccontextmanager
async def listening(
    app: web.Application, passed: Sequence[socket.socket] = ()
) -> AsyncIterator[int]:
    """Serve until the end of the block, then drain; yields the port (0 on a UNIX socket).

    Listens on the sockets that were `passed`, if there are any, and closes them; else on the
    address that is configured.

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
        sites = await _started(runner, server, passed)
        yield _port(runner)
        for site in sites:
            await site.stop()  # first: connections that exist go on, and uploads may finish
        if passed:
            await app[DRAIN].leave(LEAVING_S)
        log.info("server.draining", uploads=app[DRAIN].in_flight, grace_s=server.shutdown_grace)
        await app[DRAIN].finish(server.shutdown_grace)
    finally:
        await runner.cleanup()


async def _started(
    runner: Runner, server: ServerConfig, passed: Sequence[socket.socket]
) -> list[web.BaseSite]:
    sites: list[web.BaseSite] = [web.SockSite(runner, sock, backlog=BACKLOG) for sock in passed]
    sites = sites or [web.TCPSite(runner, server.host, server.port, backlog=BACKLOG)]
    for site in sites:
        try:
            await site.start()
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise CannotListen(server.host, server.port, why) from error
    return sites


def _port(runner: Runner) -> int:
    address = runner.addresses[0]
    return int(address[1]) if isinstance(address, tuple) else 0


async def serve_until_signalled(app: web.Application, passed: Sequence[socket.socket] = ()) -> None:
    """Run until SIGTERM or SIGINT, and keep the service manager informed if there is one."""
    signalled = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled.set)
    async with systemd.supervised(partial(report, app)), listening(app, passed) as port:
        log.info("server.listening", host=app[CONFIG].server.host, port=port, passed=len(passed))
        systemd.notify(READY=1, **await report(app))
        await signalled.wait()
        app[DRAIN].leaving = True
        systemd.notify(STOPPING=1, **await report(app))
    log.info("server.stopped")
