"""How every stored sketch begins, whatever its version; read without numpy by who keeps them."""

import struct

# Magic, version, length in bytes; then norm and spread.
HEAD = struct.Struct("<4sHHdf")
MAGIC = b"LSKE"


def is_whole(sketched: bytes) -> bool:
    """Whether these bytes are one sketch of some version, so that they may stand in a bundle."""
    if len(sketched) < HEAD.size:
        return False
    magic, _, size, *_ = HEAD.unpack_from(sketched)
    return bool(magic == MAGIC and size == len(sketched))
