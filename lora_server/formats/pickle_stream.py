"""A pickle's bytes read front to back through one bounded window."""

from lora_server.errors import FileRefused
from lora_server.formats.refusals import CORRUPT, TOO_COMPLEX
from lora_server.formats.source import Read

_WINDOW_BYTES = 64 * 1024


class PickleStream:
    """Takes bytes one opcode at a time from [begin, end) of the file; never holds them all."""

    def __init__(self, read: Read, begin: int, end: int) -> None:
        self._read = read
        self._begin = begin
        self._end = end
        self._window = b""
        self._window_begin = begin
        self._at = 0  # in the window

    @property
    def position(self) -> int:
        """Bytes taken so far."""
        return self._window_begin + self._at - self._begin

    @property
    def remaining(self) -> int:
        """Bytes left before the end."""
        return self._end - self._window_begin - self._at

    def byte(self) -> int:
        """Take one byte."""
        if self._at == len(self._window):
            self._refill(1)
        self._at += 1
        return self._window[self._at - 1]

    def take(self, nbytes: int) -> bytes:
        """Take exactly `nbytes` bytes; refuse a pickle that ends before."""
        end = self._at + nbytes
        if end > len(self._window):
            end = self._refill(nbytes)
        taken = self._window[self._at : end]
        self._at = end
        return taken

    def line(self, limit: int) -> bytes:
        """Take the bytes up to the next newline, which is taken but not returned."""
        if len(self._window) - self._at <= limit:
            self._refill(0, ahead=limit + 1)
        newline = self._window.find(b"\n", self._at, self._at + limit + 1)
        if newline < 0:
            if self.remaining <= limit:
                raise FileRefused(CORRUPT, "the pickle is cut short")
            raise FileRefused(TOO_COMPLEX, f"a name of more than {limit} bytes")
        line = self._window[self._at : newline]
        self._at = newline + 1
        return line

    def _refill(self, nbytes: int, ahead: int = _WINDOW_BYTES) -> int:
        """Move the window to here, and return where `nbytes` bytes end in it."""
        if nbytes > self.remaining:
            raise FileRefused(CORRUPT, "the pickle is cut short")
        begin = self._window_begin + self._at
        wanted = min(max(nbytes, ahead, _WINDOW_BYTES), self._end - begin)
        self._window, self._window_begin, self._at = self._read(begin, wanted), begin, 0
        if len(self._window) != wanted:
            raise FileRefused(CORRUPT, "the pickle is cut short")
        return nbytes
