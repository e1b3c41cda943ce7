"""Who may call what: the design's table against the table of routes."""

from collections.abc import Mapping

import pytest

from lora_server.config import Config
from lora_server.web import routes
from lora_server.web.routing import Access, Route
from tests.calls import API, BIN, FILES, JSON, LORA, call
from tests.server import ADMIN, READER, UPLOADER, Server, make_config, running

_ONE = "{entity_type}/{filename}"
# T any valid token, R the scope read or admin, A the scope admin, - nobody in particular.
EXPECTED = {
    ("POST", f"{FILES}/upload"): "T",
    ("POST", f"{LORA}/upload"): "A",
    ("GET", LORA): "A",
    ("DELETE", LORA): "A",
    ("GET", f"{LORA}/{_ONE}"): "A",
    ("PATCH", f"{LORA}/{_ONE}"): "A",
    ("POST", f"{LORA}/move"): "A",
    ("POST", f"{API}/lora/preflight"): "T",
    ("GET", BIN): "A",
    ("POST", f"{BIN}/restore"): "A",
    ("DELETE", BIN): "A",
    ("GET", f"{FILES}/{_ONE}"): "R",
    ("HEAD", f"{FILES}/{_ONE}"): "R",
    ("HEAD", f"{FILES}/sha256/{{hex}}"): "T",
    ("POST", f"{API}/evaluation/"): "A",
    ("GET", f"{API}/evaluation/health"): "-",
    ("GET", f"{API}/evaluation/"): "A",
    ("GET", f"{API}/evaluation/{{id}}"): "A",
    ("DELETE", f"{API}/evaluation/{{id}}"): "A",
    ("GET", f"{API}/evaluation/{{id}}/events"): "A",
    ("GET", f"{API}/evaluation/{{id}}/report.html"): "A",
    ("GET", "/livez"): "-",
    ("GET", "/readyz"): "-",
    ("GET", "/healthz"): "-",
    ("GET", "/openapi.json"): "-",
    ("GET", "/docs"): "-",
    ("GET", "/docs/{name}"): "-",
    ("GET", "/metrics"): "-",
}
ROUTES = [
    pytest.param(route, id=f"{route.method} {route.path}") for route in routes.table(Config())
]
CALLERS: Mapping[str, tuple[Mapping[str, str], str]] = {
    "nobody": ({}, "-"),
    "uploader": (UPLOADER, "-T"),
    "reader": (READER, "-TR"),
    "admin": (ADMIN, "-TRA"),
}


def test_the_table_is_whole() -> None:
    """A route that is new, or gone, must be entered here."""
    assert {(route.method, route.path) for route in routes.table(Config())} == set(EXPECTED)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("route", ROUTES)
async def test_only_who_may_gets_past_the_door(server: Server, route: Route, caller: str) -> None:
    """Without a token 401, without the scope 403; everybody else meets the handler."""
    headers, allowed = CALLERS[caller]
    path = route.path.replace("{entity_type}", "styles").replace("{filename}", "ink.safetensors")
    path = path.replace("{hex}", "0" * 64).replace("{name}", "start.js")
    path = path.replace("{id}", "ev_" + "0" * 24)
    answer = await call(server, route.method, path, headers={**headers, **JSON})

    if EXPECTED[route.method, route.path] in allowed:
        assert answer.status not in (401, 403)
    else:
        assert answer.status == (403 if headers else 401)


@pytest.mark.parametrize(
    ("setting", "caller", "status"),
    [
        pytest.param("open", "nobody", 200, id="open"),
        pytest.param("admin", "nobody", 401, id="admin, without a token"),
        pytest.param("admin", "reader", 403, id="admin, without the scope"),
        pytest.param("admin", "admin", 200, id="admin"),
        pytest.param("off", "admin", 404, id="off"),
    ],
)
async def test_metrics_are_configurable(
    tmp_path_factory: pytest.TempPathFactory, setting: str, caller: str, status: int
) -> None:
    """The operator says who may read the metrics."""
    config = make_config(tmp_path_factory.mktemp("data"), server={"metrics": setting})
    async with running(config) as server:
        answer = await call(server, "GET", "/metrics", headers=CALLERS[caller][0])

    assert answer.status == status


async def test_names_of_the_scopes_are_configurable(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Another identity provider may call the scopes as it likes."""
    config = make_config(tmp_path_factory.mktemp("data"), auth={"admin_scope": "lora:admin"})
    async with running(config) as server:
        answer = await call(server, "GET", LORA, headers=ADMIN)

    assert answer.status == 403
    assert 'scope="lora:admin"' in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("access", Access)
def test_each_rule_is_used(access: Access) -> None:
    """No rule is left over that nothing tests."""
    assert access in {route.access for route in routes.table(Config())}


def test_the_api_stands_under_its_base_path() -> None:
    """Another base path moves the API and nothing else."""
    config = Config()
    moved = config.model_copy(
        update={"server": config.server.model_copy(update={"base_path": "/x"})}
    )

    assert {route.path.removeprefix("/x") for route in routes.table(moved)} == {
        route.path.removeprefix(API) for route in routes.table(config)
    }
