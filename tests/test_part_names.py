"""The name of the file in its part: read in one way only, and never as a path."""

import pytest

from tests.server import Server
from tests.wire import (
    WEIGHTS,
    body,
    file_part,
    left_nothing,
    part,
    upload,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def server(shared: Server) -> Server:
    """Use one server for the whole module."""
    return shared


@pytest.mark.parametrize(
    ("disposition", "status"),
    [
        pytest.param('form-data; name="file"; filename=ink.safetensors', 200, id="unquoted"),
        pytest.param(
            'form-data; name=file; filename="ink.safetensors";', 200, id="trailing-semicolon"
        ),
        pytest.param('form-data;name="file";filename="ink.safetensors"', 200, id="no-spaces"),
        pytest.param(
            "form-data; name=\"file\"; filename*=UTF-8''ink.safetensors", 422, id="extended"
        ),
        pytest.param(
            'form-data; name="file"; filename="a.safetensors"; filename*=x', 422, id="both"
        ),
        pytest.param(
            'form-data; name="file"; filename*0="ink.safetensors"', 422, id="continuation"
        ),
        pytest.param(
            'form-data; name="file"; filename="a.safetensors"; filename="b.safetensors"',
            422,
            id="twice",
        ),
        pytest.param(
            'form-data; name="file"; filename="a.safetensors"; FileName="b.safetensors"',
            422,
            id="case",
        ),
        pytest.param(
            'form-data; name="file"; name="x"; filename="a.safetensors"', 422, id="two-names"
        ),
        pytest.param(
            'form-data; name="file"; filename="a\\"; filename="b.safetensors"', 422, id="escape"
        ),
        pytest.param('form-data; name="file"; filename=a(1).safetensors', 422, id="needs-quotes"),
        pytest.param('form-data; name="file"; filename="a.safetensors" junk', 422, id="junk"),
        pytest.param('form-data; name="file"; filename="a.safetensors', 422, id="unclosed"),
        pytest.param('form-data; filename="a.safetensors"', 422, id="no-name"),
        pytest.param('attachment; name="file"; filename="a.safetensors"', 422, id="not-form-data"),
        pytest.param('form-data; name="file"; filename="a\x00.safetensors"', 422, id="nul"),
        pytest.param(
            'form-data; name="file"; filename="a\x1b[31m.safetensors"', 422, id="escape-code"
        ),
    ],
)
async def test_a_disposition_has_one_meaning(server: Server, disposition: str, status: int) -> None:
    """What two readers could read differently is refused."""
    answer = await upload(server, body(part("file", WEIGHTS, disposition=disposition)))

    assert answer.status == status
    assert status == 200 or await left_nothing(server)


@pytest.mark.parametrize(
    ("filename", "stored", "told"),
    [
        pytest.param("../../etc/ink.safetensors", "ink.safetensors", "ink.safetensors", id="path"),
        pytest.param(
            "C:\\dir\\ink.safetensors", "ink.safetensors", "ink.safetensors", id="windows-path"
        ),
        pytest.param("/ink.safetensors", "ink.safetensors", "ink.safetensors", id="absolute"),
        pytest.param(
            "...ink.safetensors", "ink.safetensors", "...ink.safetensors", id="leading-dots"
        ),
        pytest.param("a%22b.safetensors", "ab.safetensors", 'a"b.safetensors', id="browser-quote"),
        pytest.param('a\\"b.safetensors', "ab.safetensors", 'a"b.safetensors', id="curl-quote"),
        pytest.param(
            "a%0D%0Ab.safetensors", "ab.safetensors", "a\r\nb.safetensors", id="browser-newline"
        ),
        pytest.param("a;b=c.safetensors", "a;b=c.safetensors", "a;b=c.safetensors", id="semicolon"),
        pytest.param(
            "墨 ínk.SAFETENSORS", "墨 ínk.safetensors", "墨 ínk.SAFETENSORS", id="unicode"
        ),
        pytest.param(
            "i\u0301nk.safetensors", "ínk.safetensors", "i\u0301nk.safetensors", id="decomposed"
        ),
        pytest.param(
            "\u202etp.kni.safetensors", "tp.kni.safetensors", "\u202etp.kni.safetensors", id="bidi"
        ),
    ],
)
async def test_a_name_is_no_path(server: Server, filename: str, stored: str, told: str) -> None:
    """A client's name becomes one safe component; the answer tells both."""
    answer = await upload(server, body(file_part(filename=filename)))

    assert answer.status == 200
    assert answer.json["partial_path"] == f"no_type_provided/{stored}"
    assert answer.json["filename"] == told
    assert [path.name for path in server.files()] == [stored]


async def test_a_long_name_is_cut(server: Server) -> None:
    """A name of 300 bytes is stored under one that the filesystem takes, and keeps its ending."""
    answer = await upload(server, body(file_part(filename="é" * 150 + ".safetensors")))

    assert answer.status == 200
    assert len(server.files()[0].name.encode()) <= 255
    assert server.files()[0].suffix == ".safetensors"


@pytest.mark.parametrize(
    "name", ["ink", "ink.txt", "ink.safetensors.exe", "/", "..", ".safetensors/"]
)
async def test_another_ending_is_415(server: Server, name: str) -> None:
    """Only weights are taken, and that is said before the file is read."""
    answer = await upload(server, file_part(filename=name))

    assert answer.status == 415
    assert await left_nothing(server)
