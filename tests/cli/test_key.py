"""`lora-server key new` makes keys that the server takes."""

import stat
from pathlib import Path

import pytest

from lora_server.config import AuthConfig, KeyConfig
from lora_server.jwt_keys import load_keys, load_private_key
from tests.cli.conftest import Run


def test_new_secret_is_closed_and_strong(run: Run, tmp_path: Path) -> None:
    """A new HS256 key is 48 random bytes that only its owner reads."""
    done = run("key", "new", "k")

    (key,) = load_keys(AuthConfig(key_file=tmp_path / "k"))
    assert (done.returncode, done.stdout) == (0, "k\n")
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600
    assert isinstance(key.material, bytes)
    assert len(key.material) == 64


def test_two_secrets_differ(run: Run, tmp_path: Path) -> None:
    """No two keys are the same."""
    run("key", "new", "a")
    run("key", "new", "b")

    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("algorithm", ["RS256", "EdDSA"])
def test_new_pair(run: Run, tmp_path: Path, algorithm: str) -> None:
    """A new pair is a closed private key, and beside it the public one for the server."""
    done = run("key", "new", "--algorithm", algorithm, "k")
    entry = KeyConfig.model_validate(
        {"kid": "k", "algorithm": algorithm, "file": tmp_path / "k.pub"}
    )

    (verifying,) = load_keys(AuthConfig(keys=(entry,)))
    assert done.stdout == "k.pub\nk\n"
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600
    assert load_private_key(tmp_path / "k", verifying, setting="k").can_sign


@pytest.mark.parametrize("there", ["k", "k.pub"])
def test_never_overwrites(run: Run, tmp_path: Path, there: str) -> None:
    """A file that is there stays as it is, and nothing is made beside it."""
    (tmp_path / there).write_text("precious", encoding="utf-8")
    done = run("key", "new", "--algorithm", "EdDSA", "k")

    assert done.returncode == 1
    assert there in done.stderr
    assert [path.read_text(encoding="utf-8") for path in tmp_path.iterdir()] == ["precious"]


def test_missing_folder(run: Run) -> None:
    """A key that cannot be written is a failure, said in one line."""
    done = run("key", "new", "absent/k")

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
