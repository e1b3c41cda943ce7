"""The library over HTTP. Handlers translate: request in, one call, response out.

Their docstrings are what clients read on the API page; where the customer's document describes
an operation, the words are the document's.
"""

from dataclasses import replace

from aiohttp import web

from lora_server.catalog import EvaluationQuery, Selection
from lora_server.errors import LoraNotFound
from lora_server.ingest import ingest
from lora_server.names import parse_partial_path
from lora_server.preflight import Offer
from lora_server.preflight import preflight as foresee
from lora_server.records import NO_TYPE, Location, Place, StoredLora
from lora_server.web import answers, library_schemas, problems, schemas
from lora_server.web.forms import check_entity_type, decoded, parsed, parsed_json, parsed_query
from lora_server.web.keys import (
    AUDIT,
    BOUNDARY,
    CONFIG,
    DOOR,
    LIBRARY,
    METRICS,
    PRINCIPAL,
    SLOT,
)
from lora_server.web.uploads import Limits, MultipartUpload

SHOWN_EVALUATIONS = 20


async def upload(request: web.Request) -> web.Response:
    """Upload a LoRA (Low-Rank Adaptation) model file to the compute server.

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
    """
    storage = request.app[CONFIG].storage
    allowed = tuple(t for t in storage.entity_types if t not in storage.admin_entity_types)
    lora = await _taken_in(request, allowed)
    return answers.respond(answers.uploaded(lora, request.app[LIBRARY].store.layout))


async def admin_upload(request: web.Request) -> web.Response:
    """Upload a LoRA (Low-Rank Adaptation) model file to the compute server.

    This is the admin-protected version of the LoRA upload endpoint.

    The file will be stored in the directory `/data/models/loras/{entity_type}/`
    with a safe filename. When `use_safe_filename` is True (default), duplicate files
    will be automatically versioned (e.g., filename_v2.safetensors). When False,
    duplicate files will result in an error.

    **Supported file formats:** .safetensors, .ckpt, .pt, .pth, .bin

    **Maximum file size:** 500MB

    **Supported entity types:** clothes, identities, product, styles, faces

    **Security:** Requires admin authentication token.
    """
    library = request.app[LIBRARY]
    lora = await _taken_in(request, request.app[CONFIG].storage.entity_types)
    same = await library.catalog.find_content(lora.sha256)
    return answers.respond(answers.admin_uploaded(lora, library.store.layout, same))


async def list_loras(request: web.Request) -> web.Response:
    """List the stored LoRAs, filtered and sorted, one page at a time.

    `count` is the number of all matches, so that a client can page through them.
    """
    query = parsed_query(library_schemas.ListQuery, request)
    library = request.app[LIBRARY]
    digest = query.sha256.lower() if query.sha256 else None
    wanted = query.model_copy(update={"sha256": digest})
    page = await library.catalog.page(Selection(place=Place.MODELS, **wanted.model_dump()))
    verdicts = await library.catalog.evaluations.verdicts({lora.sha256 for lora in page.items})
    data = [answers.listed(lora, library.store.layout, verdicts) for lora in page.items]
    return answers.respond(library_schemas.LoRAList(data=data, count=page.count))


async def show(request: web.Request) -> web.Response:
    """Show one LoRA with everything that is known of it."""
    lora = await live(request)
    catalog = request.app[LIBRARY].catalog
    digest = lora.tensors_sha256
    wanted = EvaluationQuery(sha256=lora.sha256, limit=SHOWN_EVALUATIONS)
    surroundings = answers.Surroundings(
        same_bytes=await catalog.find_content(lora.sha256),
        same_weights=await catalog.find_tensors(digest) if digest else (),
        evaluations=(await catalog.evaluations.page(wanted)).items,
    )
    return answers.respond(answers.detailed(await shown(request, lora), lora, surroundings))


async def patch(request: web.Request) -> web.Response:
    """Set base model, trigger words and notes by hand.

    What was detected is kept beside it. `null` takes a setting back; what is absent stays.
    """
    wanted = await parsed_json(library_schemas.LoRAPatch, request)
    lora = await live(request)
    changes = wanted.model_dump(exclude_unset=True)
    if changes.get("trigger_words") is not None:
        changes["trigger_words"] = tuple(changes["trigger_words"])
    changed = await request.app[LIBRARY].set_override(lora, replace(lora.override, **changes))
    _note(request, changed)
    return answers.respond(await shown(request, changed))


async def move(request: web.Request) -> web.Response:
    """Move a LoRA to another entity type.

    A name that is taken there is versioned; nothing is overwritten.
    """
    wanted = await parsed_json(library_schemas.LoRAMoveRequest, request)
    types = request.app[CONFIG].storage.entity_types
    check_entity_type(wanted.entity_type, {*types, NO_TYPE}, ("body", "entity_type"))
    library = request.app[LIBRARY]
    location = _named(request, wanted.partial_path)
    moved = await library.move(location, wanted.entity_type)
    _note(request, moved)
    return answers.respond(await shown(request, moved))


