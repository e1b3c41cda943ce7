"""The bytes of a LoRA over HTTP: as they are stored, or without what the trainer wrote down."""

import base64
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiofiles
from aiohttp import web

from lora_server import names
from lora_server.errors import FieldInvalid, Forbidden, LoraNotFound
from lora_server.filesystem import facts_of
from lora_server.records import FileFacts, StoredLora, Verdict
from lora_server.web import library_schemas
from lora_server.web.forms import parsed_query
from lora_server.web.keys import CONFIG, DOOR, LIBRARY, PRINCIPAL
from lora_server.web.loras import live

_PIECE_BYTES = 1024 * 1024
_ALIGNMENT = 8  # safetensors pads its header with spaces to a multiple of this
_LENGTH_BYTES = 8


async def download(request: web.Request) -> web.StreamResponse:
    """Download a LoRA; ranges and conditional requests are understood.

    `Repr-Digest` (RFC 9530) carries the recorded SHA-256 as long as it fits the file. With
    `strip_metadata`, and always without the admin scope, the training metadata is left out:
    same tensors, another header, and neither ranges nor digest; a file that was changed by hand
    is not there for that until it has been judged.
    """
    query = parsed_query(library_schemas.DownloadQuery, request)
    lora = await live(request)
    if lora.judgement and lora.judgement.verdict is Verdict.REFUSED:
        raise LoraNotFound("Servable LoRA")
    facts = await request.app[LIBRARY].store.facts(lora.location)
    if facts is None:
        raise LoraNotFound
    admin_scope = request.app[CONFIG].auth.admin_scope
    is_admin = admin_scope in request[PRINCIPAL].scopes
    if is_admin and not query.strip_metadata:
        return _whole(request, lora, facts)
    if names.extension(lora.location.name) != names.SAFETENSORS:
        raise _unstrippable(is_admin=is_admin, admin_scope=admin_scope)
    return await _bare(request, lora)


def _unstrippable(*, is_admin: bool, admin_scope: str) -> FieldInvalid | Forbidden:
    if not is_admin:
        return Forbidden(admin_scope)
    message = "Value error, only a .safetensors file can be had without its metadata"
    return FieldInvalid(("query", "strip_metadata"), message, "value_error")


def _whole(request: web.Request, lora: StoredLora, facts: FileFacts) -> web.StreamResponse:
    headers = _headers(lora)
    if facts == lora.facts:
        digest = base64.b64encode(bytes.fromhex(lora.sha256)).decode()
        headers["Repr-Digest"] = f"sha-256=:{digest}:"
    path = request.app[LIBRARY].store.layout.path(lora.location)
    return _TheFileItself(path, facts, headers=headers)


class _TheFileItself(web.FileResponse):
    """A FileResponse of the file that was looked at, and of no other.

    One that was swapped since is a 404. A neighbour called `name.gz` is no encoding of it.
    """

    def __init__(self, path: Path, facts: FileFacts, *, headers: Mapping[str, str]) -> None:
        super().__init__(path, headers=headers)
        self._facts = facts

    def _make_response(self, request: web.BaseRequest, accept_encoding: str) -> Any:
        result, file, status, encoding = super()._make_response(request, accept_encoding)
        if facts_of(status) != self._facts:
            if file:
                file.close()
            self.headers.pop("Repr-Digest", None)
            raise FileNotFoundError
        return result, file, status, encoding

    def _get_file_path_stat_encoding(
        self, accept_encoding: str
    ) -> tuple[Path | None, os.stat_result, str | None]:
        del accept_encoding
        return super()._get_file_path_stat_encoding("")


async def _bare(request: web.Request, lora: StoredLora) -> web.StreamResponse:
    try:
        async with request.app[LIBRARY].store.opened_for_reading(lora.location) as fd:
            if facts_of(os.fstat(fd)) != lora.facts:
                raise LoraNotFound  # swapped by hand: nobody has judged what stands there now
            text, data_begin = await request.app[DOOR].bare_header(fd)
            head = _framed(text)
            response = web.StreamResponse(headers=_headers(lora))
            response.content_length = len(head) + os.fstat(fd).st_size - data_begin
            await response.prepare(request)
            if request.method != "HEAD":
                await response.write(head)
                async for piece in _pieces(fd, data_begin):
                    await response.write(piece)
            await response.write_eof()
            return response
    except FileNotFoundError as error:
        raise LoraNotFound from error


def _framed(text: str) -> bytes:
    encoded = text.encode()
    encoded += b" " * (-len(encoded) % _ALIGNMENT)
    return len(encoded).to_bytes(_LENGTH_BYTES, "little") + encoded


async def _pieces(fd: int, begin: int) -> AsyncIterator[bytes]:
    async with aiofiles.open(fd, "rb", buffering=0, closefd=False) as file:
        await file.seek(begin)
        while piece := await file.read(_PIECE_BYTES):
            yield piece


def _headers(lora: StoredLora) -> dict[str, str]:
    name = quote(lora.location.name, safe="")
    return {
        "Content-Type": "application/octet-stream",
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
        "Cache-Control": "private, no-cache",
    }
