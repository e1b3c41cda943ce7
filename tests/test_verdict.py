"""The verdict over HTTP: what comes in, what is turned away, and in which words."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

import pytest
import pytest_asyncio

from lora_server.formats.sniff import SNIFF_BYTES, Kind, sniff
from tests.adapters import Named, adapter_tensors, write_safetensors
from tests.calls import LORA, Answer, call, lora_bytes
from tests.formats import torch_bytes
from tests.formats.hostile_safetensors import LFS_POINTER, TRICKS
from tests.formats.hostile_torch import Hostile, corpus
from tests.formats.safetensors_files import entry, safetensors
from tests.formats.torch_bytes import torch_legacy, torch_zip
from tests.server import Server, form, make_config, running
from tests.wire import BOUNDARY, chunked, connected, file_part, head, left_nothing

pytestmark = pytest.mark.asyncio(loop_scope="module")

TORCH_EXTENSIONS = (".pt", ".pth", ".ckpt", ".bin")
MAX_MESSAGE_CHARS = 500
UNKNOWN = safetensors(
    {"base_model.model.layers.0.self_attn.q_proj.vera_lambda_b": entry((2,), 0, 4)}
)
NOT_A_LORA = "lora_not_an_adapter"


def _header(name: str) -> bytes:
    """Return the header, and no more, of a file that is one large tensor."""
    return safetensors({name: entry((10_000, 10_000), 0, 200_000_000)}, b"")


@pytest.fixture
def server(shared: Server) -> Server:
    """Use one server for the whole module."""
    return shared


@pytest_asyncio.fixture(loop_scope="module")
async def strict(tmp_path: Path) -> AsyncIterator[Server]:
    """Run a server that takes only the adapters it knows."""
    async with running(make_config(tmp_path, ingest={"on_unknown": "refuse"})) as strict_server:
        yield strict_server


async def _sent(server: Server, content: bytes, filename: str = "ink.safetensors") -> Answer:
    upload = form(BytesIO(content), filename, entity_type="styles")
    return await call(server, "POST", f"{LORA}/upload", data=upload)


def _tricks() -> Iterator[tuple[str, bytes, str, str]]:
    """Yield name, content, file name and code of every hostile file."""
    for name, trick in TRICKS.items():
        yield name, trick.build(), "evil.safetensors", trick.code
    for at, hostile in enumerate(corpus()):
        extension = TORCH_EXTENSIONS[at % len(TORCH_EXTENSIONS)]
        yield hostile.name, hostile.data, f"evil{extension}", _code_at_door(hostile)


def _code_at_door(hostile: Hostile) -> str:
    """Return the code of a file whose first bytes may tell that it is no torch file at all."""
    kind = sniff(hostile.data[:SNIFF_BYTES])
    if kind is Kind.EMPTY:
        return "lora_empty"
    known = kind in {Kind.TORCH_ZIP, Kind.TORCH_LEGACY}
    return hostile.code if known else "lora_wrong_format"


async def test_every_hostile_file_is_refused_and_leaves_nothing(server: Server) -> None:
    """Each is a 422 with its own code and a short sentence in ASCII, and is gone."""
    wrong: dict[str, object] = {}
    codes = set()
    for name, content, filename, code in _tricks():
        answer = await _sent(server, content, filename)
        codes.add(code)
        detail = answer.json["detail"][0] if answer.status == 422 else {}
        message = detail.get("msg", "")
        facts = (answer.status, detail.get("loc"), detail.get("type"))
        short = message.isascii() and message.isprintable() and len(message) > 0
        if facts != (422, ["body", "file"], code) or not short or len(message) > MAX_MESSAGE_CHARS:
            wrong[name] = (*facts, code, message)

    assert not wrong
    assert len(codes) > 12
    assert await left_nothing(server)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param(TRICKS["unknown dtype"].build(), "lora_unsupported_dtype", id="trick"),
        pytest.param(_header("model.diffusion_model.out.weight"), NOT_A_LORA, id="checkpoint"),
        pytest.param(_header("a.lora_down.weight"), "lora_incomplete", id="orphan half"),
    ],
)
async def test_bad_header_is_refused_when_it_has_arrived(
    server: Server, content: bytes, code: str
) -> None:
    """The answer does not wait for the other 500 MB, which never come."""
    begun = file_part(content=content + bytes(4096)).removesuffix(b"\r\n")
    unended = chunked([begun]).removesuffix(b"0\r\n\r\n")
    async with connected(server) as connection:
        await connection.send(head(server, {"Transfer-Encoding": "chunked"}), unended)
        answer = await connection.answer(within=5)

    assert BOUNDARY.encode() in begun
    assert answer.status == 422
    assert answer.json["detail"][0]["type"] == code
    assert await left_nothing(server)


@pytest.mark.parametrize("extension", TORCH_EXTENSIONS)
@pytest.mark.parametrize("write", [torch_zip, torch_legacy])
async def test_torch_files_are_accepted(
    server: Server, write: Callable[[object], bytes], extension: str
) -> None:
    """Both containers come in under every name that torch files have, and are described."""
    answer = await _sent(server, write(torch_bytes.lora()), f"ink{extension}")

    assert answer.status == 200
    assert answer.json["partial_path"] == f"styles/ink{extension}"
    assert answer.json["inspection"]["adapter"] == "LoRA"
    assert answer.json["inspection"]["module_count"] == 1


@pytest.mark.parametrize(
    ("content", "filename", "what"),
    [
        pytest.param(lora_bytes(), "ink.pt", "a safetensors file", id="safetensors as pt"),
        pytest.param(lora_bytes(), "ink.ckpt", "a safetensors file", id="safetensors as ckpt"),
        pytest.param(
            torch_zip(torch_bytes.lora()),
            "ink.safetensors",
            "a PyTorch zip checkpoint",
            id="zip as safetensors",
        ),
        pytest.param(
            torch_legacy(torch_bytes.lora()),
            "ink.safetensors",
            "a PyTorch checkpoint of the legacy format",
            id="legacy as safetensors",
        ),
        pytest.param(LFS_POINTER, "ink.safetensors", "a Git LFS pointer", id="LFS pointer"),
        pytest.param(b"<!DOCTYPE html><p>Log in", "ink.bin", "an HTML or XML page", id="HTML"),
        pytest.param(b"GGUF\3\0\0\0" + bytes(64), "ink.safetensors", "a GGUF", id="GGUF"),
    ],
)
async def test_refusal_names_what_the_file_is(
    server: Server, content: bytes, filename: str, what: str
) -> None:
    """A file of another format than its name says is told what it is."""
    answer = await _sent(server, content, filename)

    assert answer.complaints == [(["body", "file"], "lora_wrong_format")]
    assert f"the file is {what}" in answer.json["detail"][0]["msg"]
    assert await left_nothing(server)


@pytest.mark.parametrize(
    ("names", "shape", "what"),
    [
        pytest.param(
            ("model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.a.weight"),
            (2, 2),
            "full checkpoint",
            id="full checkpoint",
        ),
        pytest.param(
            ("encoder.down.0.block.0.conv1.weight", "decoder.conv_in.weight"),
            (2, 2),
            "VAE",
            id="VAE",
        ),
        pytest.param(("emb_params",), (2, 768), "textual inversion", id="textual inversion"),
    ],
)
async def test_weights_that_are_no_adapter_are_named(
    server: Server, names: tuple[str, ...], shape: tuple[int, int], what: str
) -> None:
    """Whole models, VAEs and embeddings are turned away by their names."""
    size = 2 * shape[0] * shape[1]
    fields = {name: entry(shape, at * size, (at + 1) * size) for at, name in enumerate(names)}
    answer = await _sent(server, safetensors(fields, bytes(size * len(names))))

    assert answer.complaints == [(["body", "file"], "lora_not_an_adapter")]
    assert what in answer.json["detail"][0]["msg"]
    assert await left_nothing(server)


async def test_unknown_adapters_come_in(server: Server) -> None:
    """A well-formed adapter of no known kind is taken, and called unknown."""
    answer = await _sent(server, UNKNOWN)

    assert answer.status == 200
    assert answer.json["inspection"]["adapter"] == "unknown"


async def test_unknown_adapters_can_be_refused(strict: Server) -> None:
    """With on_unknown = "refuse" only known kinds are taken."""
    refused = await _sent(strict, UNKNOWN)
    nothing_left = await left_nothing(strict)
    taken = await _sent(strict, lora_bytes())

    assert refused.complaints == [(["body", "file"], "lora_unknown_adapter")]
    assert nothing_left
    assert taken.status == 200


@pytest.mark.parametrize(
    ("layout", "style", "family", "base"),
    [
        pytest.param("sd1", "kohya", "LoCon", "SD 1.x", id="kohya SD 1.5"),
        pytest.param("sdxl", "kohya", "LoRA", "SDXL", id="kohya SDXL"),
        pytest.param("flux-diffusers", "diffusers", "LoRA", "Flux.1", id="PEFT Flux"),
    ],
)
async def test_realistic_adapters_are_described(  # noqa: PLR0913, PLR0917
    server: Server, tmp_path: Path, layout: str, style: str, family: str, base: str
) -> None:
    """The answer to an upload says family, rank and base model; the detail says the same."""
    tensors = adapter_tensors(layout, style=style, rank=4)
    path = await asyncio.to_thread(write_safetensors, tmp_path / "a", tensors)
    answer = await _sent(server, await asyncio.to_thread(path.read_bytes))
    found = answer.json["inspection"]
    detail = await call(server, "GET", f"{LORA}/{answer.json['partial_path']}")

    assert found["adapter"] == family
    assert found["rank"] == {"min": 4, "max": 4, "mode": 4}
    assert found["base_model"] == base
    assert found["module_count"] == sum(".lora_down" in n or ".lora_A" in n for n, *_ in tensors)
    assert detail.json["inspection"]["base_model"]["name"] == base


def _module(path: str, dtype: str = "F16") -> list[Named]:
    """Return the tensors of a LoRA's module, with an alpha of rank zero."""
    halves: list[Named] = [
        (f"{path}.lora_down.weight", dtype, (4, 8)),
        (f"{path}.lora_up.weight", dtype, (8, 4)),
    ]
    return [*halves, (f"{path}.alpha", "F32", ())]


