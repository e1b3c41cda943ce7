"""`lora-server reinspect`: what is known of the files, found out again by today's rules."""

import asyncio
import json
from dataclasses import dataclass, field

import typer
from rich.console import Console
from rich.progress import Progress

from lora_server.catalog import Catalog
from lora_server.cli.options import AsJson, ConfigPath
from lora_server.config import Config, load
from lora_server.door import Door
from lora_server.layout import Layout
from lora_server.records import Verdict
from lora_server.reinspect import Reinspected, judges
from lora_server.reinspect import reinspect as look_again


@dataclass(slots=True)
class _Tally:
    """What came of it."""

    files: int = 0
    skipped: int = 0
    changed: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def count(self, result: Reinspected) -> None:
        """Count one file."""
        self.files += 1
        path = f"{result.lora.location.place}/{result.lora.location.partial_path}"
        if result.changed:
            self.changed.append(path)
        if result.after.verdict is Verdict.REFUSED:
            self.refused.append(path)


def reinspect(*, config: ConfigPath = None, as_json: AsJson = False) -> None:
    """Judge every known file again by the rules of this version; the server may run meanwhile."""
    tally = asyncio.run(_run(load(config), quiet=as_json))
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "files": tally.files,
                    "skipped": tally.skipped,
                    "changed": tally.changed,
                    "refused": tally.refused,
                }
            )
        )
        return
    typer.echo(
        f"{tally.files} files judged, {tally.skipped} changed by hand and left to the server"
    )
    for path in tally.changed:
        typer.echo(f"found something new: {path}")
    for path in tally.refused:
        typer.echo(f"would not come in today: {path}", err=True)


async def _run(config: Config, *, quiet: bool) -> _Tally:
    layout, tally = Layout.of(config.storage), _Tally()
    async with (
        Catalog.opened(layout.catalog) as catalog,
        judges() as pool,
    ):
        loras = list((await catalog.known_files()).values())
        console = Console(stderr=True)
        with Progress(console=console, disable=quiet or not console.is_terminal) as progress:
            bar = progress.add_task("Judging", total=len(loras))
            door = Door(pool, config.ingest)
            async for result in look_again(loras, catalog=catalog, layout=layout, door=door):
                tally.count(result)
                progress.update(bar, completed=tally.files)
    tally.skipped = len(loras) - tally.files
    return tally
