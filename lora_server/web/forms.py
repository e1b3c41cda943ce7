"""Form fields, query strings and JSON bodies become checked values, with FastAPI's complaints."""

import base64
import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from lora_server.errors import Complaint, FieldInvalid, FieldsInvalid
from lora_server.ingest import UploadForm
from lora_server.records import NO_TYPE
from lora_server.web.schemas import UploadFields

M = TypeVar("M", bound=BaseModel)


def upload_form(fields: Mapping[str, str], entity_types: Collection[str]) -> UploadForm:
    """Check the text fields of an upload; an empty `entity_type` counts as absent.

    Raises:
        FieldsInvalid: says which field is wrong and what it may be.

    """
    checked = parsed(UploadFields, dict(fields), where="body")
    entity_type = checked.entity_type or NO_TYPE
    check_entity_type(entity_type, {*entity_types, NO_TYPE}, ("body", "entity_type"))
    digest = checked.sha256.lower() if checked.sha256 else None
    return UploadForm(entity_type, versioned=checked.use_safe_filename, sha256=digest)


def check_entity_type(
    entity_type: str, entity_types: Collection[str], loc: tuple[str, ...]
) -> None:
    """Refuse an entity type that is not one of `entity_types`, in pydantic's words."""
    if entity_type not in entity_types:
        expected = _listed([repr(name) for name in sorted(set(entity_types) - {NO_TYPE})])
        raise FieldInvalid(loc, f"Input should be {expected}", "enum")


def _listed(words: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def parsed(model: type[M], data: Any, *, where: str) -> M:
    """Validate data from one part of a request.

    Raises:
        FieldsInvalid: with one complaint for each thing that is wrong.

    """
    try:
        return model.model_validate(data, from_attributes=True)  # for FastAPI's message
    except ValidationError as error:
        complaints = (
            Complaint((where, *item["loc"]), item["msg"], item["type"])
            for item in error.errors(include_url=False, include_context=False, include_input=False)
        )
        raise FieldsInvalid(*complaints) from error


async def parsed_json(model: type[M], request: web.Request) -> M:
    """Validate a JSON body.

    Raises:
        FieldsInvalid: it is no JSON, does not say that it is, or is not of the model's shape.

    """
    raw = await request.read()  # arrived already, within its bounds (`middlewares.admitted`)
    if raw and not _says_json(request):
        raise FieldInvalid(
            ("body",),
            "Input should be a valid dictionary or object to extract fields from",
            "model_attributes_type",
        )
    data = _json(raw) if raw else None
    if data is None:
        raise FieldInvalid(("body",), "Field required", "missing")
    return parsed(model, data, where="body")


def _says_json(request: web.Request) -> bool:
    """Tell whether the type is JSON's or absent, which FastAPI takes for JSON too."""
    kind, _, name = request.content_type.partition("/")
    is_json = kind == "application" and (name == "json" or name.endswith("+json"))
    return is_json or "Content-Type" not in request.headers


def _json(raw: bytes) -> Any:
    try:
        data = json.loads(raw)
        json.dumps(data, ensure_ascii=False).encode()  # no log or row holds half a surrogate pair
    except (ValueError, RecursionError) as error:
        position = getattr(error, "pos", 0)
        raise FieldInvalid(("body", position), "JSON decode error", "json_invalid") from error
    return data


def decoded(text: str | None, loc: tuple[str, ...]) -> bytes | None:
    """Return the bytes of a base64 field.

    Raises:
        FieldInvalid: it is not base64.

    """
    if text is None:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise FieldInvalid(loc, "Value error, not base64", "value_error") from error


def parsed_query(model: type[M], request: web.Request) -> M:
    """Validate the query string; a parameter given twice is refused.

    Raises:
        FieldsInvalid: a parameter is unknown, double or wrong.

    """
    query = request.query
    doubles = [name for name in set(query) if len(query.getall(name)) > 1]
    if doubles:
        raise FieldsInvalid(*_doubles(doubles))
    return parsed(model, dict(query), where="query")


def _doubles(doubles: Iterable[str]) -> list[Complaint]:
    return [
        Complaint(("query", name), "The parameter is given twice", "duplicate_parameter")
        for name in sorted(doubles)
    ]
