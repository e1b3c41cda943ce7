"""What pool and child say to each other: frames of JSON, a length before each. No I/O.

A request is one frame, sent together with the file's descriptor. An answer is many small ones,
since one call that decodes megabytes would hold up the event loop whatever thread it runs in.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any

LENGTH = struct.Struct(">I")
MAX_FRAME_BYTES = 4 * 1024 * 1024
MAX_ANSWER_BYTES = 128 * 1024 * 1024
READY = {"ready": True}  # a child's first frame
REFUSED = "refused"  # the field of an answer that holds a FileRefused as [code, reason]
NUMBER = (
    "request_number"  # of a request, and of the answer to it: a stray one is never taken for it
)
END = LENGTH.pack(0)  # an empty frame closes an answer

PIECE_CHARS = 256 * 1024
_PIECE_ITEMS = 500


class Malformed(ValueError):
    """The bytes received are no frame, or not one that fits what came before."""


def frame(fields: Mapping[str, Any]) -> bytes:
    """Return `fields` as one frame; raises Malformed when it is too large for one."""
    encoded = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    if len(encoded) > MAX_FRAME_BYTES:
        raise Malformed(f"a frame of {len(encoded)} bytes is over {MAX_FRAME_BYTES}")
    return LENGTH.pack(len(encoded)) + encoded


def frame_length(prefix: bytes) -> int:
    """Return the bytes that follow `prefix`, 0 at an answer's end; raises Malformed."""
    length: int = LENGTH.unpack(prefix)[0]
    if length > MAX_FRAME_BYTES:
        raise Malformed(f"a frame claims {length} bytes; at most {MAX_FRAME_BYTES} are allowed")
    return length


def message(encoded: bytes) -> dict[str, Any]:
    """Return the object in a frame's body; raises Malformed."""
    try:
        decoded = json.loads(encoded)
    except (ValueError, RecursionError) as error:
        raise Malformed("a frame is not JSON") from error
    if not isinstance(decoded, dict):
        raise Malformed("a frame is not an object")
    return decoded


def answer_frames(answer: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield the frames of `answer`, the closing one last.

    Of a value, a list is divided between items, an object between its fields, and a string,
    there or at the top, anywhere. What lies deeper goes in one piece and has to be small.
    """
    for key, value in answer.items():
        for piece in _pieces(value):
            yield frame({key: piece})
    yield END


def merge(answer: dict[str, Any], part: Mapping[str, Any]) -> None:
    """Put one frame of an answer to those before it; raises Malformed."""
    for key, piece in part.items():
        match answer.get(key), piece:
            case None, _:
                answer[key] = piece
            case list(whole), list():
                whole.extend(piece)
            case dict(whole), dict():
                merge(whole, piece)
            case str(whole), str():
                answer[key] = whole + piece
            case _:
                raise Malformed("a frame does not continue the one before")


def _pieces(value: Any) -> Iterator[Any]:
    if isinstance(value, list) and value:
        yield from _slices(value, _PIECE_ITEMS)
    elif isinstance(value, dict) and value:
        yield from _object_pieces(value)
    elif isinstance(value, str) and value:
        yield from _slices(value, PIECE_CHARS)
    else:
        yield value


def _slices(whole: Any, size: int) -> Iterator[Any]:
    return (whole[at : at + size] for at in range(0, len(whole), size))


def _object_pieces(value: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    piece: dict[str, Any] = {}
    room = PIECE_CHARS
    for key, item in value.items():
        if isinstance(item, str) and len(item) > room:
            yield from ({key: part} for part in _pieces(item))
            continue
        piece[key] = item
        room -= len(key) + (len(item) if isinstance(item, str) else 0)
        if room <= 0 or len(piece) >= _PIECE_ITEMS:
            yield piece
            piece, room = {}, PIECE_CHARS
    if piece:
        yield piece
