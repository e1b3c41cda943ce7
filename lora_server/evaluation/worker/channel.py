"""What travels over a UNIX socket: frames of JSON, the first one with file descriptors.

A task is one connection. The client sends a request; the worker answers with events while it
works, pieces of a text that nobody on the way has to understand, and at the end either `done`
with a few facts, or `failed`.
"""

import asyncio
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from lora_server.judge import wire

MAX_FDS = 24
MAX_TEXT_CHARS = 64 * 1024 * 1024

EVENT = "event"  # a frame that tells how far the task is
PIECE = "piece"  # a piece of the text
DONE = "done"  # the facts; the text is whole
FAILED = "failed"  # [code, message]: there will be no result

Message = dict[str, Any]


class Channel:
    """One end of a UNIX socket, which it owns.

    Raises:
        OSError: from any operation, when the other side is gone.
        wire.Malformed: what arrived is no frame.

    """

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(0)  # never wait: the event loop does
        self._connection = connection

    async def connect(self, path: str) -> None:
        """Connect to a listening socket."""
        await asyncio.get_running_loop().sock_connect(self._connection, path)

    async def send(self, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
        """Send a frame; descriptors may go with the first one of a connection only."""
        frame = wire.frame(message)
        # Nothing was sent before, so that the first bytes find room in the socket at once.
        sent = socket.send_fds(self._connection, [frame], fds) if fds else 0
        await asyncio.get_running_loop().sock_sendall(self._connection, frame[sent:])

    async def receive(self) -> Message | None:
        """Return the next frame; None when the other side has closed."""
        prefix = await self._receive(wire.LENGTH.size)
        if not prefix:
            return None
        return wire.message(await self._receive(wire.frame_length(prefix)))

    async def receive_request(self) -> tuple[Message, list[int]]:
        """Return the first frame and its descriptors, which the caller closes.

        Raises:
            EOFError: the other side closed without a word.

        """
        await self._readable()
        prefix, fds, flags, _ = socket.recv_fds(
            self._connection, wire.LENGTH.size, MAX_FDS, socket.MSG_CMSG_CLOEXEC
        )
        with ExitStack() as undone:
            for fd in fds:
                undone.callback(os.close, fd)
            _check(prefix, flags)
            prefix += await self._receive(wire.LENGTH.size - len(prefix))
            request = wire.message(await self._receive(wire.frame_length(prefix)))
            undone.pop_all()
        return request, fds

    async def closed(self) -> None:
        """Wait until the other side has closed, which says nothing more."""
        loop = asyncio.get_running_loop()
        try:
            while await loop.sock_recv(self._connection, 4096):
                pass
        except ConnectionError:
            return

    def close(self) -> None:
        """Close the socket; the other side sees the end."""
        self._connection.close()

    async def _receive(self, size: int) -> bytes:
        loop = asyncio.get_running_loop()
        received = bytearray()
        while len(received) < size:
            received += (more := await loop.sock_recv(self._connection, size - len(received)))
            if not more:
                if received:
                    raise wire.Malformed("a frame was cut off")
                break
        return bytes(received)

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._connection, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self._connection)


def _check(prefix: bytes, flags: int) -> None:
    if not prefix:
        raise EOFError("no request came")
    if flags & socket.MSG_CTRUNC:
        raise wire.Malformed(f"more than {MAX_FDS} descriptors came")


def answer_frames(facts: Mapping[str, Any], text: str) -> Iterator[Message]:
    """Yield the frames of what a task returns, the closing one last."""
    for begin in range(0, len(text), wire.PIECE_CHARS):
        yield {PIECE: text[begin : begin + wire.PIECE_CHARS]}
    yield {DONE: facts}
