"""The client commands as processes, against a real server."""

import asyncio
import hashlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.calls import JSON, LORA, call, deleted, listing, lora_bytes, stored
from tests.cli.conftest import ROOT, Run
from tests.loras import lora_header
from tests.proxy import proxied
from tests.scripted import answer, scripted
from tests.server import ADMIN, Server, token

pytestmark = pytest.mark.asyncio(loop_scope="module")

UPLOAD = b"POST /api/v1/admin/lora/upload"


class Client:
    """Runs client commands against a server, as an admin unless told otherwise."""

    def __init__(self, run: Run, port: int) -> None:
        self.port = port
        self._run = run

    async def __call__(
        self, *arguments: str | Path, scope: str = "admin", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        variables = self.variables(scope) | variables
        return await asyncio.to_thread(self._run, *arguments, **variables)

    def variables(self, scope: str = "admin") -> dict[str, str]:
        """Return what names the server and the caller."""
        url = f"http://127.0.0.1:{self.port}"
        return {"LORA_SERVER_URL": url, "LORA_SERVER_TOKEN": token("cli", scope)}


@pytest.fixture
def client(run: Run, shared: Server) -> Client:
    """Return what runs client commands against the module's server."""
    return Client(run, shared.port)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a folder with two LoRAs, something broken, and something else."""
    folder = tmp_path / "files"
    folder.mkdir()
    for seed, name in enumerate(("ink.safetensors", "wash two.safetensors")):
        (folder / name).write_bytes(lora_bytes(seed))
    (folder / "broken.pt").write_bytes(b"no model")
    (folder / "notes.txt").write_text("not a LoRA")
    return folder


async def test_a_folder_is_uploaded(client: Client, shared: Server, files: Path) -> None:
    """What is good is stored and told, what is not is told on stderr and gives the status."""
    done = await client("upload", "-r", files, "--entity-type", "styles")

    assert done.returncode == 5
    assert "stored   styles/ink.safetensors  LoRA, rank 4, SD 1.x, 9.2 kB\n" in done.stdout
    assert "stored   styles/wash two.safetensors" in done.stdout
    assert f"{files}/broken.pt: " in done.stderr
    assert done.stderr.endswith("2 stored, 1 failed\n")
    assert "\x1b" not in done.stdout + done.stderr
    assert len(shared.files()) == 2

    again = await client("upload", files / "ink.safetensors", "-t", "faces")
    assert again.returncode == 0
    assert again.stdout.startswith("present  styles/ink.safetensors")


async def test_uploads_for_programs(client: Client, files: Path) -> None:
    """Paths alone, one a line; or JSON, one object a line, failures included."""
    quiet = await client("upload", "-qr", files, "-t", "styles")
    as_json = await client("upload", "--json", "-r", files, "-t", "styles")

    assert sorted(quiet.stdout.splitlines()) == [
        "styles/ink.safetensors",
        "styles/wash two.safetensors",
    ]
    told = {Path(line["file"]).name: line for line in map(json.loads, as_json.stdout.splitlines())}
    assert told["ink.safetensors"]["outcome"] == "present"
    assert told["ink.safetensors"]["partial_path"] == "styles/ink.safetensors"
    assert told["ink.safetensors"]["sha256"] == hashlib.sha256(lora_bytes(0)).hexdigest()
    assert told["broken.pt"]["outcome"] == "failed"
    assert told["broken.pt"]["code"].startswith("lora_")
    assert as_json.stderr == ""


async def test_a_lost_answer_makes_no_second_version(run: Run, shared: Server, files: Path) -> None:
    """A command whose connection breaks after the last byte ends well, and stores one file."""
    async with proxied(shared.port) as proxy:
        proxy.lose[UPLOAD] = 1
        done = await Client(run, proxy.port)("upload", files / "ink.safetensors", "-qt", "styles")

    assert (done.returncode, done.stdout) == (0, "styles/ink.safetensors\n")
    assert len(proxy.asked(UPLOAD)) == 2
    assert [file.name for file in shared.files()] == ["ink.safetensors"]


async def test_versions_can_be_switched_off(client: Client, shared: Server, files: Path) -> None:
    """A taken name is a version by default, and a refusal where none is wanted."""
    await stored(shared, seed=7)
    refused = await client("upload", files / "ink.safetensors", "-t", "styles", "--no-versioning")
    versioned = await client("upload", files / "ink.safetensors", "-qt", "styles")

    assert refused.returncode == 5
    assert "styles/ink.safetensors exists" in refused.stderr
    assert versioned.stdout == "styles/ink_v2.safetensors\n"


async def test_a_listing_is_a_table(client: Client, shared: Server) -> None:
    """One line for each LoRA; paths alone or the server's JSON for programs; all of them."""
    for seed, name in enumerate(("a.safetensors", "b.safetensors")):
        await stored(shared, name, seed=seed)
    table = await client("list", COLUMNS="40")
    quiet = await client("list", "-q", "b.")
    as_json = await client("list", "--json", "--sort", "-name", "--limit", "1")

    head, first, _second = table.stdout.splitlines()
    assert head.split() == ["BASE", "ADAPTER", "RANK", "SIZE", "VERDICT", "AGE", "PATH"]
    assert first.split()[:6] == ["SD", "1.x", "LoRA", "4", "9.2", "kB"]
    assert first.split()[6] == "accepted"
    assert first.split()[-1] == "styles/a.safetensors"
    assert quiet.stdout == "styles/b.safetensors\n"
    assert json.loads(as_json.stdout)["count"] == 2
    assert [row["filename"] for row in json.loads(as_json.stdout)["data"]] == ["b.safetensors"]


async def test_details_say_why(client: Client, shared: Server) -> None:
    """What is known and on what evidence, with the digest in full."""
    await stored(shared)
    text = (await client("show", "styles/ink.safetensors")).stdout
    as_json = await client("show", "--json", "styles/ink.safetensors")
    sha256 = hashlib.sha256(lora_bytes(0)).hexdigest()

    lines = dict(line.split("  ", 1) for line in text.splitlines() if "  " in line)
    assert lines["base model"].strip().startswith("SD 1.x (")
    assert lines["adapter"].strip() == "LoRA, rank 4, alpha 4, 1 module"
    assert lines["sha256"].strip() == sha256
    assert json.loads(as_json.stdout)["hashes"]["sha256"] == sha256


async def test_what_was_deleted_comes_back(client: Client, shared: Server) -> None:
    """Into the bin, seen there, and back by the path it had; what is missing is status 4."""
    await stored(shared)
    gone = await client("delete", "styles/no.pt", "styles/ink.safetensors")
    there = await client("bin")
    back = await client("restore", "-q", "styles/ink.safetensors")
    empty = await client("bin")

    assert gone.returncode == 4
    assert "styles/no.pt" in gone.stderr
    assert "lora-server restore styles/ink.safetensors undoes it" in gone.stdout
    assert there.stdout.splitlines()[1].split()[-1] == "styles/ink.safetensors"
    assert "cli" in there.stdout
    assert back.stdout == "styles/ink.safetensors\n"
    assert await listing(shared) == ["styles/ink.safetensors"]
    assert (empty.stdout, empty.returncode) == ("", 0)


async def test_the_latest_deletion_is_restored(client: Client, shared: Server) -> None:
    """Where a name was deleted twice the last one comes back; a path of the bin names others."""
    await stored(shared, seed=1)
    older = await deleted(shared)
    await stored(shared, seed=2)
    await deleted(shared)
    latest = await client("restore", "--json", "styles/ink.safetensors")
    other = await client("restore", "-q", older)

    assert json.loads(latest.stdout)["sha256"] == hashlib.sha256(lora_bytes(2)).hexdigest()
    assert other.stdout == "styles/ink_v2.safetensors\n"


async def test_a_download_is_the_file(client: Client, shared: Server, tmp_path: Path) -> None:
    """Into a folder under its own name, checked; never over another file."""
    await stored(shared)
    (tmp_path / "to").mkdir()
    first = await client("download", "styles/ink.safetensors", "--to", "to")
    second = await client("download", "styles/ink.safetensors", "--to", "to")
    renamed = await client("download", "-q", "styles/ink.safetensors", "--to", "b", scope="read")

    assert (first.returncode, second.returncode) == (0, 1)
    assert "digest checked" in first.stdout
    assert (tmp_path / "to" / "ink.safetensors").read_bytes() == lora_bytes(0)
    assert "--force" in second.stderr
    assert renamed.stdout == "b\n"


async def test_digests(client: Client, shared: Server, files: Path) -> None:
    """As sha256sum prints them, without a server; with one, what it lacks is status 4."""
    await stored(shared)
    plain = await client("digest", files / "ink.safetensors", LORA_SERVER_URL="http://127.0.0.1:1")
    asked = await client(
        "digest", "--stored", files / "ink.safetensors", files / "notes.txt", scope=""
    )

    digest = hashlib.sha256(lora_bytes(0)).hexdigest()
    assert (plain.returncode, plain.stdout) == (0, f"{digest}  {files}/ink.safetensors\n")
    assert asked.returncode == 4
    assert [line.split()[-1] for line in asked.stdout.splitlines()] == ["stored", "missing"]


@pytest.mark.parametrize(
    ("arguments", "scope", "variables", "status", "words"),
    [
        pytest.param(("list",), "admin", {"LORA_SERVER_TOKEN": ""}, 3, "--token-file", id="none"),
        pytest.param(("list",), "read", {}, 3, "'admin'", id="scope"),
        pytest.param(("show", "styles/no.pt"), "admin", {}, 4, "lora-server list", id="missing"),
        pytest.param(("show", "no.pt"), "admin", {}, 2, "styles/ink.safetensors", id="path"),
        pytest.param(("list", "--sort", "age"), "admin", {}, 5, "sort", id="refused"),
        pytest.param(
            ("list", "--url", "http://127.0.0.1:1", "--retry-for", "0"),
            "admin",
            {},
            6,
            "connection refused",
            id="network",
        ),
        pytest.param(("upload", "none.pt", "-t", "styles"), "admin", {}, 2, "none.pt", id="file"),
    ],
)
async def test_statuses(  # noqa: PLR0913, PLR0917 - the columns of a table
    client: Client,
    arguments: tuple[str, ...],
    scope: str,
    variables: dict[str, str],
    status: int,
    words: str,
) -> None:
    """Each kind of failure has its status, and is said in one sentence on stderr alone."""
    done = await client(*arguments, scope=scope, **variables)

    assert (done.returncode, done.stdout) == (status, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


async def test_the_token_may_stand_in_a_file(client: Client, tmp_path: Path) -> None:
    """From a file or stdin, so that no argument shows it to others."""
    (tmp_path / "token").write_text(token("cli", "admin") + "\n", encoding="utf-8")
    done = await client("list", "--token-file", "token", LORA_SERVER_TOKEN="")
    piped = await client(
        "list", "--token-file", "-", LORA_SERVER_TOKEN="", stdin=token("x", "admin")
    )

    assert (done.returncode, piped.returncode) == (0, 0)


async def test_a_server_that_restarts_is_waited_for(run: Run) -> None:
    """A 503 is told on stderr, once, and the command goes on."""
    later = answer("503 Service Unavailable", b'{"detail": "Going down."}', Retry_After="0")
    empty = answer("200 OK", b'{"data": [], "count": 0}')
    async with scripted(later, later, empty) as server:
        done = await Client(run, server.port)("list", "--json")

    assert json.loads(done.stdout) == {"data": [], "count": 0}
    assert done.stderr == "lora-server: Going down. (trying again for up to 60 s)\n"


async def test_what_others_wrote_cannot_steer_a_terminal(run: Run) -> None:
    """Names and errors from outside are printed without their control characters."""
    lora = {
        "partial_path": "styles/\x1b]0;owned\x07.pt",
        "file_size": 1,
        "upload_timestamp": "2026-01-01T00:00:00Z",
    }
    page = json.dumps({"data": [lora], "count": 1}).encode()
    evil = answer("409 Conflict", json.dumps({"detail": "\x1b[2Jgone"}).encode())
    async with scripted(answer("200 OK", page)) as server:
        done = await Client(run, server.port)("list")
    async with scripted(evil) as server:
        refused = await Client(run, server.port)("list")

    assert "styles/" in done.stdout
    assert "gone" in refused.stderr
    assert not {"\x1b", "\x07"} & set(done.stdout + refused.stderr)


class Terminal:
    """A command on a pseudo-terminal."""

    def __init__(self, client: Client, folder: Path, *arguments: str | Path) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lora_server", *arguments],
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "TERM": "xterm",
                "COLUMNS": "100",
                **client.variables(),
            },
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self.written = b""
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        try:
            while piece := os.read(self._ours, 65536):
                self.written += piece
        except OSError:  # the last one has left the terminal
            pass
        finally:
            os.close(self._ours)

    async def shows(self, words: bytes) -> None:
        """Wait until something is on the screen."""
        async with asyncio.timeout(60):
            while words not in self.written:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.01)

    async def ended(self) -> int:
        """Wait for the exit status."""
        status = await asyncio.to_thread(self.process.wait, 60)
        await asyncio.to_thread(self._reading.join, 60)
        return status


