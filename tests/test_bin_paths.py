"""Paths in the bin: which can name something, and what happens meanwhile."""

import pytest

from tests.calls import BIN, LORA, call, deleted, stored
from tests.server import Server

INK = "styles/ink.safetensors"


BOTH = pytest.mark.parametrize(("method", "path"), [("POST", f"{BIN}/restore"), ("DELETE", BIN)])


@BOTH
@pytest.mark.parametrize(
    "bin_path",
    [
        pytest.param("/etc/passwd", id="elsewhere"),
        pytest.param("{bin}/../../etc/passwd", id="traversal"),
        pytest.param("{bin}/styles/../faces/ink.safetensors", id="traversal inside"),
        pytest.param("{models}/styles/ink.safetensors", id="not in the bin"),
        pytest.param("styles/ink.safetensors", id="partial path"),
        pytest.param("{bin}/ink.safetensors", id="no type"),
        pytest.param("{bin}x/styles/ink.safetensors", id="other folder"),
        pytest.param("{bin}/styles/ink.safetensors\0", id="null byte"),
    ],
)
async def test_paths_that_no_deletion_returned(
    server: Server, method: str, path: str, bin_path: str
) -> None:
    """Such a path is a 422, and nothing is touched."""
    await stored(server)
    full = bin_path.replace("{bin}", str(server.bin)).replace("{models}", str(server.models))
    answer = await call(server, method, path, bin_path=full)

    assert answer.status == 422
    assert answer.complaints == [(["body", "bin_path"], "value_error")]
    assert server.files() == [server.models / INK]


@BOTH
async def test_what_was_never_there(server: Server, method: str, path: str) -> None:
    """A path in the bin that names no file is a 404."""
    bin_path = str(server.bin / "styles" / "nope.safetensors")

    assert (await call(server, method, path, bin_path=bin_path)).status == 404


@BOTH
async def test_what_is_gone_already(server: Server, method: str, path: str) -> None:
    """Doing it twice is a 404 the second time, and harms nothing."""
    await stored(server)
    bin_path = await deleted(server)

    assert (await call(server, method, path, bin_path=bin_path)).status == 200
    assert (await call(server, method, path, bin_path=bin_path)).status == 404


async def test_restoring_what_was_moved_by_hand_meanwhile(server: Server) -> None:
    """A file that left the bin by another hand is a 409 until that was noticed."""
    await stored(server)
    bin_path = await deleted(server)
    (server.bin / INK).rename(server.bin / "taken away")
    answer = await call(server, "POST", f"{BIN}/restore", bin_path=bin_path)

    assert answer.status == 409
    assert answer.json == {"detail": f"{INK} was moved or removed meanwhile; list again."}
    assert (server.bin / "taken away").exists()


async def test_moving_what_was_moved_by_hand_meanwhile(server: Server) -> None:
    """The same holds for a file of the library."""
    await stored(server)
    (server.models / INK).rename(server.models / "taken away")
    answer = await call(server, "POST", f"{LORA}/move", partial_path=INK, entity_type="faces")

    assert answer.status == 409


async def test_purging_what_was_moved_by_hand_meanwhile(server: Server) -> None:
    """A purge that removed nothing does not say that it did."""
    await stored(server)
    bin_path = await deleted(server)
    (server.bin / INK).rename(server.bin / "taken away")

    assert (await call(server, "DELETE", BIN, bin_path=bin_path)).status == 409
