"""What the server publishes holds at least what the customer's document gives."""

import json
import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from lora_server import errors
from lora_server.config import Config
from lora_server.web import openapi, problems, routes
from lora_server.web.routing import Access, Route
from tests.calls import call
from tests.server import Server

CONTRACT = json.loads(Path(__file__).with_name("contract.json").read_text(encoding="utf-8"))
BASE = CONTRACT["base_path"]
TABLE = routes.table(Config())
PUBLISHED = json.loads(openapi.document(TABLE, "0.0.0"))

# The one list of what is promised and not there yet; what appears must leave it.
NOT_YET: set[tuple[str, str]] = set()

# Tag, summary and description, word for word as in the customer's document.
ADMIN_UPLOAD = (
    "admin",
    "Upload a LoRA model file (Admin)",
    """
    Upload a LoRA (Low-Rank Adaptation) model file to the compute server.
    This is the admin-protected version of the LoRA upload endpoint.
    The file will be stored in the directory `/data/models/loras/{entity_type}/`
    with a safe filename. When `use_safe_filename` is True (default), duplicate files
    will be automatically versioned (e.g., filename_v2.safetensors). When False,
    duplicate files will result in an error.
    **Supported file formats:** .safetensors, .ckpt, .pt, .pth, .bin
    **Maximum file size:** 500MB
    **Supported entity types:** clothes, identities, product, styles, faces
    **Security:** Requires admin authentication token.
    """,
)
DELETION = (
    "admin",
    "Delete a LoRA model file (Admin)",
    """
    Delete a LoRA model file using its partial path (as returned by upload).
    This endpoint follows the same pattern as the upload endpoint - the backend
    passes the partial path (e.g., "identities/Sh0ot1f1_01.safetensors") and
    the compute server handles the full path mapping internally.
    The file is moved to a bin folder for safe recovery if needed.
    **Security:** Requires admin authentication token.
    """,
)
UPLOAD = (
    "lora",
    "Upload a LoRA model file",
    """
    Upload a LoRA (Low-Rank Adaptation) model file to the compute server.
    The file will be stored in the directory `/data/models/loras/{entity_type}/`
    with a safe filename. When `use_safe_filename` is True (default), duplicate files
    will be automatically versioned (e.g., filename_v2.safetensors). When False,
    duplicate files will result in an error.
    **Supported file formats:** .safetensors, .ckpt, .pt, .pth, .bin
    **Maximum file size:** 500MB
    **Supported entity types:** clothes, identities, product, styles
    The endpoint accepts multipart/form-data with the following fields:
    - `file`: The LoRA model file (required)
    - `entity_type`: The entity type (optional, defaults to 'no_type_provided')
    - `use_safe_filename`: Whether to enable automatic versioning for duplicates (default: true)
    """,
)


def operation(method: str, path: str) -> Any:
    """Return a published operation by its path under the base path."""
    return PUBLISHED["paths"].get(BASE + path, {}).get(method.lower())


def differences(given: Any, published: Any, where: str) -> Iterator[str]:
    """Yield where `published` lacks or changes something of `given`; more of it is no fault."""
    if isinstance(given, Mapping) and isinstance(published, Mapping):
        for key, value in given.items():
            if key in published:
                yield from differences(value, published[key], f"{where}.{key}")
            else:
                yield f"{where}.{key} is missing"
    elif isinstance(given, list) and where.endswith(".required"):
        if set(given) != set(published):
            yield f"{where} is {published}"
    elif given != published or type(given) is not type(published):
        yield f"{where} is {published!r}, not {given!r}"


def test_the_document_is_valid() -> None:
    """It is OpenAPI 3.1 by the specification's own schema."""
    assert PUBLISHED["openapi"].startswith("3.1.")
    assert list(OpenAPIV31SpecValidator(PUBLISHED).iter_errors()) == []


async def test_the_document_is_served(server: Server) -> None:
    """What these tests look at is what a client gets, without a token."""
    answer = await call(server, "GET", "/openapi.json", headers={})

    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json | {"info": None} == PUBLISHED | {"info": None}


def test_operation_ids_differ() -> None:
    """A generated client has one method for each operation."""
    ids = [op["operationId"] for path in PUBLISHED["paths"].values() for op in path.values()]

    assert len(set(ids)) == len(ids) == len(TABLE)


@pytest.mark.parametrize(
    "given",
    [pytest.param(op, id=f"{op['method']} {op['path']}") for op in CONTRACT["operations"]],
)
def test_operations_are_there(given: dict[str, str]) -> None:
    """Each operation of the contract is published, but for those that are listed as not yet."""
    expected = (given["method"], given["path"]) not in NOT_YET

    assert (operation(given["method"], given["path"]) is not None) is expected


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(op, id=f"{op['method']} {op['path']}")
        for op in CONTRACT["operations"]
        if "request" in op
    ],
)
def test_operations_take_and_give_the_named_schemas(given: dict[str, str]) -> None:
    """Body, answer, media types and security scheme are the contract's."""
    published = operation(given["method"], given["path"])
    request, media_type = given["request"].removesuffix(")").split(" (")
    reference = "#/components/schemas/"

    assert published["security"] == [{given["security"]: []}]
    assert published["requestBody"] == {
        "required": True,
        "content": {media_type: {"schema": {"$ref": reference + request}}},
    }
    assert published["responses"]["200"]["content"] == {
        "application/json": {"schema": {"$ref": reference + given["response"]}}
    }
    assert published["responses"]["422"]["content"] == {
        "application/json": {"schema": {"$ref": f"{reference}HTTPValidationError"}}
    }


