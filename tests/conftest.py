"""What tests share: a server, and a guard against blocking its event loop."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster, blockbuster_ctx

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
