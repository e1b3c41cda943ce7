"""Conversions that break off after the file was accepted: told, undone, and forgotten."""

import errno
from collections.abc import AsyncIterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from lora_server import filesystem
from lora_server.judge import JudgePool
from tests.calls import LORA, Answer, call
from tests.formats.torch_bytes import floats, held, lora, tensor, torch_zip
from tests.server import Server, form, make_config, running
from tests.wire import left_nothing

MISCONVERTING = "tests.judge.misconverting"
TIMEOUT_S = 1.0  # for what stalls; everything else takes milliseconds


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    """Run a server that converts, with children that do so halfway when a file asks for it."""
    pool = partial(JudgePool, module=MISCONVERTING, timeout_s=TIMEOUT_S)
    monkeypatch.setattr("lora_server.web.app.JudgePool", pool)
    async with running(make_config(tmp_path, ingest={"pickle": "convert"})) as running_server:
        yield running_server


async def _sent(server: Server, content: bytes) -> Answer:
    upload = form(BytesIO(content), "ink.pt", entity_type="styles")
    return await call(server, "POST", f"{LORA}/upload", data=upload)


def _asking(ending: str) -> bytes:
    """Return a LoRA of several pieces whose conversion ends in this way."""
    down = tensor(held(floats(*range(500_000)), key="8"), (4, 125_000))
    up = tensor(held(floats(*range(16)), key="9"), (4, 4))
    name = f"unet.{ending}"
    return torch_zip(lora() | {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up})


async def _takes_the_next(server: Server) -> bool:
    """Tell whether an upload of the same name finds it free."""
    answer = await _sent(server, torch_zip(lora()))
    stored: Any = answer.json
    return answer.status == 200 and stored["partial_path"] == "styles/ink.safetensors"


@pytest.mark.parametrize(
    ("ending", "code", "told"),
    [
        ("dies", "lora_unreadable", "it ended"),
        ("refuses", "lora_too_complex", "halfway"),
        ("cuts", "lora_truncated", "ends"),
        ("stalls", "lora_unreadable", "too long"),
    ],
)
async def test_a_conversion_that_breaks_off_leaves_nothing(
    server: Server, ending: str, code: str, told: str
) -> None:
    """Half a safetensors file is never taken for a whole one, and the next file is converted."""
    answer = await _sent(server, _asking(ending))
    [complaint] = answer.json["detail"]

    assert answer.status == 422
    assert (complaint["loc"], complaint["type"]) == (["body", "file"], code)
    assert told in complaint["msg"]
    assert await left_nothing(server)
    assert await _takes_the_next(server)


class FullForCopies:
    """`write_all` on a disk that takes the upload and, after its first piece, no copy of it."""

    def __init__(self) -> None:
        self._written: list[int] = []  # descriptors, in the order of their blocks

    def __call__(self, fd: int, chunks: list[bytes]) -> None:
        """Write; fail for the second block of any descriptor but the first."""
        if fd != self._first and fd in self._written:
            raise OSError(errno.ENOSPC, "full")
        self._written.append(fd)
        filesystem.write_all(fd, chunks)

    @property
    def _first(self) -> int | None:
        return self._written[0] if self._written else None


async def test_a_disk_that_has_no_room_for_the_copy_leaves_nothing(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up in the middle of the converted file is a 507, and passes."""
    with monkeypatch.context() as patched:
        patched.setattr("lora_server.staging.write_all", FullForCopies())
        answer = await _sent(server, _asking("nothing"))

    assert answer.status == 507
    assert "disk space" in answer.json["detail"]
    assert await left_nothing(server)
    assert await _takes_the_next(server)
