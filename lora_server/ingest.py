"""An upload as a sentence: stage, check the form and the digest, commit, catalogue."""

import hmac
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from lora_server import names
from lora_server.errors import FieldInvalid, FileRefused
from lora_server.library import Library
from lora_server.records import (
    Filename,
    Override,
    Principal,
    Source,
    StoredLora,
)
from lora_server.staging import StagedFile

Timed = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class UploadForm:
    """The fields around the file, checked."""

    entity_type: str
    versioned: bool  # use_safe_filename: a taken name becomes a version instead of an error
    sha256: str | None  # what the client says the digest is, lower-case hex


class Incoming(Protocol):
    """An upload that is still arriving; the three steps are taken in this order, once each."""

    async def open(self) -> str:
        """Return the client's file name, as soon as the file part begins."""

    def blocks(self) -> AsyncIterator[list[bytes]]:
        """Yield the file in blocks of about 1 MiB, each a list of chunks."""

    async def finish(self) -> UploadForm:
        """Return the form, once the body is complete."""


async def ingest(
    upload: Incoming, uploader: Principal, *, library: Library, timed: Timed
) -> StoredLora:
    """Take an upload in; a refused one leaves nothing, an answered one is durable.

    Raises:
        LoraServerError: any of the refusals of `errors`; nothing is left of the upload.

    """
    filename = names.client_filename(await upload.open())
    name = names.stored_name(filename)
    async with library.store.stage() as staged:
        with timed("receive"):
            async for block in upload.blocks():
                await staged.write(block)
            form = await upload.finish()
        with timed("seal"):
            await staged.seal()
        _check_content(staged, form)
        if earlier := await _earlier_result(form, uploader, filename, library):
            return earlier
        with timed("publish"):
            lora = _arrival(staged, name, filename, uploader, library.now)
            return await library.publish(staged, lora, form.entity_type, versioned=form.versioned)


def _check_content(staged: StagedFile, form: UploadForm) -> None:
    if not staged.size:
        raise FileRefused("lora_empty", "The file is empty; was it still being written?")
    if form.sha256 and not hmac.compare_digest(form.sha256, staged.sha256):
        message = f"The file's SHA-256 is {staged.sha256}, not the one declared; send it again"
        raise FieldInvalid(("body", "sha256"), message, "digest_mismatch")


async def _earlier_result(
    form: UploadForm, uploader: Principal, filename: str, library: Library
) -> StoredLora | None:
    """Return what a first try stored whose answer was lost; only a declared digest proves that."""
    if form.sha256 is None:
        return None
    earlier = await library.catalog.find_upload(
        uploader.subject, form.entity_type, filename, form.sha256
    )
    # Somebody may have taken the file away by hand a moment ago.
    if earlier and await library.store.facts(earlier.location) == earlier.facts:
        return earlier
    return None


def _arrival(
    staged: StagedFile, name: Filename, filename: str, uploader: Principal, now: int
) -> StoredLora:
    return StoredLora(
        id=0,
        location=staged.location,
        home_name=name,
        filename=filename,
        facts=staged.facts,
        sha256=staged.sha256,
        uploaded_sha256=staged.sha256,
        uploaded_size=staged.size,
        uploaded_by=uploader.subject,
        source=Source.UPLOAD,
        uploaded_at=now,
        inspection=None,
        verdict=None,
        override=Override(),
        deleted_at=None,
        deleted_by=None,
    )
