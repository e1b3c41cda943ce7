"""`lora-server show`: everything that is known of LoRAs, laid out for people."""

import json
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lora_server.cli.describing import UNKNOWN, base_model, listed, verdict, warnings
from lora_server.cli.options import AsJson
from lora_server.cli.reaching import (
    DEFAULT_RETRY_FOR,
    DEFAULT_URL,
    PartialPaths,
    RetryFor,
    Server,
    ServerUrl,
    TokenFile,
)
from lora_server.cli.status import say
from lora_server.cli.wording import age, plain, size
from lora_server.client import library
from lora_server.client.answers import Lora, Raw, part
from lora_server.client.connection import Connection


def show(
    paths: PartialPaths,
    *,
    as_json: AsJson = False,
    url: ServerUrl = DEFAULT_URL,
    token_file: TokenFile = None,
    retry_for: RetryFor = DEFAULT_RETRY_FOR,
) -> None:
    """Show everything that is known of LoRAs.

    With --json, one object a line.
    """

    async def work(connection: Connection) -> None:
        for number, path in enumerate(paths):
            lora = await library.show(connection, path)
            if as_json:
                say(json.dumps(lora.raw))
            else:
                _print(lora, first=not number)

    Server(url, token_file, retry_for).run(work)


def _print(lora: Lora, *, first: bool) -> None:
    console = Console(highlight=False)
    if not first:
        console.print()
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _facts(lora):
        if value:
            table.add_row(name, Text(plain(value)))
    console.print(Text(plain(lora.partial_path), "bold"))
    console.print(table)


def _facts(lora: Lora) -> list[tuple[str, str]]:
    raw, hashes = lora.raw, part(lora.raw, "hashes")
    notes = str(part(raw, "overrides").get("notes") or "")
    return [
        ("verdict", _verdict(lora)),
        ("base model", _base(lora)),
        *(("evidence", line) for line in _evidence(lora)),
        ("adapter", _adapter(lora)),
        ("triggers", ", ".join(_triggers(lora))),
        ("size", f"{size(lora.file_size)} ({lora.file_size:,} bytes)"),
        ("uploaded", f"{raw.get('upload_timestamp')}, {age(lora.uploaded_at)} ago{_by(raw)}"),
        ("sha256", lora.sha256 or ""),
        ("autov2", str(hashes.get("autov2") or "")),
        ("weights", str(hashes.get("tensors_sha256") or "")),
        ("on disk", str(raw.get("file_path") or "")),
        *(("same as", line) for line in _twins(raw)),
        *(("note", message) for message in [*warnings(lora), notes]),
    ]


def _verdict(lora: Lora) -> str:
    word, _ = verdict(lora)
    reason = lora.inspection.get("reason") if lora.verdict == "refused" else None
    return f"{word}: {reason}" if reason else word


def _base(lora: Lora) -> str:
    by_hand = part(lora.raw, "overrides").get("base_model")
    how = "set by hand" if by_hand else _detected(lora).get("confidence")
    return f"{base_model(lora)} ({how})" if how else base_model(lora)


def _detected(lora: Lora) -> Raw:
    """Return what was found out about the base: an object in details, in short forms flat."""
    return part(lora.inspection, "base_model") or lora.inspection


def _evidence(lora: Lora) -> list[str]:
    found = _detected(lora).get("evidence")
    items = found if isinstance(found, list) else []
    lines = [f"{item.get('source')}: {item.get('detail')}" for item in items if _is_object(item)]
    return list(dict.fromkeys(lines))  # one observation may speak for several bases


def _adapter(lora: Lora) -> str:
    modules = part(lora.inspection, "adapter").get("module_count") or lora.inspection.get(
        "module_count"
    )
    parts = [
        lora.adapter or UNKNOWN,
        f"rank {lora.rank}" if lora.rank else "",
        f"alpha {lora.alpha}" if lora.alpha else "",
        f"{modules} module{'' if modules == 1 else 's'}" if modules else "",
    ]
    return ", ".join(text for text in parts if text)


def _triggers(lora: Lora) -> list[str]:
    by_hand = listed(part(lora.raw, "overrides").get("trigger_words"))
    found = lora.inspection.get("trigger_words")
    items = (
        found if isinstance(found, list) else part(lora.inspection, "trigger_words").get("words")
    )
    words = [str(item.get("word")) for item in items or () if _is_object(item)]
    return by_hand or list(dict.fromkeys(words))


def _twins(raw: Raw) -> list[str]:
    found = raw.get("duplicate_of")
    items = found if isinstance(found, list) else []
    return [
        f"{item.get('partial_path')} ({item.get('kind')})" for item in items if _is_object(item)
    ]


def _by(raw: Raw) -> str:
    if raw.get("source") == "found":
        return ", found on disk"
    return f", by {raw.get('uploaded_by')}" if raw.get("uploaded_by") else ""


def _is_object(item: Any) -> bool:
    return isinstance(item, dict)
