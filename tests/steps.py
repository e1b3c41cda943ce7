"""A store and a catalogue that tell each step, so that a test can fail, stop or die there."""

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

from lora_server.catalog import Catalog
from lora_server.config import StorageConfig
from lora_server.library import Library
from lora_server.records import Location
from lora_server.store import Store
from tests.libraries import in_bin, in_models, opened_library, upload

Hook = Callable[[str], Awaitable[None]]

STORE_STEPS = ("publish", "unpublish", "rename", "remove")
CATALOG_STEPS = ("begin_upload", "begin_move", "finish_move", "withdraw_move", "forget")


async def quiet(_step: str) -> None:
    """Do nothing; a hook for steps that are to succeed."""


class Steps:
    """The one hook of a test, told "before x" and "after x"; swapped while the test runs."""

    def __init__(self, hook: Hook = quiet) -> None:
        self.hook = hook

    def library(self, storage: StorageConfig) -> AbstractAsyncContextManager[Library]:
        """Open a library whose steps are told to the hook."""
        return opened_library(
            storage,
            store_type=self._stepped(Store, STORE_STEPS),
            catalog_type=self._stepped(Catalog, CATALOG_STEPS),
        )

    def _stepped(self, kind: type[Any], steps: tuple[str, ...]) -> type[Any]:
        methods = {step: self._told(step, getattr(kind, step)) for step in steps}
        return type(f"Stepped{kind.__name__}", (kind,), methods)

    def _told(self, step: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        async def told(*args: Any, **kwargs: Any) -> Any:
            await self.hook(f"before {step}")
            outcome = await method(*args, **kwargs)
            await self.hook(f"after {step}")
            return outcome

        return told


OLD, NEW = b"the older file", b"the newer file"


async def _publish(library: Library) -> None:
    await upload(library, NEW)


async def _delete(library: Library) -> None:
    await library.move_to_bin(in_models(), "admin")


async def _restore(library: Library) -> None:
    await library.restore(in_bin())


async def _move(library: Library) -> None:
    await library.move(in_models(), "faces")


async def _purge(library: Library) -> None:
    await library.purge(in_bin())


# Each finds the name it wants taken already, by OLD or by NEW.
OPERATIONS: dict[str, Callable[[Library], Coroutine[Any, Any, None]]] = {
    "publish": _publish,
    "delete": _delete,
    "restore": _restore,
    "move": _move,
    "purge": _purge,
}
ACKNOWLEDGED = dict.fromkeys(OPERATIONS, (OLD, NEW)) | {"publish": (OLD,), "purge": (NEW,)}
UNHEARD = dict.fromkeys(OPERATIONS, ()) | {"publish": (NEW,), "purge": (OLD,)}


async def prepare(library: Library, operation: str) -> None:
    """Bring a library to where an operation starts."""
    await upload(library, OLD)
    if operation == "move":
        await upload(library, NEW, entity_type="faces")
    elif operation != "publish":
        await library.move_to_bin(in_models(), "admin")
        await upload(library, NEW)


async def knowledge(library: Library) -> set[tuple[str | None, str, str]]:
    """Return uploader, source and client's name of every file: what a move must not lose."""
    known = (await library.catalog.known_files()).values()
    return {(lora.uploaded_by, str(lora.source), lora.filename) for lora in known}


async def deleters(library: Library) -> set[str | None]:
    """Return by whom the files in the bin were deleted."""
    known: dict[Location, Any] = await library.catalog.known_files()
    return {lora.deleted_by for lora in known.values() if lora.deleted_at is not None}
