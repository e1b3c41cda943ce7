"""What is judged again, and how thoroughly."""

from dataclasses import replace
from pathlib import Path

import pytest

from lora_server.catalog import Catalog
from lora_server.errors import FileRefused
from lora_server.filesystem import facts_of
from lora_server.judge.jobs import judge, rejudge
from lora_server.layout import Layout
from lora_server.records import Judgement, Location, Place
from lora_server.reinspect import reinspect
from tests.formats.hostile_safetensors import TRICKS
from tests.formats.safetensors_files import adapter, container, encoded, entry
from tests.judge.files import opened
from tests.open_door import ACCEPTED, OpenDoor
from tests.server import make_config
from tests.test_catalog import REFUSED, record


class Listening(OpenDoor):
    """Accepts everything, and notes whether it was told that the bytes are known."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[bool] = []

    async def judge_found(
        self, fd: int, extension: str, *, accepted_before: bool = False
    ) -> Judgement:
        """Accept."""
        self.told.append(accepted_before)
        return await self.judge(fd, extension)


@pytest.mark.parametrize(
    ("before", "known"),
    [
        pytest.param(None, False, id="not judged yet"),
        pytest.param(REFUSED, False, id="refused"),
        pytest.param(ACCEPTED, True, id="accepted"),
    ],
)
async def test_only_accepted_bytes_are_known(
    tmp_path: Path, before: Judgement | None, known: object
) -> None:
    """A file that was refused, or not judged yet, is judged like one that comes in."""
    layout = Layout.of(make_config(tmp_path).storage)
    location = Location(Place.MODELS, "styles", "a.safetensors")
    path = layout.path(location)
    path.parent.mkdir(parents=True)
    path.write_bytes(adapter())
    lora = replace(record(location), facts=facts_of(path.stat()), judgement=before)
    door = Listening()
    async with Catalog.opened(tmp_path / "catalog.sqlite3") as catalog:
        await catalog.add_found(lora)
        known_files = list((await catalog.known_files()).values())
        results = reinspect(known_files, catalog=catalog, layout=layout, door=door)

        assert [result.after async for result in results] == [ACCEPTED]
    assert door.told == [known]


def test_what_is_known_is_found_again() -> None:
    """Judging again finds what judging found, tensor by tensor."""
    with opened(adapter(3, comment="x")) as fd:
        found = judge(fd, extension=".safetensors")

        assert rejudge(fd, extension=".safetensors") == found


@pytest.mark.parametrize("name", TRICKS)
def test_our_own_rules_are_applied_again(name: str) -> None:
    """Every trick is refused again, with the same code: newer rules reach stored files."""
    with opened(TRICKS[name].build()) as fd, pytest.raises(FileRefused) as refusal:
        rejudge(fd, extension=".safetensors")

    assert refusal.value.code == TRICKS[name].code


def test_only_the_library_is_not_asked_again() -> None:
    """A header past the official library's 100 MB is refused by the library alone."""
    size = 100_000_001
    header = encoded({"lora.alpha": entry((), 0, 2)}).ljust(size)
    with opened(container(header, bytes(2))) as fd:
        for job, why in ((judge, "safetensors library"), (rejudge, "no tensor has the name")):
            with pytest.raises(FileRefused, match=why):
                job(fd, extension=".safetensors", max_header_size=size)
