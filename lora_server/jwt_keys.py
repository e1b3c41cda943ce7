"""Key files become the keys that tokens are verified and signed with; new ones are made here."""

import base64
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPrivateKey,
    RSAPublicKey,
    generate_private_key,
)

from lora_server.config import AuthConfig, KeyConfig
from lora_server.errors import ConfigInvalid

Algorithm = Literal["HS256", "RS256", "EdDSA"]
PublicKey = RSAPublicKey | Ed25519PublicKey
PrivateKey = RSAPrivateKey | Ed25519PrivateKey

MIN_SECRET_BYTES = 32  # RFC 7518, 3.2: no shorter than the hash
NEW_SECRET_BYTES = 48
MIN_RSA_BITS = 2048  # RFC 7518, 3.3
NEW_RSA_BITS = 3072

_PUBLIC = {"RS256": RSAPublicKey, "EdDSA": Ed25519PublicKey}


@dataclass(frozen=True, slots=True)
class Key:
    """One key, and the only algorithm that it may be used with; its material never prints."""

    kid: str | None  # None for the one in auth.key_file
    algorithm: Algorithm
    material: bytes | PublicKey | PrivateKey = field(repr=False)

    @property
    def can_sign(self) -> bool:
        """Tell whether tokens can be minted with it: a public key only verifies."""
        return not isinstance(self.material, PublicKey)


def load_keys(auth: AuthConfig, *, credentials: Path | None = None) -> tuple[Key, ...]:
    """Read every configured key: that of `auth.key_file` first, then `auth.keys` in order.

    A secret must be closed to group and others. Files right in `credentials`, the folder in
    which systemd hands them over, are exempt: it shows their access list as group bits.
    One trailing line break of a text file is no part of a secret.

    Raises:
        ConfigInvalid: there is no key, or a file is unreadable, open to others, too weak, or
            not of its algorithm; names the setting.

    """
    keys = []
    if auth.key_file:
        secret = _secret("auth.key_file", auth.key_file, credentials)
        keys.append(Key(None, "HS256", secret))
    for number, entry in enumerate(auth.keys):
        setting = f"auth.keys.{number}.file"
        keys.append(Key(entry.kid, entry.algorithm, _material(setting, entry, credentials)))
    if not keys:
        raise ConfigInvalid("auth.key_file: no key is configured, so no token could be verified")
    return tuple(keys)


def load_private_key(path: Path, public: Key, *, setting: str) -> Key:
    """Read the PEM of the private half of `public`, to sign with.

    Raises:
        ConfigInvalid: the file is unreadable, open to others, or not that half; names `setting`.

    """
    try:
        private = serialization.load_pem_private_key(_read_closed(setting, path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _wrong(setting, path, "is not an unencrypted private key in PEM") from error
    if not isinstance(private, PrivateKey) or private.public_key() != public.material:
        raise _wrong(setting, path, f"is not the private half of the key {public.kid!r}")
    return Key(public.kid, public.algorithm, private)


def new_secret() -> bytes:
    """Return a fresh HS256 key: 48 random bytes as a line of base64url."""
    return base64.urlsafe_b64encode(secrets.token_bytes(NEW_SECRET_BYTES)) + b"\n"


def new_key_pair(algorithm: Algorithm) -> tuple[bytes, bytes]:
    """Return a fresh private and public key as PEM, for RS256 (3072 bits) or EdDSA (Ed25519)."""
    private: PrivateKey
    if algorithm == "RS256":
        private = generate_private_key(public_exponent=65537, key_size=NEW_RSA_BITS)
    else:
        private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem, public


def _material(setting: str, entry: KeyConfig, credentials: Path | None) -> bytes | PublicKey:
    if entry.algorithm == "HS256":
        return _secret(setting, entry.file, credentials)
    return _public(setting, entry.file, entry.algorithm)


def _secret(setting: str, path: Path, credentials: Path | None) -> bytes:
    handed_over = credentials is not None and path.parent == credentials
    secret = _read(setting, path)[0] if handed_over else _read_closed(setting, path)
    if secret.lstrip().startswith((b"-----BEGIN", b"ssh-")):
        raise _wrong(setting, path, "is a public or private key, where HS256 needs a secret")
    if secret.isascii():
        secret = secret.removesuffix(b"\n").removesuffix(b"\r")
    if len(secret) < MIN_SECRET_BYTES:
        raise _wrong(setting, path, f"has {len(secret)} bytes, under {MIN_SECRET_BYTES}")
    return secret


def _public(setting: str, path: Path, algorithm: Algorithm) -> PublicKey:
    pem, _ = _read(setting, path)
    if b"PRIVATE KEY" in pem:
        raise _wrong(setting, path, "is a private key; the server verifies with the public one")
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _wrong(setting, path, "is not a public key in PEM") from error
    if not isinstance(key, PublicKey) or not isinstance(key, _PUBLIC[algorithm]):
        raise _wrong(setting, path, f"is not a key for {algorithm}")
    if isinstance(key, RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        raise _wrong(setting, path, f"has {key.key_size} bits, under {MIN_RSA_BITS}")
    return key


def _read_closed(setting: str, path: Path) -> bytes:
    content, mode = _read(setting, path)
    if mode & 0o077:
        raise _wrong(setting, path, f"is open to others (mode {mode:04o}); chmod it to 0600")
    return content


def _read(setting: str, path: Path) -> tuple[bytes, int]:
    try:
        with path.open("rb") as file:
            return file.read(), stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    except OSError as error:
        raise _wrong(setting, path, f"cannot be read: {error.strerror}") from error


def _wrong(setting: str, path: Path, why: str) -> ConfigInvalid:
    return ConfigInvalid(f"{setting}: {path} {why}")
