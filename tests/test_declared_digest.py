"""What the field `sha256` is good for: a check on the way in, and a retry that stores nothing."""

import hashlib

import pytest

from tests.loras import lora
from tests.server import ADMIN, Server, bearer
from tests.wire import WEIGHTS, body, file_part, left_nothing, part, upload

DIGEST = hashlib.sha256(WEIGHTS).hexdigest()
STYLES = part("entity_type", "styles")
ONCE = part("use_safe_filename", "false")

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def server(shared: Server) -> Server:
    """Use one server for the whole module."""
    return shared


@pytest.mark.parametrize("digest", [DIGEST, DIGEST.upper()])
async def test_a_digest_that_holds_is_taken(server: Server, digest: str) -> None:
    """The digest is compared without regard to case, and may stand before or after the file."""
    before = await upload(server, body(part("sha256", digest), file_part()))
    after = await upload(
        server, body(file_part(filename="b.pt.safetensors"), part("sha256", digest))
    )

    assert (before.status, after.status) == (200, 200)
    assert before.json["sha256"] == DIGEST


async def test_a_digest_that_does_not_hold_leaves_nothing(server: Server) -> None:
    """Other bytes than the declared ones are refused, with the digest of what came."""
    answer = await upload(server, body(part("sha256", "0" * 64), file_part()))

    assert answer.status == 422
    (complaint,) = answer.json["detail"]
    assert (complaint["loc"], complaint["type"]) == (["body", "sha256"], "digest_mismatch")
    assert DIGEST in complaint["msg"]
    assert await left_nothing(server)


@pytest.mark.parametrize(
    "digest", ["0", DIGEST[:-1], DIGEST + "0", "g" * 64, f"{DIGEST}\n", "sha256:" + DIGEST]
)
async def test_what_is_no_digest_is_refused_before_the_file(server: Server, digest: str) -> None:
    """A digest is 64 hex digits; anything else is a 422 without a byte of the file."""
    answer = await upload(server, part("sha256", digest) + file_part()[:-500])

    assert answer.status == 422
    assert answer.json["detail"][0]["loc"] == ["body", "sha256"]
    assert await left_nothing(server)


@pytest.mark.parametrize("extra", [b"", ONCE], ids=["versioned", "once"])
async def test_a_retry_gives_the_first_result(server: Server, extra: bytes) -> None:
    """The same upload again, by the same principal, answers as the first and stores nothing."""
    form = body(STYLES, part("sha256", DIGEST), extra, file_part())
    first = await upload(server, form)
    again = await upload(server, form)

    assert again.status == 200
    assert again.json == first.json
    assert len(server.files()) == 1


@pytest.mark.parametrize(
    ("form", "headers"),
    [
        pytest.param(body(STYLES, file_part()), ADMIN, id="no-digest"),
        pytest.param(
            body(STYLES, part("sha256", DIGEST), file_part()), bearer("x", "admin"), id="principal"
        ),
        pytest.param(body(part("sha256", DIGEST), file_part()), ADMIN, id="type"),
        pytest.param(
            body(STYLES, part("sha256", DIGEST), file_part(filename="b.safetensors")),
            ADMIN,
            id="name",
        ),
        pytest.param(
            body(
                STYLES,
                part("sha256", hashlib.sha256(lora(999)).hexdigest()),
                file_part(content=lora(999)),
            ),
            ADMIN,
            id="content",
        ),
    ],
)
async def test_another_upload_is_no_retry(
    server: Server, form: bytes, headers: dict[str, str]
) -> None:
    """Without the digest, by somebody else, or with another type, name or content: a new one."""
    await upload(server, body(STYLES, part("sha256", DIGEST), file_part()))
    answer = await upload(server, form, headers=headers)

    assert answer.status == 200
    assert len(server.files()) == 2


async def test_what_was_deleted_is_stored_again(server: Server) -> None:
    """A retry after a deletion is an upload like any other."""
    form = body(STYLES, part("sha256", DIGEST), file_part())
    path = (await upload(server, form)).json["partial_path"]
    await server.session.delete(
        f"{server.api}/admin/lora", json={"partial_path": path}, headers=ADMIN
    )
    answer = await upload(server, form)

    assert answer.json["partial_path"] == path
    assert len(server.files()) == 2


async def test_what_was_moved_away_by_hand_is_stored_again(server: Server) -> None:
    """A result whose file is gone is no result."""
    form = body(STYLES, part("sha256", DIGEST), file_part())
    await upload(server, form)
    server.files()[0].unlink()
    answer = await upload(server, form)

    assert answer.status == 200
    assert len(server.files()) == 1


async def test_admins_are_told_of_duplicates(server: Server) -> None:
    """The answer to an admin names the other files with the same bytes."""
    first = await upload(server, body(STYLES, file_part()))
    second = await upload(server, body(file_part(filename="b.safetensors")))

    assert first.json["duplicate_of"] == []
    assert {"partial_path": "styles/ink.safetensors", "kind": "bytes"} in second.json[
        "duplicate_of"
    ]
