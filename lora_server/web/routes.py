"""The whole HTTP surface, as data; `{base}` is `[server] base_path`."""

from dataclasses import replace
from functools import partial
from http import HTTPStatus

from lora_server.config import Config
from lora_server.web import bin as deleted
from lora_server.web import (
    downloads,
    evaluation_schemas,
    evaluations,
    library_schemas,
    loras,
    schemas,
    service,
)
from lora_server.web.routing import MAX_JSON_BYTES, Access, Route, Tag

_LORA = "{base}/admin/lora/{entity_type}/{filename}"
_EVALUATION = "{base}/evaluation/{id}"
_GONE = (HTTPStatus.NOT_FOUND,)
_MOVED = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.INSUFFICIENT_STORAGE)
_RANGES = (
    HTTPStatus.PARTIAL_CONTENT,
    HTTPStatus.NOT_MODIFIED,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.PRECONDITION_FAILED,
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
)
_BYTES = "application/octet-stream"

_admin = partial(Route, access=Access.ADMIN, tag=Tag.ADMIN)
_lora = partial(Route, tag=Tag.LORA)
_evaluation = partial(Route, access=Access.ADMIN, tag=Tag.EVALUATION)
_service = partial(Route, access=Access.ANYONE, tag=Tag.SERVICE)

