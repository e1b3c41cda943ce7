"""How every command ends: its exit status, and one sentence on stderr when it fails."""

import sys
from enum import IntEnum
from typing import NoReturn, TextIO

import typer

from lora_server.cli.wording import plain


class Status(IntEnum):
    """Exit statuses; 78 is EX_CONFIG of sysexits.h, which systemd knows by name too."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    AUTH = 3  # no token, a bad one, or one without the scope
    NOT_FOUND = 4
    REFUSED = 5  # the server will not do it
    NETWORK = 6  # no server, or none that answers in time
    VERDICT = 7  # the LoRA failed its evaluation
    CONFIG = 78
    INTERRUPTED = 130  # Ctrl-C


def fail(message: str, status: Status = Status.FAILURE) -> NoReturn:
    """End the command with `message` on stderr."""
    complain(message)
    raise typer.Exit(status)


def complain(message: str) -> None:
    """Say on stderr what went wrong, and go on."""
    _write(sys.stderr, f"lora-server: {plain(message)}")


def say(line: str) -> None:
    """Print a result; above the progress bars, where they are drawn on the same terminal."""
    _write(sys.stdout, line)


def remark(line: str) -> None:
    """Say on stderr what is no result and no error."""
    _write(sys.stderr, line)


def _write(stream: TextIO, line: str) -> None:
    encoding = stream.encoding or "utf-8"
    printable = line.encode(encoding, "backslashreplace").decode(encoding)
    stream.write(f"{printable}\n")  # not typer's echo, which goes past what draws the bars
    stream.flush()
