"""Who calls from where, which credentials are none, and how often an address may fail."""

from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from lora_server.errors import TooManyFailures
from lora_server.web.logins import FailedLogins, client_address
from tests.server import ADMIN, Server, make_config, running, token
from tests.wire import connected, head

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        pytest.param("192.0.2.1", [], "192.0.2.1", id="direct"),
        pytest.param("192.0.2.1", ["203.0.113.9"], "192.0.2.1", id="spoofed"),
        pytest.param("10.0.0.1", ["203.0.113.9"], "203.0.113.9", id="proxied"),
        pytest.param("10.0.0.1", ["6.6.6.6, 203.0.113.9"], "203.0.113.9", id="client-sent-one"),
        pytest.param("10.0.0.1", ["6.6.6.6", "203.0.113.9"], "203.0.113.9", id="two-headers"),
        pytest.param("10.0.0.1", ["203.0.113.9, 10.1.1.1"], "203.0.113.9", id="two-proxies"),
        pytest.param("10.0.0.1", ["10.1.1.1"], "10.1.1.1", id="only-proxies"),
        pytest.param("10.0.0.1", [""], "10.0.0.1", id="empty"),
        pytest.param("10.0.0.1", ["6.6.6.6, unknown"], "10.0.0.1", id="garbage-hides-the-rest"),
        pytest.param("10.0.0.1", ["6.6.6.6, 1.2.3.4:80"], "10.0.0.1", id="port"),
        pytest.param("::ffff:10.0.0.1", ["::ffff:203.0.113.9"], "203.0.113.9", id="mapped"),
        pytest.param("fd00::1", ["2001:db8::1"], "2001:db8::1", id="ipv6"),
        pytest.param("fe80::1%eth0", ["6.6.6.6"], "fe80::1%eth0", id="scoped"),
        pytest.param(None, ["6.6.6.6"], "local", id="no-peer"),
        pytest.param("", ["6.6.6.6"], "local", id="unix-socket"),
    ],
)
def test_the_client_is_the_last_hop_that_is_known(
    peer: str | None, forwarded: list[str], address: str
) -> None:
    """X-Forwarded-For is believed from the right, and only as far as trusted proxies wrote it."""
    assert client_address(peer, forwarded, PROXIES) == address


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("local", "local", True),
    ],
)
async def test_failures_count_per_address(first: str, second: str, *, together: bool) -> None:
    """An IPv4 address counts alone, the whole /64 of an IPv6 client as one."""
    logins = FailedLogins(1)
    await logins.count(first)
    if together:
        with pytest.raises(TooManyFailures):
            await logins.count(second)
    else:
        await logins.count(second)


@pytest.fixture
async def strict(tmp_path: Path) -> AsyncIterator[Server]:
    """Run a server that takes three failures, behind a proxy on this host."""
    limits = {"max_failed_logins": 3, "trusted_proxies": ["127.0.0.1"]}
    async with running(make_config(tmp_path, server=limits)) as running_server:
        yield running_server


async def _login(server: Server, token_: str, **headers: str) -> tuple[int, str | None]:
    headers["Authorization"] = f"Bearer {token_}"
    async with server.session.get(f"{server.api}/admin/lora", headers=headers) as response:
        return response.status, response.headers.get("Retry-After")


async def test_an_address_that_fails_too_often_is_told_to_wait(strict: Server) -> None:
    """The fourth failure within a minute is a 429; a good token is let in all the same."""
    failures = [await _login(strict, "nonsense") for _ in range(4)]
    good = await _login(strict, token("ann", "admin"))

    assert failures == [(401, None)] * 3 + [(429, "60")]
    assert good == (200, None)


async def test_each_client_behind_the_proxy_counts_alone(strict: Server) -> None:
    """Behind a trusted proxy the forwarded address is counted, not the proxy's."""
    for number in range(5):
        hops = {"X-Forwarded-For": f"6.6.6.{number}, 203.0.113.9"}
        status, _ = await _login(strict, "nonsense", **hops)
    other = await _login(strict, "nonsense", **{"X-Forwarded-For": "203.0.113.10"})

    assert status == 429
    assert other == (401, None)


async def test_a_spoofed_address_changes_nothing(tmp_path: Path) -> None:
    """Without trusted proxies the header is ignored, so one address stays one."""
    async with running(make_config(tmp_path, server={"max_failed_logins": 3})) as server:
        for number in range(4):
            hops = {"X-Forwarded-For": f"203.0.113.{number}"}
            status, _ = await _login(server, "nonsense", **hops)

    assert status == 429


@pytest.mark.parametrize(
    ("credentials", "challenge"),
    [
        pytest.param([], "Bearer", id="none"),
        pytest.param(["Basic YTpi"], "Bearer", id="basic"),
        pytest.param(["Bearer"], "Bearer", id="no-token"),
        pytest.param(["Bearer  "], "Bearer", id="blank-token"),
        pytest.param([ADMIN["Authorization"]] * 2, "Bearer", id="two-good-ones"),
        pytest.param(["Basic YTpi", ADMIN["Authorization"]], "Bearer", id="two-kinds"),
        pytest.param(["Bearer a.b.c"], 'Bearer error="invalid_token"', id="bad"),
        pytest.param([ADMIN["Authorization"] + " x"], 'Bearer error="invalid_token"', id="more"),
        pytest.param(["Bearer " + "x" * 8180], 'Bearer error="invalid_token"', id="long"),
    ],
)
async def test_what_is_no_bearer_token_is_401(
    server: Server, credentials: list[str], challenge: str
) -> None:
    """RFC 6750: a challenge with an error only where a token was sent."""
    lines = [f"Authorization: {value}" for value in credentials]
    request = head(server, {"Authorization": ""}, method="GET", path="/admin/lora")
    async with connected(server) as connection:
        await connection.send(
            request[:-2] + "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"
        )
        answer = await connection.answer()

    assert answer.status == 401
    assert answer.headers["www-authenticate"] == challenge.lower()


@pytest.mark.parametrize("scheme", ["bearer", "BEARER"])
async def test_the_scheme_has_no_case(server: Server, scheme: str) -> None:
    """RFC 9110: the name of the scheme is compared without regard to case."""
    headers = {"Authorization": f"{scheme} {token('ann', 'admin')}"}
    async with server.session.get(f"{server.api}/admin/lora", headers=headers) as response:
        assert response.status == 200


async def test_a_token_over_8_kib_is_not_read(server: Server) -> None:
    """A header line longer than the parser takes is a 400 that repeats nothing of it."""
    async with connected(server) as connection:
        await connection.send(head(server, {"Authorization": "Bearer " + "SECRET" * 2000}))
        answer = await connection.answer()

    assert answer.status == 400
    assert set(answer.json) == {"detail"}
    assert "cannot be read" in answer.json["detail"]
    assert b"SECRET" not in answer.body
