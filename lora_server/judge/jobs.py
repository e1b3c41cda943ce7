"""What a child can be asked to do. A job gets a descriptor and answers with facts as JSON.

Jobs read by offset and never by path, so that the file judged is the file that was staged.
"""

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from safetensors import SafetensorError, safe_open

from lora_server.errors import FileRefused
from lora_server.formats import polyglot, safetensors
from lora_server.formats.excerpt import excerpt
from lora_server.formats.sniff import SNIFF_BYTES, Kind, check_extension, sniff
from lora_server.formats.tensors import TensorTable


def safetensors_header(
    fd: int, *, max_header_size: int = safetensors.MAX_HEADER_SIZE
) -> dict[str, Any]:
    """Read the header of a file that may still be growing: its first 8 + N bytes suffice.

    What depends on the rest of the file is left to `judge`.
    """
    return as_json(_header_table(fd, max_header_size))


def judge(
    fd: int, *, extension: str, max_header_size: int = safetensors.MAX_HEADER_SIZE
) -> dict[str, Any]:
    """Judge a whole file called `extension` (lower case, with its dot); raises FileRefused."""
    kind = sniff(_read_at(fd, 0, SNIFF_BYTES))
    check_extension(kind, extension)
    if kind is Kind.SAFETENSORS:
        return inspected(fd, _safetensors_table(fd, max_header_size))
    return inspected(fd, torch_table(fd))


JOBS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "safetensors_header": safetensors_header,
    "judge": judge,
}


def inspected(fd: int, table: TensorTable) -> dict[str, Any]:
    """Return what is known of the file: here `lora_server.inspection.inspect` comes in.

    It is to be called as `inspect(table, read=partial(_read_at, fd))`, and its facts are to
    take the place of the table.
    """
    _ = partial(_read_at, fd)
    return as_json(table)


def torch_table(fd: int) -> TensorTable:
    """Read a torch container: here `lora_server.formats.torch_file.read_table` comes in."""
    message = f"PyTorch files cannot be read yet ({os.fstat(fd).st_size} bytes); use .safetensors"
    raise FileRefused("lora_wrong_format", message)


def as_json(table: TensorTable) -> dict[str, Any]:
    """Return `table` in the types that JSON has: a column for each field of its tensors.

    The asker's garbage collector visits every list and object that it gets, and holds up its
    event loop meanwhile: columns are a third as many as rows.
    """
    return {
        "container": table.container.value,
        "expected_size": table.expected_size,
        "metadata": dict(table.metadata),
        "names": [tensor.name for tensor in table.tensors],
        "dtypes": [tensor.dtype for tensor in table.tensors],
        "shapes": [tensor.shape for tensor in table.tensors],
        "begins": [tensor.begin for tensor in table.tensors],
    }


def _safetensors_table(fd: int, max_header_size: int) -> TensorTable:
    table = _header_table(fd, max_header_size)
    file_size = os.fstat(fd).st_size
    safetensors.refuse_wrong_size(table, file_size)
    tail_begin = max(file_size - polyglot.ZIP_TAIL_BYTES, 0)
    tail = _read_at(fd, tail_begin, polyglot.ZIP_TAIL_BYTES)
    polyglot.refuse_zip_tail(tail, file_size=file_size)
    _ask_official_library(fd, table)
    return table


def _header_table(fd: int, max_header_size: int) -> TensorTable:
    head = _read_at(fd, 0, polyglot.TAR_BLOCK_BYTES)
    size = safetensors.header_size(head, max_header_size=max_header_size)
    header = _read_at(fd, safetensors.LENGTH_BYTES, size)
    if len(header) < size:
        message = f"the file ends {size - len(header)} bytes before its header does"
        raise FileRefused("lora_truncated", message)
    return safetensors.read_table(header)


def _ask_official_library(fd: int, table: TensorTable) -> None:
    """Refuse what the library that will load the file refuses, or reads in another way."""
    try:
        with safe_open(f"/proc/self/fd/{fd}", "np") as reader:
            names, metadata = set(reader.keys()), reader.metadata() or {}
    except SafetensorError as error:
        message = f"the safetensors library does not read it: {excerpt(str(error))}"
        raise FileRefused("lora_corrupt", message) from error
    if names != {tensor.name for tensor in table.tensors} or metadata != table.metadata:
        raise FileRefused("lora_corrupt", "the safetensors library reads another header")


def _read_at(fd: int, offset: int, nbytes: int) -> bytes:
    """Return the `nbytes` at `offset`; fewer only where the file ends."""
    parts: list[bytes] = []
    while nbytes and (part := os.pread(fd, nbytes, offset)):
        parts.append(part)
        offset += len(part)
        nbytes -= len(part)
    return b"".join(parts)
