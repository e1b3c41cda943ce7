"""The composition root: one configuration becomes one application."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from importlib.metadata import version

import structlog
from aiohttp import web

from lora_server.catalog import Catalog
from lora_server.config import Config
from lora_server.door import Door
from lora_server.errors import ConfigInvalid, LoraServerError
from lora_server.evaluation.service import EvaluationService
from lora_server.fingerprints import Fingerprinter
from lora_server.judge import JudgePool
from lora_server.jwt_keys import Key
from lora_server.library import Library
from lora_server.reconcile import Reconciler
from lora_server.revocations import Revocations
from lora_server.store import Store
from lora_server.tokens import TokenVerifier
from lora_server.uninterrupted import meanwhile
from lora_server.web import openapi, routes
from lora_server.web.admission import UploadSlots
from lora_server.web.draining import Drain
from lora_server.web.keys import (
    CONFIG,
    DOOR,
    DRAIN,
    EVALUATIONS,
    LIBRARY,
    LOGINS,
    METRICS,
    OPENAPI,
    READINESS,
    REVOCATIONS,
    ROUTES,
    SLOTS,
    VERIFIER,
)
from lora_server.web.logins import FailedLogins
from lora_server.web.metrics import Metrics
from lora_server.web.middlewares import MIDDLEWARES, stamp
from lora_server.web.readiness import Readiness
from lora_server.web.routing import MAX_JSON_BYTES, RouteTable, expect_later, nothing_here

PURGE_INTERVAL_S = 3600.0
REREAD_INTERVAL_S = 1.0  # how soon a revocation counts

log = structlog.get_logger(__name__)
audit = structlog.get_logger("audit")


def create_app(config: Config, keys: Sequence[Key], revocations: Revocations) -> web.Application:
    """Build the application; its store and catalogue open when it starts."""
    app = web.Application(middlewares=MIDDLEWARES, client_max_size=MAX_JSON_BYTES)
    app[CONFIG] = config
    app[REVOCATIONS] = revocations
    app[VERIFIER] = TokenVerifier(keys, config.auth, revocations)
    app[DRAIN] = Drain()
    app[METRICS] = Metrics(in_flight=lambda: app[DRAIN].in_flight)
    app[LOGINS] = FailedLogins(config.server.max_failed_logins)
    app[SLOTS] = UploadSlots(
        total=config.server.max_concurrent_uploads,
        per_principal=config.server.max_uploads_per_principal,
    )
    _add_routes(app, config)
    app.on_response_prepare.append(stamp)
    app.cleanup_ctx.extend([_library, _revocations, _retention, _loop_lag])
    return app


def _add_routes(app: web.Application, config: Config) -> None:
    table = routes.table(config)
    app[OPENAPI] = openapi.document(table, version("lora-server"))
    app[ROUTES] = RouteTable()
    for route in table:
        app[ROUTES].add(app, route)
    app.router.add_route("*", "/{anything:.*}", nothing_here, expect_handler=expect_later)


async def _library(app: web.Application) -> AsyncIterator[None]:
    async with (
        Store.opened(app[CONFIG].storage) as store,
        Catalog.opened(store.layout.catalog) as catalog,
        JudgePool() as judges,
    ):
        library = app[LIBRARY] = Library(store, catalog)
        door = app[DOOR] = Door(judges, app[CONFIG].ingest)
        app[READINESS] = Readiness(library)
        await library.recover()
        async with (
            Reconciler(library, door).running(),
            Fingerprinter(library).running(),
            EvaluationService.opened(library, app[CONFIG]) as evaluations,
        ):
            app[EVALUATIONS] = evaluations
            yield


async def _retention(app: web.Application) -> AsyncIterator[None]:
    async with meanwhile(_purge_now_and_then(app)):
        yield


async def _purge_now_and_then(app: web.Application) -> None:
    while True:
        with suppress(LoraServerError):  # the next round tries again
            for lora in await app[LIBRARY].purge_expired(app[CONFIG].storage.bin_retention):
                partial_path = lora.location.partial_path
                audit.info(
                    "purge", actor="retention", partial_path=partial_path, sha256=lora.sha256
                )
        await asyncio.sleep(PURGE_INTERVAL_S)


async def _revocations(app: web.Application) -> AsyncIterator[None]:
    async with meanwhile(_reread_now_and_then(app[REVOCATIONS])):
        yield


async def _reread_now_and_then(revocations: Revocations) -> None:
    while True:
        await asyncio.sleep(REREAD_INTERVAL_S)
        try:
            await asyncio.to_thread(revocations.refresh)
        except ConfigInvalid as error:
            log.warning("revocations.unreadable", why=str(error))


async def _loop_lag(app: web.Application) -> AsyncIterator[None]:
    async with app[METRICS].watching_lag():
        yield
