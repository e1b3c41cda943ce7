"""Key files: which are taken, and how a bad one is named."""

from pathlib import Path
from typing import Literal

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from lora_server.config import AuthConfig, KeyConfig
from lora_server.errors import ConfigInvalid
from lora_server.jwt_keys import Key, load_keys, load_private_key, new_key_pair
from tests.key_files import write_pair, write_secret

Asymmetric = Literal["RS256", "EdDSA"]
SECRET = b"0123456789abcdef0123456789abcdef"


def listed(algorithm: Literal["HS256", "RS256", "EdDSA"], file: Path) -> AuthConfig:
    """Return settings with one key under auth.keys."""
    return AuthConfig(keys=(KeyConfig(kid="k", algorithm=algorithm, file=file),))


def public_pem(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> bytes:
    """Return a public key as PEM."""
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def test_key_file_is_an_hs256_key_without_kid(tmp_path: Path) -> None:
    """auth.key_file holds one secret, less the line break at its end."""
    path = write_secret(tmp_path / "k", SECRET + b"\n")

    assert load_keys(AuthConfig(key_file=path)) == (Key(None, "HS256", SECRET),)


def test_bytes_of_a_binary_secret_all_count(tmp_path: Path) -> None:
    """A random byte that happens to be a line break is part of the secret."""
    binary = b"\xff" * 31 + b"\n"
    path = write_secret(tmp_path / "k", binary)

    assert load_keys(AuthConfig(key_file=path))[0].material == binary


def test_both_settings_add_up(tmp_path: Path) -> None:
    """The key of key_file comes first, then the list in its order."""
    _, public = write_pair(tmp_path / "ed", "EdDSA")
    auth = listed("EdDSA", public).model_copy(update={"key_file": write_secret(tmp_path / "k")})

    assert [key.kid for key in load_keys(auth)] == [None, "k"]


def test_no_key_is_refused() -> None:
    """A server that could verify nothing does not start."""
    with pytest.raises(ConfigInvalid, match=r"^auth\.key_file: no key"):
        load_keys(AuthConfig())


def test_material_never_prints(tmp_path: Path) -> None:
    """A key that ends up in a log line or traceback shows no secret."""
    key = load_keys(AuthConfig(key_file=write_secret(tmp_path / "k", SECRET)))[0]

    assert SECRET.decode() not in repr(key)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_open_secret_is_refused(tmp_path: Path, mode: int) -> None:
    """A secret that others can read or write is none."""
    path = write_secret(tmp_path / "k", mode=mode)

    with pytest.raises(ConfigInvalid, match=rf"^auth\.key_file: .*mode 0{mode:o}"):
        load_keys(AuthConfig(key_file=path))


def test_handed_over_secret_may_show_group_bits(tmp_path: Path) -> None:
    """Right in systemd's credential folder modes are not judged; elsewhere they are."""
    path = write_secret(tmp_path / "jwt-key", mode=0o440)

    assert load_keys(AuthConfig(key_file=path), credentials=tmp_path)
    with pytest.raises(ConfigInvalid):
        load_keys(AuthConfig(key_file=path), credentials=tmp_path.parent)


def test_public_key_may_be_open(tmp_path: Path) -> None:
    """A public key is no secret."""
    _, public = write_pair(tmp_path / "ed", "EdDSA")
    public.chmod(0o644)

    assert not load_keys(listed("EdDSA", public))[0].can_sign


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param(b"", "has 0 bytes", id="empty"),
        pytest.param(b"x" * 31, "has 31 bytes", id="weak"),
        pytest.param(b"x" * 31 + b"\n", "has 31 bytes", id="weak but for the line break"),
        pytest.param(new_key_pair("EdDSA")[1], "needs a secret", id="public key as secret"),
        pytest.param(b"ssh-ed25519 " + b"A" * 40, "needs a secret", id="ssh key as secret"),
    ],
)
def test_bad_secrets(tmp_path: Path, content: bytes, why: str) -> None:
    """A weak secret, or a key of another kind, is named with its setting."""
    path = write_secret(tmp_path / "k", content)

    with pytest.raises(ConfigInvalid, match=rf"^auth\.keys\.0\.file: .*{why}"):
        load_keys(listed("HS256", path))


