"""Evaluations over HTTP, by a real worker on real files."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from lora_server.evaluation.reports import REPORT
from lora_server.web.keys import EVALUATIONS
from tests.calls import API, JSON, LORA, Answer, call, deleted, lora_bytes, stored
from tests.evaluation.files import content, lora
from tests.evaluation.workers import is_running, until
from tests.server import ADMIN, UPLOADER, Server, form, make_config, running

EVALUATION = f"{API}/evaluation/"
INK = "styles/ink.safetensors"
SETTINGS = {"enabled": True, "on_upload": "off"}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def _evaluating(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    config = make_config(tmp_path_factory.mktemp("server"), evaluation=SETTINGS)
    async with running(config) as server:
        await _ready(server)
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def evaluating(_evaluating: Server) -> AsyncIterator[Server]:
    """Lend the one server with a worker, and empty it afterwards."""
    yield _evaluating
    await _evaluating.empty()


async def _ready(server: Server) -> None:
    """Wait until the worker was heard of."""
    await until(lambda: server.app[EVALUATIONS].health().status == "ok", within_s=30)


async def evaluate(server: Server, path: str = INK, **members: Any) -> Any:
    """Evaluate a LoRA and return the answer, which has to be a success."""
    answer = await call(server, "POST", EVALUATION, partial_path=path, **members)
    assert answer.status == 200, answer.body
    return answer.json


async def asked(server: Server, path: str = INK, *, wait: str = "0", **members: Any) -> Answer:
    """Ask for an evaluation without waiting for its end."""
    headers = ADMIN | {"Prefer": f"wait={wait}"}
    return await call(server, "POST", EVALUATION, headers=headers, partial_path=path, **members)


@asynccontextmanager
async def nothing_begun(server: Server) -> AsyncIterator[None]:
    """Let whatever is asked for wait until the end of the block."""
    catalog = server.library.catalog.evaluations
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(catalog, "claim", _nothing)
        yield
    server.app[EVALUATIONS].evaluator.look_again()


async def _nothing(*_: object) -> None:
    """Claim nothing."""


def workers(server: Server) -> list[int]:
    """Return the processes that evaluate for a server."""
    beat = server.app[EVALUATIONS].worker.facts.get("pid")
    return [int(beat)] if beat else []


def tasks_of(pid: int) -> list[int]:
    """Return the children of a process."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text(encoding="utf-8").split()]


async def test_a_lora_is_evaluated_by_its_weights(evaluating: Server) -> None:
    """The answer is the report: a verdict, findings with reasons, numbers for each module."""
    lora = await stored(evaluating)
    answer = await evaluate(evaluating)

    report = answer["report"]
    assert (answer["status"], answer["tier"], answer["cached"]) == ("succeeded", "weights", False)
    assert (answer["verdict"], answer["sha256"]) == (report["verdict"], lora["sha256"])
    assert report["lora"]["partial_path"] == INK
    assert [finding["id"] for finding in report["findings"]] == [f"W{n:02}" for n in range(1, 13)]
    assert report["weights"]["module_count"] == len(report["weights"]["modules"]) == 1
    assert answer["requested_by"] == "admin"


async def test_the_report_is_given_back_until_it_is_forced(evaluating: Server) -> None:
    """The same content and plan are not measured twice; `force` measures them again."""
    await stored(evaluating)
    first = await evaluate(evaluating)
    again = await evaluate(evaluating)
    forced = await evaluate(evaluating, force=True)
    old = await call(evaluating, "GET", f"{EVALUATION}{first['id']}")
    await evaluating.app[EVALUATIONS].after_upload.tidy()
    gone = await call(evaluating, "GET", f"{EVALUATION}{first['id']}")
    new = await call(evaluating, "GET", f"{EVALUATION}{forced['id']}")

    assert (again["id"], again["cached"]) == (first["id"], True)
    assert again["report"] == first["report"]
    assert (forced["cached"], forced["id"] == first["id"]) == (False, False)
    assert (old.status, gone.status, new.status) == (200, 404, 200)  # tidied up, now and then


