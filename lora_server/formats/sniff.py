"""What a file really is, by its first bytes; its name is only checked against that. No I/O."""

import re
from collections.abc import Mapping
from enum import StrEnum

from lora_server.errors import FileRefused
from lora_server.formats.excerpt import excerpt
from lora_server.formats.polyglot import is_tar
from lora_server.formats.safetensors import LENGTH_BYTES

SNIFF_BYTES = 1024  # a longer head tells no more

SAFETENSORS_EXTENSIONS = frozenset({".safetensors"})
TORCH_EXTENSIONS = frozenset({".ckpt", ".pt", ".pth", ".bin"})


class Kind(StrEnum):
    """What the first bytes are, in words that finish the sentence 'the file is ...'."""

    SAFETENSORS = "a safetensors file"
    TORCH_ZIP = "a PyTorch zip checkpoint"
    TORCH_LEGACY = "a PyTorch checkpoint of the legacy format"
    PICKLE = "a bare pickle"
    TAR = "a tar archive"
    SEVEN_ZIP = "a 7z archive"
    RAR = "a RAR archive"
    COMPRESSED = "compressed (gzip, bzip2, xz or zstd)"
    NPY = "a NumPy array"
    NPZ = "a NumPy archive (npz)"
    EMPTY_ZIP = "an empty or spanned zip archive"
    GGUF = "a GGUF or GGML model"
    HDF5 = "an HDF5 (Keras) file"
    HTML = "an HTML or XML page"
    LFS_POINTER = "a Git LFS pointer"
    JSON = "JSON text"
    PROGRAM = "a program (ELF, Mach-O or Windows)"
    IMAGE = "an image"
    PDF = "a PDF document"
    DATABASE = "an SQLite database"
    EMPTY = "empty"
    UNKNOWN = "of no known model format"


EXTENSIONS: Mapping[Kind, frozenset[str]] = {
    Kind.SAFETENSORS: SAFETENSORS_EXTENSIONS,
    Kind.TORCH_ZIP: TORCH_EXTENSIONS,
    Kind.TORCH_LEGACY: TORCH_EXTENSIONS,
}

_UNPACK = "unpack it and upload the .safetensors file inside"
_DOWNLOAD = "the download went wrong: fetch the file again, logged in where that is asked"
_CONVERT = "convert it to .safetensors first"
_ADVICE: Mapping[Kind, str] = {
    Kind.PICKLE: "load it where you trust it and save its tensors as .safetensors",
    Kind.TAR: _UNPACK,
    Kind.SEVEN_ZIP: _UNPACK,
    Kind.RAR: _UNPACK,
    Kind.COMPRESSED: _UNPACK,
    Kind.NPY: _CONVERT,
    Kind.NPZ: _CONVERT,
    Kind.GGUF: _CONVERT,
    Kind.HDF5: _CONVERT,
    Kind.HTML: _DOWNLOAD,
    Kind.JSON: _DOWNLOAD,
    Kind.LFS_POINTER: "run git lfs pull and upload what it fetches",
    Kind.EMPTY: _DOWNLOAD,
}
_DEFAULT_ADVICE = "upload the adapter's .safetensors file"

