"""What the services cannot do, tried from within their units."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.systemd.machine import Machine

PROBE = "/opt/probe.py"
FOLDERS = (
    *("/", "/etc/lora-server", "/opt/lora-server", "/usr", "/home", "/boot", "/run", "/root"),
    *("/data", "/data/models/loras/styles", "/data/bin/models/loras", "/data/staging/loras"),
    *("/var/lib/lora-server", "/var/cache/lora-eval"),
)
DropIn = Callable[[str, str], None]


@pytest.fixture
def gpu(machine: Machine) -> None:
    """Let the kernel seem to have NVIDIA's driver: a node, and the name of its major number.

    Opening the node where that is allowed is ENXIO, since there is no driver behind it.
    """
    machine.shell(
        "test -e /dev/nvidia0 || mknod -m 666 /dev/nvidia0 c 195 0;"
        "test -e /dev/fuse || mknod -m 666 /dev/fuse c 10 229;"
        "grep -q nvidia /proc/devices || {"
        "  sed 's/^Character devices:$/&\\n195 nvidia/' /proc/devices > /root/devices;"
        "  mount --bind /root/devices /proc/devices; }"
    )


def probed(machine: Machine, unit: str) -> dict[str, Any]:
    """Return what the probe that was just run in a unit found."""
    lines = [entry["MESSAGE"] for entry in machine.journal("--unit", unit)]
    found = [line.removeprefix("PROBE ") for line in lines if line.startswith("PROBE ")]
    found_last: dict[str, Any] = json.loads(found[-1])
    return found_last


def put_probe(machine: Machine) -> str:
    """Put the probe where units can read it, and return its command."""
    shutil.copy(Path(__file__).with_name("probe.py"), machine.root / PROBE[1:])
    return f"/usr/bin/python3 {PROBE} {' '.join(FOLDERS)}"


@pytest.mark.usefixtures("gpu")
def test_the_front_end_is_confined(machine: Machine, drop_in: DropIn) -> None:
    """No connection, no device, no file outside of its folders, no code, no further rights."""
    drop_in("lora-server.service", f"[Service]\nExecStartPost={put_probe(machine)}\n")
    machine.run("systemctl", "restart", "lora-server")
    found = probed(machine, "lora-server")
    written = {folder for folder, result in found["write"].items() if result == "ok"}

    assert found["connect"] == found["udp"] == found["netlink"] == "EAFNOSUPPORT"
    assert found["gpu"] == found["fuse"] == "ENOENT"
    assert not {name for name in found["devices"] if name.startswith(("nvidia", "vd", "sd"))}
    assert found["key"] == "EACCES"
    assert written == {
        "/data/models/loras/styles",
        "/data/bin/models/loras",
        "/data/staging/loras",
        "/var/lib/lora-server",
    }
    assert found["executable_memory"] in {"EPERM", "EACCES"}  # by a filter, or by the kernel
    assert found["new_namespace"] == "EPERM"
    assert found["set_group_id"] == "EPERM"


@pytest.mark.usefixtures("gpu")
def test_the_worker_is_confined(machine: Machine, drop_in: DropIn) -> None:
    """It has the GPU and reads models; it writes none, and sees no key, catalogue or network."""
    drop_in("lora-eval.service", f"[Service]\nExecStartPost={put_probe(machine)}\n")
    machine.run("systemctl", "restart", "lora-eval")
    found = probed(machine, "lora-eval")
    written = {folder for folder, result in found["write"].items() if result == "ok"}

    assert found["gpu"] == "ENXIO"
    assert found["fuse"] == "EPERM"
    assert found["models"] == "ok"
    assert written == {"/var/cache/lora-eval"}
    assert found["key"] == "EACCES"
    assert found["catalogue"] == "EACCES"
    assert found["credentials"] == "ENOENT"
    assert found["connect"] == found["udp"] == "EAFNOSUPPORT"
    assert found["new_namespace"] == "EPERM"


def test_no_secret_is_in_the_environment(machine: Machine) -> None:
    """What `systemctl show` and /proc tell of the service holds no key."""
    pid = machine.show("lora-server", "MainPID")
    key = machine.run("cat", "/etc/lora-server/jwt.key")

    assert key not in machine.run("cat", f"/proc/{pid}/environ", f"/proc/{pid}/cmdline")
    assert key not in machine.run("systemctl", "show", "lora-server")