async def test_a_copy_shares_the_report(evaluating: Server) -> None:
    """Reports belong to contents, so a second file with the same bytes has one already."""
    await stored(evaluating)
    first = await evaluate(evaluating)
    await stored(evaluating, "copy.safetensors")
    copy = await evaluate(evaluating, "styles/copy.safetensors")

    assert (copy["id"], copy["cached"]) == (first["id"], True)


async def test_duplicates_are_named(evaluating: Server) -> None:
    """The same update under another header, and one that was trained further, are found."""
    await stored(evaluating, seed=3)
    await evaluate(evaluating)
    renamed = lora_bytes(3).replace(b"sd_v1", b"sd-v1")
    upload = form(renamed, "again.safetensors", entity_type="styles")
    assert (await call(evaluating, "POST", f"{LORA}/upload", data=upload)).status == 200
    answer = await evaluate(evaluating, "styles/again.safetensors")

    (near,) = answer["report"]["nearest"]
    assert (near["partial_path"], near["kind"]) == (INK, "same weights")
    assert answer["verdict"] == "review"
    w09 = next(f for f in answer["report"]["findings"] if f["id"] == "W09")
    assert (w09["result"], w09["links"]) == ("warn", [INK])


async def test_a_broken_lora_fails_with_its_modules(evaluating: Server) -> None:
    """NaN in one tensor is a verdict, not an error of the evaluation."""
    down, up = np.ones((4, 320)), np.ones((320, 4))
    down[0, 0] = np.nan
    path = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    broken = content(lora(path, down, up, 4.0))
    upload = form(broken, "ink.safetensors", entity_type="styles")
    assert (await call(evaluating, "POST", f"{LORA}/upload", data=upload)).status == 200
    answer = await evaluate(evaluating)

    w01 = answer["report"]["findings"][0]
    assert (answer["status"], answer["verdict"]) == ("succeeded", "fail")
    assert (w01["result"], w01["modules"]) == ("fail", [path])


@pytest.mark.parametrize(
    ("members", "status", "where"),
    [
        ({"partial_path": "styles/nobody.safetensors"}, 404, None),
        ({"partial_path": "../../etc/passwd"}, 422, "partial_path"),
        ({}, 422, "partial_path"),
        ({"partial_path": INK, "tier": "deep"}, 422, "tier"),
        ({"partial_path": INK, "tier": "quick"}, 422, "tier"),
        ({"partial_path": INK, "base_model": "flux"}, 422, "base_model"),
        ({"partial_path": INK, "reference": "faces"}, 422, "reference"),
        ({"partial_path": INK, "gate": "mine"}, 422, "gate"),
        ({"partial_path": INK, "compare_to": "styles/no.safetensors"}, 422, "compare_to"),
        ({"partial_path": INK, "compare_to": "/etc/passwd"}, 422, "compare_to"),
        ({"partial_path": INK, "compare_to": INK}, 422, "compare_to"),
        ({"partial_path": INK, "strengths": []}, 422, "strengths"),
        ({"partial_path": INK, "seeds": 1000}, 422, "seeds"),
        ({"partial_path": INK, "timeout_s": 0}, 422, "timeout_s"),
        ({"partial_path": INK, "surprise": 1}, 422, "surprise"),
    ],
)
async def test_what_is_not_known_is_said(
    evaluating: Server, members: dict[str, Any], status: int, where: str | None
) -> None:
    """An unknown LoRA is a 404; anything else that is not known names its field."""
    await stored(evaluating)
    body = json.dumps(members).encode()
    answer = await call(evaluating, "POST", EVALUATION, headers=ADMIN | JSON, data=body)

    assert answer.status == status, answer.body
    if where:
        assert where in answer.complaints[0][0]


