"""Uploads by the client: sent once, stored once, whatever happens on the way."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from lora_server.client import library
from lora_server.client.answers import Outlook
from lora_server.client.errors import AnswerLost, LocalProblem, NotFound, Refused, Unreachable
from lora_server.client.local_files import LocalFile
from lora_server.client.uploads import Outcome, Uploader
from tests.client.support import AS_ADMIN, AS_ANYBODY, SILENT, connected, uploaded, written
from tests.loras import lora
from tests.proxy import proxied
from tests.server import Server, make_config, running
from tests.wire import left_nothing

pytestmark = pytest.mark.asyncio(loop_scope="module")

UPLOAD = b"POST /api/v1/admin/lora/upload"


@pytest.fixture
def server(shared: Server) -> Server:
    """Use one server for the whole module."""
    return shared


async def test_an_upload_is_stored_under_its_name(server: Server, tmp_path: Path) -> None:
    """What the server answers is what the client hands on, and the bytes are the file's."""
    path = written(tmp_path, 'a "b" ü.safetensors')
    async with connected(server) as connection:
        done = await uploaded(connection, path)

    assert done.outcome is Outcome.STORED
    assert done.lora is not None
    assert server.files()[0].read_bytes() == path.read_bytes()
    assert server.files()[0].name.endswith("ü.safetensors")


async def test_without_the_admin_scope_it_goes_to_the_open_path(
    server: Server, tmp_path: Path
) -> None:
    """Any token will do, and the client finds out which kind it has."""
    async with connected(server, "") as connection:
        assert not await library.may_administer(connection)
        done = await uploaded(connection, written(tmp_path), AS_ANYBODY)

    assert done.lora is not None
    assert done.lora.partial_path == "styles/ink.safetensors"


async def test_bytes_that_are_there_are_not_sent(server: Server, tmp_path: Path) -> None:
    """The same content under another name is found by its digest; an admin learns where."""
    async with proxied(server.port) as proxy, connected(proxy) as connection:
        await uploaded(connection, written(tmp_path))
        again = await uploaded(connection, written(tmp_path, "other.safetensors"))
        anybody = await uploaded(connection, tmp_path / "ink.safetensors", AS_ANYBODY)

    assert (again.outcome, anybody.outcome) == (Outcome.PRESENT, Outcome.PRESENT)
    assert again.lora is not None
    assert again.lora.partial_path == "styles/ink.safetensors"
    assert anybody.lora is None
    assert len(proxy.asked(UPLOAD)) == 1


async def test_twins_that_go_up_together_are_stored_once(server: Server, tmp_path: Path) -> None:
    """The second of two equal files waits for the first, and is then found there."""
    paths = [written(tmp_path, name) for name in ("a.safetensors", "b.safetensors")]

    async with connected(server) as connection:
        uploader = Uploader(connection, AS_ADMIN)

        async def one(path: Path) -> Outcome:
            async with LocalFile.opened(path) as file:
                return (await uploader.upload(file, SILENT)).outcome

        outcomes = await asyncio.gather(*map(one, paths))

    assert sorted(outcomes) == [Outcome.PRESENT, Outcome.STORED]
    assert len(server.files()) == 1


@pytest.mark.parametrize("versioned", [True, False])
async def test_a_lost_answer_makes_no_second_version(
    server: Server, tmp_path: Path, versioned: object
) -> None:
    """A connection that breaks after the last byte: sent again, answered as the first time."""
    waits: list[str] = []
    terms = replace(AS_ADMIN, versioned=bool(versioned))
    path = written(tmp_path)
    async with proxied(server.port) as proxy, connected(proxy, waits=waits) as connection:
        proxy.lose[UPLOAD] = 1
        done = await uploaded(connection, path, terms)

    assert len(proxy.asked(UPLOAD)) == 2
    assert len(waits) == 1
    assert done.lora is not None
    assert done.lora.partial_path == "styles/ink.safetensors"
    assert [file.name for file in server.files()] == ["ink.safetensors"]


async def test_answers_that_are_always_lost_end(server: Server, tmp_path: Path) -> None:
    """What fails on its way again and again is given up, and was stored at most once."""
    async with (
        proxied(server.port) as proxy,
        connected(proxy, patience_s=60) as connection,
    ):
        proxy.lose[UPLOAD] = 99
        with pytest.raises(Unreachable):
            await uploaded(connection, written(tmp_path))

    assert 1 < len(proxy.asked(UPLOAD)) < 10
    assert len(server.files()) == 1