@pytest.mark.parametrize("setting", ["auth.key_file", "auth.keys.0.file"])
def test_missing_files(tmp_path: Path, setting: str) -> None:
    """A key file that is not there is named with its setting."""
    absent = tmp_path / "absent"
    auth = AuthConfig(key_file=absent) if setting == "auth.key_file" else listed("RS256", absent)

    with pytest.raises(ConfigInvalid, match=rf"^{setting}: .*absent cannot be read"):
        load_keys(auth)


@pytest.mark.parametrize("algorithm", ["RS256", "EdDSA"])
def test_private_key_is_not_for_the_server(tmp_path: Path, algorithm: Asymmetric) -> None:
    """The server refuses to be given more than it needs."""
    private, _ = write_pair(tmp_path / "k", algorithm)

    with pytest.raises(ConfigInvalid, match="is a private key"):
        load_keys(listed(algorithm, private))


@pytest.mark.parametrize(
    ("algorithm", "content", "why"),
    [
        pytest.param("RS256", new_key_pair("EdDSA")[1], "not a key for RS256", id="ed as rsa"),
        pytest.param("EdDSA", new_key_pair("RS256")[1], "not a key for EdDSA", id="rsa as ed"),
        pytest.param(
            "EdDSA",
            public_pem(ec.generate_private_key(ec.SECP256R1()).public_key()),
            "not a key for EdDSA",
            id="elliptic curve",
        ),
        pytest.param(
            "RS256",
            public_pem(rsa.generate_private_key(65537, 1024).public_key()),  # noqa: S505 - that is the point
            "has 1024 bits",
            id="weak rsa",
        ),
        pytest.param("RS256", SECRET, "not a public key in PEM", id="secret"),
        pytest.param("RS256", b"", "not a public key in PEM", id="empty"),
    ],
)
def test_public_keys_of_another_kind(
    tmp_path: Path, algorithm: Asymmetric, content: bytes, why: str
) -> None:
    """A file must hold what its algorithm verifies with."""
    path = write_secret(tmp_path / "k", content)

    with pytest.raises(ConfigInvalid, match=why):
        load_keys(listed(algorithm, path))


@pytest.mark.parametrize("algorithm", ["RS256", "EdDSA"])
def test_private_half_signs(tmp_path: Path, algorithm: Asymmetric) -> None:
    """The private half of a configured key becomes a key that can sign."""
    private, public = write_pair(tmp_path / "k", algorithm)
    verifying = load_keys(listed(algorithm, public))[0]

    assert load_private_key(private, verifying, setting="--private-key").can_sign


def test_private_half_of_another_key(tmp_path: Path) -> None:
    """A private key that does not belong to the public one would sign for nobody."""
    _, public = write_pair(tmp_path / "one", "EdDSA")
    other, _ = write_pair(tmp_path / "other", "EdDSA")
    verifying = load_keys(listed("EdDSA", public))[0]

    with pytest.raises(ConfigInvalid, match=r"^--private-key: .*not the private half"):
        load_private_key(other, verifying, setting="--private-key")


def test_private_half_must_be_closed_and_private(tmp_path: Path) -> None:
    """An open file and a public key are both refused as a private half."""
    private, public = write_pair(tmp_path / "k", "EdDSA")
    verifying = load_keys(listed("EdDSA", public))[0]

    public.chmod(0o600)
    with pytest.raises(ConfigInvalid, match="not an unencrypted private key"):
        load_private_key(public, verifying, setting="--private-key")
    private.chmod(0o644)
    with pytest.raises(ConfigInvalid, match="open to others"):
        load_private_key(private, verifying, setting="--private-key")
