"""A TCP proxy that loses things on purpose; it trusts that each request has its own connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

_PIECE = 64 * 1024
HELD_AFTER = 12_000_000


@dataclass
class Proxy:
    """Passes everything on, but for the answers that it is told to lose."""

    port_behind: int
    lose: dict[bytes, int] = field(default_factory=dict)  # start of a request line → how often
    keep: int = 0  # how many bytes of a lost answer come through
    hold: bytes = b"-"  # start of a request line; its body stands still after HELD_AFTER bytes
    gate: asyncio.Event = field(default_factory=asyncio.Event)  # until this is set
    heads: list[bytes] = field(default_factory=list)  # what was asked, head by head
    port: int = 0

    def asked(self, start: bytes) -> list[bytes]:
        """Return the heads of the requests that start like this."""
        return [head for head in self.heads if head.startswith(start)]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        behind, ahead = await asyncio.open_connection("127.0.0.1", self.port_behind)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            ahead.write(head)
            held = self.gate if head.startswith(self.hold) else None
            sending = asyncio.create_task(_sent(reader, ahead, held))
            await self._answer(head, behind, writer)
            sending.cancel()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            for end in (writer, ahead):
                end.transport.abort()

    async def _answer(
        self, head: bytes, behind: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Pass an answer on, or wait until it is there and lose it."""
        for start, times in self.lose.items():
            if head.startswith(start) and times:
                self.lose[start] = times - 1
                kept = await behind.readuntil(b"\r\n\r\n")
                if self.keep:
                    writer.write(kept + await behind.readexactly(self.keep))
                    await writer.drain()
                    writer.close()  # an abort could lose what was kept, too
                    await writer.wait_closed()
                return
        await _pumped(behind, writer)
        writer.close()
        await writer.wait_closed()


async def _sent(
    reader: asyncio.StreamReader, ahead: asyncio.StreamWriter, gate: asyncio.Event | None
) -> None:
    await _pumped(reader, ahead, gate)
    ahead.transport.abort()  # the client is gone, and the server has to notice


async def _pumped(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, gate: asyncio.Event | None = None
) -> None:
    passed = 0
    with suppress(ConnectionError):
        while piece := await source.read(_PIECE):
            target.write(piece)
            await target.drain()
            passed += len(piece)
            if gate and passed > HELD_AFTER:
                await gate.wait()


@asynccontextmanager
async def proxied(port: int, **lose: int) -> AsyncIterator[Proxy]:
    """Put a proxy before a server; `POST=1` loses the answer to the first POST."""
    proxy = Proxy(port, {f"{method} ".encode(): times for method, times in lose.items()})
    listener = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = listener.sockets[0].getsockname()[1]
    async with listener:
        yield proxy
