"""Minted tokens: what they claim, and that they verify."""

from pathlib import Path

import pytest

from lora_server.config import AuthConfig, KeyConfig
from lora_server.jwt_keys import Algorithm, load_keys
from lora_server.tokens import mint, unverified
from tests.forgery import GOOD, HOUR, KEY, NOW, verifier
from tests.key_files import signing_key, write_pair, write_secret


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "EdDSA"])
def test_minted_tokens_verify(tmp_path: Path, algorithm: Algorithm) -> None:
    """What is minted with one half of a key, the other verifies."""
    entry, signing = signing_key(tmp_path, algorithm, "k1")
    auth = AuthConfig(keys=(entry,), audience="lora", issuer="us")
    token = mint(
        signing, subject="bob", scope="read", ttl_s=60, audience="lora", issuer="us", now=NOW
    )

    principal = verifier(*load_keys(auth), auth=auth).verify(token, NOW)
    assert (principal.subject, principal.kid) == ("bob", "k1")
    assert principal.scopes == {"read"}
    assert principal.jti


def test_minted_claims() -> None:
    """A minted token says what was asked for, with a jti of its own, and no empty claims."""
    header, claims = unverified(mint(KEY, subject="alice", ttl_s=HOUR, now=NOW + 0.9))
    _, other = unverified(mint(KEY, subject="alice", ttl_s=HOUR, now=NOW))

    assert header == {"alg": "HS256", "typ": "JWT"}
    assert {name: claims[name] for name in GOOD} == GOOD
    assert set(claims) == {*GOOD, "jti"}
    assert claims["jti"] != other["jti"]


def test_minting_needs_a_private_half(tmp_path: Path) -> None:
    """A public key mints nothing."""
    _, public = write_pair(tmp_path / "k", "EdDSA")
    entry = KeyConfig(kid="k", algorithm="EdDSA", file=public)

    with pytest.raises(ValueError, match="cannot sign"):
        mint(load_keys(AuthConfig(keys=(entry,)))[0], subject="alice", ttl_s=HOUR, now=NOW)


@pytest.mark.parametrize("subject", ["", "a\n", "x" * 257])
def test_minting_for_a_subject_that_would_not_verify(subject: str) -> None:
    """A token that is refused anyway is not made."""
    with pytest.raises(ValueError, match="subject"):
        mint(KEY, subject=subject, ttl_s=HOUR, now=NOW)


def test_minting_from_a_key_file(tmp_path: Path) -> None:
    """The one key of key_file mints and verifies."""
    auth = AuthConfig(key_file=write_secret(tmp_path / "k"))
    (key,) = load_keys(auth)

    assert verifier(key, auth=auth).verify(mint(key, subject="a", ttl_s=60, now=NOW), NOW)
