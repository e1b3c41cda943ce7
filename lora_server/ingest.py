"""An upload as a sentence: stage, check the form and the digest, judge, commit, catalogue."""

import hmac
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass
from typing import Protocol

from lora_server import names
from lora_server.door import Door, Watch
from lora_server.errors import FieldInvalid, FileRefused
from lora_server.library import Library
from lora_server.records import (
    Filename,
    Judgement,
    Override,
    Principal,
    Source,
    StoredLora,
)
from lora_server.staging import StagedFile
from lora_server.uninterrupted import uninterrupted

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
    upload: Incoming, uploader: Principal, *, library: Library, door: Door, timed: Timed
) -> StoredLora:
    """Take an upload in; a refused one leaves nothing, an answered one is durable.

    Raises:
        LoraServerError: any of the refusals of `errors`; nothing is left of the upload.

    """
    filename = names.client_filename(await upload.open())
    name = names.stored_name(filename)
    extension = names.extension(name)
    door.check_extension(extension)
    async with library.store.stage() as staged:
        with timed("receive"):
            form = await _received(upload, staged, door.watch(staged, extension))
        _check_content(staged, form)
        if earlier := await _earlier_result(form, uploader, filename, library):
            return earlier
        with timed("judge"):
            judgement = await door.judge(staged.fd, extension)
        sent = _Sent(filename, staged.sha256, staged.size, uploader.subject, library.now)
        if door.converts(extension):
            with timed("convert"):
                return await _publish_converted(staged, sent, name, form, library, door)
        with timed("publish"):
            return await _publish(staged, sent, name, form, library, judgement)


async def _received(upload: Incoming, staged: StagedFile, watch: Watch) -> UploadForm:
    async for block in upload.blocks():
        await staged.write(block)
        await watch.look()
    form = await upload.finish()
    await staged.settle()
    return form


async def _publish(  # noqa: PLR0913, PLR0917 - what an upload is made of
    staged: StagedFile,
    sent: "_Sent",
    name: Filename,
    form: UploadForm,
    library: Library,
    judgement: Judgement,
) -> StoredLora:
    await staged.seal()
    lora = _arrival(staged, sent, name, judgement)
    publishing = library.publish(staged, lora, form.entity_type, versioned=form.versioned)
    return await uninterrupted(publishing, result_wins=True)  # a 503 would have it sent twice


async def _publish_converted(  # noqa: PLR0913, PLR0917
    staged: StagedFile,
    sent: "_Sent",
    name: Filename,
    form: UploadForm,
    library: Library,
    door: Door,
) -> StoredLora:
    """Store the same tensors as a safetensors file, which is judged as if it had been sent."""
    async with library.store.stage() as converted, aclosing(door.converted(staged.fd)) as pieces:
        async for piece in pieces:
            await converted.write([piece])
        await converted.settle()
        judgement = await door.judge(converted.fd, names.SAFETENSORS)
        safe_name = names.as_safetensors(name)
        return await _publish(converted, sent, safe_name, form, library, judgement)


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


@dataclass(frozen=True, slots=True)
class _Sent:
    """What the client sent, whatever is stored of it."""

    filename: str
    sha256: str
    size: int
    subject: str
    at: int


def _arrival(staged: StagedFile, sent: _Sent, name: Filename, judgement: Judgement) -> StoredLora:
    return StoredLora(
        id=0,
        location=staged.location,
        home_name=name,
        filename=sent.filename,
        facts=staged.facts,
        sha256=staged.sha256,
        uploaded_sha256=sent.sha256,
        uploaded_size=sent.size,
        uploaded_by=sent.subject,
        source=Source.UPLOAD,
        uploaded_at=sent.at,
        judgement=judgement,
        tensors_sha256=None,
        override=Override(),
        deleted_at=None,
        deleted_by=None,
    )
