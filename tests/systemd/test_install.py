"""`make install`: what is there afterwards, and what a second run does to it."""

import asyncio
import threading

import aiohttp

from tests.systemd.calls import API, Caller
from tests.systemd.machine import Machine

UNITS = ("lora-server.socket", "lora-server.service", "lora-eval.socket", "lora-eval.service")
INSTALL = ("make", "--directory=/root/lora_server", "install")


def test_it_runs(machine: Machine) -> None:
    """The service is active, answers, and says in words that it is well."""
    assert machine.show("lora-server", "ActiveState", "SubState") == "active\nrunning"
    assert machine.run("curl", "-sSf", "http://127.0.0.1:8080/readyz")
    assert machine.show("lora-server", "StatusText").startswith("Serving: no uploads in flight, ")
    for unit in ("lora-server.socket", "lora-server.service", "lora-eval.socket"):
        assert machine.run("systemctl", "is-enabled", unit) == "enabled"


def test_units_are_flawless(machine: Machine) -> None:
    """An unknown key or a wrong value is only a warning, so that nothing may be printed at all."""
    assert machine.run("systemd-analyze", "verify", *UNITS) == ""


def test_units_are_hardened(machine: Machine) -> None:
    """The exposure is at most 0.3 for the front end and 0.6 for the worker, of 10."""
    path = "/etc/systemd/system/{}.service"
    for unit, threshold in (("lora-server", 3), ("lora-eval", 6)):
        machine.run(
            *("systemd-analyze", "security", "--offline=true", f"--threshold={threshold}"),
            path.format(unit),
        )


def test_folders_have_owners_and_modes(machine: Machine) -> None:
    """Only the service writes, the group reads, and nobody sees uploads in flight."""
    listed = machine.shell(
        "stat -c '%U:%G %a %n' /data /data/models/loras /data/models/loras/styles"
        " /data/bin/models/loras /data/staging/loras /var/lib/lora-server"
        " /etc/lora-server/jwt.key /etc/lora-server/config.toml /run/lora-eval/worker.sock"
    )

    assert listed.splitlines() == [
        "root:root 755 /data",
        "lora-server:loras 2750 /data/models/loras",
        "lora-server:loras 2750 /data/models/loras/styles",
        "lora-server:loras 2750 /data/bin/models/loras",
        "lora-server:loras 2700 /data/staging/loras",
        "lora-server:loras 700 /var/lib/lora-server",
        "root:root 600 /etc/lora-server/jwt.key",
        "root:root 644 /etc/lora-server/config.toml",
        "lora-server:loras 600 /run/lora-eval/worker.sock",
    ]


def test_installing_again_upgrades_in_place(machine: Machine, caller: Caller) -> None:
    """Settings and key stay, the program is new, and no request meanwhile gets an error."""
    machine.shell("echo '# mine' >> /etc/lora-server/config.toml")
    kept = "sha256sum /etc/lora-server/config.toml /etc/lora-server/jwt.key"
    before, pid = machine.shell(kept), machine.show("lora-server", "MainPID")
    done = threading.Event()

    async def ask_until_done(client: aiohttp.ClientSession) -> list[int]:
        statuses = []
        while not done.is_set():
            async with client.get(f"{API}/admin/lora") as answer:
                statuses.append(answer.status)
            await asyncio.sleep(0.05)
        return statuses

    def install() -> None:
        try:
            machine.run(*INSTALL)
        finally:
            done.set()

    installing = threading.Thread(target=install)
    installing.start()
    statuses = caller.calls(ask_until_done)
    installing.join()

    assert set(statuses) == {200}
    assert machine.shell(kept) == before
    assert machine.show("lora-server", "MainPID") != pid
    assert len(machine.run("ls", "/opt/lora-server/releases").split()) == 2