@pytest.mark.parametrize("name", CONTRACT["components"]["schemas"])
def test_schemas_hold_what_is_given(name: str) -> None:
    """Nothing of a given schema is dropped, renamed or retyped, and nothing more is required."""
    given = CONTRACT["components"]["schemas"][name]
    published = PUBLISHED["components"]["schemas"][name]

    assert list(differences(given, published, name)) == []
    assert set(published.get("required", [])) == set(given.get("required", []))


@pytest.mark.parametrize("name", CONTRACT["components"]["schemas"])
def test_given_properties_are_no_narrower(name: str) -> None:
    """A given property has no constraint that the contract does not know."""
    given = CONTRACT["components"]["schemas"][name]["properties"]
    published = PUBLISHED["components"]["schemas"][name]["properties"]
    # A null default says of an optional property what its absence from `required` says.
    harmless = {"default", "description", "title"}

    for key, schema in given.items():
        assert set(published[key]) - harmless <= set(schema), key


def test_security_scheme_is_the_given_one() -> None:
    """Tokens are bearer tokens, under the given name."""
    assert PUBLISHED["components"]["securitySchemes"] == CONTRACT["components"]["securitySchemes"]


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        pytest.param("POST", "/admin/lora/upload", ADMIN_UPLOAD, id="admin upload"),
        pytest.param("DELETE", "/admin/lora", DELETION, id="delete"),
        pytest.param("POST", "/lora/upload", UPLOAD, id="upload"),
    ],
)
def test_described_operations_use_the_given_words(
    method: str, path: str, words: tuple[str, str, str]
) -> None:
    """Tag, summary and description are the customer's; only white space may differ."""
    published = operation(method, path)
    tag, summary, description = words

    assert published["tags"] == [tag]
    assert published["summary"] == summary
    assert published["description"].split() == description.split()


def test_the_list_has_the_given_summary() -> None:
    """What the document has one line for carries that line."""
    assert operation("GET", "/admin/lora")["summary"] == "List LoRA models"


def test_limits_are_the_given_ones() -> None:
    """Size cap, entity types and formats are what the contract says."""
    storage = Config().storage
    uploads = {op["path"]: op for op in CONTRACT["operations"] if "entity_types" in op}
    anyone = set(storage.entity_types) - set(storage.admin_entity_types)

    assert storage.max_file_size == 500 * 1024 * 1024
    assert set(storage.entity_types) == set(uploads["/admin/lora/upload"]["entity_types"])
    assert anyone == set(uploads["/lora/upload"]["entity_types"])


OF_UPLOADS = (
    errors.UploadTooLarge,
    errors.UploadStalled,
    errors.UploadCut,
    errors.MalformedUpload,
    errors.UnsupportedUpload,
    errors.TooManyUploads,
    errors.StorageFull,
    errors.StorageUnusable,
    errors.FieldInvalid,
    errors.FileRefused,
    errors.NameTaken,
)


def implied(route: Route) -> set[HTTPStatus]:
    """Return the statuses that a route of this kind can always answer."""
    statuses = {HTTPStatus.OK}
    if route.access is not Access.ANYONE:
        statuses |= {HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS}
        statuses |= {HTTPStatus.SERVICE_UNAVAILABLE}
    if route.access in (Access.READ, Access.ADMIN):
        statuses |= {HTTPStatus.FORBIDDEN}
    if route.query or "{hex}" in route.path:
        statuses |= {HTTPStatus.UNPROCESSABLE_ENTITY}
    if route.body:
        statuses |= {HTTPStatus(code) for code in (400, 408, 413, 422)}
    if route.upload:
        statuses |= {problems.STATUS[error] for error in OF_UPLOADS}
    if re.search(r"\{(filename|name|hex)\}", route.path):
        statuses |= {HTTPStatus.NOT_FOUND}
    if route.method != "GET" and not route.upload and route.access is Access.ADMIN:
        statuses |= {HTTPStatus.NOT_FOUND}
    return statuses


@pytest.mark.parametrize(
    "route", [pytest.param(route, id=f"{route.method} {route.path}") for route in TABLE]
)
def test_statuses_are_declared(route: Route) -> None:
    """A client can look up each status that it may meet; the fuzz test meets them."""
    declared = PUBLISHED["paths"][route.path][route.method.lower()]["responses"]

    assert {status.value for status in implied(route)} <= set(map(int, declared))


def test_answers_without_a_body_declare_none() -> None:
    """HEAD, and the refusals of conditional and range requests, carry nothing to parse."""
    download = PUBLISHED["paths"][f"{BASE}/lora/{{entity_type}}/{{filename}}"]

    assert all("content" not in response for response in download["head"]["responses"].values())
    for status in ("304", "412", "416"):
        assert "content" not in download["get"]["responses"][status]


def test_part_of_a_file_is_declared_as_bytes() -> None:
    """A 206 is bytes like a 200, not an error."""
    responses = PUBLISHED["paths"][f"{BASE}/lora/{{entity_type}}/{{filename}}"]["get"]["responses"]

    assert responses["206"]["content"] == {"application/octet-stream": {}}
    assert responses["200"]["content"] == {"application/octet-stream": {}}
