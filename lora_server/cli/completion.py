"""`lora-server completion`: what a shell needs to complete this command."""

import os
from enum import StrEnum
from typing import Annotated

import typer

_NAME = "lora-server"
_VARIABLE = "_LORA_SERVER_COMPLETE"  # by typer's rule, asks the command itself for the script


class Shell(StrEnum):
    """The shells that can."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    context: typer.Context,
    shell: Annotated[Shell, typer.Argument(help="For which shell.")],
) -> None:
    """Print what makes a shell complete this command.

    `lora-server --install-completion` writes it into your shell's own place.
    """
    os.environ[_VARIABLE] = f"source_{shell}"
    context.find_root().command.main([], prog_name=_NAME)