async def delete(request: web.Request) -> web.Response:
    """Delete a LoRA model file using its partial path (as returned by upload).

    This endpoint follows the same pattern as the upload endpoint - the backend
    passes the partial path (e.g., "identities/Sh0ot1f1_01.safetensors") and
    the compute server handles the full path mapping internally.

    The file is moved to a bin folder for safe recovery if needed.

    **Security:** Requires admin authentication token.
    """
    wanted = await parsed_json(schemas.LoRADeleteRequest, request)
    library = request.app[LIBRARY]
    location = _named(request, wanted.partial_path)
    binned = await library.move_to_bin(location, request[PRINCIPAL].subject)
    _note(request, binned)
    return answers.respond(answers.deleted(binned, library.store.layout))


async def preflight(request: web.Request) -> web.Response:
    """Ask whether a file would be taken, and whether its content is stored already.

    With the first bytes of a .safetensors file the answer is the verdict that the upload would
    get, before anything large is sent. `acceptable` promises nothing about the rest of the file.
    """
    wanted = await parsed_json(library_schemas.PreflightRequest, request)
    types = _allowed_types(request)
    check_entity_type(wanted.entity_type or NO_TYPE, {*types, NO_TYPE}, ("body", "entity_type"))
    outlook = await foresee(
        Offer(
            filename=wanted.filename,
            file_size=wanted.file_size,
            sha256=wanted.sha256.lower() if wanted.sha256 else None,
            header=decoded(wanted.header, ("body", "header")),
        ),
        library=request.app[LIBRARY],
        door=request.app[DOOR],
        storage=request.app[CONFIG].storage,
    )
    reasons = [reason for error in outlook.reasons for reason in problems.reasons(error)]
    summary = dict(outlook.judgement.summary) if outlook.judgement else None
    return answers.respond(
        library_schemas.PreflightResponse(
            acceptable=not reasons, reasons=reasons, exists=outlook.exists, inspection=summary
        )
    )


def _allowed_types(request: web.Request) -> tuple[str, ...]:
    storage, auth = request.app[CONFIG].storage, request.app[CONFIG].auth
    if auth.admin_scope in request[PRINCIPAL].scopes:
        return storage.entity_types
    return tuple(t for t in storage.entity_types if t not in storage.admin_entity_types)


async def has_content(request: web.Request) -> web.Response:
    """Tell whether a file with this SHA-256 is stored; no path is given away."""
    wanted = parsed(library_schemas.DigestPath, dict(request.match_info), where="path")
    if not await request.app[LIBRARY].catalog.find_content(wanted.hex.lower()):
        raise LoraNotFound
    return web.Response()


async def _taken_in(request: web.Request, entity_types: tuple[str, ...]) -> StoredLora:
    server, storage = request.app[CONFIG].server, request.app[CONFIG].storage
    limits = Limits(storage.max_file_size, server.upload_idle_timeout, server.min_upload_rate)
    incoming = MultipartUpload(
        request.content, request[BOUNDARY], limits, entity_types, written=request[SLOT].written
    )
    metrics = request.app[METRICS]
    library = request.app[LIBRARY]
    lora = await ingest(
        incoming,
        request[PRINCIPAL],
        library=library,
        door=request.app[DOOR],
        timed=metrics.timed,
    )
    metrics.received.inc(lora.uploaded_size)
    _note(request, lora)
    return lora


async def shown(request: web.Request, lora: StoredLora) -> library_schemas.LoRA:
    """Return a LoRA as lists show it."""
    library = request.app[LIBRARY]
    verdicts = await library.catalog.evaluations.verdicts({lora.sha256})
    return answers.listed(lora, library.store.layout, verdicts)


async def live(request: web.Request) -> StoredLora:
    """Return the live LoRA that a request's path names.

    Raises:
        LoraNotFound: there is none.

    """
    location = Location(
        Place.MODELS, request.match_info["entity_type"], request.match_info["filename"]
    )
    lora = await request.app[LIBRARY].catalog.find(location)
    if lora is None:
        raise LoraNotFound
    return lora


def _named(request: web.Request, partial_path: str) -> Location:
    types = request.app[LIBRARY].store.layout.entity_types
    request[AUDIT] = {"partial_path": partial_path[:512]}
    return parse_partial_path(partial_path, Place.MODELS, types)


def _note(request: web.Request, lora: StoredLora) -> None:
    request[AUDIT] = {
        "partial_path": lora.location.partial_path,
        "sha256": lora.sha256,
        "size": lora.facts.size,
    }
