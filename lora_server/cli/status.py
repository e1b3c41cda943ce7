"""How every command ends: its exit status, and one sentence on stderr when it fails."""

from enum import IntEnum
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from lora_server.errors import ConfigInvalid


class Status(IntEnum):
    """Exit statuses; 78 is EX_CONFIG of sysexits.h, which systemd knows by name too."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    CONFIG = 78


class Commands(TyperGroup):
    """The outermost group: settings that cannot be used end any command with status 78."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except ConfigInvalid as error:
            fail(str(error), Status.CONFIG)


def fail(message: str, status: Status = Status.FAILURE) -> NoReturn:
    """End the command with `message` on stderr."""
    typer.echo(f"lora-server: {message}", err=True)
    raise typer.Exit(status)