ODD = {
    "zero rank": _module("lora_unet_x"),
    "empty tensor": [*_module("lora_unet_x"), ("lora_unet_x.lora_up.bias", "F16", (0,))],
    "bf16": _module("lora_unet_x", "BF16"),
    "fp8": _module("lora_unet_x", "F8_E4M3"),
    "mixed families": [*_module("lora_unet_x"), ("lora_unet_y.lokr_w1", "F16", (2, 2)),
                       ("lora_unet_y.lokr_w2", "F16", (4, 4))],
    "unicode names": _module("lora_unet_größe_模型_🦙"),
    "50,000 keys": [tensor for at in range(16_667) for tensor in _module(f"lora_unet_{at}")],
}  # fmt: skip


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        *(pytest.param(tensors, {}, id=name) for name, tensors in ODD.items()),
        pytest.param(_module("lora_unet_x"), {"ss_tag_frequency": "x" * (15 << 20)}, id="15 MiB"),
    ],
)
async def test_odd_adapters_come_in(
    server: Server, tmp_path: Path, tensors: list[Named], metadata: dict[str, str]
) -> None:
    """What is merely unusual is stored byte for byte, and every module of it is counted."""
    path = await asyncio.to_thread(write_safetensors, tmp_path / "odd", tensors, metadata)
    content = await asyncio.to_thread(path.read_bytes)
    answer = await _sent(server, content)

    assert answer.status == 200, answer.body
    assert answer.json["sha256"] == hashlib.sha256(content).hexdigest()
    assert answer.json["inspection"]["module_count"] == len(
        {name.partition(".")[0] for name, *_ in tensors}
    )


