"""`lora-server serve`: the daemon in the foreground, as systemd or a laptop starts it."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from lora_server import logs, systemd
from lora_server.cli import local
from lora_server.cli.options import ConfigPath
from lora_server.cli.status import fail
from lora_server.config import credentials_directory, load
from lora_server.errors import CannotListen, ConfigInvalid
from lora_server.jwt_keys import load_keys
from lora_server.revocations import Revocations
from lora_server.web.app import create_app
from lora_server.web.serving import serve_until_signalled

LocalFolder = Annotated[
    Path | None,
    typer.Option(
        "--local",
        metavar="FOLDER",
        help="Try it out: keep everything under FOLDER, with a key and a token made for you.",
    ),
]


def serve(*, config: ConfigPath = None, local_folder: LocalFolder = None) -> None:
    """Run the server until SIGTERM or Ctrl-C; uploads in flight are finished first.

    Sockets that systemd passes are served instead of [server] host and port.
    """
    if not __debug__:
        raise ConfigInvalid("PYTHONOPTIMIZE: the HTTP framework needs its assertions; unset it")
    settings = load(config)
    if local_folder is not None:
        settings = local.prepared(settings, local_folder.absolute())
        typer.echo(local.greeting(settings, local_folder))
    logs.configure(settings.logging)
    keys = load_keys(settings.auth, credentials=credentials_directory())
    revocations = Revocations(settings.auth.revoked_file)
    passed = [taken for named in systemd.listening_sockets().values() for taken in named]
    try:
        asyncio.run(serve_until_signalled(create_app(settings, keys, revocations), passed))
    except CannotListen as error:
        fail(str(error))
