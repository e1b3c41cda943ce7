"""Short words for what tests do with a server over HTTP."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from multidict import CIMultiDictProxy
from safetensors.numpy import save
from yarl import URL

from tests.server import ADMIN, Server, form

API = "/api/v1"
LORA = f"{API}/admin/lora"
BIN = f"{API}/admin/bin"
FILES = f"{API}/lora"
INK = f"{FILES}/styles/ink.safetensors"
JSON = {"Content-Type": "application/json"}
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, read to its end."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:
        """Return what the body says."""
        return json.loads(self.body)

    @property
    def complaints(self) -> list[tuple[list[Any], str]]:
        """Return where and of which type each complaint of a 422 is."""
        return [(item["loc"], item["type"]) for item in self.json["detail"]]


async def call(
    server: Server,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] = ADMIN,
    data: Any = None,
    **members: Any,
) -> Answer:
    """Send a request and read the answer; `path` goes out as it stands, `members` as JSON."""
    if members:
        data, headers = json.dumps(members), {**JSON, **headers}
    url = URL(server.origin + path, encoded=True)
    async with server.session.request(method, url, headers=headers, data=data) as response:
        return Answer(response.status, response.headers, await response.read())


async def raw_call(server: Server, method: str, path: str, body: bytes) -> Answer:
    """Send a body that says it is JSON."""
    return await call(server, method, path, headers=ADMIN | JSON, data=body)


def lora_bytes(seed: int = 0) -> bytes:
    """Return a LoRA of rank 4 for one module; another seed, other bytes."""
    module = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    chance = np.random.default_rng(seed)
    tensors = {
        f"{module}.alpha": np.array(4.0, np.float16),
        f"{module}.lora_down.weight": chance.normal(size=(4, 768)).astype(np.float16),
        f"{module}.lora_up.weight": chance.normal(size=(320, 4)).astype(np.float16),
    }
    return save(tensors, {"ss_base_model_version": "sd_v1"})


async def stored(
    server: Server, filename: str = "ink.safetensors", entity_type: str = "styles", seed: int = 0
) -> Any:
    """Upload a LoRA as an admin and return the answer."""
    upload = form(lora_bytes(seed), filename, entity_type=entity_type)
    answer = await call(server, "POST", f"{LORA}/upload", data=upload)
    assert answer.status == 200, answer.body
    return answer.json


async def deleted(server: Server, partial_path: str = "styles/ink.safetensors") -> str:
    """Delete a LoRA and return its path in the bin."""
    answer = await call(server, "DELETE", LORA, partial_path=partial_path)
    assert answer.status == 200, answer.body
    return str(answer.json["bin_path"])


async def listing(server: Server, query: str = "") -> list[str]:
    """Return the partial paths of a page of the list."""
    answer = await call(server, "GET", f"{LORA}?{query}")
    assert answer.status == 200, answer.body
    return [lora["partial_path"] for lora in answer.json["data"]]