async def test_filters_find_the_judged(server: Server) -> None:
    """Base model, adapter family and verdict can be asked for; an override wins and is shown."""
    known = (await _sent(server, lora_bytes(), "known.safetensors")).json
    await _sent(server, UNKNOWN, "odd.safetensors")
    detected = known["inspection"]["base_model"]

    async def found(query: str) -> list[str]:
        page = (await call(server, "GET", f"{LORA}?{query}")).json
        return [item["filename"] for item in page["data"]]

    before = await found(f"base_model={quote(detected)}")
    changed = await call(server, "PATCH", f"{LORA}/styles/known.safetensors", base_model="Mine")

    assert before == ["known.safetensors"]
    assert await found("adapter=unknown") == ["odd.safetensors"]
    assert await found("verdict=accepted") == ["known.safetensors", "odd.safetensors"]
    assert await found("verdict=refused") == []
    assert await found(f"base_model={quote(detected)}") == []
    assert await found("base_model=Mine") == ["known.safetensors"]
    assert changed.json["overrides"]["base_model"] == "Mine"
    assert changed.json["inspection"]["base_model"] == detected


@pytest.mark.parametrize("piece_bytes", [1, 7, 100])
async def test_slow_beginnings_are_not_misjudged(server: Server, piece_bytes: int) -> None:
    """A good file whose first bytes come one by one is not taken for what they resemble."""
    content = lora_bytes()
    beginning = [content[at : at + piece_bytes] for at in range(0, 20 * piece_bytes, piece_bytes)]
    before, after = file_part(content=b"@").split(b"@")
    rest = content[20 * piece_bytes :]
    end = after + b"--" + BOUNDARY.encode() + b"--\r\n"
    length = len(before) + len(content) + len(end)
    async with connected(server) as connection:
        await connection.send(head(server, {"Content-Length": str(length)}), before)
        await connection.send(*beginning, pause=0.005)
        await connection.send(rest, end)
        answer = await connection.answer()

    assert answer.status == 200
    assert answer.json["inspection"]["adapter"] == "LoRA"