_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_MAGIC: Mapping[bytes, Kind] = {
    b"version https://git-lfs.github.com/spec/": Kind.LFS_POINTER,
    _LEGACY_MAGIC: Kind.TORCH_LEGACY,
    b"PK\x05\x06": Kind.EMPTY_ZIP,
    b"PK\x07\x08": Kind.EMPTY_ZIP,
    b"7z\xbc\xaf\x27\x1c": Kind.SEVEN_ZIP,
    b"Rar!\x1a\x07": Kind.RAR,
    b"\x1f\x8b": Kind.COMPRESSED,
    b"BZh": Kind.COMPRESSED,
    b"\xfd7zXZ\x00": Kind.COMPRESSED,
    b"\x28\xb5\x2f\xfd": Kind.COMPRESSED,
    b"\x93NUMPY": Kind.NPY,
    b"GGUF": Kind.GGUF,
    b"ggml": Kind.GGUF,
    b"tjgg": Kind.GGUF,
    b"lmgg": Kind.GGUF,
    b"\x89HDF\r\n\x1a\n": Kind.HDF5,
    b"\x7fELF": Kind.PROGRAM,
    b"MZ": Kind.PROGRAM,
    b"\xcf\xfa\xed\xfe": Kind.PROGRAM,
    b"\xce\xfa\xed\xfe": Kind.PROGRAM,
    b"\xca\xfe\xba\xbe": Kind.PROGRAM,
    b"#!": Kind.PROGRAM,
    b"\x89PNG\r\n\x1a\n": Kind.IMAGE,
    b"\xff\xd8\xff": Kind.IMAGE,
    b"GIF8": Kind.IMAGE,
    b"RIFF": Kind.IMAGE,
    b"%PDF-": Kind.PDF,
    b"SQLite format 3\x00": Kind.DATABASE,
}
_PICKLE = re.compile(rb"\x80[\x00-\x05]|\([dl]p?\d*\n|c[A-Za-z_][\w.]*\n[A-Za-z_][\w.]*\n")
_MARKUP = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype|!--|html|head|body|\?xml)", re.IGNORECASE)
_JSON = re.compile(rb"(?:\xef\xbb\xbf)?\s*[\[{]\s*[\"{\[\]}\d]")
_ZIP_NAME_BYTES = slice(26, 28)
_ZIP_NAME_BEGIN = 30
# A header length below this is one that a truncated or oversized safetensors file may claim;
# the first bytes of text never are.
_PLAUSIBLE_LENGTH = 2**40


def sniff(head: bytes) -> Kind:
    """Return what a file that begins with `head` (SNIFF_BYTES of it or all) really is."""
    if not head:
        return Kind.EMPTY
    if head.startswith(b"PK\x03\x04"):
        return Kind.NPZ if _first_zip_name(head).endswith(b".npy") else Kind.TORCH_ZIP
    if _claims_header(head) and head[LENGTH_BYTES:].startswith(b"{"):
        return Kind.SAFETENSORS
    if is_tar(head):
        return Kind.TAR
    if kind := _by_magic(head) or _by_text(head):
        return kind
    # What claims a header and has none is for the reader to refuse, in its own words.
    return Kind.SAFETENSORS if _claims_header(head) else Kind.UNKNOWN


def check_extension(kind: Kind, extension: str) -> None:
    """Raise FileRefused `lora_wrong_format` unless files of `kind` are called `extension`.

    `extension` is in lower case and begins with a dot. The message says what the file is and
    what to do about it; an empty file is `lora_empty`.
    """
    allowed = EXTENSIONS.get(kind, frozenset())
    if extension in allowed:
        return
    if allowed:
        advice = f"name it {' or '.join(sorted(allowed))}, not {excerpt(extension)}"
    else:
        advice = _ADVICE.get(kind, _DEFAULT_ADVICE)
    code = "lora_empty" if kind is Kind.EMPTY else "lora_wrong_format"
    raise FileRefused(code, f"the file is {kind}; {advice}")


def _by_magic(head: bytes) -> Kind | None:
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    return Kind.PICKLE if _PICKLE.match(head) else None


def _by_text(head: bytes) -> Kind | None:
    if _MARKUP.match(head):
        return Kind.HTML
    return Kind.JSON if _JSON.match(head) else None


def _claims_header(head: bytes) -> bool:
    length = int.from_bytes(head[:LENGTH_BYTES], "little")
    return len(head) >= LENGTH_BYTES and length < _PLAUSIBLE_LENGTH


def _first_zip_name(head: bytes) -> bytes:
    length = int.from_bytes(head[_ZIP_NAME_BYTES], "little")
    return head[_ZIP_NAME_BEGIN : _ZIP_NAME_BEGIN + length]
