"""What a child can be asked to do. A job gets a descriptor and answers with facts as JSON.

Jobs read by offset and never by path, so that the file judged is the file that was staged.
"""

import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from lora_server.formats import safetensors
from lora_server.formats.convert import convert as write_safetensors
from lora_server.formats.sniff import SNIFF_BYTES, Kind, check_extension, sniff
from lora_server.formats.tensors import TensorTable
from lora_server.inspection import inspect, refuse_misfits
from lora_server.judge.reading import (
    header_size,
    header_table,
    read_at,
    torch_table,
    whole_table,
)


def head(
    fd: int, *, extension: str, max_header_size: int = safetensors.MAX_HEADER_SIZE
) -> dict[str, Any]:
    """Judge the beginning of a file that is still growing, by as much of it as is there.

    `needs` is how long the file must be for the next question to find out more; 0 when
    nothing more can be said before the file is whole.
    """
    kind = sniff(read_at(fd, 0, SNIFF_BYTES))
    check_extension(kind, extension)
    if kind is not Kind.SAFETENSORS:
        return {"needs": 0}
    end = safetensors.LENGTH_BYTES + header_size(fd, max_header_size)
    if os.fstat(fd).st_size < end:
        return {"needs": end}
    refuse_misfits(header_table(fd, max_header_size))
    return {"needs": 0}


def judge(
    fd: int, *, extension: str, max_header_size: int = safetensors.MAX_HEADER_SIZE
) -> dict[str, Any]:
    """Judge a whole file called `extension` (lower case, with its dot); raises FileRefused."""
    return _inspected(fd, whole_table(fd, extension, max_header_size))


def rejudge(
    fd: int, *, extension: str, max_header_size: int = safetensors.MAX_HEADER_SIZE
) -> dict[str, Any]:
    """Judge again a file that `judge` accepted before and whose bytes are the same since.

    All of our own rules are applied. What the official library says of these bytes is known.
    """
    return _inspected(fd, whole_table(fd, extension, max_header_size, second_opinion=False))


def preflight(
    fd: int, *, extension: str, file_size: int, max_header_size: int = safetensors.MAX_HEADER_SIZE
) -> dict[str, Any]:
    """Judge a safetensors file of `file_size` bytes by its first bytes alone.

    Alphas lie behind the header, so the scales are those of files that store none.
    """
    check_extension(sniff(read_at(fd, 0, SNIFF_BYTES)), extension)
    table = header_table(fd, max_header_size)
    safetensors.refuse_wrong_size(table, file_size)
    return _inspected(fd, table)


def convert(fd: int, *, output: int) -> dict[str, Any]:
    """Write a judged torch file to the pipe `output`, as safetensors."""
    with open(output, "wb", closefd=False) as pipe:
        done = write_safetensors(partial(read_at, fd), torch_table(fd), pipe.write)
    return {"size": done.size, "numbers": done.numbers, "unshared": done.unshared}


def bare_header(fd: int, *, max_header_size: int = safetensors.MAX_HEADER_SIZE) -> dict[str, Any]:
    """Return the header of a judged safetensors file without its metadata, as JSON text."""
    table = header_table(fd, max_header_size)
    encoded = read_at(fd, safetensors.LENGTH_BYTES, table.data_begin - safetensors.LENGTH_BYTES)
    entries = json.loads(encoded)
    entries.pop("__metadata__", None)
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":"))
    return {"header": text, "data_begin": table.data_begin}


JOBS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "head": head,
    "judge": judge,
    "rejudge": rejudge,
    "preflight": preflight,
    "convert": convert,
    "bare_header": bare_header,
}


def _inspected(fd: int, table: TensorTable) -> dict[str, Any]:
    inspection = inspect(table, read=partial(read_at, fd))
    return {
        "summary": inspection.short(),
        "inspection": inspection.to_json(),
        "data_begin": table.data_begin,
    }
