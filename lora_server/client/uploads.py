"""A file goes up: asked first, hashed, looked for, sent; a lost answer never makes a second copy.

The digest is declared with every upload, and the server checks it before it publishes. That is
what makes an upload repeatable: the same principal, name, type and digest get the first result.
"""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum

from lora_server.client import library
from lora_server.client.answers import Lora, Outlook
from lora_server.client.connection import ANSWER_S, Connection, Idle, Response, read
from lora_server.client.errors import Refused
from lora_server.client.local_files import LocalFile
from lora_server.client.refusals import complaint
from lora_server.client.watcher import Step, Watcher

_PASSES_BY_ITSELF = "storage_full"  # what is stored already needs no room
_UNPROCESSABLE = 422


@dataclass(frozen=True, slots=True)
class Terms:
    """How files are to be stored."""

    entity_type: str | None
    versioned: bool  # a taken name becomes a version instead of an error
    again: bool  # send also what is stored already
    as_admin: bool  # the token opens the admin paths


class Outcome(StrEnum):
    """What came of a file."""

    STORED = "stored"
    PRESENT = "present"  # its bytes were stored already, and nothing was sent


@dataclass(frozen=True, slots=True)
class Uploaded:
    """Where a file is now; `lora` is None where only an admin may know."""

    outcome: Outcome
    sha256: str
    lora: Lora | None


class Uploader:
    """Brings files to one server on the same terms, several at once if asked to."""

    def __init__(self, connection: Connection, terms: Terms) -> None:
        self._connection = connection
        self._terms = terms
        self._one_by_one: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # by digest

    async def upload(self, file: LocalFile, watcher: Watcher) -> Uploaded:
        """Bring a file to the server, unless its bytes are there.

        Raises:
            Refused: the server would not take it, or did not.
            LocalProblem: it cannot be read.
            ClientError: as `Connection.ask`.

        """
        watcher.begins(Step.ASK, None)
        refused = _refused(await library.preflight(self._connection, file, self._terms.entity_type))
        if refused and refused.code != _PASSES_BY_ITSELF:
            raise refused
        sha256 = await file.sha256(watcher)
        watcher.begins(Step.ASK, None)
        async with self._one_by_one[sha256]:  # or twins would both be found missing
            if not self._terms.again and await library.has(self._connection, sha256):
                return Uploaded(Outcome.PRESENT, sha256, await self._twin(sha256))
            if refused:
                raise refused
            return await self._sent(file, sha256, watcher)

    async def _twin(self, sha256: str) -> Lora | None:
        twins = await library.find(self._connection, sha256) if self._terms.as_admin else ()
        return twins[0] if twins else None

    async def _sent(self, file: LocalFile, sha256: str, watcher: Watcher) -> Uploaded:
        path = ("admin", "lora", "upload") if self._terms.as_admin else ("lora", "upload")
        url = self._connection.address.of(*path)
        form = Form(file, sha256, self._terms)

        async def once() -> Response:
            watcher.begins(Step.SEND, file.size)
            idle = Idle()
            async with self._connection.sent(
                "POST", url, headers=form.headers, data=form.body(watcher, idle), idle=idle
            ) as (response, moved):
                return await read(response, moved)

        answer = await self._connection.patience.attempts(once, repeatable=True)
        return Uploaded(Outcome.STORED, sha256, Lora.of(answer.data))


def _refused(outlook: Outlook) -> Refused | None:
    if not outlook.reasons:
        return None
    said = "; ".join(complaint(reason) for reason in outlook.reasons)
    code = str(outlook.reasons[0].get("type", ""))
    return Refused(said or "the server would not take it", status=_UNPROCESSABLE, code=code)


class Form:
    """A multipart/form-data body of known length (RFC 7578), which is never held whole."""

    def __init__(self, file: LocalFile, sha256: str, terms: Terms) -> None:
        self._file = file
        self._boundary = secrets.token_hex(24)
        fields = {
            "use_safe_filename": "true" if terms.versioned else "false",
            "sha256": sha256,
            **({"entity_type": terms.entity_type} if terms.entity_type else {}),
        }
        lead = [self._part(f'name="{name}"', value) for name, value in fields.items()]
        name = f'name="file"; filename="{_quoted(file.name)}"'
        lead.append(self._part(name, "", "Content-Type: application/octet-stream\r\n"))
        self._before = "".join(lead).removesuffix("\r\n").encode()
        self._after = f"\r\n--{self._boundary}--\r\n".encode()

    @property
    def headers(self) -> dict[str, str]:
        """Return what the request says of the body."""
        length = len(self._before) + self._file.size + len(self._after)
        return {
            "Content-Type": f"multipart/form-data; boundary={self._boundary}",
            "Content-Length": str(length),
        }

    async def body(self, watcher: Watcher, idle: Idle) -> AsyncIterator[bytes]:
        """Yield the body, and tell of the file's bytes once they are on their way."""
        yield self._before
        async for piece in self._file.pieces():
            yield piece
            idle.moved()
            watcher.advances(len(piece))
        idle.moved(ANSWER_S)
        watcher.begins(Step.CHECK, None)
        yield self._after

    def _part(self, disposition: str, value: str, more: str = "") -> str:
        head = f"--{self._boundary}\r\nContent-Disposition: form-data; {disposition}\r\n{more}"
        return f"{head}\r\n{value}\r\n"


def _quoted(name: str) -> str:
    """Escape a file name as browsers do (WHATWG, multipart/form-data encoding algorithm)."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
