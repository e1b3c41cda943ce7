"""Schemathesis holds the running server to its own document."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lora_server.web.keys import EVALUATIONS
from lora_server.web.routes import table
from tests.calls import API, call, stored
from tests.evaluation.workers import until
from tests.server import ADMIN, Server, make_config, running

RULES = Path(__file__).with_name("schemathesis.toml")
EVALUATION = f"{API}/evaluation/"
# Chance seldom finds a file that exists, so half of the runs are led to one.
EXISTING = """
[parameters]
"path.entity_type" = "styles"
"path.filename" = "ink.safetensors"
"path.name" = "start.js"
"path.id" = "EVALUATION"
"""


@pytest.fixture
async def fuzzed(tmp_path: Path) -> AsyncIterator[Server]:
    """Run a server that holds one LoRA and does not mind how often a login fails."""
    config = make_config(
        tmp_path / "data",
        server={"max_failed_logins": 10**6},
        evaluation={"enabled": True, "on_upload": "off"},
    )
    async with running(config) as server:
        await stored(server)
        await until(lambda: server.app[EVALUATIONS].health().status == "ok", within_s=30)
        yield server


@pytest.mark.parametrize(
    "more",
    [
        pytest.param("", id="anything"),
        pytest.param(EXISTING, id="a file that exists"),
    ],
)
async def test_the_server_does_what_its_document_says(
    fuzzed: Server, tmp_path: Path, more: str
) -> None:
    """No check of schemathesis fails for any operation."""
    rules = tmp_path / "schemathesis.toml"
    evaluation = await call(fuzzed, "POST", EVALUATION, partial_path="styles/ink.safetensors")
    more = more.replace("EVALUATION", evaluation.json["id"])
    await asyncio.to_thread(rules.write_text, RULES.read_text(encoding="utf-8") + more)

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(rules)),
        *("run", f"{fuzzed.origin}/openapi.json", "--no-color"),
        *("--header", f"Authorization: {ADMIN['Authorization']}"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=tmp_path,
        env={**os.environ, "PYTHONWARNINGS": "default"},
    )
    told = (await process.communicate())[0].decode(errors="replace")

    assert process.returncode == 0, told
    assert f"Tested: {len(table(fuzzed.config)) - 1}" in told  # it does not test the document
