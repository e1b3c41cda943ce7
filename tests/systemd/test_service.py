"""The service at work: files, restarts, kills, wrong settings, keys, a missing disk."""

import asyncio
import re
import time
from collections.abc import Callable
from contextlib import suppress

import aiohttp

from tests.systemd.calls import API, LARGEST, Caller, HeldUpload, form, post
from tests.systemd.machine import Machine

Replace = Callable[[str, str], None]
DropIn = Callable[[str, str], None]


def until(condition: Callable[[], bool], within: float = 30) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_active(machine: Machine) -> bool:
    """Tell whether the service runs."""
    return machine.show("lora-server", "ActiveState") == "active"


def files(machine: Machine) -> list[str]:
    """Return every file below /data."""
    return machine.run("find", "/data", "-type", "f").splitlines()


def test_a_file_lives_and_dies(machine: Machine, caller: Caller) -> None:
    """Upload, list and delete work; the file is the service's, and the group reads it."""
    status, stored = caller.upload("ink")
    listed = caller.get()
    path = stored["file_path"]
    facts = machine.run("stat", "-c", "%U:%G %a", path)
    machine.shell(
        "id inference || useradd --groups loras inference; id outsider || useradd outsider"
    )
    read = machine.run("runuser", "-u", "inference", "--", "sha256sum", path)
    denied = machine.run("runuser", "-u", "outsider", "--", "cat", path, check=False)
    written = machine.run("runuser", "-u", "inference", "--", "touch", path, check=False)
    gone = caller.delete(stored["partial_path"])

    assert (status, path) == (200, "/data/models/loras/styles/ink.safetensors")
    assert stored["partial_path"] in [lora["partial_path"] for lora in listed[1]["data"]]
    assert facts == "lora-server:loras 640"
    assert read.startswith(stored["sha256"])
    assert "Permission denied" in denied
    assert "Permission denied" in written
    assert gone[0] == 200
    assert gone[1]["bin_path"] in files(machine)


def test_the_journal_knows_a_file(machine: Machine, caller: Caller) -> None:
    """`journalctl LORA_SHA256=…` tells who did what to a file."""
    _, stored = caller.upload("known", size=1234)
    caller.delete(stored["partial_path"])
    told = machine.journal(f"LORA_SHA256={stored['sha256']}")

    assert [entry["LORA_EVENT"] for entry in told][-2:] == ["upload", "delete"]
    assert {entry["LORA_ACTOR"] for entry in told} == {"tester"}
    assert {entry["_SYSTEMD_UNIT"] for entry in told} == {"lora-server.service"}
    assert "partial_path=styles/known.safetensors" in told[-2]["MESSAGE"]


def test_a_restart_loses_nothing(machine: Machine, caller: Caller, drop_in: DropIn) -> None:
    """With three uploads of 500 MB in flight and a stream of requests, all get their 200.

    The uploads take longer than the unit's own patience, so that the service has to ask for more.
    """
    drop_in("lora-server.service", "[Service]\nTimeoutStopSec=3\n")
    content = form("large", LARGEST)
    before = machine.show("lora-server", "MainPID")

    async def restart(client: aiohttp.ClientSession) -> tuple[list[int], list[int], str]:
        uploads = [HeldUpload(client, content) for _ in range(3)]
        for upload in uploads:
            await upload.waiting()
        restarting = asyncio.create_task(
            asyncio.to_thread(machine.run, "systemctl", "restart", "lora-server")
        )
        streams = [asyncio.create_task(_stream(client, n, restarting)) for n in range(4)]
        lists: list[asyncio.Task[int]] = []
        going_down = ""
        while not restarting.done():
            lists.append(asyncio.create_task(_list(client)))
            await asyncio.sleep(0.05)
            status = await asyncio.to_thread(machine.show, "lora-server", "StatusText")
            if status.startswith("Going down") and not going_down:
                going_down = status
                for upload in uploads:
                    asyncio.get_running_loop().call_later(5, upload.let_through)
        answers = [await upload.answer for upload in uploads]
        asked = [code for stream in streams for code in await stream]
        asked += await asyncio.gather(*lists)
        return [code for code, _ in answers], asked, going_down

    uploaded, asked, status = caller.calls(restart)
    machine.run("find", "/data/models/loras/styles", "-name", "large*", "-delete")

    assert uploaded == [200, 200, 200]
    assert set(asked) == {200}
    assert len(asked) > 20
    assert re.fullmatch(r"Going down: \d uploads may take up to 60 s", status)
    assert machine.show("lora-server", "MainPID") != before
    assert machine.show("lora-server", "NRestarts") == "0"


