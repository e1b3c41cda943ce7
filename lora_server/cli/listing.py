"""`lora-server list` and `lora-server bin`: what is stored, and what was deleted."""

import json
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lora_server.cli.describing import UNKNOWN, base_model, verdict
from lora_server.cli.options import AsJson
from lora_server.cli.reaching import (
    DEFAULT_RETRY_FOR,
    DEFAULT_URL,
    Quiet,
    RetryFor,
    Server,
    ServerUrl,
    TokenFile,
    entity_types,
)
from lora_server.cli.status import remark, say
from lora_server.cli.wording import age, duration, plain, size
from lora_server.client import library
from lora_server.client.answers import Binned, Lora, Page, Raw
from lora_server.client.connection import Connection

_NO_EDGE = 2000  # columns of what is no terminal: one line for each row
_ENOUGH = 200  # rows that a person reads; programs get all

Search = Annotated[str | None, typer.Argument(metavar="[TEXT]", help="A part of the name.")]
EntityType = Annotated[
    str | None,
    typer.Option("--entity-type", "-t", help="Only this type.", autocompletion=entity_types),
]
Limit = Annotated[
    int | None,
    typer.Option(min=1, help=f"How many at most; else {_ENOUGH} in a table, and all otherwise."),
]


def list_loras(  # noqa: PLR0913 - each is an option of the command
    search: Search = None,
    *,
    entity_type: EntityType = None,
    base_model: Annotated[str | None, typer.Option(help="Only this base model.")] = None,
    adapter: Annotated[str | None, typer.Option(help="Only this adapter family.")] = None,
    verdict: Annotated[str | None, typer.Option(help="accepted or refused.")] = None,
    sort: Annotated[
        str,
        typer.Option(
            help="name, file_size, upload_timestamp, entity_type, base_model, adapter, verdict; "
            "with - before it, descending."
        ),
    ] = "name",
    limit: Limit = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    url: ServerUrl = DEFAULT_URL,
    token_file: TokenFile = None,
    retry_for: RetryFor = DEFAULT_RETRY_FOR,
) -> None:
    """List what is stored."""
    query = {
        "q": search,
        "entity_type": entity_type,
        "base_model": base_model,
        "adapter": adapter,
        "verdict": verdict,
        "sort": sort,
    }
    wanted = {name: value for name, value in query.items() if value is not None}
    server = Server(url, token_file, retry_for)
    show = _Shown(_lora_table, lambda raw: Lora.of(raw).partial_path, "nothing that fits is stored")
    show.listing(server, library.LORAS, wanted, limit, as_json=as_json, quiet=quiet)


def list_bin(  # noqa: PLR0913 - each is an option of the command
    search: Search = None,
    *,
    entity_type: EntityType = None,
    limit: Limit = None,
    as_json: AsJson = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print bin paths alone, one a line.")
    ] = False,
    url: ServerUrl = DEFAULT_URL,
    token_file: TokenFile = None,
    retry_for: RetryFor = DEFAULT_RETRY_FOR,
) -> None:
    """List what was deleted, latest first."""
    query = {"q": search, "entity_type": entity_type}
    wanted = {name: value for name, value in query.items() if value is not None}
    server = Server(url, token_file, retry_for)
    show = _Shown(
        _bin_table, lambda raw: Binned.of(raw).bin_path, "nothing that fits is in the bin"
    )
    show.listing(server, library.BIN, wanted, limit, as_json=as_json, quiet=quiet)


class _Shown:
    """A listing as a table, as paths alone, or as JSON."""

    def __init__(
        self, table: Callable[[list[Raw]], Table], path: Callable[[Raw], str], empty: str
    ) -> None:
        self._table = table
        self._empty = empty
        self._path = path

    def listing(  # noqa: PLR0913 - what is asked, and how it is shown
        self,
        server: Server,
        path: tuple[str, ...],
        query: Mapping[str, str],
        limit: int | None,
        *,
        as_json: bool,
        quiet: bool,
    ) -> None:
        """Fetch a listing and print it; paths alone are printed as they come."""
        rows = limit or (None if as_json or quiet else _ENOUGH)

        async def work(connection: Connection) -> Page:
            items: list[Raw] = []
            count = 0
            async for page in library.pages(connection, path, query, rows):
                count = page.count
                if quiet and not as_json:
                    for raw in page.items:
                        say(plain(self._path(raw)))
                else:
                    items += page.items
            return Page(tuple(items), count)

        page = server.run(work)
        if as_json:
            say(json.dumps({"data": page.items, "count": page.count}))
        elif not quiet:
            self._print(page)

    def _print(self, page: Page) -> None:
        if not page.items:
            remark(self._empty)
            return
        width = None if sys.stdout.isatty() else _NO_EDGE
        Console(highlight=False, width=width).print(self._table(list(page.items)))
        if len(page.items) < page.count:
            hint = f"{len(page.items)} of {page.count}; --limit {page.count} shows all"
            remark(hint)


def _headed(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in titles:
        is_number = title in ("RANK", "SIZE", "AGE", "LEFT")
        is_path = title == "PATH"  # folds where the terminal is narrow, so that none is lost
        table.add_column(
            title,
            justify="right" if is_number else "left",
            overflow="fold",
            no_wrap=not is_path,
        )
    return table


def _lora_table(items: list[Raw]) -> Table:
    table = _headed("BASE", "ADAPTER", "RANK", "SIZE", "VERDICT", "AGE", "PATH")
    for lora in map(Lora.of, items):
        word, style = verdict(lora)
        table.add_row(
            Text(plain(base_model(lora))),
            Text(plain(lora.adapter or UNKNOWN)),
            Text(lora.rank or UNKNOWN),
            Text(size(lora.file_size)),
            Text(plain(word), style),
            Text(age(lora.uploaded_at)),
            _path(lora.partial_path),
        )
    return table


def _bin_table(items: list[Raw]) -> Table:
    table = _headed("SIZE", "DELETED BY", "AGE", "LEFT", "PATH")
    for binned in map(Binned.of, items):
        table.add_row(
            Text(size(binned.file_size)),
            Text(plain(binned.deleted_by or UNKNOWN)),
            Text(age(binned.deleted_at) if binned.deleted_at else UNKNOWN),
            Text(_left(binned)),
            _path(binned.partial_path),
        )
    return table


def _left(binned: Binned) -> str:
    if binned.purge_after is None:
        return UNKNOWN
    seconds = (binned.purge_after - datetime.now(UTC)).total_seconds()
    return duration(seconds) if seconds > 0 else "none"


def _path(partial_path: str) -> Text:
    entity_type, slash, name = plain(partial_path).partition("/")
    return Text.assemble((entity_type + slash, "dim"), name)
