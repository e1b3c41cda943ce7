"""What tests share: a server, and a guard against blocking its event loop."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from blockbuster import BlockBuster, blockbuster_ctx

from lora_server.config import StorageConfig
from lora_server.library import Library
from lora_server.store import Store
from tests.libraries import opened_library, storage_in
from tests.server import Server, make_config, running


@pytest.fixture(autouse=True)
def blockbuster() -> Iterator[BlockBuster]:
    """Fail a test whose event loop runs a blocking call of the server."""
    with blockbuster_ctx("lora_server") as guard:
        # Arithmetic on strings where the path is absolute; SQLAlchemy does it when it connects.
        guard.functions["os.path.abspath"].deactivate()
        yield guard


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """Run a server on an empty directory."""
    async with running(make_config(tmp_path)) as running_server:
        yield running_server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def _shared_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with running(make_config(tmp_path_factory.mktemp("server"))) as running_server:
        yield running_server


@pytest_asyncio.fixture(loop_scope="module")
async def shared(_shared_server: Server) -> AsyncIterator[Server]:
    """Lend the one server of a module, and empty it afterwards; the module's loop runs it."""
    yield _shared_server
    await _shared_server.empty()


@pytest.fixture
def storage(tmp_path: Path) -> StorageConfig:
    """Return the settings of trees that do not exist yet."""
    return storage_in(tmp_path)


@pytest.fixture
async def store(storage: StorageConfig) -> AsyncIterator[Store]:
    """Own empty trees."""
    async with Store.opened(storage) as opened:
        yield opened


@pytest.fixture
async def library(storage: StorageConfig) -> AsyncIterator[Library]:
    """Own empty trees and their catalogue."""
    async with opened_library(storage) as opened:
        yield opened
