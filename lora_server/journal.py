"""journald's native protocol: log records with fields that can be asked for.

`journalctl LORA_SHA256=…` finds what happened to a file, `LORA_ACTOR=…` what somebody did.
A field is sent with its length, so that a line break in a value starts no field of its own.
https://systemd.io/JOURNAL_NATIVE_PROTOCOL
"""

import logging
import os
import re
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog

SOCKET = Path("/run/systemd/journal/socket")
PREFIX = "LORA_"
MAX_VALUE_BYTES = 4096
MAX_MESSAGE_BYTES = 16384  # with a traceback
MAX_FIELDS = 32  # all in all under the 200 kB that a datagram may have

_BYTES_AS_TEXT = "latin-1"
_LEVELS = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}  # syslog(3)
_PLAIN = re.compile(r"[\w./:@+-]+", re.ASCII)
_NO_FIELD_CHARACTER = re.compile(r"[^A-Z0-9_]")
_OWN = frozenset({"event", "timestamp", "level", "exception"})  # have a place of their own


def is_stderr() -> bool:
    """Tell whether stderr goes to the journal, as sd_journal_stream_fd(3) has it found out."""
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def entry(event: structlog.typing.EventDict) -> bytes:
    """Turn an event into the bytes of one entry."""
    fields = {
        "MESSAGE": _bounded(_message(event), MAX_MESSAGE_BYTES),
        "PRIORITY": str(_LEVELS.get(event.get("level", ""), 6)).encode(),
        "SYSLOG_IDENTIFIER": b"lora-server",
    }
    for key, value in [*event.items()][:MAX_FIELDS]:
        if key not in _OWN - {"event"}:
            fields[_field_name(key)] = _bounded(str(value), MAX_VALUE_BYTES)
    return b"".join(
        name.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"
        for name, value in fields.items()
    )


def as_text(_: Any, __: str, event: structlog.typing.EventDict) -> str:
    """Turn an event into its entry, a character for each byte: a formatter has to return text."""
    return entry(event).decode(_BYTES_AS_TEXT)


class JournalHandler(logging.Handler):
    """Sends what its formatter made (`as_text`) to journald, and to stderr if that fails."""

    def __init__(self) -> None:
        super().__init__()
        self._address = str(SOCKET)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(0)  # never wait: records come from the event loop, too

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record; the journal's own stream takes what its socket does not."""
        text = self.format(record)
        try:
            self._socket.sendto(text.encode(_BYTES_AS_TEXT), self._address)
        except OSError:
            sys.stderr.write(f"{record.levelname} {text!r}\n")

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()


def _message(event: structlog.typing.EventDict) -> str:
    """Return the line for people: the event, what belongs to it, and a traceback below."""
    pairs = " ".join(_pairs(event))
    line = f"{event.get('event', '')} {pairs}".strip()
    return f"{line}\n{event['exception']}" if "exception" in event else line


def _pairs(event: structlog.typing.EventDict) -> Iterator[str]:
    for key, value in event.items():
        if key not in _OWN and key != "logger":
            text = str(value)
            # Quoted, since what a client chose may hold the control sequences of a terminal.
            yield f"{key}={text if _PLAIN.fullmatch(text) else repr(text)}"


def _bounded(text: str, limit: int) -> bytes:
    encoded = text.encode(errors="replace")
    return encoded if len(encoded) <= limit else encoded[:limit].decode(errors="ignore").encode()


def _field_name(key: str) -> str:
    return PREFIX + _NO_FIELD_CHARACTER.sub("_", key.upper())[:48]
