"""The evaluation worker: whatever one task does, the next one is served."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from lora_server.evaluation.worker.client import TaskFailed, Worker, WorkerAway
from lora_server.evaluation.worker.latest import Latest
from tests.evaluation.workers import ask, is_running, open_files, supervised, until


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    """Run a worker with odd tasks."""
    async with supervised(tmp_path) as running:
        yield running


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Write two files."""
    paths = [tmp_path / "one", tmp_path / "two"]
    for path in paths:
        path.write_text(path.name, encoding="utf-8")
    return paths


async def test_a_task_gets_descriptors_and_its_result_comes_back(
    worker: Worker, files: list[Path]
) -> None:
    """The files are read through the descriptors that came, in their order."""
    fds = [os.open(path, os.O_RDONLY) for path in files]
    events: list[Mapping[str, Any]] = []

    result = await ask(worker, "echo", fds, size=3, events=events)
    for fd in fds:
        os.close(fd)

    assert result.facts["contents"] == ["one", "two"]
    assert result.text == "one-two"
    assert [event.get("status") for event in events] == ["starting", "running", None]
    assert events[-1] == {"stage": "echo", "progress": 0.5}


@pytest.mark.parametrize(
    ("task", "code", "says"),
    [
        ("die", "worker_crashed", "SIGKILL"),
        ("fail", "worker_crashed", "status 1"),
        ("babble", "worker_crashed", "SIGKILL"),
        ("gorge", "worker_crashed", "status 1"),
        ("bloat", "result_too_large", "larger"),
        ("refuse", "lora_corrupt", "makes no sense"),
        ("unheard_of", "worker_crashed", "status 1"),
    ],
)
async def test_a_task_that_ends_badly_ends_alone(
    worker: Worker, task: str, code: str, says: str
) -> None:
    """The caller hears what happened, and the worker does the next task."""
    with pytest.raises(TaskFailed, match=says) as caught:
        await ask(worker, task)

    assert caught.value.code == code
    assert (await ask(worker, "echo", size=1)).facts["contents"] == []


@pytest.mark.parametrize(
    "frame",
    [
        '{"piece": 3}',
        '{"piece": "\\ud800"}',
        '{"done": {"x": "\\ud800"}}',
        '{"failed": "x"}',
        '{"failed": [{}, 1]}',
        '{"failed": ["a code\\n", "a message"]}',
        '{"failed": ["code", "a message", 1]}',
        '{"event": 3}',
        '{"event": {"progress": "much"}}',
        '{"event": {"progress": NaN}}',
        '{"event": {"status": "succeeded"}}',
        '{"event": {"stage": "%s"}}' % ("x" * 1000),
        "{}",
    ],
)
async def test_what_makes_no_sense_is_a_failure(worker: Worker, frame: str) -> None:
    """A task that was taken over by its file can end itself, and nothing else."""
    events: list[Mapping[str, Any]] = []
    with pytest.raises(TaskFailed) as caught:
        await ask(worker, "say", frames=[frame], events=events)

    assert caught.value.code == "worker_crashed"
    assert events == [{"status": "starting"}, {"status": "running"}]
    assert (await ask(worker, "echo", size=1)).facts["contents"] == []


@pytest.mark.parametrize(
    "request_",
    [{}, {"task": 3}, {"task": "echo"}, {"task": "echo", "arguments": {}, "timeout_s": "1"}],
)
async def test_a_request_that_makes_no_sense_is_hung_up_on(
    worker: Worker, request_: dict[str, Any]
) -> None:
    """The worker closes the connection and serves the next one."""
    async with worker._connected() as channel:  # noqa: SLF001 - says what no client would
        await channel.send(request_)
        async with asyncio.timeout(5):
            assert await channel.receive() is None

    assert (await ask(worker, "echo", size=1)).facts["contents"] == []


async def test_a_task_is_ended_when_its_time_is_up(worker: Worker) -> None:
    """It hears the limit, and its process is gone."""
    events: list[Mapping[str, Any]] = []
    with pytest.raises(TaskFailed, match="longer than 2 s") as caught:
        await ask(worker, "sleep", timeout_s=2, events=events)

    assert caught.value.code == "timed_out"
    assert not is_running(int(events[-1]["stage"]))


