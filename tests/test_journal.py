"""Log records as journald gets them."""

import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lora_server import journal


def fields(datagram: bytes) -> dict[str, str]:
    """Read an entry as journald does."""
    read = {}
    while datagram:
        name, _, rest = datagram.partition(b"\n")
        (length,) = struct.unpack("<Q", rest[:8])
        read[name.decode()] = rest[8 : 8 + length].decode()
        assert rest[8 + length : 9 + length] == b"\n"
        datagram = rest[9 + length :]
    return read


def entry(**event: Any) -> dict[str, str]:
    """Return the fields of an event."""
    return fields(journal.entry(event))


def test_what_happened_to_a_file_can_be_asked_for() -> None:
    """Each value becomes a field under our prefix, and the line for people holds them too."""
    told = entry(event="upload", level="warning", logger="audit", sha256="ab12", status=422)

    assert told["MESSAGE"] == "upload sha256=ab12 status=422"
    assert told["LORA_EVENT"] == "upload"
    assert told["LORA_SHA256"] == "ab12"
    assert told["LORA_STATUS"] == "422"
    assert told["LORA_LOGGER"] == "audit"
    assert told["PRIORITY"] == "4"


def test_a_value_stays_in_its_field() -> None:
    """Line breaks and the control sequences of a terminal, sent by a client, do nothing."""
    told = entry(event="upload", filename="x\nPRIORITY=0\nLORA_ACTOR=root\x1b[2J")

    assert told["PRIORITY"] == "6"
    assert "LORA_ACTOR" not in told
    assert told["MESSAGE"] == r"upload filename='x\nPRIORITY=0\nLORA_ACTOR=root\x1b[2J'"


def test_field_names_are_what_journald_takes() -> None:
    """A field is dropped unless its name is made of capitals, digits and underscores."""
    assert entry(**{"event": "x", "naïve key=1\n": "y"})["LORA_NA_VE_KEY_1_"] == "y"


def test_an_entry_fits_a_datagram() -> None:
    """However long the values and however many, it is under 200 kB, and still text."""
    many = {f"key{number}": "ü" * 100_000 for number in range(100)}
    raw = journal.entry({"event": "x", **many})

    assert len(raw) < 200_000
    assert set(fields(raw)["LORA_KEY7"]) == {"ü"}


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[socket.socket]:
    """Listen where journald would."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "socket"))
        listening.settimeout(5)
        yield listening


LOGGING = """
import logging, os, sys
from pathlib import Path
import structlog
from lora_server import journal, logs
from lora_server.config import LoggingConfig
status = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
journal.SOCKET = Path(sys.argv[1])
logs.configure(LoggingConfig(format=sys.argv[2]))
structlog.get_logger("audit").info("purge", sha256="ab12")
try:
    {}["gone"]
except KeyError:
    logging.getLogger("library").exception("it failed")
"""


def stderr_of_a_service(folder: Path, log_format: str = "auto") -> str:
    """Log from a process whose stderr is the journal's, and return what went there as lines."""
    program = (sys.executable, "-c", LOGGING, str(folder / "socket"), log_format)
    return subprocess.run(program, check=True, stderr=subprocess.PIPE, text=True).stderr


def test_where_stderr_is_the_journal_entries_have_fields(
    journald: socket.socket, tmp_path: Path
) -> None:
    """Under systemd the log takes the native road, tracebacks and libraries included."""
    lines = stderr_of_a_service(tmp_path)
    told, failed = fields(journald.recv(65536)), fields(journald.recv(65536))

    assert (told["LORA_EVENT"], told["LORA_SHA256"]) == ("purge", "ab12")
    assert failed["MESSAGE"].startswith("it failed\nTraceback")
    assert failed["PRIORITY"] == "3"
    assert not lines


def test_a_journal_that_is_away_loses_no_line(tmp_path: Path) -> None:
    """While journald restarts, records go down the stream that systemd holds open."""
    assert "ab12" in stderr_of_a_service(tmp_path)


def test_json_stays_json(journald: socket.socket, tmp_path: Path) -> None:
    """Whoever asks for JSON gets it under systemd, too."""
    lines = stderr_of_a_service(tmp_path, "json")
    journald.settimeout(0)

    assert '"event": "purge"' in lines
    with pytest.raises(BlockingIOError):
        journald.recv(1)
