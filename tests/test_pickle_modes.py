"""What becomes of a pickled file: kept as it came, converted, or turned away by its name."""

import hashlib
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from safetensors.numpy import load

from tests.calls import FILES, LORA, Answer, call
from tests.formats.torch_bytes import held as storage_of
from tests.formats.torch_bytes import lora, tensor, torch_legacy, torch_zip
from tests.server import Server, form, make_config, running
from tests.wire import chunked, connected, file_part, head, left_nothing

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def server(shared: Server) -> Server:
    """Use one server for the whole module; it verifies, which is the default."""
    return shared


async def _running(mode: str, folder: Path) -> AsyncIterator[Server]:
    async with running(make_config(folder, ingest={"pickle": mode})) as running_server:
        yield running_server


@pytest_asyncio.fixture(loop_scope="module")
async def converting(tmp_path: Path) -> AsyncIterator[Server]:
    """Run a server that stores safetensors files only."""
    async for running_server in _running("convert", tmp_path):
        yield running_server


@pytest_asyncio.fixture(loop_scope="module")
async def refusing(tmp_path: Path) -> AsyncIterator[Server]:
    """Run a server that takes no pickled files."""
    async for running_server in _running("refuse", tmp_path):
        yield running_server


async def _sent(server: Server, content: bytes, filename: str = "ink.pt", **more: str) -> Answer:
    upload = form(BytesIO(content), filename, entity_type="styles", **more)
    return await call(server, "POST", f"{LORA}/upload", data=upload)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def _known(server: Server, digest: str) -> int:
    return (await call(server, "HEAD", f"{FILES}/sha256/{digest}")).status


def _stored(server: Server, answer: Any) -> bytes:
    path: Path = server.models / answer["partial_path"]
    return path.read_bytes()


@pytest.mark.parametrize("write", [torch_zip, torch_legacy])
async def test_verified_files_are_stored_as_they_came(server: Server, write: Any) -> None:
    """A judged pickle keeps every byte and its name."""
    content = write(lora())
    answer = (await _sent(server, content)).json

    assert _stored(server, answer) == content
    assert answer["sha256"] == _sha256(content)
    assert answer["uploaded_sha256"] is None
    assert answer["partial_path"] == "styles/ink.pt"


@pytest.mark.parametrize("write", [torch_zip, torch_legacy])
async def test_converted_files_hold_the_same_tensors(converting: Server, write: Any) -> None:
    """The official library reads from the stored file what was pickled in the sent one."""
    content = write(lora(rank=2, width=4))
    answer = (await _sent(converting, content)).json
    stored = _stored(converting, answer)
    tensors = load(stored)

    assert answer["partial_path"] == "styles/ink.safetensors"
    assert answer["filename"] == "ink.pt"
    assert answer["file_size"] == len(content)
    assert answer["sha256"] == _sha256(stored) != answer["uploaded_sha256"]
    assert answer["uploaded_sha256"] == _sha256(content)
    assert answer["inspection"]["adapter"] == "LoRA"
    assert [await _known(converting, _sha256(each)) for each in (stored, content)] == [200, 200]
    assert set(tensors) == {"unet.q.lora_down.weight", "unet.q.lora_up.weight", "unet.q.alpha"}
    down = np.arange(8, dtype=np.float32).reshape(2, 4)
    assert np.array_equal(tensors["unet.q.lora_down.weight"], down)
    assert np.array_equal(tensors["unet.q.lora_up.weight"], (down + 100).reshape(4, 2))
    assert tensors["unet.q.alpha"] == 2


async def test_converted_names_are_versioned(converting: Server) -> None:
    """Two pickles of one stem become two versions of one safetensors name."""
    first = (await _sent(converting, torch_zip(lora()), "ink.pt")).json
    second = (await _sent(converting, torch_zip(lora(rank=1)), "ink.ckpt")).json
    third = await _sent(converting, torch_zip(lora()), "ink.bin", use_safe_filename="false")

    assert first["partial_path"] == "styles/ink.safetensors"
    assert second["partial_path"] == "styles/ink_v2.safetensors"
    assert third.status == 409


async def test_retry_of_a_converted_upload_gives_the_first_result(converting: Server) -> None:
    """With the digest of what is sent, a second try stores nothing new."""
    content = torch_zip(lora())
    first = await _sent(converting, content, sha256=_sha256(content))
    second = await _sent(converting, content, sha256=_sha256(content))

    assert first.status == 200
    assert second.json | {"duplicate_of": []} == first.json | {"duplicate_of": []}
    assert len(converting.files()) == 1


async def test_failed_conversion_leaves_nothing(converting: Server) -> None:
    """A judged file that safetensors cannot hold leaves neither of the two files."""
    views = {f"unet.a{at}.lora_down.weight": _view(at) for at in range(2)}
    answer = await _sent(converting, torch_zip(lora() | views))

    assert answer.status == 422
    assert answer.json["detail"][0]["loc"] == ["body", "file"]
    assert await left_nothing(converting)


def _view(at: int) -> object:
    """Return a tensor of 64 MiB out of 16 bytes, if strides of zero were let in."""
    return tensor(storage_of(bytes(16), key=f"9{at}"), (4096, 4096), (0, 0))


@pytest.mark.parametrize("extension", [".pt", ".pth", ".ckpt", ".bin"])
async def test_refused_pickles_are_turned_away_by_their_name(
    refusing: Server, extension: str
) -> None:
    """The answer comes when the file part's header has, before any byte of the file."""
    begun = file_part(content=b"", filename=f"ink{extension}").removesuffix(b"\r\n")
    unended = chunked([begun]).removesuffix(b"0\r\n\r\n")
    async with connected(refusing) as connection:
        await connection.send(head(refusing, {"Transfer-Encoding": "chunked"}), unended)
        answer = await connection.answer(within=5)

    assert answer.status == 422
    assert answer.json["detail"][0]["type"] == "lora_pickle_refused"
    assert answer.json["detail"][0]["loc"] == ["body", "file"]
    assert await left_nothing(refusing)