async def test_a_client_that_goes_away_ends_its_task(worker: Worker) -> None:
    """A cancelled call leaves no process behind."""
    events: list[Mapping[str, Any]] = []
    asking = asyncio.create_task(ask(worker, "sleep", events=events))
    await until(lambda: events and "stage" in events[-1])
    pid = int(events[-1]["stage"])
    assert is_running(pid)

    asking.cancel()
    await until(lambda: not is_running(pid))

    assert (await ask(worker, "echo", size=1)).facts["contents"] == []


async def test_tasks_take_turns(tmp_path: Path) -> None:
    """No more run at once than were allowed; what waits is served later."""
    async with supervised(tmp_path, workers=1) as worker:
        results = await asyncio.gather(*(ask(worker, "echo", size=1) for _ in range(3)))

    assert len({result.facts["pid"] for result in results}) == 3


async def test_the_gpu_has_one_task_at_a_time(worker: Worker) -> None:
    """A second one hears that it waits, while those that need no GPU go on."""
    first: list[Mapping[str, Any]] = []
    second: list[Mapping[str, Any]] = []
    holding = asyncio.create_task(ask(worker, "sleep", gpu=True, events=first))
    await until(lambda: first and "stage" in first[-1])
    waiting = asyncio.create_task(ask(worker, "echo", gpu=True, size=1, events=second))
    await until(lambda: second)
    beside = await ask(worker, "echo", size=1)
    told = list(second)
    holding.cancel()
    result = await waiting

    assert told == [{"status": "waiting_gpu"}]
    assert beside.facts["contents"] == result.facts["contents"] == []
    assert [event.get("status") for event in second[:3]] == ["waiting_gpu", "starting", "running"]


async def test_a_task_finds_nothing_but_its_files(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No secret of the environment reaches a task, and arithmetic has one thread."""
    monkeypatch.setenv("LORA_SERVER_SECRET", "x")
    result = (await ask(worker, "surroundings")).facts

    assert "LORA_SERVER_SECRET" not in result["environment"]
    assert result["environment"]["OPENBLAS_NUM_THREADS"] == "1"
    assert len(result["fds"]) <= 5


async def test_nothing_is_left_open(worker: Worker, files: list[Path]) -> None:
    """Tasks that end well or badly keep no descriptor."""
    fd = os.open(files[0], os.O_RDONLY)
    await ask(worker, "echo", [fd], size=1)
    before = open_files()
    for _ in range(3):
        await ask(worker, "echo", [fd], size=1)
        with pytest.raises(TaskFailed):
            await ask(worker, "die", [fd])
    os.close(fd)

    assert open_files() == before - 1


async def test_nobody_at_the_socket_is_said_so(tmp_path: Path) -> None:
    """A worker that is not there is no reason to wait."""
    with pytest.raises(WorkerAway):
        await ask(Worker(tmp_path / "nobody.sock"), "echo", size=1)


async def test_heartbeats_tell_that_the_worker_lives(worker: Worker) -> None:
    """Who watches knows the worker's facts, and sees it go."""
    assert not worker.alive
    async with worker.watched():
        await until(lambda: worker.alive)

        assert worker.facts["versions"] == {"evaluator": "test"}
        assert worker.facts["pid"] == os.getpid()


async def test_facts_that_hang_are_told_as_last_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that does not answer does not make the worker seem dead."""
    monkeypatch.setattr("lora_server.evaluation.worker.latest.PATIENCE_S", 0.05)
    release = threading.Event()
    answers = iter(["at once", "late", "again"])

    def facts() -> Mapping[str, Any]:
        answer = next(answers)
        if answer == "late":
            release.wait(10)
        return {"answer": answer}

    latest = Latest(facts)
    told = [(await latest.now())["answer"] for _ in range(3)]
    release.set()
    await asyncio.sleep(0.1)
    told += [(await latest.now())["answer"] for _ in range(2)]

    assert told == ["at once", "at once", "at once", "late", "again"]
