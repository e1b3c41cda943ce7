"""Files that people put into the tree by hand are judged too, and never thrown away."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from tests.calls import FILES, LORA, call, lora_bytes
from tests.formats.hostile_safetensors import TRICKS
from tests.formats.hostile_torch import EVIL
from tests.formats.torch_bytes import lora as torch_lora
from tests.formats.torch_bytes import torch_legacy
from tests.server import READER, Server, make_config, running

LONG_AGO = 1_600_000_000  # so that a file is at rest
EVIL_PICKLE = torch_legacy(torch_lora(), changes={"object": EVIL})
BAD = {
    "evil.pt": (EVIL_PICKLE, "lora_unsafe_pickle"),
    "twice.safetensors": (TRICKS["dtype twice"].build(), "lora_duplicate_key"),
    "empty.safetensors": (b"", "lora_empty"),
}


def _put(folder: Path, name: str, content: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".{name}.part"
    path.write_bytes(content)
    os.utime(path, (LONG_AGO, LONG_AGO))
    path.rename(folder / name)


async def _listed(server: Server, count: int) -> dict[str, Any]:
    """Return what is listed, by name, once there is this much of it."""
    async with asyncio.timeout(10):
        while True:
            page = (await call(server, "GET", LORA)).json
            if page["count"] == count:
                return {item["filename"]: item for item in page["data"]}
            await asyncio.sleep(0.05)


async def test_bad_files_stay_and_are_not_served(server: Server) -> None:
    """They are listed as refused with the reason an upload would have got; nobody gets them."""
    styles = server.models / "styles"
    for name, (content, _) in BAD.items():
        await asyncio.to_thread(_put, styles, name, content)
    found = await _listed(server, len(BAD))
    refused = (await call(server, "GET", f"{LORA}?verdict=refused")).json
    gets = [
        await call(server, method, f"{FILES}/styles/{name}", headers=headers)
        for name in BAD
        for method, headers in (("GET", READER), ("HEAD", READER))
    ]
    gets += [await call(server, "GET", f"{FILES}/styles/{name}") for name in BAD]

    assert {name: item["verdict"] for name, item in found.items()} == dict.fromkeys(BAD, "refused")
    assert {name: item["inspection"]["code"] for name, item in found.items()} == {
        name: code for name, (_, code) in BAD.items()
    }
    assert all(
        item["inspection"]["reason"] and item["source"] == "found" for item in found.values()
    )
    assert refused["count"] == len(BAD)
    assert {answer.status for answer in gets} == {404}
    assert {name: (styles / name).read_bytes() for name in BAD} == {
        name: content for name, (content, _) in BAD.items()
    }


async def test_good_file_is_judged_and_served(server: Server) -> None:
    """A file put there by hand is described as an uploaded one is."""
    await asyncio.to_thread(_put, server.models / "styles", "ink.safetensors", lora_bytes())
    found = (await _listed(server, 1))["ink.safetensors"]
    got = await call(server, "GET", f"{FILES}/styles/ink.safetensors")

    assert found["verdict"] == "accepted"
    assert found["source"] == "found"
    assert found["inspection"]["adapter"] == "LoRA"
    assert got.body == lora_bytes()


async def test_bad_file_that_is_replaced_is_judged_anew(server: Server) -> None:
    """A refusal holds for the bytes, and a good file in its place is served."""
    styles = server.models / "styles"
    await asyncio.to_thread(_put, styles, "ink.safetensors", TRICKS["dtype twice"].build())
    before = (await _listed(server, 1))["ink.safetensors"]
    await asyncio.to_thread(_put, styles, "ink.safetensors", lora_bytes())
    async with asyncio.timeout(10):
        while (after := (await _listed(server, 1))["ink.safetensors"])["verdict"] == "refused":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    got = await call(server, "GET", f"{FILES}/styles/ink.safetensors")

    assert before["verdict"] == "refused"
    assert after["verdict"] == "accepted"
    assert got.status == 200


@pytest.mark.parametrize("name", ["twice.safetensors", "ink.safetensors"])
async def test_verdicts_outlive_the_server(tmp_path: Path, name: str) -> None:
    """After a restart everything is known as it was."""
    content = BAD[name][0] if name in BAD else lora_bytes()
    config = make_config(tmp_path)
    await asyncio.to_thread(_put, config.storage.models_dir / "styles", name, content)
    async with running(config) as first:
        before = await _listed(first, 1)
    async with running(config) as second:
        after = (await call(second, "GET", LORA)).json["data"]

    assert after == list(before.values())
    assert after[0]["verdict"] == ("refused" if name in BAD else "accepted")