_ROUTES = (
    _admin(
        "POST",
        "{base}/admin/lora/upload",
        loras.admin_upload,
        "Upload a LoRA model file (Admin)",
        body=schemas.BodyAdminUploadLora,
        answer=schemas.AdminLoRAUploadResponse,
        upload=True,
        action="upload",
    ),
    _admin(
        "DELETE",
        "{base}/admin/lora",
        loras.delete,
        "Delete a LoRA model file (Admin)",
        body=schemas.LoRADeleteRequest,
        answer=schemas.LoRADeleteResponse,
        statuses=_MOVED,
        action="delete",
    ),
    _admin(
        "GET",
        "{base}/admin/lora",
        loras.list_loras,
        "List LoRA models",
        query=library_schemas.ListQuery,
        answer=library_schemas.LoRAList,
    ),
    _admin(
        "POST",
        "{base}/admin/lora/move",
        loras.move,
        "Move a LoRA to another entity type",
        body=library_schemas.LoRAMoveRequest,
        answer=library_schemas.LoRA,
        statuses=_MOVED,
        action="move",
    ),
    _admin(
        "GET", _LORA, loras.show, "Show a LoRA", answer=library_schemas.LoRADetail, statuses=_GONE
    ),
    _admin(
        "PATCH",
        _LORA,
        loras.patch,
        "Set base model, trigger words and notes",
        body=library_schemas.LoRAPatch,
        answer=library_schemas.LoRA,
        statuses=(*_GONE, HTTPStatus.INSUFFICIENT_STORAGE),
        action="patch",
    ),
    _admin(
        "GET",
        "{base}/admin/bin",
        deleted.list_bin,
        "List deleted LoRAs",
        query=library_schemas.BinQuery,
        answer=library_schemas.BinList,
    ),
    _admin(
        "POST",
        "{base}/admin/bin/restore",
        deleted.restore,
        "Restore a deleted LoRA",
        body=library_schemas.LoRARestoreRequest,
        answer=library_schemas.LoRA,
        statuses=_MOVED,
        action="restore",
    ),
    _admin(
        "DELETE",
        "{base}/admin/bin",
        deleted.purge,
        "Purge deleted LoRAs for good",
        body=library_schemas.LoRAPurgeRequest,
        answer=library_schemas.LoRAPurgeResponse,
        statuses=_MOVED,
        action="purge",
    ),
    _lora(
        "POST",
        "{base}/lora/upload",
        loras.upload,
        "Upload a LoRA model file",
        access=Access.TOKEN,
        body=schemas.BodyUploadLora,
        answer=schemas.LoRAUploadResponse,
        upload=True,
        action="upload",
    ),
    _lora(
        "POST",
        "{base}/lora/preflight",
        loras.preflight,
        "Would this file be taken?",
        access=Access.TOKEN,
        body=library_schemas.PreflightRequest,
        max_body_bytes=library_schemas.MAX_HEADER_CHARS + MAX_JSON_BYTES,
        answer=library_schemas.PreflightResponse,
    ),
    _lora(
        "HEAD",
        "{base}/lora/sha256/{hex}",
        loras.has_content,
        "Is this content stored already?",
        access=Access.TOKEN,
        answer=None,
        placeholders=library_schemas.DigestPath,
        statuses=_GONE,
    ),
    _lora(
        "GET",
        "{base}/lora/{entity_type}/{filename}",
        downloads.download,
        "Download a LoRA",
        access=Access.READ,
        answer=_BYTES,
        statuses=_RANGES,
    ),
    _lora(
        "HEAD",
        "{base}/lora/{entity_type}/{filename}",
        downloads.download,
        "Size and digest of a LoRA",
        access=Access.READ,
        answer=None,
        statuses=_RANGES,
    ),
    _evaluation(
        "POST",
        "{base}/evaluation/",
        evaluations.run,
        "Run evaluation",
        body=evaluation_schemas.EvaluationRequest,
        answer=evaluation_schemas.EvaluationAnswer,
        statuses=(HTTPStatus.ACCEPTED, HTTPStatus.NOT_FOUND),
        action="evaluate",
    ),
    _evaluation(
        "GET",
        "{base}/evaluation/health",
        evaluations.health,
        "Evaluation service health",
        access=Access.ANYONE,
        answer=evaluation_schemas.EvaluationHealthAnswer,
        problem=evaluation_schemas.EvaluationHealthAnswer,
        statuses=(HTTPStatus.SERVICE_UNAVAILABLE,),
    ),
    _evaluation(
        "GET",
        "{base}/evaluation/",
        evaluations.list_evaluations,
        "List evaluations",
        query=evaluation_schemas.EvaluationListQuery,
        answer=evaluation_schemas.EvaluationList,
    ),
    _evaluation(
        "GET",
        _EVALUATION,
        evaluations.show,
        "Show an evaluation",
        answer=evaluation_schemas.EvaluationAnswer,
        statuses=_GONE,
    ),
    _evaluation(
        "DELETE",
        _EVALUATION,
        evaluations.cancel,
        "Cancel an evaluation",
        answer=evaluation_schemas.EvaluationSummary,
        statuses=_GONE,
        action="cancel_evaluation",
    ),
    _evaluation(
        "GET",
        f"{_EVALUATION}/events",
        evaluations.events,
        "Follow an evaluation",
        answer="text/event-stream",
        statuses=_GONE,
    ),
    _evaluation(
        "GET",
        f"{_EVALUATION}/report.html",
        evaluations.page,
        "Read a report as a page",
        answer="text/html",
        statuses=_GONE,
    ),
    _service("GET", "/livez", service.livez, "Liveness", answer=schemas.Health),
    _service(
        "GET",
        "/readyz",
        service.readyz,
        "Readiness",
        answer=schemas.Health,
        problem=schemas.Health,
        statuses=(HTTPStatus.SERVICE_UNAVAILABLE,),
    ),
    _service(
        "GET",
        "/healthz",
        service.readyz,
        "Readiness, under its older name",
        answer=schemas.Health,
        problem=schemas.Health,
        statuses=(HTTPStatus.SERVICE_UNAVAILABLE,),
    ),
    _service("GET", "/openapi.json", service.openapi, "This document", answer="application/json"),
    _service("GET", "/docs", service.docs, "This document as a page", answer="text/html"),
    _service(
        "GET",
        "/docs/{name}",
        service.docs_asset,
        "A part of the page",
        answer="*/*",
        statuses=_GONE,
    ),
)


def table(config: Config) -> tuple[Route, ...]:
    """Return the routes that a configuration asks for."""
    base = config.server.base_path
    routes = [replace(route, path=route.path.replace("{base}", base)) for route in _ROUTES]
    return (*routes, *_metrics(config))


def _metrics(config: Config) -> tuple[Route, ...]:
    if config.server.metrics == "off":
        return ()
    access = Access.ADMIN if config.server.metrics == "admin" else Access.ANYONE
    summary = "Metrics for Prometheus"
    route = _service("GET", "/metrics", service.metrics, summary, answer="text/plain")
    return (replace(route, access=access),)