def _sparse(path: Path, size: int) -> Path:
    """Write a LoRA whose weights are zeros, most of which are no blocks on the disk."""
    with path.open("wb") as file:
        file.write(lora_header(size))
        file.truncate(size)
    return path


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Path]:
    """Lend a LoRA of 200 MB."""
    path = _sparse(tmp_path / "large.safetensors", 200_000_000)
    yield path
    path.unlink()


async def test_progress_is_shown_on_a_terminal(
    run: Run, shared: Server, tmp_path: Path, files: Path
) -> None:
    """Bytes, rate and remaining time while it runs; results above; the bars are gone at the end."""
    medium = _sparse(tmp_path / "medium.safetensors", 30_000_000)
    async with proxied(shared.port) as proxy:
        proxy.hold = UPLOAD
        client = Client(run, proxy.port)
        terminal = Terminal(client, files, "upload", medium, "ink.safetensors", "-t", "styles")
        for words in (b"2 files", b"sending", b" of 30 MB", b"MB/s", b"00:0"):
            await terminal.shows(words)
        assert b"stored   styles/medium.safetensors" not in terminal.written
        proxy.gate.set()
        status = await terminal.ended()

    assert status == 0
    assert b"stored   styles/medium.safetensors" in terminal.written
    assert terminal.written.rstrip().endswith(b"2 stored")
    assert terminal.written.count(b"\x1b[?25l") == terminal.written.count(b"\x1b[?25h")
    assert len(shared.files()) == 2


