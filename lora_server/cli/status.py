"""How every command ends: its exit status, and one sentence on stderr when it fails."""

from enum import IntEnum
from typing import NoReturn

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
    CONFIG = 78
    INTERRUPTED = 130  # Ctrl-C


def fail(message: str, status: Status = Status.FAILURE) -> NoReturn:
    """End the command with `message` on stderr."""
    complain(message)
    raise typer.Exit(status)


def complain(message: str) -> None:
    """Say on stderr what went wrong, and go on."""
    typer.echo(f"lora-server: {plain(message)}", err=True)
