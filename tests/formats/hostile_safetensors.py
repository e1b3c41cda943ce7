"""Files that must be refused, each named after its trick, and odd ones that must be let in."""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from tests.formats.safetensors_files import (
    container,
    encoded,
    entry,
    many,
    one,
    raw,
    safetensors,
)

GOOD = one()
MEBIBYTE = 1024 * 1024
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."


@dataclass(frozen=True, slots=True)
class Trick:
    """A file that is called .safetensors and the code that it has to be refused with."""

    code: str
    build: Callable[[], bytes]


def _zip(name: str = "archive/data.pkl") -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(name, b"\x80\x02N.")
    return packed.getvalue()


def _with_zip_as_tensor(archive: bytes) -> bytes:
    """Return a whole adapter by its header, so that nothing but the archive speaks against it."""
    size = len(archive)
    return safetensors({"q_proj.vera_lambda_b": entry((size,), 0, size, "U8")}, archive)


def _zip64_locator_as_tensor() -> bytes:
    end = b"PK\x05\x06" + b"\xff" * 16 + bytes(2)
    return _with_zip_as_tensor(b"PK\x06\x07" + bytes(16) + end)


def _zip_with_comment() -> bytes:
    packed = io.BytesIO(_zip())
    with zipfile.ZipFile(packed, "a") as archive:
        archive.comment = b"x" * 65_535
    return _with_zip_as_tensor(packed.getvalue())


def _zip_head() -> bytes:
    """Begin as a local file header and as a header length of 67 MB alike."""
    return container(encoded({"a": entry()}).ljust(80), length=0x04034B50)


def _tar(checksum: Callable[[bytes], bytes]) -> bytes:
    """Make a header of 59 bytes, the first of them a letter of a tar member's name."""
    header = encoded({"a": entry((600,), 0, 600, "U8")}).ljust(64)
    head = bytearray(container(header, b"\xe0" * 5)[:77].ljust(512, b"\0"))
    head[124:136] = b"00000000000\0"
    head[148:156] = b" " * 8
    head[148:156] = checksum(bytes(head))
    return bytes(head).ljust(8 + 64 + 600, b"\0")


def _plain_tar() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("pickle"))
    return packed.getvalue()


def _pair(first: tuple[int, int], second: tuple[int, int], data: int = 8) -> bytes:
    """Return two U8 tensors with these offsets."""
    fields = {
        name: entry((end - begin,), begin, end, "U8")
        for name, (begin, end) in (("a", first), ("b", second))
    }
    return safetensors(fields, bytes(data))


def _named(name: str) -> bytes:
    return safetensors({name: entry()})


def _field(text: str) -> bytes:
    return raw('{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4],' + text + "}}")


def _shape(text: str) -> bytes:
    return raw('{"a":{"dtype":"F16","shape":' + text + ',"data_offsets":[0,4]}}')


def _offsets(text: str) -> bytes:
    return raw('{"a":{"dtype":"F16","shape":[2],"data_offsets":' + text + "}}")


def _metadata(text: str) -> bytes:
    return raw('{"__metadata__":' + text + "," + encoded({"a": entry()}).decode()[1:])


def _padded_header(size: int) -> bytes:
    return container(encoded({"a": entry()}).ljust(size))


def _corrupt(**tricks: Callable[[], bytes]) -> Mapping[str, Trick]:
    return {name: Trick("lora_corrupt", build) for name, build in tricks.items()}


def _impostors(**files: bytes) -> Mapping[str, Trick]:
    return {name: Trick("lora_wrong_format", partial(bytes, file)) for name, file in files.items()}


_OVERFLOW = "[1099511627776,1099511627776,0]"