async def test_a_taken_name_is_told(server: Server, tmp_path: Path) -> None:
    """Without versions, another content under the same name is refused."""
    async with connected(server) as connection:
        await uploaded(connection, written(tmp_path))
        other = written(tmp_path, seed=1)
        with pytest.raises(Refused, match=r"styles/ink\.safetensors exists") as refused:
            await uploaded(connection, other, replace(AS_ADMIN, versioned=False))

    assert refused.value.status == 409


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        pytest.param("ink.txt", b"x", "unsupported_upload", id="extension"),
        pytest.param("ink.pt", b"", "lora_empty", id="empty"),
        pytest.param("ink.safetensors", lora()[:-1], "lora_truncated", id="truncated"),
    ],
)
async def test_what_would_be_refused_is_not_sent(
    server: Server, tmp_path: Path, name: str, content: bytes, code: str
) -> None:
    """The server is asked first, and nothing is hashed or sent in vain."""
    path = tmp_path / name
    path.write_bytes(content)
    async with proxied(server.port) as proxy, connected(proxy) as connection:
        with pytest.raises(Refused) as refused:
            await uploaded(connection, path)

    assert refused.value.code == code
    assert not proxy.asked(UPLOAD)


async def test_an_early_answer_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that refuses while 40 MB are still coming is understood, and not asked again."""

    async def hopeful(*_: object) -> Outlook:
        return Outlook(())

    monkeypatch.setattr(library, "preflight", hopeful)
    path = tmp_path / "big.pt"
    with path.open("wb") as file:
        file.truncate(40_000_000)
    config = make_config(tmp_path, storage={"max_file_size": 1000})
    async with (
        running(config) as strict,
        proxied(strict.port) as proxy,
        connected(proxy) as connection,
    ):
        with pytest.raises(Refused) as refused:
            await uploaded(connection, path)

    assert refused.value.status == 413
    assert len(proxy.asked(UPLOAD)) == 1


async def test_a_file_that_shrinks_is_not_waited_for(server: Server, tmp_path: Path) -> None:
    """A file that loses bytes while it is sent ends its upload, with the reason."""
    path = written(tmp_path)

    class Cutting:
        """A watcher that cuts the file as soon as it has been hashed."""

        def begins(self, step: str, total: int | None, *, done: int = 0) -> None:  # noqa: ARG002
            if step == "sending":
                os.truncate(path, 100)

        def advances(self, nbytes: int) -> None:
            pass

    async with connected(server) as connection, LocalFile.opened(path) as file:
        with pytest.raises(LocalProblem, match="became shorter"):
            await Uploader(connection, AS_ADMIN).upload(file, Cutting())

    assert await left_nothing(server)


async def test_a_file_that_changes_is_refused(server: Server, tmp_path: Path) -> None:
    """Other bytes than were hashed are not stored."""
    path = written(tmp_path)

    class Changing:
        """A watcher that overwrites the file as soon as it has been hashed."""

        def begins(self, step: str, total: int | None, *, done: int = 0) -> None:  # noqa: ARG002
            if step == "sending":
                with path.open("r+b", buffering=0) as file:
                    os.pwrite(file.fileno(), b"changed", 5000)

        def advances(self, nbytes: int) -> None:
            pass

    async with connected(server) as connection, LocalFile.opened(path) as file:
        with pytest.raises(Refused) as refused:
            await Uploader(connection, AS_ADMIN).upload(file, Changing())

    assert refused.value.code == "digest_mismatch"
    assert await left_nothing(server)


async def test_a_lost_deletion_is_not_repeated(server: Server, tmp_path: Path) -> None:
    """What could hit another file the second time is not done twice, and that is said."""
    async with proxied(server.port, DELETE=1) as proxy, connected(proxy) as connection:
        await uploaded(connection, written(tmp_path))
        with pytest.raises(AnswerLost, match="look before you try again"):
            await library.delete(connection, "styles/ink.safetensors")

        assert len(proxy.asked(b"DELETE")) == 1
        assert await library.latest_in_bin(connection, "styles/ink.safetensors")
        with pytest.raises(NotFound):
            await library.latest_in_bin(connection, "styles/in.safetensors")
