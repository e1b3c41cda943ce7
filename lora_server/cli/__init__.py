"""The lora-server command: one module for each noun, gathered here."""

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from lora_server.cli import configuration, key, token
from lora_server.cli.evaluation_worker import evaluation_worker
from lora_server.cli.reinspect import reinspect
from lora_server.cli.serve import serve
from lora_server.cli.status import Commands

app = typer.Typer(
    name="lora-server",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals hold keys and tokens
)
app.command(epilog="Example: lora-server serve --config /etc/lora-server/config.toml")(serve)
app.command(epilog="Example: lora-server reinspect --config /etc/lora-server/config.toml")(
    reinspect
)
app.command(epilog="Example: lora-server evaluation-worker --config /etc/lora-server/config.toml")(
    evaluation_worker
)
app.add_typer(token.app, name="token")
app.add_typer(key.app, name="key")
app.add_typer(configuration.app, name="config")


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it
    if wanted:
        try:
            typer.echo(f"lora-server {version('lora-server')}")
        except PackageNotFoundError:
            typer.echo("lora-server, not installed")
        raise typer.Exit


@app.callback(epilog="Each command explains itself: lora-server token mint --help")
def lora_server(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Own a tree of LoRA weights and serve it over HTTP."""