TRICKS: Mapping[str, Trick] = {
    "no bytes at all": Trick("lora_empty", lambda: b""),
    "no tensor": Trick("lora_empty", lambda: raw("{}", b"")),
    "metadata and no tensor": Trick("lora_empty", lambda: raw('{"__metadata__":{"a":"b"}}', b"")),
    "cut in the header": Trick("lora_truncated", lambda: GOOD[:40]),
    "cut after the length": Trick("lora_truncated", lambda: GOOD[:8]),
    "cut in the last tensor": Trick("lora_truncated", lambda: GOOD[:-1]),
    "offsets beyond the end": Trick(
        "lora_truncated", lambda: one(shape=[2**40], data_offsets=[0, 2**41])
    ),
    "one byte too many": Trick("lora_trailing_bytes", lambda: GOOD + b"\0"),
    "data but only empty tensors": Trick(
        "lora_trailing_bytes", lambda: one(shape=[0], data_offsets=[0, 0])
    ),
    "zip appended": Trick("lora_trailing_bytes", lambda: GOOD + _zip()),
    "second file appended": Trick("lora_trailing_bytes", lambda: GOOD + GOOD),
    "length is all ones": Trick("lora_wrong_format", lambda: b"\xff" * 8 + GOOD[8:]),
    "length is past the cap": Trick(
        "lora_header_too_large", lambda: _padded_header(16 * MEBIBYTE + 1)
    ),
    "length is big-endian": Trick("lora_wrong_format", lambda: GOOD[:8][::-1] + GOOD[8:]),
    "length of 53 MB": Trick("lora_header_too_large", lambda: container(b"{}", length=53_000_000)),
    "a tensor too many": Trick("lora_too_many_tensors", lambda: many(100_001)),
    "200,000 entries": Trick(
        "lora_too_many_tensors", lambda: raw("{" + '"a":{},' * 200_000 + '"b":{}}')
    ),
    "a million strings": Trick(
        "lora_header_too_large", lambda: _metadata('{"a":"b"' + ',"a":"b"' * 1_000_000 + "}")
    ),
    "tensor twice, the last fits": Trick(
        "lora_duplicate_key",
        lambda: raw('{"a":1,"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}'),
    ),
    "tensor twice, escaped once": Trick(
        "lora_duplicate_key",
        lambda: raw(r'{"\u0061":{},"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}'),
    ),
    "dtype twice": Trick("lora_duplicate_key", lambda: _field('"dtype":"F16"')),
    "shape twice": Trick("lora_duplicate_key", lambda: _field('"shape":[2]')),
    "offsets twice": Trick("lora_duplicate_key", lambda: _field('"data_offsets":[0,4]')),
    "metadata key twice": Trick("lora_duplicate_key", lambda: _metadata('{"k":"1","k":"2"}')),
    "metadata twice": Trick("lora_duplicate_key", lambda: _metadata('{},"__metadata__":{}')),
    "unknown dtype": Trick("lora_unsupported_dtype", lambda: one(dtype="F128")),
    "dtype in lower case": Trick("lora_unsupported_dtype", lambda: one(dtype="f16")),
    "dtype with a space": Trick("lora_unsupported_dtype", lambda: one(dtype="F16 ")),
    "half-byte dtype": Trick("lora_unsupported_dtype", lambda: one(dtype="F4", shape=[8])),
    "complex dtype": Trick(
        "lora_unsupported_dtype",
        lambda: safetensors({"a": entry((1,), 0, 8, "C64")}, bytes(8)),
    ),
    "zip archive as a tensor": Trick("lora_polyglot", lambda: _with_zip_as_tensor(_zip())),
    "zip archive with a long comment": Trick("lora_polyglot", _zip_with_comment),
    "zip64 locator as a tensor": Trick("lora_polyglot", _zip64_locator_as_tensor),
    "empty zip archive as a tensor": Trick(
        "lora_polyglot", lambda: _with_zip_as_tensor(b"PK\x05\x06" + bytes(18))
    ),
    "zip local header as the length": Trick("lora_wrong_format", _zip_head),
    "tar header over the length": Trick(
        "lora_polyglot", lambda: _tar(lambda head: b"%06o\0 " % sum(head))
    ),
    "tar header with a signed sum": Trick(
        "lora_polyglot",
        lambda: _tar(lambda head: b"%06o\0 " % (sum(head) - 256 * sum(b > 127 for b in head))),
    ),
    "tar header with a padded sum": Trick(
        "lora_polyglot", lambda: _tar(lambda head: b"  %o " % sum(head))
    ),
    "tar header with a binary sum": Trick(
        "lora_polyglot", lambda: _tar(lambda head: b"\x80" + sum(head).to_bytes(7))
    ),
    "Windows program as the length": Trick("lora_polyglot", lambda: _padded_header(0x5A4D)),
    **_corrupt(
        **{
            "length is zero": lambda: container(b""),
            "all zeros": lambda: bytes(4096),
            "space before the brace": lambda: raw(" " + encoded({"a": entry()}).decode()),
            "newline before the brace": lambda: raw("\n" + encoded({"a": entry()}).decode()),
            "byte order mark": lambda: raw("\ufeff" + encoded({"a": entry()}).decode()),
            "header is a list": lambda: raw("[]"),
            "header is a string": lambda: raw('"{}"'),
            "header is a number": lambda: raw("7"),
            "not JSON": lambda: raw("{a:1}"),
            "single quotes": lambda: raw("{'a':{}}"),
            "comment in JSON": lambda: raw('{/**/"a":{}}'),
            "trailing comma": lambda: raw('{"a":{},}'),
            "JSON after the header": lambda: raw(encoded({"a": entry()}).decode() + "{}"),
            "NUL padding": lambda: raw(encoded({"a": entry()}).decode() + "\0\0\0"),
            "unclosed brace": lambda: raw(encoded({"a": entry()}).decode()[:-1]),
            "unclosed string": lambda: raw('{"a'),
            "not UTF-8": lambda: container(b'{"\xff":{}}'),
            "overlong UTF-8": lambda: container(b'{"\xc0\xaf":{}}'),
            "surrogate in UTF-8": lambda: container(b'{"\xed\xa0\x80":{}}'),
            "UTF-16": lambda: container('{"a":{}}'.encode("utf-16-le")),
            "lone surrogate name": lambda: raw(
                r'{"\ud800":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}'
            ),
            "lone surrogate in metadata": lambda: _metadata(r'{"a":"\udfff"}'),
            "raw tab in a string": lambda: raw('{"a\tb":{}}'),
            "bad escape": lambda: raw(r'{"\x61":{}}'),
            "deep lists": lambda: _shape("[" * 100_000 + "]" * 100_000),
            "deep lists, never closed": lambda: raw('{"a":' + "[" * 1_000_000),
            "deep objects": lambda: raw('{"a":' * 100_000 + "1" + "}" * 100_000),
            "deep behind an escape": lambda: raw('{"\\"":' + "[" * 200_000 + "]" * 200_000 + "}"),
            "deep behind a stray backslash": lambda: raw("{\\" + '"[":' * 9 + "[" * 200_000),
            "object in a shape": lambda: _shape('[{"a":1}]'),
            "list in a shape": lambda: _shape("[[2]]"),
            "true as a dimension": lambda: _shape("[2,true]"),
            "null as a dimension": lambda: _shape("[2,null]"),
            "string as a dimension": lambda: _shape('["2"]'),
            "float dimension": lambda: _shape("[2.0]"),
            "exponent dimension": lambda: _shape("[2e0]"),
            "NaN dimension": lambda: _shape("[NaN]"),
            "infinite dimension": lambda: _shape("[Infinity]"),
            "negative dimensions": lambda: _shape("[-1,-2]"),
            "minus zero dimension": lambda: raw(
                '{"a":{"dtype":"F16","shape":[-0],"data_offsets":[0,0]}}', b""
            ),
            "leading zero": lambda: _shape("[02]"),
            "plus sign": lambda: _shape("[+2]"),
            "hexadecimal dimension": lambda: _shape("[0x2]"),
            "dimension of 5,000 digits": lambda: _shape("[" + "9" * 5000 + "]"),
            "dimension of a million digits": lambda: _shape("[" + "9" * 1_000_000 + "]"),
            "dimension of 2**64 + 2": lambda: _shape(f"[{2**64 + 2}]"),
            "product that overflows to fit": lambda: _shape("[4294967296,4294967296,2]"),
            "zero hides an overflow": lambda: raw(
                '{"a":{"dtype":"U8","shape":' + _OVERFLOW + ',"data_offsets":[0,0]}}', b""
            ),
            "nine dimensions": lambda: one(shape=[2, 1, 1, 1, 1, 1, 1, 1, 1]),
            "a million dimensions": lambda: one(shape=[1] * 1_000_000),
            "shape is null": lambda: _shape("null"),
            "shape is a number": lambda: _shape("2"),
            "shape smaller than its bytes": lambda: one(shape=[1]),
            "shape larger than its bytes": lambda: one(shape=[3]),
            "dtype smaller than its bytes": lambda: one(dtype="U8"),
            "dtype is null": lambda: one(dtype=None),
            "dtype is a list": lambda: one(dtype=["F16"]),
            "extra field": lambda: _field('"strides":[1]'),
            "missing dtype": lambda: raw('{"a":{"shape":[2],"data_offsets":[0,4]}}'),
            "missing shape": lambda: raw('{"a":{"dtype":"F16","data_offsets":[0,4]}}'),
            "missing offsets": lambda: raw('{"a":{"dtype":"F16","shape":[2]}}'),
            "fields in upper case": lambda: raw('{"a":{"DTYPE":"F16","SHAPE":[2]}}'),
            "entry is a list": lambda: raw('{"a":["F16",[2],[0,4]]}'),
            "entry is null": lambda: raw('{"a":null}'),
            "one offset": lambda: _offsets("[4]"),
            "three offsets": lambda: _offsets("[0,4,4]"),
            "offsets are an object": lambda: _offsets('{"0":0,"1":4}'),
            "offsets reversed": lambda: _offsets("[4,0]"),
            "offset negative": lambda: _offsets("[-4,0]"),
            "offset float": lambda: _offsets("[0,4.0]"),
            "offset true": lambda: _offsets("[false,4]"),
            "offset past 64 bits": lambda: _offsets(f"[{2**64},{2**64 + 4}]"),
            "first tensor not at 0": lambda: _pair((1, 4), (4, 8)),
            "hole": lambda: _pair((0, 3), (4, 8)),
            "overlap by one": lambda: _pair((0, 5), (4, 8)),
            "same bytes twice": lambda: _pair((0, 8), (0, 8)),
            "one inside the other": lambda: _pair((0, 8), (2, 4)),
            "empty tensor inside another": lambda: _pair((0, 8), (4, 4)),
            "empty tensor past the end": lambda: _pair((0, 8), (9, 9)),
            "empty name": lambda: _named(""),
            "NUL in a name": lambda: _named("a\0b"),
            "newline in a name": lambda: _named("a\nb"),
            "escape code in a name": lambda: _named("a\x1b[31m"),
            "DEL in a name": lambda: _named("a\x7f"),
            "C1 control in a name": lambda: _named("a\x9b31m"),
            "name of 513 bytes": lambda: _named("a" * 513),
            "name of 257 characters in 514 bytes": lambda: _named("é" * 257),
            "metadata is null": lambda: _metadata("null"),
            "metadata is a list": lambda: _metadata('["a"]'),
            "metadata is a string": lambda: _metadata('"a"'),
            "number in metadata": lambda: _metadata('{"a":1}'),
            "null in metadata": lambda: _metadata('{"a":null}'),
            "object in metadata": lambda: _metadata('{"a":{}}'),
            "list in metadata": lambda: _metadata('{"a":["b"]}'),
            "long key in metadata": lambda: _metadata('{"' + "a" * 513 + '":"b"}'),
            "metadata has only an entry's fields": lambda: _metadata(
                '{"dtype":"F16","shape":[2],"data_offsets":[0,4]}'
            ),
        }
    ),
    **_impostors(
        **{
            "zip": _zip(),
            "npz": _zip("a.npy"),
            "legacy torch": LEGACY_TORCH,
            "bare pickle": b"\x80\x04N.",
            "text pickle": b"cos\nsystem\n(S'true'\ntR.",
            "tar": _plain_tar(),
            "7z": b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(24),
            "RAR": b"Rar!\x1a\x07\x01\x00" + bytes(24),
            "gzip": gzip.compress(GOOD),
            "npy": b"\x93NUMPY\x01\x00v\x00" + bytes(118),
            "GGUF": b"GGUF\x03\x00\x00\x00" + bytes(16),
            "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(16),
            "HTML page": b"<!DOCTYPE html><html><title>Sign in</title></html>",
            "HTML page after space": b"\n\n  <HTML><body>Not found</body></HTML>",
            "XML error": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
            "JSON error": b'{"error":"Repository not found"}',
            "LFS pointer": LFS_POINTER,
            "ELF program": b"\x7fELF\x02\x01\x01" + bytes(57),
            "script": b"#!/bin/sh\nexit 0\n",
            "PNG": b"\x89PNG\r\n\x1a\n" + bytes(16),
            "JPEG": b"\xff\xd8\xff\xe0" + bytes(16),
            "PDF": b"%PDF-1.7\n" + bytes(16),
            "SQLite": b"SQLite format 3\x00" + bytes(84),
            "prose": b"I am not a model at all.",
            "three bytes": b"abc",
        }
    ),
}


