"""Descriptors become checked tensor tables: every rule of the formats, on a real file."""

import os
from functools import partial

from safetensors import SafetensorError, safe_open

from lora_server.errors import FileRefused
from lora_server.formats import polyglot, safetensors, torch_file
from lora_server.formats.excerpt import excerpt
from lora_server.formats.sniff import SNIFF_BYTES, Kind, check_extension, sniff
from lora_server.formats.tensors import TensorTable


def whole_table(
    fd: int,
    extension: str,
    max_header_size: int = safetensors.MAX_HEADER_SIZE,
    *,
    second_opinion: bool = True,
) -> TensorTable:
    """Read a whole file called `extension` (lower case, with its dot); raises FileRefused.

    Without a second opinion, the official library is not asked about a safetensors file.
    """
    kind = sniff(read_at(fd, 0, SNIFF_BYTES))
    check_extension(kind, extension)
    if kind is Kind.SAFETENSORS:
        table = _safetensors_table(fd, max_header_size)
        if second_opinion:
            _ask_official_library(fd, table)
        return table
    return torch_table(fd)


def torch_table(fd: int) -> TensorTable:
    """Read a whole file of torch.save, zip or legacy; raises FileRefused."""
    return torch_file.read_table(partial(read_at, fd), os.fstat(fd).st_size)


def _safetensors_table(fd: int, max_header_size: int) -> TensorTable:
    table = header_table(fd, max_header_size)
    file_size = os.fstat(fd).st_size
    safetensors.refuse_wrong_size(table, file_size)
    tail_begin = max(file_size - polyglot.ZIP_TAIL_BYTES, 0)
    tail = read_at(fd, tail_begin, polyglot.ZIP_TAIL_BYTES)
    polyglot.refuse_zip_tail(tail, file_size=file_size)
    return table


def header_table(fd: int, max_header_size: int) -> TensorTable:
    """Read the header of a file that may still be growing; raises FileRefused."""
    size = header_size(fd, max_header_size)
    header = read_at(fd, safetensors.LENGTH_BYTES, size)
    if len(header) < size:
        message = f"the file ends {size - len(header)} bytes before its header does"
        raise FileRefused("lora_truncated", message)
    return safetensors.read_table(header)


def header_size(fd: int, max_header_size: int) -> int:
    """Return the length of the header that the file announces; raises FileRefused."""
    first = read_at(fd, 0, polyglot.TAR_BLOCK_BYTES)
    return safetensors.header_size(first, max_header_size=max_header_size)


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


def read_at(fd: int, offset: int, nbytes: int) -> bytes:
    """Return the `nbytes` at `offset`; fewer only where the file ends."""
    data = os.pread(fd, nbytes, offset)
    while len(data) < nbytes and (more := os.pread(fd, nbytes - len(data), offset + len(data))):
        data += more
    return data
