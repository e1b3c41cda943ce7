"""The bin over HTTP: what was deleted, and the way back."""

from aiohttp import web

from lora_server.catalog import Selection
from lora_server.errors import FieldInvalid
from lora_server.names import parse_partial_path
from lora_server.records import Location, Place
from lora_server.web import answers, library_schemas
from lora_server.web.forms import parsed_json, parsed_query
from lora_server.web.keys import AUDIT, CONFIG, LIBRARY
from lora_server.web.loras import shown


async def list_bin(request: web.Request) -> web.Response:
    """List what was deleted and can be restored, latest first."""
    query = parsed_query(library_schemas.BinQuery, request)
    library = request.app[LIBRARY]
    selection = Selection(place=Place.BIN, sort="-deleted_at", **query.model_dump())
    page = await library.catalog.page(selection)
    retention = request.app[CONFIG].storage.bin_retention
    data = [answers.binned(lora, library.store.layout, retention) for lora in page.items]
    return answers.respond(library_schemas.BinList(data=data, count=page.count))


async def restore(request: web.Request) -> web.Response:
    """Restore a LoRA to where it was deleted from.

    `bin_path` is what the deletion returned. A name that was taken meanwhile is versioned.
    """
    wanted = await parsed_json(library_schemas.LoRARestoreRequest, request)
    library = request.app[LIBRARY]
    lora = await library.restore(_in_bin(request, wanted.bin_path))
    request[AUDIT] = {"partial_path": lora.location.partial_path, "sha256": lora.sha256}
    return answers.respond(await shown(request, lora))


async def purge(request: web.Request) -> web.Response:
    """Remove a file from the bin for good, or all that are past their retention."""
    wanted = await parsed_json(library_schemas.LoRAPurgeRequest, request)
    library = request.app[LIBRARY]
    if (wanted.bin_path is None) == (wanted.past_retention is None):
        message = "Value error, give either bin_path or past_retention"
        raise FieldInvalid(("body",), message, "value_error")
    if wanted.bin_path is not None:
        gone = [await library.purge(_in_bin(request, wanted.bin_path))]
    else:
        gone = await library.purge_expired(request.app[CONFIG].storage.bin_retention)
    paths = [str(library.store.layout.path(lora.location)) for lora in gone]
    request[AUDIT] = {"purged": paths[:100], "files": len(paths)}
    return answers.respond(library_schemas.LoRAPurgeResponse(purged=paths))


def _in_bin(request: web.Request, bin_path: str) -> Location:
    layout = request.app[LIBRARY].store.layout
    request[AUDIT] = {"bin_path": bin_path[:512]}
    try:
        partial_path = layout.bin_path_of(bin_path) or ""
        return parse_partial_path(partial_path, Place.BIN, layout.entity_types)
    except FieldInvalid as error:
        message = "Value error, not a path in the bin as a deletion returns it"
        raise FieldInvalid(("body", "bin_path"), message, "value_error") from error
