"""Training metadata is for admins: nobody else gets it, and no log line holds it."""

import asyncio
import json
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any

import aiohttp
import numpy as np
import pytest
import pytest_asyncio
from safetensors.numpy import load, save

from tests.calls import FILES, LORA, Answer, call, lora_bytes
from tests.daemon import Daemon, serving
from tests.formats.torch_bytes import lora as torch_lora
from tests.formats.torch_bytes import torch_zip
from tests.server import ADMIN, READER, UPLOADER, Server, form

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRETS = ("Erika Mustermann", "/home/erika/faces", "erika_on_the_beach", "a secret comment")
METADATA = {
    "ss_dataset_dirs": json.dumps({SECRETS[0]: {"n_repeats": 1, "img_count": 9}}),
    "ss_sd_model_name": SECRETS[1],
    "ss_tag_frequency": json.dumps({"1_x": {SECRETS[2]: 7}}),
    "ss_training_comment": SECRETS[3],
}
PRIVATE = save(load(lora_bytes()), METADATA)
PATH = "styles/ink.safetensors"


@pytest.fixture
def server(shared: Server) -> Server:
    """Use one server for the whole module."""
    return shared


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def daemon(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Daemon]:
    """Run one process for the whole module."""
    async with serving(
        tmp_path_factory.mktemp("daemon"), logging={"format": "json", "level": "debug"}
    ) as running_daemon:
        yield running_daemon


async def _sent(server: Server, content: bytes, filename: str = "ink.safetensors") -> None:
    upload = form(BytesIO(content), filename, entity_type="styles")
    answer = await call(server, "POST", f"{LORA}/upload", data=upload)
    assert answer.status == 200, answer.body


def _same_tensors(one: bytes, other: bytes) -> bool:
    first, second = load(one), load(other)
    return first.keys() == second.keys() and all(
        tensor.tobytes() == second[name].tobytes() for name, tensor in first.items()
    )


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        pytest.param(ADMIN, "?strip_metadata=true", id="admin who asks"),
        pytest.param(READER, "", id="reader"),
        pytest.param(READER, "?strip_metadata=false", id="reader who asks for it"),
    ],
)
async def test_metadata_is_left_out(server: Server, headers: dict[str, str], query: str) -> None:
    """The tensors are the same, the header is whole, and no word of the trainer is in it."""
    await _sent(server, PRIVATE)
    answer = await call(server, "GET", f"{FILES}/{PATH}{query}", headers=headers)
    asked = await call(server, "HEAD", f"{FILES}/{PATH}{query}", headers=headers)
    sent, got = load(PRIVATE), load(answer.body)
    length = int.from_bytes(answer.body[:8], "little")
    header = json.loads(answer.body[8 : 8 + length])

    assert answer.status == 200
    assert int(answer.headers["Content-Length"]) == len(answer.body)
    assert asked.headers["Content-Length"] == answer.headers["Content-Length"]
    assert asked.body == b""
    assert "Repr-Digest" not in answer.headers
    assert "__metadata__" not in header
    assert sent.keys() == got.keys()
    assert all(np.array_equal(sent[name], got[name]) for name in sent)
    assert not any(word.encode() in answer.body for word in (*SECRETS, *METADATA))


async def test_admins_get_every_byte(server: Server) -> None:
    """Without the wish nothing is taken away from an admin."""
    await _sent(server, PRIVATE)
    answer = await call(server, "GET", f"{FILES}/{PATH}")

    assert answer.body == PRIVATE


async def test_what_the_trainer_wrote_is_told_to_admins_alone(server: Server) -> None:
    """An uploader learns the trigger words of the file just sent, and of other files nothing."""
    captions = {"1_woman": {"ohwx": 9, SECRETS[2]: 1}}
    metadata = METADATA | {"ss_tag_frequency": json.dumps(captions)}
    upload = form(BytesIO(save(load(lora_bytes()), metadata)), entity_type="styles")
    sent = await call(server, "POST", f"{FILES}/upload", data=upload, headers=UPLOADER)
    looks = [
        await call(server, "GET", path, headers=headers)
        for path in (LORA, f"{LORA}/{PATH}")
        for headers in (UPLOADER, READER, ADMIN)
    ]
    triggers = sent.json["inspection"]["trigger_words"]

    assert [trigger["word"] for trigger in triggers] == ["woman", "ohwx"]
    assert [look.status for look in looks] == [403, 403, 200] * 2
    assert all(word in looks[-1].body.decode() for word in SECRETS)
    assert not any(
        word.encode() in answer.body for word in SECRETS for answer in [sent, *looks[:5]]
    )


