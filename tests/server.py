"""A real server on a real socket and a real directory, for tests."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from lora_server.catalog import Selection
from lora_server.config import Config
from lora_server.jwt_keys import Key
from lora_server.library import Library
from lora_server.records import Place
from lora_server.revocations import Revocations
from lora_server.tokens import mint
from lora_server.web.app import create_app
from lora_server.web.keys import DRAIN, LIBRARY
from lora_server.web.serving import listening

KEY = Key(kid=None, algorithm="HS256", material=b"a test key of at least 32 bytes, no more")


def token(subject: str = "tester", scope: str = "") -> str:
    """Return a token that the test server accepts."""
    return mint(KEY, subject=subject, scope=scope, ttl_s=3600, now=time.time())


def bearer(subject: str = "tester", scope: str = "") -> dict[str, str]:
    """Return the headers of a request by a principal."""
    return {"Authorization": f"Bearer {token(subject, scope)}"}


ADMIN = bearer("admin", "admin")
READER = bearer("reader", "read")
UPLOADER = bearer("uploader")


def make_config(folder: Path, **sections: dict[str, Any]) -> Config:
    """Return settings with everything under `folder`, on a port that the kernel picks."""
    storage = {
        "models_dir": folder / "models" / "loras",
        "bin_dir": folder / "bin" / "models" / "loras",
        "staging_dir": folder / "staging",
        "state_dir": folder / "state",
        "min_free_space": 0,
    }
    sections["storage"] = storage | sections.get("storage", {})
    sections["server"] = {"port": 0} | sections.get("server", {})
    # Who is about evaluations says so: a worker for each server would take most of the time.
    sections["evaluation"] = {"enabled": False} | sections.get("evaluation", {})
    return Config(**sections)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs in the test's own event loop, and a client session for it."""

    app: web.Application
    config: Config
    port: int
    session: aiohttp.ClientSession

    @property
    def origin(self) -> str:
        """Return scheme, host and port."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def api(self) -> str:
        """Return the URL that the API's paths follow."""
        return self.origin + self.config.server.base_path

    @property
    def library(self) -> Library:
        """Return the library behind the server."""
        return self.app[LIBRARY]

    @property
    def models(self) -> Path:
        """Return the folder that inference reads."""
        return self.config.storage.models_dir

    @property
    def bin(self) -> Path:
        """Return the folder of deleted files."""
        return self.config.storage.bin_dir

    @property
    def in_flight(self) -> int:
        """Return how many uploads are being taken in."""
        return self.app[DRAIN].in_flight

    async def empty(self) -> None:
        """Remove everything that is stored, once every upload has ended."""
        while self.in_flight:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.01)
        for lora in (await self.library.catalog.page(Selection(limit=1000))).items:
            await self.library.move_to_bin(lora.location, "test")
        for lora in (await self.library.catalog.page(Selection(Place.BIN, limit=1000))).items:
            await self.library.purge(lora.location)

    def files(self) -> list[Path]:
        """Return every file in the three trees; staging leftovers show up here too."""
        storage = self.config.storage
        roots = (storage.models_dir, storage.bin_dir, storage.staging_dir)
        return sorted(path for root in roots for path in root.rglob("*") if path.is_file())


def _built(config: Config) -> web.Application:
    return create_app(config, [KEY], Revocations(config.auth.revoked_file))


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[Server]:
    """Run a server with these settings until the end of the block."""
    # In a thread, since the command builds it before there is a loop that could be blocked.
    app = await asyncio.to_thread(_built, config)
    async with listening(app) as port, aiohttp.ClientSession() as session:
        yield Server(app, config, port, session)


def form(
    content: bytes | BytesIO, filename: str = "ink.safetensors", **fields: str
) -> aiohttp.FormData:
    """Return an upload as a browser's FormData sends it: fields first, then the file."""
    data = aiohttp.FormData(quote_fields=False)
    for name, value in fields.items():
        data.add_field(name, value)
    data.add_field("file", content, filename=filename, content_type="application/octet-stream")
    return data
