"""Downloads by the client: resumed, checked, and never over another file."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from lora_server.client.connection import Connection
from lora_server.client.downloads import download
from lora_server.client.errors import LocalProblem, NoServer, NotFound
from tests.calls import stored
from tests.client.support import SILENT, connected
from tests.loras import lora
from tests.proxy import Proxy, proxied
from tests.scripted import answer, scripted
from tests.server import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "styles/ink.safetensors"
GET = b"GET /api/v1/lora/styles/"


def _files(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.is_file()]


@pytest_asyncio.fixture(loop_scope="module")
async def proxy(shared: Server) -> AsyncIterator[Proxy]:
    """Put a proxy before a server with one LoRA."""
    await stored(shared)
    async with proxied(shared.port) as proxy:
        yield proxy


@pytest_asyncio.fixture(loop_scope="module")
async def connection(proxy: Proxy) -> AsyncIterator[Connection]:
    """Connect as an admin."""
    async with connected(proxy) as opened:
        yield opened


async def test_an_admin_gets_the_file_itself(
    shared: Server, connection: Connection, tmp_path: Path
) -> None:
    """Byte for byte, checked against the digest, and nothing else is left."""
    done = await download(connection, PATH, tmp_path / "a", SILENT, force=False)

    assert (tmp_path / "a").read_bytes() == shared.files()[0].read_bytes()
    assert done.sha256 == hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest()
    assert _files(tmp_path) == ["a"]


async def test_what_breaks_off_is_gone_on_with(
    shared: Server, proxy: Proxy, connection: Connection, tmp_path: Path
) -> None:
    """The bytes that came are not asked for again."""
    proxy.lose[GET], proxy.keep = 1, 3000
    await download(connection, PATH, tmp_path / "a", SILENT, force=False)

    assert (tmp_path / "a").read_bytes() == shared.files()[0].read_bytes()
    assert [b"Range: bytes=3000-" in head for head in proxy.asked(GET)] == [False, True]


async def test_an_earlier_command_is_gone_on_with(
    shared: Server, proxy: Proxy, connection: Connection, tmp_path: Path
) -> None:
    """So is what another run left in NAME.part."""
    content = shared.files()[0].read_bytes()
    (tmp_path / "a.part").write_bytes(content[:5000])
    await download(connection, PATH, tmp_path / "a", SILENT, force=False)

    assert (tmp_path / "a").read_bytes() == content
    assert b"Range: bytes=5000-" in proxy.asked(GET)[0]


@pytest.mark.parametrize("size", [10, 9178, 20_000])
async def test_a_part_of_something_else_is_begun_anew(
    shared: Server, connection: Connection, tmp_path: Path, size: int
) -> None:
    """What does not fit together by its digest is fetched from the beginning."""
    (tmp_path / "a.part").write_bytes(b"x" * size)
    await download(connection, PATH, tmp_path / "a", SILENT, force=False)

    assert (tmp_path / "a").read_bytes() == shared.files()[0].read_bytes()


async def test_nothing_is_overwritten(connection: Connection, tmp_path: Path) -> None:
    """A file that exists stays; --force replaces it."""
    target = tmp_path / "a"
    target.write_bytes(b"mine")
    with pytest.raises(LocalProblem, match="exists; --force"):
        await download(connection, PATH, target, SILENT, force=False)

    assert target.read_bytes() == b"mine"
    await download(connection, PATH, target, SILENT, force=True)
    assert target.read_bytes() != b"mine"


async def test_the_read_scope_gets_the_tensors(
    shared: Server, proxy: Proxy, tmp_path: Path
) -> None:
    """Without the training metadata there is no digest, and what breaks off is begun anew."""
    proxy.lose[GET], proxy.keep = 1, 3000
    async with connected(proxy, "read") as reader:
        done = await download(reader, PATH, tmp_path / "a", SILENT, force=False)

    whole = shared.files()[0].read_bytes()
    assert done.sha256 is None
    assert (tmp_path / "a").read_bytes()[-6000:] == whole[-6000:]
    assert b"sd_v1" not in (tmp_path / "a").read_bytes()
    assert not any(b"Range:" in head for head in proxy.asked(GET))


async def test_a_name_that_is_not_there_leaves_nothing(
    connection: Connection, tmp_path: Path
) -> None:
    """No empty file stays behind."""
    with pytest.raises(NotFound, match="lora-server list"):
        await download(connection, "styles/no.pt", tmp_path / "a", SILENT, force=False)

    assert not _files(tmp_path)


async def test_other_bytes_than_announced_are_no_file(tmp_path: Path) -> None:
    """A file that does not have its digest never gets its name."""
    digest = "sha-256=:" + "A" * 43 + "=:"
    lying = answer("200 OK", lora(), Repr_Digest=digest, ETag='"e"')
    head = lying.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    async with scripted(head, lying) as liar, connected(liar) as connection:
        with pytest.raises(NoServer, match="other bytes than announced"):
            await download(connection, PATH, tmp_path / "a", SILENT, force=False)

    assert not _files(tmp_path)
    assert len(liar.asked) == 3
