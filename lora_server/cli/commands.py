"""Which commands there are; the module of one is imported when it is called.

A server's modules take a second to import, and a completion or a listing has no use for them.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from lora_server.cli.status import Status, fail
from lora_server.errors import ConfigInvalid

_CLIENT = "From anywhere, with a URL and a token"
_SERVER = "On the server's machine"


@dataclass(frozen=True, slots=True)
class Entry:
    """One command: a function of a module, or a whole Typer called `app`."""

    name: str
    module: str  # within lora_server.cli
    attribute: str
    summary: str
    panel: str
    example: str = ""  # of a function; a Typer's commands have their own

    def load(self) -> Any:
        """Import the command."""
        found = getattr(import_module(f"lora_server.cli.{self.module}"), self.attribute)
        if isinstance(found, typer.Typer):
            return get_group(found)
        return get_command(self._alone(found))

    def _alone(self, function: Callable[..., None]) -> typer.Typer:
        app = typer.Typer(add_completion=False)
        app.command(self.name, epilog=f"Example: lora-server {self.example}")(function)
        return app


ENTRIES = (
    Entry(
        "upload",
        "upload",
        "upload",
        "Send LoRAs to the server; what is there already is not sent again.",
        _CLIENT,
        "upload ink.safetensors --entity-type styles",
    ),
    Entry(
        "list",
        "listing",
        "list_loras",
        "List what is stored.",
        _CLIENT,
        "list --entity-type styles --sort -upload_timestamp",
    ),
    Entry(
        "show",
        "showing",
        "show",
        "Show everything that is known of LoRAs.",
        _CLIENT,
        "show styles/ink.safetensors",
    ),
    Entry(
        "download",
        "download",
        "download",
        "Fetch LoRAs; what broke off is gone on with.",
        _CLIENT,
        "download styles/ink.safetensors --to ~/loras",
    ),
    Entry(
        "delete",
        "deleting",
        "delete",
        "Move LoRAs into the bin, from where `restore` brings them back.",
        _CLIENT,
        "delete styles/ink.safetensors",
    ),
    Entry(
        "restore",
        "deleting",
        "restore",
        "Bring LoRAs back from the bin.",
        _CLIENT,
        "restore styles/ink.safetensors",
    ),
    Entry("bin", "listing", "list_bin", "List what was deleted, latest first.", _CLIENT, "bin"),
    Entry(
        "evaluate",
        "evaluate",
        "evaluate",
        "Tell how good LoRAs are, and what to do about it.",
        _CLIENT,
        "evaluate styles/ink.safetensors --watch",
    ),
    Entry(
        "digest",
        "digest",
        "digest",
        "Print the SHA-256 of files, as sha256sum does.",
        _CLIENT,
        "digest ink.safetensors --stored",
    ),
    Entry("token", "token", "app", "Mint, look at and revoke tokens.", _SERVER),
    Entry(
        "serve",
        "serve",
        "serve",
        "Run the server until SIGTERM or Ctrl-C; uploads in flight are finished first.",
        _SERVER,
        "serve --config /etc/lora-server/config.toml",
    ),
    Entry(
        "evaluation-worker",
        "evaluation_worker",
        "evaluation_worker",
        "Run the evaluation worker on `[evaluation] worker_socket` until SIGTERM or Ctrl-C.",
        _SERVER,
        "evaluation-worker --config /etc/lora-server/config.toml",
    ),
    Entry(
        "reinspect",
        "reinspect",
        "reinspect",
        "Judge every known file again by the rules of this version; the server may run meanwhile.",
        _SERVER,
        "reinspect --config /etc/lora-server/config.toml",
    ),
    Entry("key", "key", "app", "Make the keys that tokens are signed with.", _SERVER),
    Entry("config", "configuration", "app", "Look at the settings.", _SERVER),
    Entry(
        "completion",
        "completion",
        "completion",
        "Print what makes a shell complete this command.",
        "This command",
        "completion bash > ~/.local/share/bash-completion/completions/lora-server",
    ),
)


class Commands(TyperGroup):
    """The outermost group: knows its commands by name, and loads the one that is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self._entries = {entry.name: entry for entry in ENTRIES}
        for entry in ENTRIES:
            self.add_command(
                TyperCommand(entry.name, help=entry.summary, rich_help_panel=entry.panel)
            )

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that was named, and load it."""
        name, command, rest = super().resolve_command(ctx, args)
        entry = self._entries.get(name or "")
        return name, entry.load() if entry else command, rest

    def invoke(self, ctx: Any) -> Any:
        """Run a command; settings that cannot be used end any with status 78."""
        try:
            return super().invoke(ctx)
        except ConfigInvalid as error:
            fail(str(error), Status.CONFIG)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            fail("there is no space left for what this command writes")
