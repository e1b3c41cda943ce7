"""What one can ask of the server's library; each function is one request, or one per page.

Each raises ClientError as `Connection.ask` does.
"""

from base64 import b64encode
from collections.abc import AsyncIterator, Mapping

from lora_server.client.answers import Binned, Deleted, Lora, Outlook, Page
from lora_server.client.connection import Connection
from lora_server.client.errors import Misused, NotAllowed, NotFound
from lora_server.client.local_files import LocalFile

PAGE_SIZE = 1000  # the most that the server gives at once

LORAS = ("admin", "lora")
BIN = ("admin", "bin")


async def may_administer(connection: Connection) -> bool:
    """Tell whether the token opens the admin paths."""
    try:
        await connection.ask("GET", *LORAS, query={"limit": "1"})
    except NotAllowed:
        return False
    return True


async def preflight(connection: Connection, file: LocalFile, entity_type: str | None) -> Outlook:
    """Ask what an upload of a file would come to."""
    header = await file.header()
    offer = {
        "filename": file.name,
        "entity_type": entity_type,
        "file_size": file.size,
        "header": None if header is None else b64encode(header).decode(),
    }
    answer = await connection.ask("POST", "lora", "preflight", members=offer)
    return Outlook.of(answer.data)


async def has(connection: Connection, sha256: str) -> bool:
    """Tell whether a content is stored."""
    try:
        await connection.ask("HEAD", "lora", "sha256", sha256)
    except NotFound:
        return False
    return True


async def find(connection: Connection, sha256: str) -> tuple[Lora, ...]:
    """Return the stored LoRAs with this content; for admins."""
    answer = await connection.ask("GET", *LORAS, query={"sha256": sha256})
    return tuple(map(Lora.of, Page.of(answer.data).items))


async def pages(
    connection: Connection, path: tuple[str, ...], query: Mapping[str, str], limit: int | None
) -> AsyncIterator[Page]:
    """Yield a listing page by page, at least one, until `limit` items or all were seen."""
    seen, count = 0, 1
    while seen < count and (limit is None or seen < limit or not seen):
        wanted = PAGE_SIZE if limit is None else min(PAGE_SIZE, limit - seen)
        asked = {**query, "skip": str(seen), "limit": str(wanted)}
        page = Page.of((await connection.ask("GET", *path, query=asked)).data)
        yield page
        seen, count = seen + len(page.items), page.count
        if not page.items:
            return


async def show(connection: Connection, partial_path: str) -> Lora:
    """Return one LoRA with everything that is known of it; for admins."""
    answer = await connection.ask("GET", *LORAS, *split(partial_path))
    return Lora.of(answer.data)


async def delete(connection: Connection, partial_path: str) -> Deleted:
    """Move a LoRA into the bin; for admins."""
    members = {"partial_path": partial_path}
    answer = await connection.ask("DELETE", *LORAS, members=members, repeatable=False)
    return Deleted.of(answer.data)


async def restore(connection: Connection, bin_path: str) -> Lora:
    """Move a LoRA back from its `bin_path`; for admins."""
    members = {"bin_path": bin_path}
    answer = await connection.ask("POST", *BIN, "restore", members=members, repeatable=False)
    return Lora.of(answer.data)


async def latest_in_bin(connection: Connection, partial_path: str) -> Binned:
    """Return what was deleted last from a path; for admins.

    Raises:
        NotFound: nothing from there is in the bin.

    """
    entity_type, name = split(partial_path)
    stem = name.rpartition(".")[0] or name  # in the bin, the name may be a version of it
    query = {"entity_type": entity_type, "q": stem}
    latest: Binned | None = None
    async for page in pages(connection, BIN, query, None):
        for item in map(Binned.of, page.items):
            if item.partial_path != partial_path:
                continue
            if latest and item.deleted_at != latest.deleted_at:
                return latest
            latest = item  # of one second, the later deletion has the later version of the name
    if latest is None:
        raise NotFound(f"nothing from {partial_path} is in the bin; `lora-server bin` shows it")
    return latest


def split(partial_path: str) -> tuple[str, str]:
    """Split `styles/ink.safetensors` in two.

    Raises:
        Misused: it can name nothing.

    """
    entity_type, slash, name = partial_path.partition("/")
    if not slash or not entity_type or not name or "/" in name:
        raise Misused(f"{partial_path!r} is no path like styles/ink.safetensors")
    return entity_type, name
