"""A server that says what it was told to, one answer for each connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Scripted:
    """Gives its answers in turn, the last one for ever; counts what it was asked."""

    def __init__(self, *answers: bytes) -> None:
        self.asked: list[bytes] = []
        self.port = 0
        self._answers = answers

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(self._answers[min(len(self.asked), len(self._answers)) - 1])
        await writer.drain()
        writer.close()
        await writer.wait_closed()


def answer(status: str, body: bytes = b"", **headers: str) -> bytes:
    """Return one answer; `Retry_After="1"` is a header."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


@asynccontextmanager
async def scripted(*answers: bytes) -> AsyncIterator[Scripted]:
    """Run such a server until the end of the block."""
    server = Scripted(*answers)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    async with listener:
        yield server
