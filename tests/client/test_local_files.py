"""Files on the client's side: which are taken, and how they are read."""

import os
from pathlib import Path

import pytest

from lora_server.client.errors import LocalProblem
from lora_server.client.local_files import LocalFile, found


async def test_pipes_are_not_read(tmp_path: Path) -> None:
    """Nobody is waited for who might never write."""
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(LocalProblem, match="no regular file"):
        async with LocalFile.opened(tmp_path / "pipe.pt"):
            pass


def test_folders_give_their_loras(tmp_path: Path) -> None:
    """In order, with sub-folders; without what is hidden, of another kind, or linked to."""
    for name in ("b.pt", "a.safetensors", "notes.txt", ".hidden.pt", "sub/c.CKPT", ".git/d.pt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    names = [str(path.relative_to(tmp_path)) for path in found([tmp_path], recursive=True)]

    assert names == ["a.safetensors", "b.pt", "sub/c.CKPT"]
    with pytest.raises(LocalProblem, match="--recursive"):
        list(found([tmp_path], recursive=False))