async def test_a_plan_can_be_asked_for(evaluating: Server) -> None:
    """`validate_only` tells what would be done and what it takes, and does nothing."""
    await stored(evaluating)
    before = (await call(evaluating, "GET", EVALUATION)).json["count"]
    answer = await evaluate(evaluating, validate_only=True, trigger="ink", strengths=[0.5, 1])
    after = (await call(evaluating, "GET", EVALUATION)).json["count"]

    assert (answer["id"], answer["status"], answer["report"]) == (None, None, None)
    assert answer["plan"]["tier"] == "weights"
    assert answer["cost"]["estimated_seconds"] > 0
    assert before == after


async def test_two_files_are_compared_on_request(evaluating: Server) -> None:
    """`compare_to` measures the cosine with a file that is not among the nearest."""
    await stored(evaluating, seed=1)
    await stored(evaluating, "other.safetensors", seed=2)
    answer = await evaluate(evaluating, compare_to="styles/other.safetensors")

    assert answer["status"] == "succeeded", answer["problem"]
    assert answer["plan"]["compare_to"] is not None


async def test_evaluations_are_listed_newest_first(evaluating: Server) -> None:
    """A page of them can be filtered, and shows no report."""
    await stored(evaluating, seed=5)
    await stored(evaluating, "two.safetensors", seed=6)
    ids = [(await evaluate(evaluating, f"styles/{n}.safetensors"))["id"] for n in ("ink", "two")]
    everything = (await call(evaluating, "GET", f"{EVALUATION}?limit=2")).json
    one = (await call(evaluating, "GET", f"{EVALUATION}?partial_path={INK}&limit=1")).json

    assert [item["id"] for item in everything["data"]] == ids[::-1]
    assert "report" not in everything["data"][0]
    assert one["data"][0]["id"] == ids[0]


async def test_the_list_of_loras_shows_the_verdict(evaluating: Server) -> None:
    """What an evaluation found stands in the list and in the detail."""
    await stored(evaluating, seed=7)
    before = (await call(evaluating, "GET", LORA)).json["data"][0]["evaluation"]
    answer = await evaluate(evaluating)
    after = (await call(evaluating, "GET", LORA)).json["data"][0]["evaluation"]
    detail = (await call(evaluating, "GET", f"{LORA}/{INK}")).json

    assert (before, after) == (None, answer["verdict"])
    assert [item["id"] for item in detail["evaluations"]] == [answer["id"]]


async def test_the_report_is_a_page(evaluating: Server) -> None:
    """A browser gets HTML that may load nothing and run nothing."""
    await stored(evaluating)
    answer = await evaluate(evaluating)
    page = await call(evaluating, "GET", f"{EVALUATION}{answer['id']}/report.html")

    assert page.status == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert b"<script" not in page.body
    assert b"ink.safetensors" in page.body


@pytest.mark.parametrize("part", ["", "/events", "/report.html"])
async def test_unknown_evaluations_are_not_found(evaluating: Server, part: str) -> None:
    """An id that nobody was given is a 404, whatever it looks like."""
    for unknown in ("ev_" + "0" * 24, "..%2f..%2fetc", "x" * 300):
        answer = await call(evaluating, "GET", f"{EVALUATION}{unknown}{part}")
        assert answer.status == 404


async def test_the_slash_at_the_end_may_be_left_out(evaluating: Server) -> None:
    """`/evaluation` and `/evaluation/` are one."""
    await stored(evaluating)
    answer = await call(evaluating, "POST", EVALUATION.rstrip("/"), partial_path=INK)

    assert answer.status == 200


async def test_who_prefers_not_to_wait_polls(evaluating: Server) -> None:
    """`Prefer: wait=0` is answered with 202 and a place to look."""
    await stored(evaluating)
    accepted = await asked(evaluating, force=True)
    assert (accepted.status, accepted.headers["Preference-Applied"]) == (202, "wait=0")
    assert accepted.json["report"] is None
    where = accepted.headers["Location"]
    assert where == f"{EVALUATION}{accepted.json['id']}"

    async with asyncio.timeout(30):
        while (now := await call(evaluating, "GET", where)).json["status"] != "succeeded":
            assert now.status == 200
            await asyncio.sleep(0.05)

    assert now.json["report"]["id"] == accepted.json["id"]


