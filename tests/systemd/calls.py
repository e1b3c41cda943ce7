"""Requests to the server in a machine, sent from the machine's own network."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp

from tests.loras import lora
from tests.systemd.machine import Machine
from tests.wire import BOUNDARY, body, file_part, part

T = TypeVar("T")

ORIGIN = "http://127.0.0.1:8080"
API = f"{ORIGIN}/api/v1"
ADDRESS = "127.0.0.7"  # of the client; told from a proxy's
LARGEST = 500 * 1024 * 1024
BLOCK = 4 * 1024 * 1024
TAIL = 1024 * 1024  # what an upload keeps back until it is let through
MULTIPART = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


class Caller:
    """An admin; every request has a connection of its own."""

    def __init__(self, machine: Machine, *options: str, subject: str = "tester") -> None:
        mint = ("lora-server", "token", "mint", "--subject", subject, "--scope", "admin")
        self.headers = {"Authorization": f"Bearer {machine.run(*mint, *options)}"}
        self._machine = machine

    def calls(self, work: Callable[[aiohttp.ClientSession], Coroutine[Any, Any, T]]) -> T:
        """Run work with a client in the machine's network."""

        async def with_client() -> T:
            async with self.client() as client:
                return await work(client)

        return self._machine.within(with_client)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[aiohttp.ClientSession]:
        """Open a client."""
        connector = aiohttp.TCPConnector(
            force_close=True, limit=0, ssl=False, local_addr=(ADDRESS, 0)
        )
        timeout = aiohttp.ClientTimeout(total=120)
        async with aiohttp.ClientSession(
            connector=connector, headers=self.headers, timeout=timeout
        ) as session:
            yield session

    def get(self, path: str = "/admin/lora") -> tuple[int, Any]:
        """Return status and JSON of a GET."""

        async def get(client: aiohttp.ClientSession) -> tuple[int, Any]:
            async with client.get(API + path) as answer:
                return answer.status, await answer.json()

        return self.calls(get)

    def delete(self, partial_path: str) -> tuple[int, Any]:
        """Delete a file, to the bin."""

        async def delete(client: aiohttp.ClientSession) -> tuple[int, Any]:
            async with client.delete(
                f"{API}/admin/lora", json={"partial_path": partial_path}
            ) as answer:
                return answer.status, await answer.json()

        return self.calls(delete)

    def upload(self, name: str, size: int = 1000) -> tuple[int, Any]:
        """Upload a LoRA."""

        async def upload(client: aiohttp.ClientSession) -> tuple[int, Any]:
            return await post(client, form(name, size))

        return self.calls(upload)


def form(name: str, size: int = 1000) -> bytes:
    """Return the body of an upload."""
    weights = file_part(content=lora(size), filename=f"{name}.safetensors")
    return body(part("entity_type", "styles"), weights)


async def post(
    client: aiohttp.ClientSession,
    data: Any,
    headers: dict[str, str] | None = None,
    origin: str = ORIGIN,
) -> tuple[int, Any]:
    """Send an upload."""
    url = f"{origin}/api/v1/admin/lora/upload"
    async with client.post(url, data=data, headers=MULTIPART | (headers or {})) as answer:
        return answer.status, await answer.json()


class HeldUpload:
    """An upload whose last bytes are held back until `let_through`."""

    def __init__(self, client: aiohttp.ClientSession, content: bytes, origin: str = ORIGIN) -> None:
        self._content = memoryview(content)
        self._waiting = asyncio.Event()
        self._through = asyncio.Event()
        length = {"Content-Length": str(len(content))}
        self.answer = asyncio.create_task(post(client, self._blocks(), length, origin))

    async def waiting(self) -> None:
        """Wait until only the last bytes are to be sent."""
        await self._waiting.wait()

    def let_through(self) -> None:
        """Send the rest."""
        self._through.set()

    async def _blocks(self) -> AsyncIterator[memoryview]:
        kept = len(self._content) - min(TAIL, len(self._content) // 2)
        for begin in range(0, kept, BLOCK):
            yield self._content[begin : min(begin + BLOCK, kept)]
        self._waiting.set()
        await self._through.wait()
        yield self._content[kept:]
