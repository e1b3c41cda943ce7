"""What a route is: data from which the router, the access rules and the OpenAPI page are made."""

from collections.abc import Awaitable, Callable
from dataclasses import KW_ONLY, dataclass
from enum import StrEnum
from http import HTTPStatus

from aiohttp import web
from pydantic import BaseModel

from lora_server.web.schemas import Problem

MAX_JSON_BYTES = 64 * 1024

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Access(StrEnum):
    """Who may call a route."""

    ANYONE = "anyone"
    TOKEN = "token"  # noqa: S105 - the name of a rule, not a secret
    READ = "read"  # the read scope or the admin scope
    ADMIN = "admin"


class Tag(StrEnum):
    """The groups of the API page; the first two are the customer's."""

    ADMIN = "admin"
    LORA = "lora"
    EVALUATION = "evaluation"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class Route:
    """One operation; the description that clients read is the handler's docstring."""

    method: str
    path: str
    handler: Handler
    summary: str
    _: KW_ONLY
    access: Access
    tag: Tag
    answer: type[BaseModel] | str | None  # a model, or the media type of something else
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    placeholders: type[BaseModel] | None = None  # what the path may hold, where that is checked
    max_body_bytes: int = MAX_JSON_BYTES  # of a body that is no upload
    upload: bool = False  # the body is a multipart upload, admitted on its head
    action: str | None = None  # what the audit log calls it
    statuses: tuple[HTTPStatus, ...] = ()  # besides those that access, query and body imply
    problem: type[BaseModel] = Problem  # the shape of its errors


class RouteTable:
    """Which Route a request was matched to."""

    def __init__(self) -> None:
        self._routes: dict[web.AbstractRoute, Route] = {}

    def add(self, app: web.Application, route: Route) -> None:
        """Register a route with an application's router."""
        # A look-up by content is no download from an entity type called sha256.
        path = route.path.replace("{entity_type}", "{entity_type:(?!sha256/)[^/]+}")
        path = path.replace("{id}", "{id:ev_[^/]+}")  # nor is `health` an evaluation
        # A collection is found with and without the slash at its end.
        for spelling in {path, path.rstrip("/")}:
            registered = app.router.add_route(
                route.method, spelling, route.handler, expect_handler=expect_later
            )
            self._routes[registered] = route

    def of(self, request: web.Request) -> Route | None:
        """Return the route of a request; None where nothing matched."""
        return self._routes.get(request.match_info.route)


async def expect_later(request: web.Request) -> None:
    """Leave `Expect` unanswered until the request is admitted (`middlewares.admitted`)."""


async def nothing_here(request: web.Request) -> web.StreamResponse:
    """Answer 405 where another method is known at this path, else 404."""
    allowed: set[str] = set()
    for resource in request.app.router.resources():
        if resource is not request.match_info.route.resource:
            allowed |= (await resource.resolve(request))[1]
    if allowed:
        raise web.HTTPMethodNotAllowed(request.method, sorted(allowed))
    raise web.HTTPNotFound
