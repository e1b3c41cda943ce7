"""Tries what a unit forbids, from within: started by systemd in the place of a service's own.

Prints a JSON object with what became of each attempt: "ok", or the name of the error. Uses the
standard library alone.
"""

import ctypes
import errno
import json
import mmap
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path


def outcome(attempt: Callable[[], object]) -> str:
    """Return what became of an attempt."""
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "ok"


def write(folder: str) -> str:
    """Try to make a file, and remove it again."""
    path = Path(folder, ".probe")
    result = outcome(lambda: path.write_text("x", encoding="ascii"))
    path.unlink(missing_ok=True) if result == "ok" else None
    return result


def executable_memory() -> None:
    """Ask for memory that is writable and executable."""
    mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def new_namespace() -> None:
    """Ask for a user namespace, the first step of most escapes."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x10000000):
        raise OSError(ctypes.get_errno(), "unshare")


def set_group_id() -> None:
    """Make a file that runs with the rights of its group."""
    path = Path("/tmp/probe")  # noqa: S108 - private to the unit
    path.touch()
    path.chmod(0o2755)


def _credentials() -> list[str]:
    return os.listdir(os.environ.get("CREDENTIALS_DIRECTORY", "/none"))  # noqa: PTH208


def main() -> None:
    """Try everything."""
    found = {
        "connect": outcome(lambda: socket.create_connection(("127.0.0.1", 8080), 2)),
        "udp": outcome(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
        "netlink": outcome(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
        "gpu": outcome(lambda: os.open("/dev/nvidia0", os.O_RDWR)),
        "fuse": outcome(lambda: os.open("/dev/fuse", os.O_RDWR)),
        "key": outcome(lambda: Path("/etc/lora-server/jwt.key").read_bytes()),
        "catalogue": outcome(lambda: Path("/var/lib/lora-server/catalog.sqlite3").read_bytes()),
        "executable_memory": outcome(executable_memory),
        "new_namespace": outcome(new_namespace),
        "set_group_id": outcome(set_group_id),
        "write": {folder: write(folder) for folder in sys.argv[1:]},
        "models": outcome(lambda: os.listdir("/data/models/loras/styles")),  # noqa: PTH208
        "devices": sorted(os.listdir("/dev")),  # noqa: PTH208
        "interfaces": [name for _, name in socket.if_nameindex()]
        if outcome(socket.if_nameindex) == "ok"
        else [],
        "credentials": outcome(_credentials),
    }
    print("PROBE " + json.dumps(found), flush=True)  # noqa: T201 - the journal takes it


main()
