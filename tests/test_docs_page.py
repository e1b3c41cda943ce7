"""The API as a page: served from here, with nothing from elsewhere."""

import re

import pytest

from tests.calls import call
from tests.server import Server

ASSETS = {
    "/docs/start.js": "application/javascript",
    "/docs/swagger-ui-bundle.js": "application/javascript",
    "/docs/swagger-ui.css": "text/css",
}
ELSEWHERE = re.compile(r"https?:|//[a-z]|@import|data:", re.IGNORECASE)


async def test_the_page_is_served(server: Server) -> None:
    """Anyone gets the page, as HTML."""
    answer = await call(server, "GET", "/docs", headers={})

    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html")
    assert answer.body.startswith(b"<!doctype html>")


@pytest.mark.parametrize(("path", "media_type"), ASSETS.items(), ids=ASSETS)
async def test_its_parts_are_served(server: Server, path: str, media_type: str) -> None:
    """Scripts and style come from here, with types that nosniff lets pass."""
    answer = await call(server, "GET", path, headers={})

    assert (answer.status, answer.headers["Content-Type"]) == (200, media_type)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.body


async def test_the_page_refers_to_its_parts_and_no_others(server: Server) -> None:
    """Each reference is one of the parts, relative to the page, so that a proxy may move it."""
    page = (await call(server, "GET", "/docs", headers={})).body.decode()

    assert {f"/{target}" for target in re.findall(r'(?:src|href)="([^"]+)"', page)} == set(ASSETS)


@pytest.mark.parametrize("path", ["/docs", "/docs/start.js"])
async def test_nothing_comes_from_elsewhere(server: Server, path: str) -> None:
    """Page and start script name no other host, and switch the online validator off."""
    text = (await call(server, "GET", path, headers={})).body.decode()

    assert not ELSEWHERE.search(text)
    assert path == "/docs" or "validatorUrl: null" in text


async def test_the_policy_keeps_the_page_at_home(server: Server) -> None:
    """A Content-Security-Policy lets in only what the server itself serves."""
    answer = await call(server, "GET", "/docs", headers={})
    policy = answer.headers["Content-Security-Policy"]
    rules = {name: set(sources) for name, *sources in map(str.split, policy.split(";"))}

    assert rules.pop("default-src") == {"'none'"}
    assert rules.pop("style-src") == {"'self'", "'unsafe-inline'"}
    assert rules.pop("img-src") == {"'self'", "data:"}
    assert rules.pop("script-src") == rules.pop("connect-src") == {"'self'"}
    assert rules.pop("frame-ancestors") == rules.pop("base-uri") == {"'none'"}
    assert not rules


async def test_no_inline_script(server: Server) -> None:
    """The policy forbids inline scripts, so the page has none."""
    page = (await call(server, "GET", "/docs", headers={})).body.decode()

    assert re.findall(r"<script[^>]*>([^<]*)</script>", page) == ["", ""]
    assert not re.search(r"\son\w+=", page)


async def test_the_page_can_read_the_document(server: Server) -> None:
    """The bundled Swagger UI is of version 5 or later, which reads OpenAPI 3.1."""
    bundle = (await call(server, "GET", "/docs/swagger-ui-bundle.js", headers={})).body.decode()
    versions = re.findall(
        r'PACKAGE_VERSION:"(\d+)\.\d+\.\d+"|version:"(\d+)\.\d+\.\d+",git', bundle
    )

    assert "openapi31" in bundle.lower() or "oas31" in bundle.lower()
    assert versions, "no version found"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("nope.js", id="unknown"),
        pytest.param("..%2fdocs.html", id="traversal"),
        pytest.param("%2fetc%2fpasswd", id="absolute"),
        pytest.param("docs.js", id="a file's own name"),
    ],
)
async def test_nothing_else_is_served(server: Server, name: str) -> None:
    """Only the listed parts can be fetched, under their listed names."""
    assert (await call(server, "GET", f"/docs/{name}", headers={})).status == 404