def _mixed() -> bytes:
    """Return tensors out of file order, empty ones between, of every width."""
    fields = {
        "last": entry((3,), 12, 36, "F64"),
        "first": entry((2, 2), 0, 4, "F8_E4M3"),
        "empty": entry((0, 7), 4, 4, "F32"),
        "also empty": entry((0,), 36, 36, "BOOL"),
        "second": entry((2, 2), 4, 12, "BF16"),
    }
    return safetensors(fields, bytes(36))


ODD_BUT_VALID: Mapping[str, Callable[[], bytes]] = {
    "plain": lambda: GOOD,
    "zero rank": lambda: one(shape=[], dtype="F32"),
    "eight dimensions": lambda: one(shape=[1, 1, 1, 1, 1, 1, 1, 2]),
    "empty tensor": lambda: safetensors({"a": entry((0,), 0, 0)}, b""),
    "empty tensors of many shapes": lambda: safetensors(
        {"a": entry((0, 4096), 0, 0), "b": entry((7, 0, 7), 0, 0)}, b""
    ),
    "bf16": lambda: one(dtype="BF16"),
    "fp8": lambda: one(dtype="F8_E5M2", shape=[4]),
    "bool": lambda: one(dtype="BOOL", shape=[2, 2]),
    "every order and width": _mixed,
    "unicode names": lambda: _named("Übergröße.模型.🦙"),
    "name of 512 bytes": lambda: _named("é" * 256),
    "escaped name": lambda: raw(r'{"\u0061\"\\{[":' + encoded(entry()).decode() + "}"),
    "path for a name": lambda: _named("../../etc/passwd"),
    "prototype for a name": lambda: _named("__proto__"),
    "brackets and quotes in metadata": lambda: _metadata(r'{"a":"[[[{{{\"\\\\\"}"}'),
    "control characters in metadata": lambda: _metadata(r'{"a":"\u0000\n\u001b[0m"}'),
    "surrogate pair": lambda: _metadata(r'{"a":"\ud83e\udd99"}'),
    "empty metadata": lambda: _metadata("{}"),
    "metadata after the tensors": lambda: safetensors({"a": entry(), "__metadata__": {"k": "v"}}),
    "space padding": lambda: _padded_header(4096),
    "unaligned header": lambda: _padded_header(97),
    "header whose length spells JSON": lambda: _padded_header(0x227B),
    "header whose length spells gzip": lambda: _padded_header(0x8B1F),
    "50,000 tensors": lambda: many(50_000),
    "100,000 tensors": lambda: many(100_000),
    "header of 16 MiB": lambda: _padded_header(16 * MEBIBYTE),
    "15 MiB of metadata": lambda: _metadata('{"ss_tag_frequency":"' + "x" * 15 * MEBIBYTE + '"}'),
    "zip signature without an archive": lambda: _with_zip_as_tensor(b"PK\x05\x06" + b"\xfe" * 18),
}
