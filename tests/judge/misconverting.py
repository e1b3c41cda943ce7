"""A child whose conversions end halfway, each in the way that a tensor's name asks for."""

import os
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from lora_server.errors import FileRefused
from lora_server.formats.convert import convert as write_safetensors
from lora_server.judge.child import main
from lora_server.judge.jobs import JOBS
from lora_server.judge.reading import read_at, torch_table


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _refuse() -> None:
    raise FileRefused("lora_too_complex", "it took too much halfway")


def _cut() -> None:
    """Answer as if all had been written."""


def _stall() -> None:
    time.sleep(3600)


ENDINGS: Mapping[str, Callable[[], None]] = {
    "dies": _die,
    "refuses": _refuse,
    "cuts": _cut,
    "stalls": _stall,
}


def convert(fd: int, *, output: int) -> dict[str, Any]:
    """Write the first half, and end as asked; write all where nothing is asked."""
    written: list[bytes] = []
    table = torch_table(fd)
    write_safetensors(partial(read_at, fd), table, written.append)
    content = b"".join(written)
    asked = [end for name, end in ENDINGS.items() if any(name in t.name for t in table.tensors)]
    with open(output, "wb", closefd=False) as pipe:
        pipe.write(content[: len(content) // 2] if asked else content)
    for end in asked:
        end()
    return {}


if __name__ == "__main__":
    main({**JOBS, "convert": convert})
