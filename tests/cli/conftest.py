"""The command as a process of its own, in an environment of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.key_files import write_secret

ROOT = Path(__file__).parent.parent.parent
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return what runs lora-server with arguments, stdin and variables, in `tmp_path`."""

    def run(
        *arguments: str | Path, stdin: str = "", **variables: str | Path
    ) -> subprocess.CompletedProcess[str]:
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return subprocess.run(
            [sys.executable, "-m", "lora_server", *arguments],
            cwd=tmp_path,
            env=inherited | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", **variables},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    return run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a config.toml with one HS256 key and a file for revocations."""
    key = write_secret(tmp_path / "jwt.key")
    path = tmp_path / "config.toml"
    path.write_text(
        f'[auth]\nkey_file = "{key}"\nrevoked_file = "{tmp_path}/revoked.jsonl"\nmax_ttl = "1d"\n',
        encoding="utf-8",
    )
    return path
