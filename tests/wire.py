"""Requests as bytes, for what no well-behaved client sends."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from lora_server.config import Config
from tests.loras import lora
from tests.server import ADMIN, Server

BOUNDARY = "BOUNDARY"
NAME = "ink.safetensors"
WEIGHTS = lora()
EMPTY_LIST = {"data": [], "count": 0}


def part(name: str, value: bytes | str, *lines: str, disposition: str | None = None) -> bytes:
    """Return one part, with further header lines or a Content-Disposition of its own."""
    content = value if isinstance(value, bytes) else value.encode()
    first = disposition or f'form-data; name="{name}"'
    head = "\r\n".join([f"Content-Disposition: {first}", *lines])
    return f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + content + b"\r\n"


def file_part(*lines: str, content: bytes = WEIGHTS, filename: str = NAME) -> bytes:
    """Return the part of the file, with further header lines."""
    disposition = f'form-data; name="file"; filename="{filename}"'
    return part("file", content, *lines, disposition=disposition)


def body(*parts: bytes) -> bytes:
    """Return the parts with the closing boundary."""
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


class Listening(Protocol):
    """A server in this process or another one."""

    @property
    def port(self) -> int:
        """Return the port it listens on."""

    @property
    def config(self) -> Config:
        """Return its settings."""


def head(
    server: Listening,
    headers: dict[str, str] | None = None,
    *,
    method: str = "POST",
    path: str = "/admin/lora/upload",
    version: str = "1.1",
) -> bytes:
    """Return the head of an upload by an admin; a header that is set to "" is left out."""
    fields = {
        "Host": "test",
        "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
        **ADMIN,
        **(headers or {}),
    }
    lines = [f"{name}: {value}" for name, value in fields.items() if value]
    target = server.config.server.base_path + path
    return "\r\n".join([f"{method} {target} HTTP/{version}", *lines, "", ""]).encode()


def chunked(pieces: Iterable[bytes]) -> bytes:
    """Return a body in the chunked transfer coding, one chunk for each piece."""
    framed = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece)
    return framed + b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """One final response."""

    status: int
    headers: dict[str, str]
    body: bytes
    interim: int  # how many 100s came before it

    @property
    def json(self) -> Any:
        """Return the body, parsed."""
        return json.loads(self.body)


class Connection:
    """One TCP connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *pieces: bytes, pause: float = 0) -> None:
        """Send pieces as packets of their own."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(pause)

    async def answer(self, within: float = 10) -> Answer:
        """Read the next final response."""
        async with asyncio.timeout(within):
            interim = -1
            status = 100
            while status == 100:
                lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                status = int(lines[0].split(" ")[1])
                interim += 1
            headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
            length = int(headers.get("content-length", "0"))
            return Answer(status, headers, await self.reader.readexactly(length), interim)

    async def closed(self, within: float = 10) -> bool:
        """Tell whether the server closes the connection in time, without another byte."""
        try:
            async with asyncio.timeout(within):
                return not await self.reader.read(1)
        except ConnectionError:
            return True
        except TimeoutError:
            return False


@asynccontextmanager
async def connected(server: Listening) -> AsyncIterator[Connection]:
    """Open a connection to a server for the length of the block."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.transport.abort()


async def upload(
    server: Listening, *pieces: bytes, headers: dict[str, str] | None = None
) -> Answer:
    """Send an upload whose body comes in these pieces."""
    length = {"Content-Length": str(sum(map(len, pieces)))}
    async with connected(server) as connection:
        await connection.send(head(server, length | (headers or {})), *pieces)
        return await connection.answer()


async def until(condition: Callable[[], bool], within: float = 10) -> None:
    """Wait for something that happens on the other side of a connection."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - there is no event on this side
            await asyncio.sleep(0.01)


async def listed(server: Server) -> Any:
    """Return the list of everything stored."""
    async with server.session.get(f"{server.api}/admin/lora", headers=ADMIN) as response:
        return await response.json()


async def left_nothing(server: Server) -> bool:
    """Tell whether no file, no row and no slot is left of anything."""
    await until(lambda: not server.in_flight)
    return not server.files() and await listed(server) == EMPTY_LIST