def _events(body: bytes) -> Iterator[tuple[str, str, Any]]:
    for block in body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[0] != ":")
        if fields:
            yield fields["event"], fields.get("id", ""), json.loads(fields["data"])


async def test_an_evaluation_is_followed_as_events(evaluating: Server) -> None:
    """The stream begins with how things stand, counts its events, and ends with the verdict."""
    await stored(evaluating, seed=20)
    accepted = await asked(evaluating)
    stream = await call(evaluating, "GET", f"{EVALUATION}{accepted.json['id']}/events")
    events = list(_events(stream.body))

    assert stream.headers["Content-Type"] == "text/event-stream"
    assert {name for name, _, _ in events} >= {"state", "done"}
    assert events[-1][0] == "done"
    assert (events[-1][2]["status"], events[-1][2]["verdict"]) == ("succeeded", "pass")
    assert "running" in [data["status"] for name, _, data in events if name == "state"]


async def test_a_broken_stream_is_taken_up(evaluating: Server) -> None:
    """`Last-Event-ID` leaves out what was heard already."""
    await stored(evaluating, seed=21)
    evaluation = (await asked(evaluating, wait="60")).json["id"]
    feeds = evaluating.app[EVALUATIONS].evaluator.feeds
    kept = [event async for event in feeds.follow(evaluation, 0, silence_s=0.1) if event]
    resumed = [
        event.id async for event in feeds.follow(evaluation, kept[-2].id, silence_s=0.1) if event
    ]
    headers = ADMIN | {"Last-Event-ID": str(kept[-1].id)}
    late = await call(evaluating, "GET", f"{EVALUATION}{evaluation}/events", headers=headers)

    assert resumed == [kept[-1].id]
    assert [name for name, _, _ in _events(late.body)] == ["done"]


async def test_health_needs_no_token_and_names_nobody(evaluating: Server) -> None:
    """It tells what can run, from known facts, and neither paths nor names."""
    await stored(evaluating)
    await evaluate(evaluating)
    answer = await call(evaluating, "GET", f"{EVALUATION}health", headers={})

    health = answer.json
    assert (answer.status, health["status"]) == (200, "ok")
    assert health["tiers"]["weights"] == {"available": True, "reason": ""}
    assert health["tiers"]["full"] == {"available": False, "reason": "no base model is configured"}
    assert health["worker"]["state"] == "idle"
    assert health["worker"]["last_heartbeat_s"] < 10
    assert health["queue"] == {"depth": 0, "limit": 100, "oldest_s": None, "running": 0}
    assert health["versions"]["evaluator"]
    assert health["gpus"] or health["gpu_reason"]
    assert b"ink" not in answer.body
    assert b"/" not in answer.body


async def test_only_admins_evaluate(evaluating: Server) -> None:
    """Whoever only uploads sees neither reports nor the list."""
    await stored(evaluating)
    identifier = (await evaluate(evaluating))["id"]
    for method, path in (
        ("POST", EVALUATION),
        ("GET", EVALUATION),
        ("GET", f"{EVALUATION}{identifier}"),
        ("DELETE", f"{EVALUATION}{identifier}"),
        ("GET", f"{EVALUATION}{identifier}/report.html"),
    ):
        assert (await call(evaluating, method, path, headers=UPLOADER)).status == 403


async def test_a_lora_that_is_gone_is_not_evaluated(evaluating: Server) -> None:
    """One deleted while it waits ends in a clear status."""
    await stored(evaluating, seed=11)
    service = evaluating.app[EVALUATIONS]
    async with nothing_begun(evaluating):
        accepted = await asked(evaluating)
        await deleted(evaluating)
    ended = await service.evaluator.ended(accepted.json["id"], 30)

    assert (ended.status, ended.problem) == ("failed", "lora_gone")


