"""Run as a program: upload to a disk that fills up, and print what came of it as JSON.

python -m tests.disk_full FOLDER file-limit|tmpfs
"""

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

from lora_server.errors import LoraServerError
from tests.libraries import opened_library, storage_in, upload

LIMIT = 4 * 1024 * 1024


def limit_files() -> None:
    """Let no file grow over LIMIT: the write fails with EFBIG."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))


def mount_small_disk(folder: Path) -> None:
    """Mount a disk of LIMIT bytes that only this process sees: the write fails with ENOSPC."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={LIMIT}", "tmpfs", str(folder)]
    subprocess.run(command, check=True)


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


def main() -> None:
    """Set the limit up and fill it."""
    folder, how = Path(sys.argv[1]), sys.argv[2]
    if how == "tmpfs":
        mount_small_disk(folder)
    else:
        limit_files()
    sys.stdout.write(json.dumps(asyncio.run(fill(folder))))


if __name__ == "__main__":
    main()
