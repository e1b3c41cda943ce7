"""Options and arguments that several commands share, and how their values are read."""

from pathlib import Path
from typing import Annotated

import typer

ConfigPath = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar="LORA_SERVER_CONFIG",
        metavar="PATH",
        help="The config.toml to read; without one, defaults and environment hold.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def duration(text: str, option: str) -> float:
    """Read `90s`, `5m`, `12h`, `30d` or plain seconds as the settings do.

    Raises:
        typer.BadParameter: it is none of these, or not above zero.

    """
    # Imported here: most commands that share options have no use for the settings.
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415

    from lora_server.config import Seconds  # noqa: PLC0415

    try:
        return TypeAdapter(Seconds).validate_python(text)
    except ValidationError as error:
        raise typer.BadParameter("write it like 90s, 5m, 12h or 30d", param_hint=option) from error


def token_text(given: str | None) -> str:
    """Return the token that was given, or read it from stdin for None and `-`."""
    if given is None or given == "-":
        return typer.get_text_stream("stdin", errors="replace").read().strip()
    return given.strip()
