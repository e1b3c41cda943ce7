"""How large an upload may be."""

from pathlib import Path

import pytest

from lora_server.web.uploads import FRAMING_BYTES
from tests.loras import lora, lora_header
from tests.server import Server, make_config, running
from tests.wire import (
    body,
    chunked,
    connected,
    file_part,
    head,
    left_nothing,
    part,
    upload,
)


@pytest.mark.parametrize("in_chunks", [False, True], ids=["length", "chunked"])
async def test_the_cap_is_exact(tmp_path: Path, *, in_chunks: bool) -> None:
    """A file of exactly the cap passes, one byte more is a 413 that leaves nothing."""
    async with running(make_config(tmp_path, storage={"max_file_size": 100_000})) as server:

        async def send(size: int) -> int:
            content = body(file_part(content=lora(size)), part("note", "x" * 60_000))
            if not in_chunks:
                return (await upload(server, content)).status
            async with connected(server) as connection:
                await connection.send(head(server, {"Transfer-Encoding": "chunked"}))
                await connection.send(chunked([content[:50_000], content[50_000:]]))
                return (await connection.answer()).status

        assert await send(100_001) == 413
        assert await left_nothing(server)
        assert await send(100_000) == 200


async def test_the_framing_is_capped_too(tmp_path: Path) -> None:
    """What surrounds the file is bounded, also where no length was announced."""
    async with running(make_config(tmp_path, storage={"max_file_size": 1000})) as server:
        # A file part that is refused only for its size keeps all else from being the reason.
        flood = chunked([file_part(), *[part("note", b"x" * 60_000)] * 50])
        announced = await upload(server, bytes(1000 + FRAMING_BYTES + 1))
        async with connected(server) as connection:
            await connection.send(head(server, {"Transfer-Encoding": "chunked"}), flood)
            answer = await connection.answer()

        assert announced.status == 413
        assert answer.status == 422  # sixteen fields of 64 KiB never fill the framing
        assert await left_nothing(server)


async def test_the_default_cap_is_500_mib(server: Server) -> None:
    """524,288,000 bytes pass with the settings as they come; one more does not."""

    async def send(size: int) -> int:
        opening, closing = file_part(content=b"").removesuffix(b"\r\n"), b"\r\n" + body()
        async with connected(server) as connection:
            length = {"Content-Length": str(len(opening) + size + len(closing))}
            await connection.send(head(server, length), opening)
            block, rest = bytes(1024 * 1024), size - 256
            await connection.send(lora_header(size), *[block] * (rest // len(block)))
            await connection.send(bytes(rest % len(block)), closing)
            return (await connection.answer(within=60)).status

    assert await send(524_288_001) == 413
    assert await left_nothing(server)
    assert await send(524_288_000) == 200
    assert [path.stat().st_size for path in server.files()] == [524_288_000]
