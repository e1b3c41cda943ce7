"""Tokens: which are good, and that every known attack on them is refused."""

from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_server.config import AuthConfig, KeyConfig
from lora_server.errors import Unauthenticated
from lora_server.jwt_keys import Algorithm, Key, load_keys
from lora_server.revocations import Revocations, revoke_subject, revoke_token
from lora_server.tokens import MAX_TOKEN_BYTES, TokenVerifier, is_identifier, mint
from tests.forgery import GOOD, HOUR, KEY, NOW, SECRET, reason, segment, signed, verifier
from tests.key_files import write_pair


def test_good_token_names_a_principal() -> None:
    """Subject, scopes and jti of a good token say who calls."""
    token = signed(GOOD | {"scope": "admin  read", "jti": "j"})

    principal = verifier().verify(token, NOW)
    assert (principal.subject, principal.jti, principal.kid) == ("alice", "j", None)
    assert principal.scopes == {"admin", "read"}


def test_the_clock_is_the_default() -> None:
    """Without a time the verifier takes the present one."""
    assert reason(signed(GOOD | {"iat": 1, "exp": 2}), now=None) == "expired"


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "", None, [], "HS512", "RS256"])
def test_other_algorithms(alg: object) -> None:
    """The token does not choose its algorithm, least of all none."""
    unsigned = f"{segment({'alg': alg, 'typ': 'JWT'})}.{segment(GOOD)}."

    assert reason(unsigned)
    assert reason(signed(GOOD, {"alg": alg}))


@pytest.mark.parametrize("algorithm", ["RS256", "EdDSA"])
def test_public_key_is_no_secret(tmp_path: Path, algorithm: Algorithm) -> None:
    """A token signed by HMAC with the public key is refused (CVE-2022-29217)."""
    _, public = write_pair(tmp_path / "k", algorithm)
    entry = KeyConfig.model_validate({"kid": "k", "algorithm": algorithm, "file": public})
    body = f"{segment({'alg': 'HS256', 'typ': 'JWT', 'kid': 'k'})}.{segment(GOOD)}"
    hmac = jwt.get_algorithm_by_name("HS256")
    forged = f"{body}.{segment(type(hmac).sign(hmac, body.encode(), public.read_bytes()))}"

    assert "alg" in reason(forged, verifier(*load_keys(AuthConfig(keys=(entry,)))))


def test_wrong_key() -> None:
    """A token that someone else signed is refused."""
    assert reason(signed(GOOD), verifier(Key(None, "HS256", b"x" * 32)))


def test_changed_claims() -> None:
    """A signature holds for the claims that it was made for."""
    head, _, signature = signed(GOOD).split(".")

    assert reason(f"{head}.{segment(GOOD | {'sub': 'root'})}.{signature}")


def test_weak_key_verifies_nothing() -> None:
    """A short secret that came past the loading is refused by the verifier as well."""
    weak = Key(None, "HS256", b"short")

    assert "below" in reason(signed(GOOD), verifier(weak))


@pytest.mark.parametrize(
    "kid",
    [
        pytest.param("other", id="unknown"),
        pytest.param("../../dev/null", id="path"),
        pytest.param("' OR 1=1 --", id="sql"),
        pytest.param("", id="empty"),
        pytest.param(None, id="null"),
        pytest.param(5, id="number"),
        pytest.param(["k"], id="list"),
    ],
)
def test_kid_injection(kid: object) -> None:
    """A kid is looked up among those configured, and used for nothing else."""
    assert reason(signed(GOOD, {"kid": kid}))
    assert reason(signed(GOOD, {"kid": kid}), verifier(Key("k", "HS256", SECRET)))


@pytest.mark.parametrize("name", ["jku", "jwk", "x5u", "x5c"])
def test_headers_that_bring_a_key(name: str) -> None:
    """A key that the token brings or points to is ignored: only ours counts."""
    theirs = {"kty": "oct", "k": segment(b"y" * 32)}

    assert verifier().verify(signed(GOOD, {name: theirs}), NOW).subject == "alice"
    assert reason(signed(GOOD, {name: theirs}), verifier(Key(None, "HS256", b"y" * 32)))


def test_rotation() -> None:
    """During a rotation tokens of either kid are good, each by its own key only."""
    old, new = Key("old", "HS256", b"o" * 32), Key("new", "HS256", b"n" * 32)
    both = verifier(new, old)
    token = mint(old, subject="alice", ttl_s=60, now=NOW)

    assert both.verify(token, NOW).kid == "old"
    assert both.verify(mint(new, subject="alice", ttl_s=60, now=NOW), NOW).kid == "new"
    assert reason(token, verifier(new)) == "unknown kid"
    forged = mint(Key("new", "HS256", b"o" * 32), subject="alice", ttl_s=60, now=NOW)
    assert reason(forged, both)


