"""What systemd hands to a service and wants to hear from it: sockets, readiness, a heartbeat.

The protocols of sd_listen_fds(3), sd_notify(3) and sd_watchdog_enabled(3) in their few lines;
where nobody set the variables, nothing is passed and nothing is told. The libraries for this
are abandoned (sdnotify), or bind the C library, which is no reason to have a compiler at hand.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from lora_server.errors import ConfigInvalid
from lora_server.uninterrupted import meanwhile

_FIRST_FD = 3  # SD_LISTEN_FDS_START
REPORT_INTERVAL_S = 5.0

Report = Callable[[], Awaitable[Mapping[str, str | int]]]  # the fields of one `notify`


def listening_sockets() -> dict[str, list[socket.socket]]:
    """Take over the listening sockets that were passed to this process, by FileDescriptorName.

    The caller closes them. They are taken once: a second call, like a child, finds none.

    Raises:
        ConfigInvalid: what was passed does not listen for connections.

    """
    passed: dict[str, list[socket.socket]] = {}
    for fd, name in _passed():
        passed.setdefault(name, []).append(_taken(fd))
    return passed


def _taken(fd: int) -> socket.socket:
    try:
        os.set_inheritable(fd, False)  # noqa: FBT003 - it takes no keywords
        taken = socket.socket(fileno=fd)
        listens = taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ConfigInvalid(f"LISTEN_FDS: descriptor {fd}: {error.strerror}") from error
    if not listens:
        raise ConfigInvalid(f"LISTEN_FDS: descriptor {fd}: a socket that does not listen")
    taken.settimeout(0)
    return taken


def _passed() -> Iterator[tuple[int, str]]:
    environment = {
        name: os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    }
    if environment["LISTEN_PID"] != str(os.getpid()):
        return  # they were for another process, and its variables were inherited
    names = environment["LISTEN_FDNAMES"].split(":")
    for number in range(int(environment["LISTEN_FDS"] or 0)):
        yield _FIRST_FD + number, names[number] if number < len(names) else "unknown"


def notify(**fields: str | int) -> bool:
    """Tell the service manager, as in `notify(READY=1, STATUS="Serving")`; never waits.

    Returns whether it was handed over: there may be no manager, or none that reads.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    lines = (f"{name}={_one_line(value)}" for name, value in fields.items())
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(0)
            # An abstract address is written with an @ and starts with a NUL.
            sender.connect("\0" + address[1:] if address[0] == "@" else address)
            sender.send("\n".join(lines).encode())
    except OSError:
        return False
    return True


def watchdog_interval() -> float | None:
    """Return how often, in seconds, the watchdog wants to hear: twice in its time-out."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(usec) / 2_000_000 if usec.isdecimal() and int(usec) else None


@asynccontextmanager
async def supervised(report: Report) -> AsyncIterator[None]:
    """Feed the watchdog until the end of the block, and tell what `report` says now and then.

    The heartbeat comes from the event loop and asks nothing else, so that a slow disk ends no
    service, but a loop that stands still does.
    """
    async with AsyncExitStack() as beside:
        if "NOTIFY_SOCKET" in os.environ:
            await beside.enter_async_context(meanwhile(_tell(report)))
        if interval_s := watchdog_interval():
            await beside.enter_async_context(meanwhile(_beat(interval_s)))
        yield


async def _beat(interval_s: float) -> None:
    while True:
        notify(WATCHDOG=1)
        await asyncio.sleep(interval_s)


async def _tell(report: Report) -> None:
    while True:
        notify(**await report())
        await asyncio.sleep(REPORT_INTERVAL_S)


def _one_line(value: str | int) -> str:
    return " ".join(str(value).split())
