"""What every service has: probes, metrics, the API document and its page."""

from importlib.util import find_spec
from pathlib import Path

from aiohttp import web

from lora_server.web import answers, schemas
from lora_server.web.keys import DRAIN, LIBRARY, METRICS, OPENAPI, READINESS
from lora_server.web.problems import RETRY_AFTER_S

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_HERE = Path(__file__).parent / "static"
# Swagger UI still sets inline styles, so its page alone may (swagger-api/swagger-ui#10655).
_DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)


async def livez(request: web.Request) -> web.Response:  # noqa: ARG001 - the signature of a handler
    """Tell that the process runs and its event loop turns."""
    return answers.respond(schemas.Health(status="ok"))


async def readyz(request: web.Request) -> web.Response:
    """Tell whether storage and catalogue can be used and new work is taken.

    When the disk could not keep what it took, the answer is no until an upload has been stored
    durably again, or the server was restarted.
    """
    draining = request.app[DRAIN].draining
    if not draining and await request.app[READINESS].ready():
        return answers.respond(schemas.Health(status="ok"))
    retry = {"Retry-After": str(RETRY_AFTER_S)}
    return answers.respond(schemas.Health(status="unavailable"), 503, retry)


async def metrics(request: web.Request) -> web.Response:
    """Return the metrics in Prometheus' text format."""
    measured = request.app[METRICS]
    measured.free.set(await request.app[LIBRARY].store.free_bytes())
    return web.Response(body=measured.exposition(), headers={"Content-Type": METRICS_TYPE})


async def openapi(request: web.Request) -> web.Response:
    """Return this document."""
    return web.Response(body=request.app[OPENAPI], content_type="application/json")


async def docs(request: web.Request) -> web.FileResponse:  # noqa: ARG001
    """Show this document as a page; it works without a network."""
    return web.FileResponse(_HERE / "docs.html", headers={"Content-Security-Policy": _DOCS_POLICY})


# The page's parts: the start script is ours, Swagger UI comes out of an installed package.
_START = "start.js"
_SWAGGER = {"swagger-ui-bundle.js": "swagger_bundle.js", "swagger-ui.css": "swagger_style.css"}


async def docs_asset(request: web.Request) -> web.FileResponse:
    """Return a part of the page."""
    name = request.match_info["name"]
    headers = {"Cache-Control": "max-age=86400"}
    if name == _START:
        return web.FileResponse(_HERE / "docs.js", headers=headers)
    if name not in _SWAGGER:
        raise web.HTTPNotFound
    return web.FileResponse(_swagger_folder() / _SWAGGER[name], headers=headers)


def _swagger_folder() -> Path:
    """Find the package without importing it: its import reads ten megabytes."""
    spec = find_spec("offapi")
    if spec is None or spec.submodule_search_locations is None:
        raise web.HTTPNotFound
    return Path(spec.submodule_search_locations[0])