async def _list(client: aiohttp.ClientSession) -> int:
    async with client.get(f"{API}/admin/lora") as answer:
        return answer.status


async def _stream(
    client: aiohttp.ClientSession, number: int, restarting: asyncio.Task[str]
) -> list[int]:
    """Upload until the restart is over; what was begun is waited for."""
    statuses = []
    while not restarting.done():
        statuses.append((await post(client, form(f"stream-{number}")))[0])
    return statuses


def test_a_killed_server_is_healed(machine: Machine, caller: Caller) -> None:
    """After kill -9 amidst an upload the service is back, and of the upload nothing is left."""
    before = files(machine)
    pid = machine.show("lora-server", "MainPID")

    async def kill(client: aiohttp.ClientSession) -> int:
        upload = HeldUpload(client, form("killed", 50_000_000))
        await upload.waiting()
        await asyncio.to_thread(until, lambda: len(files(machine)) > len(before))
        await asyncio.to_thread(machine.run, "kill", "-9", pid)
        with suppress(aiohttp.ClientError):
            await upload.answer
        return await _list(client)

    assert caller.calls(kill) == 200
    assert machine.show("lora-server", "MainPID") != pid
    assert machine.show("lora-server", "NRestarts") == "1"
    assert files(machine) == before


def test_files_are_evaluated_by_the_worker(machine: Machine, caller: Caller) -> None:
    """What is uploaded gets its verdict from the worker's unit, also after a kill -9 of it."""
    pid = machine.show("lora-eval", "MainPID")
    first = caller.upload("judged-1", size=2001)[1]["partial_path"]
    until(lambda: _evaluated(caller, first))
    machine.run("kill", "-9", pid)
    second = caller.upload("judged-2", size=2002)[1]["partial_path"]
    until(lambda: _evaluated(caller, second))

    assert machine.show("lora-eval", "ActiveState") == "active"
    assert machine.show("lora-eval", "MainPID") not in {"0", pid}
    assert machine.show("lora-eval", "StatusText").startswith("Ready: ")


def _evaluated(caller: Caller, partial_path: str) -> bool:
    """Tell whether a file has been evaluated."""
    status, found = caller.get(f"/evaluation/?partial_path={partial_path}")
    return status == 200 and [one["status"] for one in found["data"]] == ["succeeded"]


def test_a_killed_child_is_no_outage(machine: Machine, caller: Caller) -> None:
    """A judging child that is killed is replaced by the next upload; the server runs on."""
    pid = machine.show("lora-server", "MainPID")
    children = machine.run("pgrep", "--parent", pid, "--full", "judge.child").split()
    scores = machine.shell(f"cat /proc/{children[0]}/oom_score_adj /proc/{pid}/oom_score_adj")
    machine.run("kill", "-9", *children)
    status, _ = caller.upload("judged")

    assert scores.split() == ["1000", "0"]
    assert status == 200
    assert machine.show("lora-server", "MainPID") == pid


def test_a_server_that_hangs_is_replaced(machine: Machine, caller: Caller, drop_in: DropIn) -> None:
    """A loop that stands still feeds no watchdog."""
    drop_in("lora-server.service", "[Service]\nWatchdogSec=1\nTimeoutAbortSec=1\n")
    machine.run("systemctl", "restart", "lora-server")
    pid = machine.show("lora-server", "MainPID")
    machine.run("kill", "-STOP", pid)
    until(lambda: machine.show("lora-server", "NRestarts") == "1" and is_active(machine))

    assert caller.get()[0] == 200
    assert "Watchdog timeout" in machine.run("journalctl", "--no-pager", "--unit", "lora-server")