async def test_memory_is_flat(client: Client, large: Path) -> None:
    """A file of 200 MB costs a process less than a tenth of that beside what it needs anyhow."""

    def peak(*arguments: str | Path) -> int:
        process = subprocess.Popen(
            [sys.executable, "-m", "lora_server", *arguments],
            env=os.environ | {"PYTHONPATH": str(ROOT)} | client.variables(),
            stdout=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        return usage.ru_maxrss * 1024

    small = large.with_name("small.safetensors")
    small.write_bytes(lora_bytes(0))
    idle = await asyncio.to_thread(peak, "upload", small, "-t", "styles")
    busy = await asyncio.to_thread(peak, "upload", large, "-t", "styles")

    assert busy - idle < 20_000_000


async def test_ctrl_c_ends_cleanly(run: Run, shared: Server, tmp_path: Path) -> None:
    """Status 130, the cursor is back, and the server keeps nothing."""
    medium = _sparse(tmp_path / "medium.safetensors", 30_000_000)
    async with proxied(shared.port) as proxy:
        proxy.hold = UPLOAD
        terminal = Terminal(Client(run, proxy.port), tmp_path, "upload", medium, "-t", "styles")
        await terminal.shows(b"sending")
        terminal.process.send_signal(signal.SIGINT)
        status = await terminal.ended()
        proxy.gate.set()

    assert status == 130
    assert b"interrupted" in terminal.written
    assert b"Traceback" not in terminal.written
    assert terminal.written.rindex(b"\x1b[?25h") > terminal.written.rindex(b"\x1b[?25l")
    while shared.in_flight:  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0.01)
    assert not shared.files()


async def test_completion_scripts(run: Run) -> None:
    """Each shell gets a script that asks this command, and the command knows its words."""
    for shell in ("bash", "fish"):
        done = await asyncio.to_thread(run, "completion", shell)
        assert "_LORA_SERVER_COMPLETE" in done.stdout
    words: dict[str, Any] = {"COMP_WORDS": "lora-server upload -t st", "COMP_CWORD": "3"}
    done = await asyncio.to_thread(run, _LORA_SERVER_COMPLETE="complete_bash", **words)

    assert done.stdout.split() == ["styles"]


async def test_what_was_set_by_hand_is_shown(client: Client, shared: Server) -> None:
    """What an admin said of a LoRA stands before what was detected."""
    path = (await stored(shared))["partial_path"]
    said = json.dumps({"base_model": "SDXL", "trigger_words": ["inkwash"], "notes": "mine"})
    await call(shared, "PATCH", f"{LORA}/{path}", headers=ADMIN | JSON, data=said)
    shown = await client("show", path)

    assert "SDXL (set by hand)" in shown.stdout
    assert "inkwash" in shown.stdout
    assert "mine" in shown.stdout
