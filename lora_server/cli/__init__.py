"""The lora-server command: `commands` lists what there is, one module for each noun."""

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from lora_server.cli.commands import Commands

app = typer.Typer(
    name="lora-server",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals hold keys and tokens
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it
    if wanted:
        try:
            typer.echo(f"lora-server {version('lora-server')}")
        except PackageNotFoundError:
            typer.echo("lora-server, not installed")
        raise typer.Exit


@app.callback(
    epilog="Each command explains itself: lora-server upload --help\n\n"
    "Statuses: 0 done, 1 failed here, 2 misused, 3 token, 4 not found, 5 refused by the server, "
    "6 no server, 7 evaluated and failed, 78 settings, 130 Ctrl-C"
)
def lora_server(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Put LoRA weights on a GPU host, or own a tree of them and serve it over HTTP."""
