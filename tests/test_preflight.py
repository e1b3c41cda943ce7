"""Asking before sending: the answer is what the upload would get."""

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.calls import API, JSON, LORA, Answer, call, lora_bytes, stored
from tests.formats.hostile_safetensors import TRICKS
from tests.formats.safetensors_files import entry, safetensors
from tests.loras import lora_header
from tests.server import ADMIN, UPLOADER, Server, form, make_config, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

PREFLIGHT = f"{API}/lora/preflight"
MEBIBYTE = 1024 * 1024
# What only the whole file can tell, or what does not fit into a question.
BEYOND_A_HEADER = {"lora_polyglot", "lora_header_too_large"}


@pytest.fixture
def server(shared: Server) -> Server:
    """Use one server for the whole module."""
    return shared


@pytest_asyncio.fixture(loop_scope="module")
async def narrow(tmp_path: Path) -> AsyncIterator[Server]:
    """Run a server that takes little: small files, no pickles, and only with much space left."""
    sections: dict[str, Any] = {
        "storage": {"max_file_size": 1000, "min_free_space": 2**60},
        "ingest": {"pickle": "refuse"},
    }
    async with running(make_config(tmp_path, **sections)) as narrow_server:
        yield narrow_server


async def _asked(server: Server, headers: dict[str, str] = ADMIN, **members: Any) -> Answer:
    body = json.dumps({"filename": "ink.safetensors", "file_size": 500, **members}).encode()
    return await call(server, "POST", PREFLIGHT, headers=headers | JSON, data=BytesIO(body))


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _reason(answer: Answer) -> str:
    (reason,) = answer.json["reasons"]
    return str(reason["type"])


async def test_good_offer_is_acceptable(server: Server) -> None:
    """A header of a LoRA is described, and nothing speaks against sending the file."""
    header = _encoded(lora_header(1000))
    answer = await _asked(server, file_size=1000, header=header, entity_type="styles")

    assert answer.status == 200
    assert answer.json["acceptable"]
    assert answer.json["reasons"] == []
    assert not answer.json["exists"]
    assert answer.json["inspection"]["adapter"] == "LoRA"
    assert not server.files()


async def test_name_alone_can_be_asked(server: Server) -> None:
    """Without a header there is no inspection, and for a pickle there never is."""
    bare = await _asked(server)
    pickled = await _asked(server, filename="ink.pt", header=_encoded(lora_header(500)))

    assert bare.json == {"acceptable": True, "reasons": [], "exists": False, "inspection": None}
    assert pickled.json == bare.json


async def test_stored_content_exists(server: Server) -> None:
    """The digest of a stored file is known, in either case of its digits."""
    await stored(server)
    digest = hashlib.sha256(lora_bytes()).hexdigest()

    assert (await _asked(server, sha256=digest.upper())).json["exists"]
    assert not (await _asked(server, sha256="0" * 64)).json["exists"]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        pytest.param({"filename": "ink.txt"}, "unsupported_upload", id="extension"),
        pytest.param({"filename": "...safetensors"}, "filename_empty", id="name"),
        pytest.param({"filename": "ink.pt"}, "lora_pickle_refused", id="pickle"),
        pytest.param({"file_size": 1001}, "upload_too_large", id="too large"),
        pytest.param({"file_size": 0}, "lora_empty", id="empty"),
        pytest.param({"file_size": 1000}, "storage_full", id="no space"),
    ],
)
async def test_every_reason_is_told(narrow: Server, members: dict[str, Any], reason: str) -> None:
    """What an upload would be refused for is known before it is sent."""
    answer = await _asked(narrow, **members)

    assert answer.status == 200
    assert not answer.json["acceptable"]
    assert _reason(answer) == reason


async def test_what_a_file_is_comes_before_its_size(server: Server) -> None:
    """Whoever offers a checkpoint of 7 GB is not sent away to have a limit raised for it."""
    size = 7 * 10**9
    header = safetensors({"model.diffusion_model.out.weight": entry((size // 2,), 0, size)}, b"")
    file_size = len(header) + size
    checkpoint = await _asked(server, file_size=file_size, header=_encoded(header))
    adapter = await _asked(server, file_size=file_size, header=_encoded(lora_header(file_size)))

    assert [reason["type"] for reason in checkpoint.json["reasons"]] == [
        "lora_not_an_adapter",
        "upload_too_large",
    ]
    assert "full checkpoint" in checkpoint.json["reasons"][0]["msg"]
    assert [reason["type"] for reason in adapter.json["reasons"]] == ["upload_too_large"]
    assert adapter.json["inspection"] is None


async def test_header_gets_the_verdict_of_the_upload(server: Server) -> None:
    """Every hostile header is refused with the code that the whole file is refused with."""
    wrong = {}
    judged = 0
    for name, trick in TRICKS.items():
        content = trick.build()
        if trick.code in BEYOND_A_HEADER or not content or len(content) > 4 * MEBIBYTE:
            continue
        asked = await _asked(server, file_size=len(content), header=_encoded(content))
        upload = form(BytesIO(content), entity_type="styles")
        answer = await call(server, "POST", f"{LORA}/upload", data=upload)
        judged += 1
        if asked.status != 200 or _reason(asked) != answer.json["detail"][0]["type"]:
            wrong[name] = asked.body

    assert not wrong
    assert judged > 100


@pytest.mark.parametrize(
    ("header", "file_size", "reason"),
    [
        pytest.param(lora_header(1000)[:100], 1000, "lora_truncated", id="half a header"),
        pytest.param(b"", 1000, "lora_truncated", id="no byte of a header"),
        pytest.param(lora_header(1000), 999, "lora_truncated", id="file too short"),
        pytest.param(lora_header(1000), 1001, "lora_trailing_bytes", id="file too long"),
    ],
)
async def test_header_must_fit_the_file(
    server: Server, header: bytes, file_size: int, reason: str
) -> None:
    """A header that is cut, or of a file of another size, speaks against the file."""
    answer = await _asked(server, file_size=file_size, header=_encoded(header))

    assert _reason(answer) == reason


@pytest.mark.parametrize("header", ["not base64!", "QQ", "QUJD\n", "\u00e9"])
async def test_header_must_be_base64(server: Server, header: str) -> None:
    """What is no base64 is a mistake of the request."""
    answer = await _asked(server, header=header)

    assert answer.complaints == [(["body", "header"], "value_error")]


async def test_question_is_bounded(server: Server) -> None:
    """A body that could hold no header that is taken is not read."""
    body = b'{"filename":"ink.safetensors","file_size":1,"header":"' + b"A" * 7 * MEBIBYTE + b'"}'
    answer = await call(server, "POST", PREFLIGHT, headers=ADMIN | JSON, data=BytesIO(body))

    assert answer.status == 413


async def test_faces_are_for_admins(server: Server) -> None:
    """Who may not send to an entity type is told so, and may ask for the others."""
    refused = await _asked(server, UPLOADER, entity_type="faces")
    allowed = await _asked(server, UPLOADER, entity_type="styles")
    admin = await _asked(server, ADMIN, entity_type="faces")

    assert refused.status == 422
    assert refused.json["detail"][0]["loc"] == ["body", "entity_type"]
    assert allowed.json["acceptable"]
    assert admin.json["acceptable"]
