"""The identity of the weights, whatever stands in the header before them."""

import asyncio
import hashlib
from typing import Any

import pytest
from safetensors.numpy import load, save

from tests.calls import LORA, call, lora_bytes
from tests.formats.torch_bytes import lora as torch_lora
from tests.formats.torch_bytes import torch_zip
from tests.server import Server, form

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def server(shared: Server) -> Server:
    """Use one server for the whole module."""
    return shared


def tensor_section(content: bytes) -> bytes:
    """Return the bytes after the header."""
    return content[8 + int.from_bytes(content[:8], "little") :]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def _sent(server: Server, content: bytes, filename: str = "ink.safetensors") -> str:
    upload = form(content, filename, entity_type="styles")
    answer = await call(server, "POST", f"{LORA}/upload", data=upload)
    return str(answer.json["partial_path"])


async def _hashed(server: Server, partial_path: str) -> Any:
    """Return the detail once the weights are hashed, which is soon."""
    async with asyncio.timeout(8):
        while True:
            detail = (await call(server, "GET", f"{LORA}/{partial_path}")).json
            if detail["hashes"]["tensors_sha256"]:
                return detail
            await asyncio.sleep(0.05)


def _relabelled(**metadata: str) -> bytes:
    """Return the weights of `lora_bytes` under another header."""
    return save(load(lora_bytes()), metadata)


async def test_weights_are_hashed_soon(server: Server) -> None:
    """The digest is that of the bytes after the header; its beginning is AutoV3."""
    content = lora_bytes()
    hashes = (await _hashed(server, await _sent(server, content)))["hashes"]

    assert hashes["sha256"] == _digest(content)
    assert hashes["autov2"] == _digest(content)[:10]
    assert hashes["tensors_sha256"] == _digest(tensor_section(content))
    assert hashes["autov3"] == _digest(tensor_section(content))[:12]


async def test_twins_are_told_apart(server: Server) -> None:
    """A file with the same bytes is a duplicate of another kind than one with the same weights."""
    first = await _sent(server, lora_bytes())
    same = await _sent(server, lora_bytes(), "same.safetensors")
    other = await _sent(server, _relabelled(ss_output_name="other"), "other.safetensors")
    await _sent(server, lora_bytes(seed=1), "stranger.safetensors")
    for path in (same, other):
        await _hashed(server, path)
    detail = await _hashed(server, first)
    seen_from_other = await _hashed(server, other)

    assert detail["duplicate_of"] == [
        {"partial_path": same, "kind": "bytes"},
        {"partial_path": other, "kind": "weights"},
    ]
    assert {twin["kind"] for twin in seen_from_other["duplicate_of"]} == {"weights"}
    assert {twin["partial_path"] for twin in seen_from_other["duplicate_of"]} == {first, same}


@pytest.mark.parametrize(
    ("key", "value", "matches"),
    [
        pytest.param("sshs_model_hash", "{true}", True, id="kohya, right"),
        pytest.param("sshs_model_hash", "ab" * 32, False, id="kohya, wrong"),
        pytest.param("modelspec.hash_sha256", "0x{true}", True, id="ModelSpec, right"),
        pytest.param("modelspec.hash_sha256", "0x" + "ab" * 32, False, id="ModelSpec, wrong"),
        pytest.param("sshs_legacy_hash", "abcdef01", None, id="of something else"),
    ],
)
async def test_claimed_digest_is_checked(
    server: Server, key: str, value: str, matches: object
) -> None:
    """What the file says of its weights is compared with them, where it speaks of them."""
    true = _digest(tensor_section(lora_bytes()))
    path = await _sent(server, _relabelled(**{key: value.replace("{true}", true)}))
    (claim,) = (await _hashed(server, path))["hashes"]["claims"]

    assert claim["source"] == key
    assert claim["matches"] is matches


async def test_pickles_have_no_tensor_section(server: Server) -> None:
    """A torch file is known by its bytes alone, and holds up nobody else's hashing."""
    pickled = await _sent(server, torch_zip(torch_lora()), "ink.pt")
    await _hashed(server, await _sent(server, lora_bytes()))
    hashes = (await call(server, "GET", f"{LORA}/{pickled}")).json["hashes"]

    assert hashes["tensors_sha256"] is hashes["autov3"] is None
    assert hashes["sha256"] == _digest(torch_zip(torch_lora()))