@pytest.mark.parametrize("name", ["40,000 long names", "header of 16 MiB of metadata"])
async def test_large_headers_are_stripped(server: Server, name: str) -> None:
    """The largest headers that come in go out again."""
    content = _many_modules() if name == "40,000 long names" else _much_metadata()
    await _sent(server, content)
    answer = await call(server, "GET", f"{FILES}/{PATH}", headers=READER)

    assert answer.status == 200
    assert await asyncio.to_thread(_same_tensors, content, answer.body)


def _many_modules() -> bytes:
    tensors = {
        f"lora_unet_{'x' * 200}_{at}.lora_{half}.weight": np.ones((1, 1), np.float16)
        for at in range(20_000)
        for half in ("down", "up")
    }
    return save(tensors)


def _much_metadata() -> bytes:
    return save(load(lora_bytes()), {"ss_tag_frequency": "x" * 15 * 1024 * 1024})


async def test_torch_files_cannot_be_stripped(server: Server) -> None:
    """An admin is told so; a reader, who could get it no other way, is not let in."""
    await _sent(server, torch_zip(torch_lora()), "ink.pt")
    path = f"{FILES}/styles/ink.pt"
    admin = await call(server, "GET", f"{path}?strip_metadata=true")
    reader = await call(server, "GET", path, headers=READER)

    assert admin.complaints == [(["query", "strip_metadata"], "value_error")]
    assert reader.status == 403


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_what_was_not_judged_is_not_stripped(server: Server, method: str) -> None:
    """A file that was put in the place of a known one by hand is not there until it is known."""
    await _sent(server, PRIVATE)
    path = server.models / PATH
    known = path.with_name("known")
    before = await call(server, method, f"{FILES}/{PATH}", headers=READER)
    path.rename(known)
    path.write_bytes(lora_bytes(1))
    after = await call(server, method, f"{FILES}/{PATH}", headers=READER)
    known.replace(path)

    assert (before.status, after.status) == (200, 404)


async def test_no_log_line_holds_metadata(daemon: Daemon) -> None:
    """Upload, refusal, list, detail and downloads tell the log nothing of the trainer's words."""
    answers = await _visited(daemon)
    async with asyncio.timeout(5):
        while sum(line["event"] == "request" for line in daemon.lines) < len(answers):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    assert [answer.status for answer in answers] == [200, 422, 200, 200, 200, 200]
    assert "lora_trailing_bytes" in json.dumps(daemon.lines)
    assert not [line for line in daemon.lines if _tells(line)]


def _tells(line: dict[str, Any]) -> bool:
    return any(word in json.dumps(line, ensure_ascii=False) for word in SECRETS)


async def _visited(daemon: Daemon) -> list[Answer]:
    answers = []
    uploads = [form(PRIVATE), form(PRIVATE + b"x", "cut.safetensors")]
    urls = [(LORA, ADMIN), (f"{LORA}/{PATH}", ADMIN), (f"{FILES}/{PATH}", ADMIN)]
    async with aiohttp.ClientSession(f"http://127.0.0.1:{daemon.port}") as session:
        for upload in uploads:
            upload.add_field("entity_type", "styles")
            async with session.post(f"{LORA}/upload", data=upload, headers=ADMIN) as got:
                answers.append(Answer(got.status, got.headers, await got.read()))
        for url, headers in (*urls, (f"{FILES}/{PATH}", READER)):
            async with session.get(url, headers=headers) as got:
                answers.append(Answer(got.status, got.headers, await got.read()))
    return answers
