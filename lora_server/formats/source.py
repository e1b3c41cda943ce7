"""The bytes of a file by position, whoever holds the file."""

from collections.abc import Callable, Iterator

from lora_server.errors import FileRefused
from lora_server.formats.refusals import CORRUPT

# (offset, nbytes) -> bytes, fewer only at the end of the file: os.pread on a descriptor.
Read = Callable[[int, int], bytes]

# Stays in a core's own cache between the read and its consumer, and is small enough for malloc
# to reuse: from 128 KiB on each chunk may be fresh pages, which doubles the cost of a read.
CHUNK_BYTES = 64 * 1024


def exactly(read: Read, offset: int, nbytes: int) -> bytes:
    """Return `nbytes` bytes from `offset`; refuse the file if it ends before."""
    data = read(offset, nbytes)
    if len(data) != nbytes:
        raise FileRefused(CORRUPT, f"the file ends inside the {nbytes} bytes at {offset}")
    return data


def chunks(read: Read, offset: int, nbytes: int) -> Iterator[bytes]:
    """Yield the `nbytes` bytes from `offset` in pieces of at most CHUNK_BYTES."""
    end = offset + nbytes
    while offset < end:
        yield exactly(read, offset, min(CHUNK_BYTES, end - offset))
        offset += CHUNK_BYTES
