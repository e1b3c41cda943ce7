"""What the kernel tells of changes in the trees, as places that files can stand at."""

import asyncio
from collections.abc import AsyncIterator, Collection
from pathlib import Path

from watchfiles import awatch

from lora_server import names
from lora_server.layout import Layout
from lora_server.records import Location, Place

TICK_MS = 1000  # how soon what happened before the watch was set up is noticed
DEBOUNCE_MS = 400  # the longest that changes are gathered, so that a move is seen as one


async def changes(
    layout: Layout, stopping: asyncio.Event
) -> AsyncIterator[Collection[Location] | None]:
    """Yield the places where something changed; None means that it can be anywhere.

    The first is None, since nobody tells what happened before the watch was set up. So is a
    change of a whole folder: the kernel does not tell of the files in it.
    """
    watching = awatch(
        layout.models,
        layout.bin,
        watch_filter=None,  # the default one ignores trees under folders called, say, venv
        debounce=DEBOUNCE_MS,
        stop_event=stopping,
        yield_on_timeout=True,
        rust_timeout=TICK_MS,
    )
    first = True
    async for events in watching:
        paths = [Path(path) for _, path in events]
        if first or any(path in layout.folders for path in paths):
            yield None
        elif locations := {at for path in paths if (at := _location(layout, path))}:
            yield locations
        first = False


def _location(layout: Layout, path: Path) -> Location | None:
    entity_type, name = path.parent.name, path.name
    if entity_type not in layout.entity_types or not names.is_plain(name):
        return None
    places = (Place.MODELS, Place.BIN)
    return next(
        (
            Location(place, entity_type, name)
            for place in places
            if layout.root(place) == path.parent.parent
        ),
        None,
    )
