"""Claims about the pool: a child may do what it likes, and harms nothing but its own file."""

import asyncio
import gc
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lora_server.errors import FileRefused
from lora_server.judge.confinement import CPU_S, MEMORY_BYTES
from lora_server.judge.pool import JudgePool
from tests.formats.hostile_safetensors import MEBIBYTE, TRICKS
from tests.formats.safetensors_files import adapter
from tests.judge.files import child_processes, opened

MISBEHAVING = "tests.judge.misbehaving"
FOREVER: dict[str, Any] = {"seconds": 600}


@pytest.fixture
def fd() -> Iterator[int]:
    """Lend an open safetensors file of one module."""
    with opened(adapter()) as lent:
        yield lent


@pytest.fixture
async def lone() -> AsyncIterator[JudgePool]:
    """Lend a pool of one child that misbehaves on demand."""
    async with JudgePool(size=1, module=MISBEHAVING) as pool:
        yield pool


@asynccontextmanager
async def impatient() -> AsyncIterator[JudgePool]:
    """Lend a pool that gives a child half a second."""
    async with JudgePool(size=1, module=MISBEHAVING, timeout_s=0.5) as pool:
        yield pool


async def pid_of(pool: JudgePool, fd: int) -> int:
    """Return the process that does the pool's next job."""
    pid: int = (await pool.run("situation", fd))["pid"]
    return pid


async def assert_unreadable(pool: JudgePool, fd: int, job: str, **arguments: Any) -> None:
    """Have the file of this job refused and the next one judged."""
    with pytest.raises(FileRefused) as refusal:
        await pool.run(job, fd, **arguments)

    assert refusal.value.code == "lora_unreadable"
    assert (await pool.run("judge", fd, extension=".safetensors"))["summary"]["adapter"] == "LoRA"


async def started(pool: JudgePool, fd: int, job: str, **arguments: Any) -> asyncio.Task[Any]:
    """Start a job and return once a child has it."""
    task = asyncio.create_task(pool.run(job, fd, **arguments))
    await asyncio.sleep(0.2)
    assert not task.done()
    return task


async def test_every_trick_is_refused_through_the_pool() -> None:
    """The hostile files, all at once, get the same verdicts from two children as from one."""
    async with JudgePool() as pool:

        async def code(content: bytes) -> str:
            with opened(content) as fd, pytest.raises(FileRefused) as refusal:
                await pool.run("judge", fd, extension=".safetensors")
            return refusal.value.code

        codes = await asyncio.gather(*(code(trick.build()) for trick in TRICKS.values()))
        children = child_processes()

    assert codes == [trick.code for trick in TRICKS.values()]
    assert len(children) == 2


async def test_answers_do_not_mix() -> None:
    """A hundred jobs at once on three children each get the answer to their own file."""

    async def answer(pool: JudgePool, number: int) -> dict[str, Any]:
        with opened(str(number).encode()) as own:
            return await pool.run("echo", own, number=number)

    async with JudgePool(size=3, module=MISBEHAVING) as pool:
        answers = await asyncio.gather(*(answer(pool, number) for number in range(100)))

    assert answers == [{"content": str(number), "number": number} for number in range(100)]


async def test_no_job_finds_what_another_left(lone: JudgePool, fd: int) -> None:
    """What holds itself is freed when its job is done, so that a child does not grow."""
    assert [await lone.run("litter", fd) for _ in range(3)] == [{"before": 0}] * 3


async def test_a_killed_child_refuses_its_file(lone: JudgePool, fd: int) -> None:
    """A child that is killed in the middle of a job takes only that job with it."""
    pid = await pid_of(lone, fd)
    task = await started(lone, fd, "sleep", **FOREVER)
    os.kill(pid, signal.SIGKILL)

    with pytest.raises(FileRefused, match="it ended") as refusal:
        await task
    assert refusal.value.code == "lora_unreadable"
    assert await pid_of(lone, fd) != pid


async def test_a_stopped_child_is_given_up(fd: int) -> None:
    """A child that no longer runs, and would not hear a polite signal, is timed out."""
    async with impatient() as pool:
        pid = await pid_of(pool, fd)
        task = await started(pool, fd, "sleep", **FOREVER)
        os.kill(pid, signal.SIGSTOP)

        with pytest.raises(FileRefused, match="it took too long"):
            await task
        assert await pid_of(pool, fd) != pid
        assert pid not in child_processes()


async def test_an_endless_job_is_given_up(fd: int) -> None:
    """A child that computes for ever is timed out."""
    async with impatient() as pool:
        await assert_unreadable(pool, fd, "spin")


async def test_a_memory_bomb_ends_its_child(lone: JudgePool, fd: int) -> None:
    """A job gets the memory it may need; one that takes more is refused."""
    assert (await lone.run("hoard", fd, nbytes=MEMORY_BYTES // 2))["taken"] > 0

    await assert_unreadable(lone, fd, "hoard", nbytes=MEMORY_BYTES)


async def test_a_child_writes_no_file(lone: JudgePool, fd: int, tmp_path: Path) -> None:
    """A job that writes a file is refused, and the file stays empty."""
    await assert_unreadable(lone, fd, "write", path=str(tmp_path / "written"))

    assert not (tmp_path / "written").read_bytes()


async def test_a_child_that_exits_refuses_its_file(lone: JudgePool, fd: int) -> None:
    """An end without an answer is no verdict, even with the status of success."""
    await assert_unreadable(lone, fd, "end")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("7f ff ff ff", id="an endless frame"),
        pytest.param("00 00 00 02 5b 5d", id="a list"),
        pytest.param("00 00 00 00", id="an end before the answer"),
        pytest.param("00 00 00 01 7b", id="half an object"),
        pytest.param("00 00 00 07 7b 22 61 22 3a 31 7d" * 2, id="a field twice"),
    ],
)
async def test_nonsense_is_no_answer(lone: JudgePool, fd: int, text: str) -> None:
    """A child that says what cannot be read is replaced."""
    await assert_unreadable(lone, fd, "babble", text=text)


async def test_a_child_that_talks_on_is_replaced(lone: JudgePool, fd: int) -> None:
    """Bytes that come after an answer never become the answer about the next file."""
    pid = await pid_of(lone, fd)
    await lone.run("babble_later", fd, text="00 00 00 00")
    await asyncio.sleep(0.3)

    assert await pid_of(lone, fd) != pid


async def test_an_unknown_job_is_no_verdict(lone: JudgePool, fd: int) -> None:
    """A job that the child does not know never lets a file in."""
    await assert_unreadable(lone, fd, "no such job")


async def test_a_cancelled_caller_leaves_no_answer_behind(lone: JudgePool, fd: int) -> None:
    """Whoever comes after a cancelled caller gets a fresh child and its own answer."""
    pid = await pid_of(lone, fd)
    task = await started(lone, fd, "sleep", **FOREVER)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert await lone.run("echo", fd, mine=1) == {"content": adapter().decode("latin-1"), "mine": 1}
    assert pid not in child_processes()


async def test_a_cancelled_wait_takes_no_child(lone: JudgePool, fd: int) -> None:
    """A caller that gives up while it waits for a child leaves it to the others."""
    first = await started(lone, fd, "sleep", seconds=0.5)
    waiting = asyncio.create_task(lone.run("echo", fd))
    await asyncio.sleep(0)
    waiting.cancel()

    assert await first == {}
    assert "content" in await lone.run("echo", fd)


async def test_a_child_that_died_idle_harms_no_file(lone: JudgePool, fd: int) -> None:
    """A file is not refused for what befell its child before."""
    pid = await pid_of(lone, fd)
    os.kill(pid, signal.SIGKILL)
    await asyncio.sleep(0.2)

    assert await pid_of(lone, fd) != pid


async def test_a_child_retires(fd: int) -> None:
    """After its number of jobs a child is replaced."""
    async with JudgePool(size=1, jobs_per_child=2, module=MISBEHAVING) as pool:
        pids = [await pid_of(pool, fd) for _ in range(4)]

    assert pids[0] == pids[1] != pids[2] == pids[3]


async def test_a_child_is_poor(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child has no secret of the server's, few descriptors, and a budget for each job."""
    monkeypatch.setenv("LORA_SERVER_AUTH__KEY_FILE", "/secret")
    async with JudgePool(size=1, module=MISBEHAVING) as pool:
        found = await pool.run("situation", fd)

    names = {name for name in found["environment"] if name != "LC_CTYPE"}
    assert names == {
        "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUTF8", "OPENBLAS_NUM_THREADS",
        "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_",
    }  # fmt: skip
    # The socket, the two outputs, the file, and the listing itself.
    assert len(found["descriptors"]) == 5
    assert found["memory"] == MEMORY_BYTES + len(adapter())
    assert 0 < found["cpu_s"] <= CPU_S + 1
    assert found["no_new_privileges"]


@pytest.mark.parametrize("stray", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_to_everybody_ends_no_job(lone: JudgePool, fd: int, stray: int) -> None:
    """A signal that asks the whole unit to stop leaves the job at hand its time."""
    pid = await pid_of(lone, fd)
    task = await started(lone, fd, "sleep", seconds=0.5)
    os.kill(pid, stray)

    assert await task == {}


async def test_leaving_leaves_no_process(fd: int) -> None:
    """When the pool is left no child remains, busy, stopped or idle; a late call says so."""
    async with JudgePool(size=3, module=MISBEHAVING) as pool:
        busy = [await started(pool, fd, "sleep", **FOREVER) for _ in range(2)]
        os.kill(min(child_processes()), signal.SIGSTOP)
        assert len(child_processes()) == 3

    assert not child_processes(dead=True)
    for call in (*busy, pool.run("judge", fd, extension=".safetensors")):
        with pytest.raises(ChildProcessError, match="closed"):
            await call


async def test_a_child_that_cannot_start_is_told_at_once() -> None:
    """A pool whose children do not come up is not entered, and refuses no file."""
    with pytest.raises(ChildProcessError):
        async with JudgePool(module="tests.judge.no_such_module"):
            pass

    assert not child_processes(dead=True)


@pytest.fixture
def no_old_garbage() -> Iterator[None]:
    """Keep the collector from visiting what other tests left on the heap."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("no_old_garbage")
@pytest.mark.parametrize(
    ("modules", "characters"),
    [
        pytest.param(1, 15 * MEBIBYTE, id="15 MiB of metadata"),
        pytest.param(25_000, 0, id="50,000 tensors"),
    ],
)
async def test_the_loop_goes_on_while_a_large_header_is_judged(
    modules: int, characters: int
) -> None:
    """The event loop turns while a file is judged whose header has many megabytes."""
    async with JudgePool(size=1) as pool:
        with opened(adapter(modules, comment="x" * characters)) as fd:
            judging = asyncio.create_task(pool.run("judge", fd, extension=".safetensors"))
            longest_s = await longest_turn(judging)
        answer = await judging

    assert answer["inspection"]["tensor_count"] == 2 * modules
    # About 20 ms alone; a busy machine takes us off the processor for as long again.
    assert longest_s < 0.15


async def longest_turn(task: asyncio.Task[Any]) -> float:
    """Return the seconds that a sleep of one millisecond took at most, until `task` is done."""
    longest_s = 0.0
    while not task.done():
        begin = time.perf_counter()
        await asyncio.sleep(0.001)
        longest_s = max(longest_s, time.perf_counter() - begin)
    return longest_s
