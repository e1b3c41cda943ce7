"""`lora-server key`: the keys that tokens are signed with."""

import os
from pathlib import Path
from typing import Annotated

import typer

from lora_server.cli.status import fail
from lora_server.jwt_keys import Algorithm, new_key_pair, new_secret

app = typer.Typer(no_args_is_help=True, help="Make the keys that tokens are signed with.")

PRIVATE_MODE = 0o600
PUBLIC_MODE = 0o644


@app.command(epilog="Example: lora-server key new /etc/lora-server/jwt.key")
def new(
    path: Annotated[Path, typer.Argument(help="The file to make; it must not exist.")],
    algorithm: Annotated[
        Algorithm,
        typer.Option(help="RS256 and EdDSA also write PATH.pub, which is what the server gets."),
    ] = "HS256",
) -> None:
    """Write a fresh key that only you can read; never overwrites."""
    if algorithm == "HS256":
        _write_new({path: (new_secret(), PRIVATE_MODE)})
        return
    private, public = new_key_pair(algorithm)
    beside = path.with_name(path.name + ".pub")
    _write_new({beside: (public, PUBLIC_MODE), path: (private, PRIVATE_MODE)})


def _write_new(files: dict[Path, tuple[bytes, int]]) -> None:
    for path in files:
        if path.exists():
            fail(f"{path} exists; a key is never overwritten")
    for path, (content, mode) in files.items():
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
        except OSError as error:
            fail(f"{path} cannot be written: {error.strerror}")
        typer.echo(path)
