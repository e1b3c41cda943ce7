"""Real keys on disk for the tests that need one."""

from pathlib import Path

from lora_server.config import AuthConfig, KeyConfig
from lora_server.jwt_keys import (
    Algorithm,
    Key,
    load_keys,
    load_private_key,
    new_key_pair,
    new_secret,
)


def write_secret(path: Path, content: bytes | None = None, mode: int = 0o600) -> Path:
    """Write an HS256 key, by default a fresh one."""
    path.write_bytes(new_secret() if content is None else content)
    path.chmod(mode)
    return path


def write_pair(path: Path, algorithm: Algorithm) -> tuple[Path, Path]:
    """Write a private and a public key; return both paths in this order."""
    private, public = new_key_pair(algorithm)
    beside = path.with_name(path.name + ".pub")
    beside.write_bytes(public)
    return write_secret(path, private), beside


def signing_key(folder: Path, algorithm: Algorithm, kid: str) -> tuple[KeyConfig, Key]:
    """Return the setting for a fresh key and the half of it that signs."""
    if algorithm == "HS256":
        entry = KeyConfig(kid=kid, algorithm=algorithm, file=write_secret(folder / kid))
        return entry, load_keys(AuthConfig(keys=(entry,)))[0]
    private, public = write_pair(folder / kid, algorithm)
    entry = KeyConfig(kid=kid, algorithm=algorithm, file=public)
    verifying = load_keys(AuthConfig(keys=(entry,)))[0]
    return entry, load_private_key(private, verifying, setting="private")
