"""Requests that attack, and what is left of the server after them."""

import asyncio
import re

from tests.server import ADMIN, Server
from tests.wire import (
    BOUNDARY,
    body,
    connected,
    file_part,
    left_nothing,
    upload,
)

UPLOAD = "POST /api/v1/admin/lora/upload HTTP/1.1\r\nHost: x\r\n"
UPLOAD += f"Authorization: {ADMIN['Authorization']}\r\n"
UPLOAD += f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
FORM = body(file_part())


async def answered(server: Server, request: bytes, *more: bytes) -> bytes:
    """Send bytes, and return all that comes back within a moment."""
    async with connected(server) as connection:
        received = b""
        try:
            await connection.send(request, *more, pause=0.02)
            async with asyncio.timeout(0.5):
                while chunk := await connection.reader.read(65536):
                    received += chunk
        except (TimeoutError, ConnectionError):
            pass
        return received


def statuses(received: bytes) -> list[int]:
    """Return the status of every answer in what came back."""
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", received)]


async def survives(server: Server) -> bool:
    """Tell whether the server still takes an upload, and nothing was left by what came before."""
    clean = await left_nothing(server)
    return clean and (await upload(server, FORM)).status == 200


def post(lines: str, content: bytes = FORM) -> bytes:
    """Return an upload with further header lines, its length among them."""
    return (UPLOAD + lines + "\r\n\r\n").encode("latin-1") + content


LENGTH = f"Content-Length: {len(FORM)}"
