"""`lora-server config`: what the settings say, before a server starts by them."""

from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lora_server.cli.options import AsJson, ConfigPath
from lora_server.config import Config, credentials_directory, load
from lora_server.jwt_keys import Key, load_keys
from lora_server.revocations import Revocations

app = typer.Typer(no_args_is_help=True, help="Look at the settings.")


@app.command(epilog="Example: lora-server config check --config /etc/lora-server/config.toml")
def check(*, config: ConfigPath = None, as_json: AsJson = False) -> None:
    """Tell whether a server could start by these settings; status 78 and the key if not."""
    settings = load(config)
    keys = load_keys(settings.auth, credentials=credentials_directory())
    Revocations(settings.auth.revoked_file)
    facts = _in_force(settings, keys, config)
    if as_json:
        Console().print_json(data={"ok": True, **facts})
        return
    typer.echo("ok")
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        table.add_row(name, Text(str(value), overflow="fold"))
    Console().print(table)


@app.command(epilog="Example: lora-server config show | jq .storage")
def show(*, config: ConfigPath = None) -> None:
    """Print every setting in force as JSON: sizes in bytes, times in seconds, modes in decimal."""
    typer.echo(load(config).model_dump_json(indent=2))


def _in_force(config: Config, keys: tuple[Key, ...], path: Path | None) -> dict[str, Any]:
    named = (f"{key.kid} ({key.algorithm})" if key.kid else key.algorithm for key in keys)
    return {
        "settings": str(path) if path else "defaults and environment",
        "listen": f"http://{config.server.host}:{config.server.port}{config.server.base_path}",
        "models": str(config.storage.models_dir),
        "bin": str(config.storage.bin_dir),
        "staging": str(config.storage.staging_dir),
        "state": str(config.storage.state_dir),
        "largest file": config.storage.max_file_size.human_readable(),
        "pickle": config.ingest.pickle,
        "keys": ", ".join(named),
        "audience": config.auth.audience,
        "issuer": config.auth.issuer,
        "revocations": str(config.auth.revoked_file) if config.auth.revoked_file else None,
    }
