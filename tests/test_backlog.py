"""Files that wait to be read."""

import asyncio

from lora_server.backlog import Backlog
from tests.libraries import in_models


async def test_each_file_waits_once_and_in_order() -> None:
    """What is noticed again and again while it waits is read once."""
    backlog = Backlog()
    for name in ("a.pt", "b.pt", "a.pt", "a.pt"):
        backlog.add(in_models(name))

    assert [(await backlog.next()).name for _ in range(2)] == ["a.pt", "b.pt"]


async def test_a_file_set_aside_holds_up_nobody() -> None:
    """It comes back after its rest, once, however often it was noticed meanwhile."""
    backlog = Backlog()
    backlog.set_aside(in_models("restless.pt"), 0.02)
    backlog.add(in_models("restless.pt"))
    backlog.add(in_models("other.pt"))

    assert [(await backlog.next()).name for _ in range(2)] == ["other.pt", "restless.pt"]


async def test_idle_means_that_everything_was_read() -> None:
    """Neither a file being read nor one set aside is idleness."""
    backlog = Backlog()
    await asyncio.wait_for(backlog.idle(), 1)
    backlog.add(in_models())
    idle = asyncio.create_task(backlog.idle())

    location = await backlog.next()
    backlog.set_aside(location, 0.01)
    assert await backlog.next() == location
    read_but_not_done = idle.done()
    asking = asyncio.create_task(backlog.next())
    await asyncio.wait_for(idle, 1)

    assert not read_but_not_done
    assert not asking.done()
    asking.cancel()


async def test_a_closed_backlog_has_no_timers_left() -> None:
    """What rests is forgotten, and nothing happens to the loop afterwards."""
    backlog = Backlog()
    backlog.set_aside(in_models(), 0.01)

    backlog.close()
    await asyncio.sleep(0.02)

    await asyncio.wait_for(asyncio.create_task(_nothing_comes(backlog)), 1)


async def _nothing_comes(backlog: Backlog) -> None:
    asking = asyncio.create_task(backlog.next())
    await asyncio.sleep(0.01)

    assert not asking.done()
    asking.cancel()
