"""A library on a real directory, and uploads that need no HTTP, for tests."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from lora_server.catalog import Catalog, Page, Selection
from lora_server.config import StorageConfig
from lora_server.ingest import UploadForm, ingest
from lora_server.library import Library
from lora_server.records import Location, Place, Principal, StoredLora
from lora_server.store import Store
from tests.open_door import OpenDoor
from tests.server import make_config

TESTER = Principal("tester", frozenset())


@dataclass(frozen=True, slots=True)
class Sent:
    """An upload that has arrived already (`ingest.Incoming`)."""

    content: bytes
    filename: str
    form: UploadForm

    async def open(self) -> str:
        """Return the client's file name."""
        return self.filename

    async def blocks(self) -> AsyncIterator[list[bytes]]:
        """Yield the content in two blocks."""
        middle = len(self.content) // 2
        yield [self.content[:middle]]
        yield [self.content[middle:]]

    async def finish(self) -> UploadForm:
        """Return the form."""
        return self.form


async def upload(  # noqa: PLR0913 - the fields of a form
    library: Library,
    content: bytes,
    filename: str = "ink.safetensors",
    entity_type: str = "styles",
    *,
    versioned: bool = True,
    sha256: str | None = None,
) -> StoredLora:
    """Take a content in as the daemon does."""
    form = UploadForm(entity_type, versioned=versioned, sha256=sha256)
    arrived = Sent(content, filename, form)
    return await ingest(
        arrived,
        TESTER,
        library=library,
        door=OpenDoor(),
        timed=lambda _step: contextlib.nullcontext(),
    )


@asynccontextmanager
async def opened_library(
    storage: StorageConfig,
    *,
    store_type: type[Store] = Store,
    catalog_type: type[Catalog] = Catalog,
) -> AsyncIterator[Library]:
    """Open the store and the catalogue of a folder, and recover, as the daemon does."""
    async with (
        store_type.opened(storage) as store,
        catalog_type.opened(store.layout.catalog) as catalog,
    ):
        library = Library(store, catalog)
        await library.recover()
        yield library


def storage_in(folder: Path) -> StorageConfig:
    """Return the settings of trees under `folder`."""
    return make_config(folder).storage


def in_models(name: str = "ink.safetensors", entity_type: str = "styles") -> Location:
    """Return a place in the models tree."""
    return Location(Place.MODELS, entity_type, name)


def in_bin(name: str = "ink.safetensors", entity_type: str = "styles") -> Location:
    """Return a place in the bin."""
    return Location(Place.BIN, entity_type, name)


async def listed(library: Library, place: Place = Place.MODELS) -> list[str]:
    """Return the partial paths that a listing shows, in its order."""
    page: Page = await library.catalog.page(Selection(place=place))
    return [lora.location.partial_path for lora in page.items]


def names_in(folder: Path) -> Sequence[str]:
    """Return the names in a folder, in order."""
    return sorted(path.name for path in folder.iterdir())
