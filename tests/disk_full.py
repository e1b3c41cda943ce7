"""Run as a program: upload to a disk that fills up, and print what came of it as JSON.

python -m tests.disk_full FOLDER file-limit|tmpfs|state
"""

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from lora_server.errors import LoraServerError
from tests.libraries import listed, opened_library, storage_in, upload

LIMIT = 4 * 1024 * 1024


def limit_files() -> None:
    """Let no file grow over LIMIT: the write fails with EFBIG."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))


def mount_small_disk(folder: Path) -> None:
    """Mount a disk of LIMIT bytes that only this process sees: the write fails with ENOSPC."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={LIMIT}", "tmpfs", str(folder)]
    subprocess.run(command, check=True)


def fill_up(folder: Path) -> Path:
    """Leave no room for one more page of a file; return what takes it."""
    filler = folder / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filler


def left_in(folder: Path) -> list[str]:
    """Return the staged and published files under a folder."""
    return [str(path) for path in folder.rglob("*") if path.suffix in (".part", ".safetensors")]


async def fill(folder: Path) -> dict[str, object]:
    """Upload what does not fit, then what does."""
    storage = storage_in(folder)
    async with opened_library(storage) as library:
        try:
            await upload(library, os.urandom(2 * LIMIT))
            outcome = "stored"
        except LoraServerError as error:
            outcome = type(error).__name__
        left = left_in(folder)
        after = await upload(library, b"small")
        return {"outcome": outcome, "left": left, "after": after.location.partial_path}


async def fill_state(folder: Path) -> dict[str, object]:
    """Upload while the catalogue's own disk is full, and again when it is not."""
    storage = storage_in(folder)
    async with opened_library(storage) as library:
        filler = await asyncio.to_thread(fill_up, storage.state_dir)
        try:
            await upload(library, b"small")
            outcome = "stored"
        except LoraServerError as error:
            outcome = type(error).__name__
        left = [*left_in(folder), *await listed(library)]
        filler.unlink()
        after = await upload(library, b"small")
        return {"outcome": outcome, "left": left, "after": after.location.partial_path}


def main() -> None:
    """Set the limit up and fill it."""
    folder, how = Path(sys.argv[1]), sys.argv[2]
    if how == "tmpfs":
        mount_small_disk(folder)
    elif how == "state":
        state = storage_in(folder).state_dir
        state.mkdir()
        mount_small_disk(state)
    else:
        limit_files()
    filling = fill_state(folder) if how == "state" else fill(folder)
    sys.stdout.write(json.dumps(asyncio.run(filling)))


if __name__ == "__main__":
    main()
