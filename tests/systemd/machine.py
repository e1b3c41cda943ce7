"""A Debian with its own systemd, booted from a folder in namespaces of its own."""

import asyncio
import ctypes
import json
import os
import subprocess
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

BOOT_S = 60
_REBOOT = 133  # what nspawn exits with when the machine wants to be started again
_STATE = ("systemctl", "is-system-running")
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Without these rights the device and address rules of units are silently not enforced.
_NSPAWN = (
    *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot", "--console=pipe"),
    *("--private-network", "--capability=all", "--system-call-filter=bpf"),
)
# A hierarchy of control groups for the machine, whatever the host has mounted.
_PREPARE = """
set -eu
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p /run/systemd/nspawn "/sys/fs/cgroup/$GROUP"
mount -t tmpfs tmpfs /run/systemd/nspawn
echo $$ > "/sys/fs/cgroup/$GROUP/cgroup.procs"
exec "$@"
"""
_CLEAR = """
mount -t cgroup2 none /sys/fs/cgroup
find "/sys/fs/cgroup/$GROUP" -depth -type d -exec rmdir {} +
"""
_UNSHARE = ("unshare", "--mount", "--propagation", "private", "sh", "-c")


class Machine:
    """A booted tree; `binds` are folders of the host, as nspawn's --bind takes them."""

    def __init__(self, root: Path, *, binds: tuple[str, ...], log: Path) -> None:
        self.root = root
        self._environment = os.environ | {"GROUP": f"lora-server-test-{os.getpid()}"}
        self._command = (*_UNSHARE, _PREPARE, "boot", *_NSPAWN, f"--directory={root}", *binds)
        self._log = log
        self._supervisor = self._started()

    def run(self, *command: str, check: bool = True, given: str = "") -> str:
        """Run a command as root in the machine, and return what it printed."""
        done = subprocess.run(
            (*self._entered(), *command), check=False, input=given, capture_output=True, text=True
        )
        assert not check or done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return (done.stdout + done.stderr).strip()

    def shell(self, script: str, *, check: bool = True) -> str:
        """Run a few lines of shell."""
        return self.run("sh", "-euc", script, check=check)

    def show(self, unit: str, *properties: str) -> str:
        """Return properties of a unit, one a line."""
        return self.run("systemctl", "show", "--value", f"--property={','.join(properties)}", unit)

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """Return the journal's entries, oldest first."""
        self.run("journalctl", "--sync")
        lines = self.run("journalctl", "--output=json", "--no-pager", *matches).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def within(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine of the test's own Python in the machine's network."""
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(self._in_network, work).result()

    def reboot(self) -> None:
        """Go down and come up again."""
        self.run("systemctl", "reboot", check=False)
        assert self._supervisor.wait(120) == _REBOOT
        self._supervisor = self._started()

    def power_off(self) -> None:
        """End the machine, and leave nothing of it on the host."""
        self.run("systemctl", "poweroff", check=False)
        try:
            self._supervisor.wait(120)
        finally:
            self._supervisor.kill()
            self._supervisor.wait()
        subprocess.run((*_UNSHARE, _CLEAR), env=self._environment, check=False, capture_output=True)

    def _started(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as console:
            supervisor = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                env=self._environment,
            )
        until = time.monotonic() + BOOT_S
        while time.monotonic() < until and supervisor.poll() is None:
            self._supervisor = supervisor
            # `degraded`: a namespace lacks what some unit of a whole host wants.
            if self._leader() != "0" and self.run(*_STATE, check=False) in {"running", "degraded"}:
                return supervisor
            time.sleep(0.1)
        supervisor.kill()
        raise TimeoutError("the machine did not boot: " + self._log.read_text(encoding="utf-8"))

    def _in_network(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        namespace = os.open(f"/proc/{self._leader()}/ns/net", os.O_RDONLY)
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(namespace, 0):  # of this thread alone
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(namespace)
        return asyncio.run(work())

    def _entered(self) -> tuple[str, ...]:
        namespaces = ("-m", "-u", "-i", "-n", "-p", "-C", "--root", "--wdns=/")
        return ("nsenter", "-t", self._leader(), *namespaces, "--", "env", "-i", PATH, "HOME=/root")

    def _leader(self) -> str:
        """Return the pid of the machine's init, as the host sees it."""
        pid = self._supervisor.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
        return children[0] if children else "0"