def test_no_kid_is_good_for_a_single_key() -> None:
    """Without a kid the one key there is, or the one without a kid, is meant."""
    named, other = Key("k", "HS256", SECRET), Key("l", "HS256", SECRET)

    assert verifier(named).verify(signed(GOOD), NOW).kid == "k"
    assert verifier(KEY, named).verify(signed(GOOD), NOW).kid is None
    assert reason(signed(GOOD), verifier(named, other)) == "no kid, and several keys"


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt"])
def test_types_of_access_tokens(typ: str) -> None:
    """The usual types are taken, in any case."""
    assert verifier().verify(signed(GOOD, {"typ": typ}), NOW)


@pytest.mark.parametrize("typ", ["refresh", "refresh+jwt", "id_token", "", None, 5, ["JWT"]])
def test_other_types(typ: object) -> None:
    """A token that was made for something else is refused."""
    assert "typ" in reason(signed(GOOD, {"typ": typ}))


def test_absent_type() -> None:
    """A token need not say its type."""
    token = jwt.encode(GOOD, SECRET, "HS256", headers={"typ": None})

    assert "typ" not in jwt.get_unverified_header(token)
    assert verifier().verify(token, NOW)


@pytest.mark.parametrize(
    "header",
    [
        pytest.param({"crit": ["exp"], "exp": 1}, id="unknown"),
        pytest.param({"crit": []}, id="empty"),
        pytest.param({"crit": "b64"}, id="no list"),
        pytest.param({"crit": ["b64"]}, id="absent"),
        pytest.param({"crit": ["b64"], "b64": False}, id="detached payload"),
        pytest.param({"b64": False}, id="detached payload, not critical"),
    ],
)
def test_critical_headers(header: dict[str, Any]) -> None:
    """What must be understood and is not ends it (CVE-2026-32597, CVE-2026-48525)."""
    assert reason(signed(GOOD, header))


def test_revoked_tokens(tmp_path: Path) -> None:
    """A token ends by its jti, or with everything that its subject was given before."""
    path = tmp_path / "revoked"
    revoke_token(path, "j1", now=NOW, keep_s=HOUR)
    revoke_subject(path, "bob", now=NOW, keep_s=HOUR)
    by = TokenVerifier((KEY,), AuthConfig(), Revocations(path))

    assert "revoked" in reason(signed(GOOD | {"jti": "j1"}), by)
    assert "revoked" in reason(signed(GOOD | {"sub": "bob"}), by)
    assert by.verify(signed(GOOD | {"jti": "j2"}), NOW)
    assert by.verify(signed(GOOD | {"sub": "bob", "iat": NOW + 1}), NOW)


def test_large_tokens() -> None:
    """A token of more than 8 KiB is not looked at."""
    filled = signed(GOOD | {"x": "y" * 6000})
    large = signed(GOOD | {"x": "y" * 6200})
    assert len(filled) <= MAX_TOKEN_BYTES < len(large)

    assert verifier().verify(filled, NOW)
    assert "8192" in reason(large)


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("", id="empty"),
        pytest.param("..", id="dots"),
        pytest.param("a.b.c.d.e", id="encrypted"),
        pytest.param("\udcff.b.c", id="undecodable header byte"),
        pytest.param("é.b.c", id="not ASCII"),
        pytest.param(segment(b"[" * 3000) + ".e30.e30", id="deep header"),
        pytest.param(segment(b"5") + ".e30.e30", id="header is a number"),
        pytest.param(signed(b"[" * 4000), id="deep claims"),
        pytest.param(signed(b"[]"), id="claims are a list"),
        pytest.param(signed(b"\xff"), id="claims are binary"),
    ],
)
def test_garbage(token: str) -> None:
    """What is no token is refused like any other."""
    assert reason(token)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
CLAIMS = st.sampled_from(["sub", "iat", "exp", "nbf", "aud", "iss", "jti", "scope"])
HEADERS = st.sampled_from(["alg", "typ", "kid", "crit", "b64", "jku", "jwk"])


@given(st.text() | st.from_regex(r"[\w-]*\.[\w-]*\.[\w-]*", fullmatch=True))
def test_any_text(token: str) -> None:
    """No text makes the verifier do anything but refuse it."""
    assert reason(token)


@given(st.dictionaries(HEADERS, JSON), st.dictionaries(CLAIMS, JSON))
def test_any_claims(header: dict[str, Any], claims: dict[str, Any]) -> None:
    """Whatever a signed token claims, it is judged and never an accident."""
    try:
        principal = verifier().verify(signed(GOOD | claims, header), NOW)
    except Unauthenticated:
        return

    assert is_identifier(principal.subject)
