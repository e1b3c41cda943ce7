"""The OpenAPI 3.1 document, built from the route table and the schemas."""

import inspect
import json
import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from lora_server.web import schemas
from lora_server.web.routing import Access, Route, Tag

SECURITY_SCHEME = "HTTPBearer"
_REFERENCE = "#/components/schemas/{model}"
_SERVER_ERRORS = (HTTPStatus.SERVICE_UNAVAILABLE,)
_UPLOAD_STATUSES = (
    HTTPStatus.CONFLICT,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.INSUFFICIENT_STORAGE,
)
_BODY_STATUSES = (
    HTTPStatus.BAD_REQUEST,  # broken off, or chunked wrongly
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
_WITHOUT_BODY = (
    HTTPStatus.NOT_MODIFIED,
    HTTPStatus.PRECONDITION_FAILED,
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
)
_DESCRIPTIONS = {
    HTTPStatus.OK: "Successful Response",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Validation Error",
}
_TAGS = {
    Tag.ADMIN: "LoRA management",
    Tag.LORA: "Uploads, look-ups and downloads",
    Tag.EVALUATION: "How good a LoRA is",
    Tag.SERVICE: "Health and metrics",
}


def document(routes: Sequence[Route], version: str) -> bytes:
    """Return the document as JSON."""
    models, definitions = _schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, models)
    return json.dumps(
        {
            "openapi": "3.1.0",
            "info": {"title": "lora_server", "version": version},
            "tags": [{"name": tag, "description": text} for tag, text in _TAGS.items()],
            "paths": paths,
            "components": {
                "schemas": definitions,
                "securitySchemes": {SECURITY_SCHEME: {"type": "http", "scheme": "bearer"}},
            },
        }
    ).encode()


Models = dict[type[BaseModel], dict[str, Any]]


def _schemas(routes: Sequence[Route]) -> tuple[Models, dict[str, Any]]:
    """Name each model as its title says, which is how the customer's document names them."""
    bodies = [route.body for route in routes if route.body]
    answers = [
        route.answer for route in routes if route.answer and not isinstance(route.answer, str)
    ]
    problems = [route.problem for route in routes] + [schemas.HTTPValidationError]
    wanted: list[type[BaseModel]] = list(dict.fromkeys([*bodies, *answers, *problems]))
    references, top = models_json_schema(
        [(model, "serialization") for model in wanted], ref_template=_REFERENCE
    )
    titles = {name: schema.get("title", name) for name, schema in top["$defs"].items()}
    renamed = json.loads(
        re.sub(
            r'"#/components/schemas/([^"]+)"',
            lambda match: json.dumps(_REFERENCE.format(model=titles[match[1]])),
            json.dumps([list(references.values()), top["$defs"]]),
        )
    )
    by_model = dict(zip(wanted, renamed[0], strict=True))
    return by_model, {titles[name]: schema for name, schema in renamed[1].items()}


def _operation(route: Route, models: Models) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "tags": [route.tag],
        "summary": route.summary,
        "description": inspect.getdoc(route.handler) or "",
        "operationId": re.sub(r"\W+", "_", route.method.lower() + route.path).strip("_"),
        "responses": _responses(route, models),
    }
    if parameters := [*_path_parameters(route), *_query_parameters(route)]:
        operation["parameters"] = parameters
    if route.access is not Access.ANYONE:
        operation["security"] = [{SECURITY_SCHEME: []}]
    if route.body:
        media_type = "multipart/form-data" if route.upload else "application/json"
        content = {media_type: {"schema": models[route.body]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _responses(route: Route, models: Models) -> dict[str, Any]:
    return {
        str(status.value): {
            "description": _DESCRIPTIONS.get(status, status.phrase),
            **_content(route, status, models),
        }
        for status in sorted({HTTPStatus.OK, *_statuses(route)})
    }


def _content(route: Route, status: HTTPStatus, models: Models) -> dict[str, Any]:
    if route.method == "HEAD" or status in _WITHOUT_BODY:
        return {}
    shape: type[BaseModel] | str | None = route.problem
    if status < HTTPStatus.MULTIPLE_CHOICES:
        shape = route.answer
    elif status is HTTPStatus.UNPROCESSABLE_ENTITY:
        shape = schemas.HTTPValidationError
    if shape is None:
        return {}
    if isinstance(shape, str):
        return {"content": {shape: {}}}
    return {"content": {"application/json": {"schema": models[shape]}}}


def _statuses(route: Route) -> Iterable[HTTPStatus]:
    yield from route.statuses
    if route.access is not Access.ANYONE:
        yield from (HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS)
        yield from _SERVER_ERRORS
    if route.access in (Access.READ, Access.ADMIN):
        yield HTTPStatus.FORBIDDEN
    if route.query or route.placeholders:
        yield HTTPStatus.UNPROCESSABLE_ENTITY
    if route.body:
        yield from _BODY_STATUSES
    if route.upload:
        yield from _UPLOAD_STATUSES


def _path_parameters(route: Route) -> Iterable[dict[str, Any]]:
    checked = _properties(route.placeholders)
    for name in re.findall(r"\{(\w+)\}", route.path):
        schema = checked.get(name, {"type": "string"})
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _query_parameters(route: Route) -> Iterable[dict[str, Any]]:
    for name, schema in _properties(route.query).items():
        described = {"description": schema.pop("description", "")}
        yield {"name": name, "in": "query", "required": False, **described, "schema": schema}


def _properties(model: type[BaseModel] | None) -> dict[str, Any]:
    if model is None:
        return {}
    schema = model.model_json_schema()
    properties: dict[str, Any] = _inlined(schema["properties"], schema.get("$defs", {}))
    return properties


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """Put definitions in the place of references to them: a parameter stands for itself."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(value, definitions) for key, value in schema.items()}
