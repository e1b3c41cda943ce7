"""Files on the client's side: which are taken, and how they are read."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from lora_server.client.errors import LocalProblem
from lora_server.client.local_files import PIECE_BYTES, LocalFile, found, stoppable


async def test_pipes_are_not_read(tmp_path: Path) -> None:
    """Nobody is waited for who might never write."""
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(LocalProblem, match="no regular file"):
        async with LocalFile.opened(tmp_path / "pipe.pt"):
            pass


async def test_a_file_that_was_let_go_is_not_read(tmp_path: Path) -> None:
    """Its descriptor may be another file's by then; a request given up may still ask for more."""
    path = tmp_path / "ink.pt"
    path.write_bytes(bytes(2 * PIECE_BYTES))
    async with LocalFile.opened(path) as file:
        pieces = file.pieces()
        assert await anext(pieces)

    with pytest.raises(LocalProblem, match="not read any more"):
        await anext(pieces)


async def test_who_gives_up_waits_for_the_thread() -> None:
    """Work in a thread is told to stop, and has let go when the cancelled caller goes on."""
    steps: list[str] = []
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def work(stop: threading.Event) -> None:
        loop.call_soon_threadsafe(begun.set)
        stop.wait()
        steps.append("let go")
        raise OSError

    task = asyncio.create_task(stoppable(work))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert steps == ["let go"]


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