def test_a_wrong_setting_stops_with_its_name(machine: Machine, settings: Replace) -> None:
    """Nothing is tried again, as it would stay wrong; the journal says which setting it is."""
    settings("port = 8080", "prot = 8080")
    machine.run("systemctl", "restart", "lora-server", check=False)
    properties = machine.show("lora-server", "ActiveState", "ExecMainStatus", "NRestarts")

    assert sorted(properties.split()) == ["0", "78", "failed"]
    assert "server.prot" in machine.run("journalctl", "--no-pager", "-u", "lora-server", "-n", "5")


def test_a_missing_disk_stops_the_service(machine: Machine, caller: Caller) -> None:
    """Where /data cannot be mounted nothing is made there, and nothing is forgotten."""
    _, stored = caller.upload("kept")
    fstab = machine.root / "etc/fstab"
    whole = fstab.read_text(encoding="utf-8")
    fstab.write_text("/disk /data nosuchfs defaults 0 0\n", encoding="utf-8")
    machine.run("systemctl", "daemon-reload")
    # The sockets too: a connection to one would start its service, and that the mount.
    machine.run("systemctl", "stop", "lora-server.socket", "lora-eval.socket")
    machine.run("systemctl", "stop", "lora-server", "lora-eval")
    machine.run("systemctl", "stop", "data.mount")
    refused = machine.run("systemctl", "restart", "lora-server", check=False)
    found = machine.run("ls", "-A", "/data")
    fstab.write_text(whole, encoding="utf-8")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "reset-failed")
    machine.run("systemctl", "restart", "lora-server.socket", "lora-server")
    listed = caller.get("/admin/lora?q=kept")

    assert "dependency" in refused.lower()
    assert found == ""
    assert listed[1]["data"][0]["sha256"] == stored["sha256"]


def test_keys_rotate_without_a_gap(machine: Machine, settings: Replace) -> None:
    """As docs/deployment.md says: add, sign with the new one, drop the old one."""
    old = Caller(machine)
    machine.run("lora-server", "key", "new", "/etc/lora-server/keys/second.key")
    settings(
        "\nkeys = []",
        "\nkeys = [{ kid = 'second', algorithm = 'HS256',"
        " file = '/etc/lora-server/keys/second.key' }]",
    )
    machine.run("systemctl", "restart", "lora-server")
    new = Caller(machine, "--kid", "second")
    during = old.get()[0], new.get()[0]
    settings("\nkey_file", "\n# key_file")
    machine.run("systemctl", "restart", "lora-server")
    after = old.get()[0], new.get()[0]

    assert during == (200, 200)
    assert after == (401, 200)


def test_a_revocation_counts_at_once(machine: Machine) -> None:
    """`lora-server token revoke` by root reaches the running service."""
    revoked = Caller(machine, subject="mallory")
    before = revoked.get()[0]
    machine.run("lora-server", "token", "revoke", "--subject", "mallory")
    until(lambda: revoked.get()[0] == 401)

    assert before == 200


def test_a_reboot_brings_everything_back(
    machine: Machine, caller: Caller, settings: Replace
) -> None:
    """After a boot files are served, and what has been in the bin for too long is purged."""
    _, stays = caller.upload("stays", size=2000)
    _, goes = caller.upload("goes", size=3000)
    _, binned = caller.delete(goes["partial_path"])
    settings('bin_retention = "30d"', 'bin_retention = "1s"')
    assert binned["bin_path"] in files(machine)
    machine.reboot()
    until(lambda: is_active(machine))
    listed = caller.get("/admin/lora?q=stays")
    until(lambda: binned["bin_path"] not in files(machine))

    assert listed[1]["data"][0]["sha256"] == stays["sha256"]
    assert stays["file_path"] in files(machine)
    assert machine.run("systemctl", "is-active", "lora-eval.socket") == "active"
    until(lambda: bool(machine.journal(f"LORA_SHA256={goes['sha256']}", "LORA_EVENT=purge")))
