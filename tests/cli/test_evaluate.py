"""`lora-server evaluate` as a process, against a server that says what it was told to."""

import asyncio
import json
import subprocess
from dataclasses import asdict
from typing import Any

import pytest

from lora_server.evaluation import schema
from lora_server.evaluation.report import Report
from tests.cli.conftest import Run
from tests.evaluation.reports import failing, healthy
from tests.scripted import answer, scripted
from tests.server import token

PATH = "styles/ink.safetensors"
UNDER_WAY = {"id": "ev_1", "status": "running", "verdict": None, "report": None}


def _said(status: str, facts: dict[str, Any]) -> bytes:
    return answer(status, json.dumps(facts).encode())


def _ended(report: Report) -> bytes:
    facts = {"status": "succeeded", "verdict": report.verdict}
    facts |= {"report": json.loads(schema.write(report))}
    return _said("200 OK", UNDER_WAY | facts)


def _events(*events: str) -> bytes:
    return answer("200 OK", "".join(f"{event}\n\n" for event in events).encode())


async def _evaluated(
    run: Run, *arguments: str, answers: list[bytes]
) -> tuple[subprocess.CompletedProcess[str], list[bytes]]:
    async with scripted(*answers) as server:
        variables = {
            "LORA_SERVER_URL": f"http://127.0.0.1:{server.port}",
            "LORA_SERVER_TOKEN": token("cli", "admin"),
        }
        done = await asyncio.to_thread(run, "evaluate", PATH, *arguments, **variables)
    return done, server.asked


async def test_a_report_is_told_in_short(run: Run) -> None:
    """What is known at once is printed, and a verdict that is no fail is status 0."""
    done, _ = await _evaluated(run, answers=[_ended(healthy())])

    assert done.returncode == 0
    assert done.stdout.startswith("PASS")
    assert "\x1b" not in done.stdout


async def test_an_evaluation_is_followed_to_its_end(run: Run) -> None:
    """A stream that breaks off is taken up where it was; a LoRA that fails is status 7."""
    broken = _events("event: state\ndata: {}", 'id: 5\nevent: progress\ndata: {"stage": "x"}')
    whole = _events(": still here", "event: done\ndata: {}")
    done, asked = await _evaluated(
        run,
        "--watch",
        "--tier",
        "quick",
        answers=[_said("202 Accepted", UNDER_WAY), broken, whole, _ended(failing())],
    )

    assert done.returncode == 7
    assert done.stdout.startswith("FAIL")
    assert [head.split(b" ")[:2] for head in asked] == [
        [b"POST", b"/api/v1/evaluation/"],
        [b"GET", b"/api/v1/evaluation/ev_1/events"],
        [b"GET", b"/api/v1/evaluation/ev_1/events"],
        [b"GET", b"/api/v1/evaluation/ev_1"],
    ]
    assert b"Last-Event-ID" not in asked[1]
    assert b"Last-Event-ID: 5\r\n" in asked[2]


@pytest.mark.parametrize("words", [(), ("--json",)])
async def test_what_takes_long_goes_on_without_us(run: Run, words: tuple[str, ...]) -> None:
    """Without --watch nobody waits, and what to do is said."""
    done, asked = await _evaluated(run, *words, answers=[_said("202 Accepted", UNDER_WAY)])

    assert (done.returncode, len(asked)) == (0, 1)
    assert json.loads(done.stdout) == UNDER_WAY if words else "--watch" in done.stdout


async def test_no_report_is_a_failure(run: Run) -> None:
    """An evaluation that broke says why, with status 1."""
    facts = {"status": "failed", "problem": {"code": "x", "message": "The worker is away."}}
    done, _ = await _evaluated(run, answers=[_said("200 OK", UNDER_WAY | facts)])

    assert (done.returncode, done.stdout) == (1, "")
    assert "The worker is away." in done.stderr


async def test_a_newer_report_is_no_crash(run: Run) -> None:
    """A report that this version cannot read still gives its verdict."""
    newer = asdict(healthy()) | {"schema": 99}
    facts = {"status": "succeeded", "verdict": "pass", "report": newer}
    done, _ = await _evaluated(run, answers=[_said("200 OK", UNDER_WAY | facts)])

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("pass")
    assert "--json" in done.stdout