async def test_a_file_that_changes_under_the_measure_is_noticed(evaluating: Server) -> None:
    """What was measured would be said of other bytes."""
    await stored(evaluating, seed=12)
    path = evaluating.models / INK
    async with nothing_begun(evaluating):
        accepted = await asked(evaluating)
        await asyncio.to_thread(os.utime, path, ns=(1, 1))
    ended = await evaluating.app[EVALUATIONS].evaluator.ended(accepted.json["id"], 30)

    assert (ended.status, ended.problem) == ("failed", "lora_gone")


async def test_a_full_disk_ends_one_evaluation(
    evaluating: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report that cannot be written is told, leaves nothing, and the next one is written."""
    await stored(evaluating, seed=13)
    folder = evaluating.config.storage.state_dir / "evaluations"
    before = await asyncio.to_thread(lambda: sorted(folder.glob("*")) if folder.exists() else [])

    def full(_path: Path, _text: str) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patched:
        patched.setattr("lora_server.evaluation.reports._write", full)
        failed = await evaluate(evaluating)
    after = await asyncio.to_thread(lambda: sorted(folder.glob("*")))
    again = await evaluate(evaluating)

    assert (failed["status"], failed["problem"]["code"]) == ("failed", "storage_full")
    assert before == after
    assert again["status"] == "succeeded"


@pytest.mark.parametrize(
    ("task", "lie"),
    [("measure", {"sketch": "AAAA"}), ("report", {"verdict": "splendid"})],
)
async def test_a_task_that_was_taken_over_spoils_one_evaluation(
    evaluating: Server, monkeypatch: pytest.MonkeyPatch, task: str, lie: dict[str, Any]
) -> None:
    """Facts of another shape are a failure with a code; nothing of them is kept."""
    await stored(evaluating, seed=77)
    worker = evaluating.app[EVALUATIONS].worker
    asking = worker.ask

    async def lying(asked_for: str, *args: Any, **named: Any) -> Any:
        answer = await asking(asked_for, *args, **named)
        if asked_for != task:
            return answer
        return answer._replace(facts={**answer.facts, **lie})

    with monkeypatch.context() as patched:
        patched.setattr(worker, "ask", lying)
        failed = await evaluate(evaluating, force=True)
    listed = await call(evaluating, "GET", EVALUATION)
    again = await evaluate(evaluating, force=True)

    assert (failed["status"], failed["problem"]["code"]) == ("failed", "worker_crashed")
    assert (listed.status, again["status"]) == (200, "succeeded")


async def test_a_killed_task_fails_alone(evaluating: Server) -> None:
    """A child that is killed is one failed evaluation, and the next one is fine."""
    await stored(evaluating, seed=14)
    await until(lambda: workers(evaluating))
    (worker,) = workers(evaluating)
    accepted = await asked(evaluating)
    await until(lambda: tasks_of(worker))
    os.kill(tasks_of(worker)[0], signal.SIGKILL)
    ended = await evaluating.app[EVALUATIONS].evaluator.ended(accepted.json["id"], 30)
    again = await evaluate(evaluating)

    assert (ended.status, ended.problem) == ("failed", "worker_crashed")
    assert "SIGKILL" in (ended.message or "")
    assert again["status"] == "succeeded"


async def test_a_killed_worker_is_started_again(evaluating: Server) -> None:
    """The evaluation under way is carried out by the new one; nobody loses a report."""
    await stored(evaluating, seed=15)
    await until(lambda: workers(evaluating))
    (worker,) = workers(evaluating)
    accepted = await asked(evaluating)
    await until(lambda: tasks_of(worker))
    (task,) = tasks_of(worker)
    os.kill(worker, signal.SIGKILL)
    ended = await evaluating.app[EVALUATIONS].evaluator.ended(accepted.json["id"], 60)

    assert (ended.status, ended.attempts > 1) == ("succeeded", True)
    await until(lambda: not is_running(task))
    await _ready(evaluating)


async def test_a_report_that_is_lost_is_made_again(evaluating: Server) -> None:
    """Who removes the state's files by hand gets a new report, not an error for ever."""
    await stored(evaluating, seed=16)
    first = await evaluate(evaluating)
    reports = evaluating.app[EVALUATIONS].reports
    await asyncio.to_thread(reports.remove, first["id"])
    again = await evaluate(evaluating)

    assert again["report"] is not None
    assert await asyncio.to_thread(reports.read, again["id"], REPORT) is not None


async def test_a_server_without_evaluations_says_so(shared: Server) -> None:
    """Switched off, they are a 503 that names the setting; lists still work."""
    await stored(shared)
    health = await call(shared, "GET", f"{EVALUATION}health", headers={})
    answer = await call(shared, "POST", EVALUATION, partial_path=INK)

    assert (health.status, answer.status) == (503, 503)
    assert "[evaluation] enabled" in health.json["tiers"]["weights"]["reason"]
    assert "[evaluation] enabled" in answer.json["detail"]
    assert (await call(shared, "GET", EVALUATION)).json == {"data": [], "count": 0}


async def test_an_upload_is_evaluated_by_itself(tmp_path_factory: pytest.TempPathFactory) -> None:
    """By default the list shows the verdict shortly after, and nobody had to ask."""
    config = make_config(tmp_path_factory.mktemp("data"), evaluation={"enabled": True})
    async with running(config) as server:
        await stored(server)

        async def verdict() -> Any:
            return (await call(server, "GET", LORA)).json["data"][0]["evaluation"]

        async with asyncio.timeout(60):
            while (found := await verdict()) is None:  # noqa: ASYNC110 - as a person would look
                await asyncio.sleep(0.1)
        (item,) = (await call(server, "GET", EVALUATION)).json["data"]

    assert found == item["verdict"] == "pass"
    assert item["requested_by"] is None


async def test_what_takes_too_long_is_ended(evaluating: Server) -> None:
    """`timeout_s` is a promise: the status says that the time was up."""
    await stored(evaluating, seed=30)
    answer = await evaluate(evaluating, timeout_s=0.05)

    assert (answer["status"], answer["problem"]["code"]) == ("timed_out", "timed_out")


async def test_a_full_queue_is_said_with_a_time_to_retry(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """One more than may wait is a 429; what waits can be cancelled."""
    settings = SETTINGS | {"max_queue": 1}
    async with running(make_config(tmp_path_factory.mktemp("d"), evaluation=settings)) as server:
        for number in (1, 2):
            await stored(server, f"{number}.safetensors", seed=number)
        async with nothing_begun(server):
            waiting = await asked(server, "styles/1.safetensors")
            refused = await asked(server, "styles/2.safetensors")
            health = (await call(server, "GET", f"{EVALUATION}health", headers={})).json
        cancelled = await call(server, "DELETE", f"{EVALUATION}{waiting.json['id']}")

    assert (waiting.status, refused.status) == (202, 429)
    assert int(refused.headers["Retry-After"]) > 0
    assert health["queue"]["depth"] == 1
    assert cancelled.status == 200


async def test_a_copy_of_another_type_has_its_own_report(evaluating: Server) -> None:
    """A report is about a LoRA among its like, so its type and its base belong to the plan."""
    await stored(evaluating, seed=31)
    first = await evaluate(evaluating)
    await stored(evaluating, entity_type="clothes", seed=31)
    other = await evaluate(evaluating, "clothes/ink.safetensors")

    assert other["id"] != first["id"]
    assert other["report"]["lora"]["entity_type"] == "clothes"
    assert other["report"]["nearest"][0]["kind"] == "same bytes"
