"""Connections of the client to servers of the tests, and files to send."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from lora_server.client.address import Address
from lora_server.client.connection import Connection
from lora_server.client.errors import ClientError
from lora_server.client.local_files import LocalFile
from lora_server.client.uploads import Terms, Uploaded, Uploader
from lora_server.client.watcher import NobodyWatches
from tests.calls import lora_bytes
from tests.server import token

SILENT = NobodyWatches()
AS_ADMIN = Terms("styles", versioned=True, again=False, as_admin=True)
AS_ANYBODY = Terms("styles", versioned=True, again=False, as_admin=False)


class Listening(Protocol):
    """Whatever listens on a port of this machine."""

    @property
    def port(self) -> int:
        """Return the port."""


@asynccontextmanager
async def connected(
    server: Listening,
    scope: str = "admin",
    *,
    patience_s: float = 5,
    waits: list[str] | None = None,
) -> AsyncIterator[Connection]:
    """Connect as a principal with a scope; why it waits is noted in `waits`."""

    def tell(error: ClientError, _wait_s: float) -> None:
        if waits is not None:
            waits.append(str(error))

    address = Address.parsed(f"http://127.0.0.1:{server.port}")
    async with Connection.opened(
        address, token("client", scope), patience_s=patience_s, tell=tell
    ) as connection:
        yield connection


def written(folder: Path, name: str = "ink.safetensors", seed: int = 0) -> Path:
    """Write a small LoRA."""
    path = folder / name
    path.write_bytes(lora_bytes(seed))
    return path


async def uploaded(connection: Connection, path: Path, terms: Terms = AS_ADMIN) -> Uploaded:
    """Bring one file to the server."""
    async with LocalFile.opened(path) as file:
        return await Uploader(connection, terms).upload(file, SILENT)
