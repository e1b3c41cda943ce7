"""Stored names, their versions, and partial paths; decided from strings alone."""

import itertools
import re
import unicodedata
from collections.abc import Collection, Iterator

from pathvalidate import sanitize_filename

from lora_server.errors import FieldInvalid, UnsupportedUpload
from lora_server.records import Filename, Location, Place

SAFETENSORS = ".safetensors"
EXTENSIONS = (SAFETENSORS, ".ckpt", ".pt", ".pth", ".bin")
MAX_NAME_BYTES = 255  # what Linux filesystems allow, in UTF-8
_SUFFIX_BYTES = len("_v999999")

_VERSION = re.compile(r"(?P<stem>.+)_v(?P<number>[2-9]|[1-9][0-9]{1,5})", re.DOTALL)
# Controls, format characters (bidi overrides, zero width), surrogates and line separators.
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def client_filename(raw: str) -> str:
    """Return the client's name without its directory part, whatever slash it used."""
    return re.split(r"[/\\]", raw)[-1]


def stored_name(filename: str) -> Filename:
    """Return the name to store a client's file under, before any version.

    Raises:
        UnsupportedUpload: the extension is none of EXTENSIONS (case does not matter).
        FieldInvalid: nothing is left of the name.

    """
    stem, extension = _split(_printable(_nfc(client_filename(filename))))
    if extension not in EXTENSIONS:
        allowed = ", ".join(EXTENSIONS)
        raise UnsupportedUpload(f"Only files ending in {allowed} are taken.")
    clean = _truncated(_sanitized(stem), MAX_NAME_BYTES - _SUFFIX_BYTES - len(extension))
    if not clean:
        raise FieldInvalid(("body", "file"), "The file has no usable name.", "filename_empty")
    return Filename(clean + extension)


def extension(name: str) -> str:
    """Return a stored name's extension in lower case, with its dot."""
    return _split(name)[1]


def as_safetensors(name: Filename) -> Filename:
    """Return the name that a converted checkpoint is stored under."""
    stem, old = _split(name)
    longest = MAX_NAME_BYTES - _SUFFIX_BYTES - len(SAFETENSORS)
    return name if old == SAFETENSORS else Filename(_truncated(stem, longest) + SAFETENSORS)


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _printable(text: str) -> str:
    return "".join(char for char in text if unicodedata.category(char) not in _UNPRINTABLE)


def _sanitized(stem: str) -> str:
    """Sanitise until nothing changes.

    What is cut away can have hidden a leading dot, a trailing space or a device name, or kept
    an accent from its letter.
    """
    clean = _nfc(sanitize_filename(stem.strip(" ."), platform="universal", max_len=None))
    return clean if clean == stem else _sanitized(clean)


def _split(name: str) -> tuple[str, str]:
    stem, dot, extension = name.rstrip(" .").rpartition(".")
    return (stem, (dot + extension).lower()) if dot else (name, "")


def _truncated(text: str, max_bytes: int) -> str:
    return text.encode()[:max_bytes].decode(errors="ignore").rstrip(" .")


def key(name: str) -> str:
    """Return what two names share that differ only in case or in Unicode normalisation."""
    if name.isascii():
        return name.lower()
    return _nfc(_nfc(name).casefold())


def versions(name: Filename) -> Iterator[Filename]:
    """Yield `name`, then its series `_v2`, `_v3` …, lowest first, without end.

    A name that already carries a version (N >= 2) continues the series of its stem.
    """
    yield name
    stem, extension = _split(name)
    match = _VERSION.fullmatch(stem)
    base = match["stem"] if match else stem
    for number in itertools.count(2):
        yield Filename(f"{base}_v{number}{extension}")


def first_free(name: Filename, taken: Collection[str]) -> Filename:
    """Return the first of `versions(name)` whose key is not in `taken` (a set of keys)."""
    return next(candidate for candidate in versions(name) if key(candidate) not in taken)


def parse_partial_path(raw: str, place: Place, entity_types: Collection[str]) -> Location:
    """Turn `"styles/ink.safetensors"` from a client into a Location.

    Raises:
        FieldInvalid: the path can name nothing: absolute, traversing, of an unknown entity
            type, or not a name that this server gives.

    """
    entity_type, slash, name = raw.partition("/")
    if not slash or entity_type not in entity_types or not is_plain(name):
        message = "Value error, not a partial path like 'styles/ink.safetensors'"
        raise FieldInvalid(("body", "partial_path"), message, "value_error")
    return Location(place, entity_type, name)


def is_plain(name: str) -> bool:
    """Tell whether `name` can be that of a listed file: one visible component, known extension."""
    return (
        len(name.encode(errors="replace")) <= MAX_NAME_BYTES
        and not name.startswith(".")
        and "/" not in name
        and _printable(name) == name
        and _split(name)[1] in EXTENSIONS
    )
