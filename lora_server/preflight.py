"""Would this file be taken? Decided from what an upload would look at, before it is sent."""

import asyncio
import os
from dataclasses import dataclass

from lora_server import names
from lora_server.config import StorageConfig
from lora_server.door import Door, opened_memory
from lora_server.errors import (
    FieldsInvalid,
    FileRefused,
    LoraServerError,
    StorageFull,
    UnsupportedUpload,
    UploadTooLarge,
)
from lora_server.library import Library
from lora_server.records import Judgement

_REFUSALS = (FieldsInvalid, FileRefused, UnsupportedUpload)


@dataclass(frozen=True, slots=True)
class Offer:
    """A file that a client could send."""

    filename: str
    file_size: int  # bytes
    sha256: str | None  # lower-case hex
    header: bytes | None  # the first bytes of a safetensors file


@dataclass(frozen=True, slots=True)
class Outlook:
    """What an upload of it would come to."""

    reasons: tuple[LoraServerError, ...]  # what the file is comes before its size
    exists: bool  # the content is stored already
    judgement: Judgement | None  # by the header alone


async def preflight(
    offer: Offer, *, library: Library, door: Door, storage: StorageConfig
) -> Outlook:
    """Look at an offer as `ingest` would look at the upload.

    Raises:
        JudgeUnavailable, CatalogUnusable, StorageUnusable: nothing can be said just now.

    """
    exists = offer.sha256 is not None and bool(await library.catalog.find_content(offer.sha256))
    try:
        extension = names.extension(names.stored_name(offer.filename))
        door.check_extension(extension)
        if not offer.file_size:
            raise FileRefused("lora_empty", "The file is empty; was it still being written?")
    except _REFUSALS as refused:
        return Outlook((refused,), exists, None)
    no_room = _no_room(offer, storage, await library.store.free_bytes())
    try:
        judgement = await _judged(offer, extension, door)
    except FileRefused as refused:
        return Outlook((refused, *no_room), exists, None)
    return Outlook(no_room, exists, None if no_room else judgement)


def _no_room(offer: Offer, storage: StorageConfig, free: int) -> tuple[LoraServerError, ...]:
    if offer.file_size > storage.max_file_size:
        return (UploadTooLarge(storage.max_file_size),)
    return (StorageFull(),) if free - offer.file_size < storage.min_free_space else ()


async def _judged(offer: Offer, extension: str, door: Door) -> Judgement | None:
    if offer.header is None or extension != names.SAFETENSORS:
        return None  # what a pickle is, only the whole of it can tell
    if not offer.header:
        raise FileRefused("lora_truncated", "The header was announced and is not there.")
    fd = await asyncio.to_thread(opened_memory, offer.header)
    try:
        return await door.judge_head(fd, extension, offer.file_size)
    finally:
        os.close(fd)
