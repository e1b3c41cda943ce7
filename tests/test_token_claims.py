"""What a rightly signed token must and must not claim."""

import json

import pytest

from lora_server.config import AuthConfig
from tests.forgery import GOOD, HOUR, LEEWAY, NOW, reason, signed, verifier


@pytest.mark.parametrize("claim", ["exp", "iat", "sub"])
def test_required_claims(claim: str) -> None:
    """A token without end, beginning or subject is refused, as is one where they are null."""
    without = {name: value for name, value in GOOD.items() if name != claim}

    assert claim in reason(signed(without))
    assert claim in reason(signed(GOOD | {claim: None}))


@pytest.mark.parametrize("claim", ["exp", "iat", "nbf"])
@pytest.mark.parametrize(
    "value",
    [
        *('"1800000000"', "NaN", "Infinity", "-Infinity", "1e308", "1e999", "-1", "true", "[1]"),
        pytest.param("9" * 400, id="huge"),
        pytest.param("9" * 5000, id="too huge to read"),
    ],
)
def test_times_are_numbers(claim: str, value: str) -> None:
    """A time is a real, finite number, and nothing that could be turned into one."""
    others = json.dumps({name: number for name, number in GOOD.items() if name != claim})

    assert reason(signed(f'{others[:-1]}, "{claim}": {value}}}'.encode()))


def test_fractions_of_seconds() -> None:
    """RFC 7519 allows times with fractions."""
    assert verifier().verify(signed(GOOD | {"iat": NOW - 0.5, "exp": NOW + 0.5}), NOW)


def test_expiry() -> None:
    """A token ends at exp plus the leeway, to the second."""
    token, end = signed(GOOD), GOOD["exp"]
    assert isinstance(end, int)

    assert verifier().verify(token, end + LEEWAY - 1)
    assert reason(token, now=end + LEEWAY) == "expired"


@pytest.mark.parametrize("claim", ["iat", "nbf"])
def test_tokens_from_the_future(claim: str) -> None:
    """A clock may run ahead by the leeway and no more."""
    assert verifier().verify(signed(GOOD | {claim: NOW + LEEWAY}), NOW)
    assert "future" in reason(signed(GOOD | {claim: NOW + LEEWAY + 1}))


def test_life_is_capped() -> None:
    """A token that lives for longer than max_ttl is refused from its first second."""
    auth = AuthConfig(max_ttl=HOUR)

    assert verifier(auth=auth).verify(signed(GOOD), NOW)
    longer = signed(GOOD | {"exp": NOW + HOUR + 1})
    assert "max_ttl" in reason(longer, verifier(auth=auth))


@pytest.mark.parametrize("aud", ["lora", ["lora"], ["other", "lora"]])
def test_audience_that_includes_us(aud: object) -> None:
    """The configured audience must be among those of the token."""
    assert verifier(auth=AuthConfig(audience="lora")).verify(signed(GOOD | {"aud": aud}), NOW)


@pytest.mark.parametrize("aud", ["", [], "other", "lor", "loras", ["other"], {"lora": 1}, 5, [5]])
def test_other_audiences(aud: object) -> None:
    """A token for someone else, or for a part of our name, is refused."""
    assert reason(signed(GOOD | {"aud": aud}), verifier(auth=AuthConfig(audience="lora")))


def test_audience_is_all_or_nothing() -> None:
    """A missing audience is refused where one is configured, and one where none is."""
    assert reason(signed(GOOD), verifier(auth=AuthConfig(audience="lora")))
    assert reason(signed(GOOD | {"aud": "lora"}))


@pytest.mark.parametrize("iss", ["https://id", "https://id.example/x", "", ["https://id.example"]])
def test_other_issuers(iss: object) -> None:
    """The issuer is compared as a whole (CVE-2024-53861)."""
    auth = AuthConfig(issuer="https://id.example")

    assert verifier(auth=auth).verify(signed(GOOD | {"iss": "https://id.example"}), NOW)
    assert reason(signed(GOOD | {"iss": iss}), verifier(auth=auth))
    assert reason(signed(GOOD), verifier(auth=auth))


@pytest.mark.parametrize("claim", ["sub", "jti"])
@pytest.mark.parametrize("value", ["", "a\nb", "a\x1b[2J", "\ud800", "\u202e", "x" * 257, 5, ["a"]])
def test_identifiers_are_printable(claim: str, value: object) -> None:
    """A subject or jti that could garble a log line or fail in a row is refused."""
    assert reason(signed(GOOD | {claim: value}))


@pytest.mark.parametrize(
    ("scope", "scopes"),
    [
        pytest.param("", set(), id="empty"),
        pytest.param("admin", {"admin"}, id="one"),
        pytest.param(["admin", "read"], {"admin", "read"}, id="list"),
        pytest.param("administrator", {"administrator"}, id="whole words"),
        pytest.param("admin\tread", {"admin\tread"}, id="only spaces part words"),
    ],
)
def test_scopes(scope: object, scopes: set[str]) -> None:
    """Scopes are words of a string, or a list."""
    assert verifier().verify(signed(GOOD | {"scope": scope}), NOW).scopes == scopes


@pytest.mark.parametrize("scope", [5, {"admin": True}, ["admin", 5], None, True])
def test_other_scopes(scope: object) -> None:
    """A scope of another shape is not guessed at."""
    assert "scope" in reason(signed(GOOD | {"scope": scope}))


def test_doubled_claims() -> None:
    """Claims that two readers could read differently are refused."""
    payload = json.dumps(GOOD)[:-1] + ', "sub": "root"}'

    assert "twice" in reason(signed(payload.encode()))
