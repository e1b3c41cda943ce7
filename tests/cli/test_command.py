"""The command as a whole: help, version, statuses."""

import pytest

from lora_server.cli.commands import ENTRIES, Entry
from tests.cli.conftest import Run

COMMANDS = (
    ("token", "mint"),
    ("token", "inspect"),
    ("token", "revoke"),
    ("key", "new"),
    ("config", "check"),
    ("config", "show"),
    ("upload",),
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_gives_an_example(run: Run, command: tuple[str, ...]) -> None:
    """Every command explains itself and shows how it is called."""
    done = run(*command, "--help")

    assert done.returncode == 0
    assert f"Example: lora-server {' '.join(command)}" in done.stdout


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_each_command_is_what_the_list_says(entry: Entry) -> None:
    """The list of commands says of each what its own help says, and each shows how it is called."""
    command = entry.load()

    assert command.help.strip().split("\n\n")[0] == entry.summary
    assert hasattr(command, "commands") or f"lora-server {entry.name}" in command.epilog


def test_bare_command_shows_what_there_is(run: Run) -> None:
    """Called with nothing, it lists its commands."""
    done = run()

    assert all(command[0] in done.stdout + done.stderr for command in COMMANDS)


def test_version(run: Run) -> None:
    """The version is printed without reading settings."""
    done = run("--version", LORA_SERVER_CONFIG="absent.toml")

    assert done.returncode == 0
    assert done.stdout.startswith("lora-server")


@pytest.mark.parametrize("arguments", [("serv",), ("token", "mint"), ("key", "new")])
def test_misuse_is_status_2(run: Run, arguments: tuple[str, ...]) -> None:
    """What cannot be understood ends with status 2, said on stderr alone."""
    done = run(*arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr
