"""Zip containers that two readers could see differently, or that hide something."""

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace

from tests.formats.pickle_bytes import Call, Name, Pickle
from tests.formats.torch_bytes import lora, torch_parts
from tests.formats.zip_bytes import End, Part, archive, padding

AMBIGUOUS, CORRUPT = "lora_zip_ambiguous", "lora_corrupt"
EVIL = Pickle().dump(Call(Name("os", "system"), ("touch executed",)))


def _parts(**changes: dict[str, object]) -> list[Part]:
    """Return an honest LoRA's members, with fields of some of them changed by role."""
    names = {name.replace("__", "/").replace("_pkl", ".pkl"): new for name, new in changes.items()}
    return [
        replace(part, **names.get(part.name.partition("/")[2], {}))  # type: ignore[arg-type]
        for part in torch_parts(lora())
    ]


def _with(*more: Part) -> bytes:
    return archive([*torch_parts(lora()), *more])


def _data(**fields: object) -> Callable[[], bytes]:
    return lambda: archive(_parts(data__0=fields))


def _end(**fields: object) -> Callable[[], bytes]:
    return lambda: archive(torch_parts(lora()), End(**fields))  # type: ignore[arg-type]


def _renamed(old: str, new: str) -> bytes:
    return archive([replace(part, name=part.name.replace(old, new)) for part in _parts()])


def _without(role: str) -> bytes:
    return archive([part for part in _parts() if not part.name.endswith(role)])


def _extra(tag: int, data: bytes) -> bytes:
    return struct.pack("<2H", tag, len(data)) + data


def _local_padding(fill: bytes) -> bytes:
    parts: Sequence[Part] = torch_parts(lora())
    extra = padding(0, parts[0].name)
    return extra[:4] + fill * (len(extra) - 4)


TRICKS: dict[str, tuple[Callable[[], bytes], str]] = {
    "two data.pkl, hostile first": (
        lambda: archive([Part("archive/data.pkl", EVIL), *torch_parts(lora())]),
        AMBIGUOUS,
    ),
    "two data.pkl, hostile last": (lambda: _with(Part("archive/data.pkl", EVIL)), AMBIGUOUS),
    "second data.pkl in capitals": (lambda: _with(Part("archive/DATA.PKL", EVIL)), AMBIGUOUS),
    "only DATA.PKL": (lambda: _renamed("data.pkl", "DATA.PKL"), AMBIGUOUS),
    "second zip in the comment": (
        lambda: archive(torch_parts(lora()), End(comment=archive(torch_parts(lora())))),
        AMBIGUOUS,
    ),
    "archive comment": (_end(comment=b"hello"), AMBIGUOUS),
    "archive comment announced": (_end(comment_bytes=5), AMBIGUOUS),
    "bytes behind the archive": (_end(tail=b"x"), AMBIGUOUS),
    "second zip behind the archive": (lambda: _with() + _with(), AMBIGUOUS),
    "bytes before the directory": (_end(before=EVIL), AMBIGUOUS),
    "bytes in the directory": (_end(inside=EVIL), AMBIGUOUS),
    "bytes behind the directory": (_end(padding=b"x" * 46), AMBIGUOUS),
    "bytes before the archive": (lambda: EVIL + _with(), "lora_unsupported"),
    "a member's worth before the archive": (lambda: b"PK\3\4" + bytes(60) + _with(), AMBIGUOUS),
    "bytes between members": (_data(gap=EVIL), AMBIGUOUS),
    "end record missing": (lambda: _with()[:-22], CORRUPT),
    "end record cut": (lambda: _with()[:-1], AMBIGUOUS),
    "archive cut in half": (lambda: _with()[:700], CORRUPT),
    "archive of four bytes": (lambda: b"PK\3\4", CORRUPT),
    "several disks": (_end(disk=1), AMBIGUOUS),
    "fewer members counted": (_end(count=5), AMBIGUOUS),
    "more members counted": (_end(count=50), AMBIGUOUS),
    "end records that disagree": (_end(short_count=3), AMBIGUOUS),
    "a million members counted": (
        _end(count=1_000_000, short_count=0xFFFF),
        "lora_pickle_too_complex",
    ),
    "zip64 locator pointing elsewhere": (_end(locator_offset=0), AMBIGUOUS),
    "zip64 record of another size": (_end(record_size=60), AMBIGUOUS),
    "directory elsewhere": (_end(begin=0), AMBIGUOUS),
    "wrong checksum": (_data(crc=1), CORRUPT),
    "wrong checksum of data.pkl": (lambda: archive(_parts(data_pkl={"crc": 1})), CORRUPT),
    "names that differ": (_data(local_name="archive/data/9"), AMBIGUOUS),
    "flags that differ": (_data(local_flags=0x8), AMBIGUOUS),
    "methods that differ": (_data(local_method=8), AMBIGUOUS),
    "checksums that differ": (_data(local_crc=1), AMBIGUOUS),
    "sizes that differ": (_data(local_sizes=(1, 1)), AMBIGUOUS),
    "sizes missing without descriptor": (_data(flags=0x800), AMBIGUOUS),
    "descriptor that lies": (_data(descriptor=b"PK\7\x08" + bytes(12)), AMBIGUOUS),
    "descriptor without signature": (_data(descriptor=bytes(16)), AMBIGUOUS),
    "descriptor missing": (_data(descriptor=b""), AMBIGUOUS),
    "descriptor of 24 bytes": (_data(descriptor=b"PK\7\x08" + bytes(20)), AMBIGUOUS),
    "no local header": (_data(local_magic=b"PK\3\5"), AMBIGUOUS),
    "entry pointing at another header": (_data(header=0), AMBIGUOUS),
    "entry pointing outside": (_data(header=0xFFFFFFF0), AMBIGUOUS),
    "entry of another size": (_data(size=1), CORRUPT),
    "entry that overlaps the next": (_data(size=200, packed_size=200), AMBIGUOUS),
    "deflated": (_data(method=8), AMBIGUOUS),
    "encrypted": (_data(flags=0x809), AMBIGUOUS),
    "patched": (_data(flags=0x828), AMBIGUOUS),
    "strongly encrypted": (_data(flags=0x848), AMBIGUOUS),
    "masked headers": (_data(flags=0x2808), AMBIGUOUS),
    "symlink": (_data(attributes=0o120777 << 16), AMBIGUOUS),
    "folder by mode": (_data(attributes=0o040755 << 16), AMBIGUOUS),
    "folder by attribute": (_data(attributes=0x10), AMBIGUOUS),
    "member comment": (_data(comment=b"x"), AMBIGUOUS),
    "member on another disk": (_data(disk=1), AMBIGUOUS),
    "zip64 field for nothing": (_data(extra=_extra(1, bytes(8))), AMBIGUOUS),
    "zip64 field missing": (_data(size=0xFFFFFFFF, packed_size=0xFFFFFFFF), AMBIGUOUS),
    "zip64 field too long": (
        _data(size=0xFFFFFFFF, packed_size=0xFFFFFFFF, extra=_extra(1, bytes(24))),
        AMBIGUOUS,
    ),
    "unicode path field": (_data(extra=_extra(0x7075, b"\1" + bytes(4) + b"x")), AMBIGUOUS),
    "local unicode path field": (_data(local_extra=_extra(0x7075, bytes(9))), AMBIGUOUS),
    "zip64 twice": (_data(local_extra=_extra(1, bytes(16)) * 2), AMBIGUOUS),
    "local zip64 that lies": (_data(local_extra=_extra(1, b"\1" * 16)), AMBIGUOUS),
    "local zip64 of odd length": (_data(local_extra=_extra(1, bytes(12))), AMBIGUOUS),
    "extra field cut": (_data(local_extra=b"FB\xff\xff"), CORRUPT),
    "extra field of three bytes": (_data(local_extra=b"FB\0"), CORRUPT),
    "padding that hides a pickle": (
        lambda: archive(_parts(data_pkl={"local_extra": _local_padding(b".")})),
        AMBIGUOUS,
    ),
    "member name that is no UTF-8": (
        lambda: _with().replace(b"archive/version", b"archive/versio\xff"),
        AMBIGUOUS,
    ),
    "member name with a NUL": (lambda: _renamed("version", "vers\0on"), AMBIGUOUS),
    "member name with a newline": (lambda: _renamed("data/0", "data/0\n"), AMBIGUOUS),
    "member name that climbs": (lambda: _with(Part("archive/../evil.pt", b"")), AMBIGUOUS),
    "folder that climbs": (lambda: _renamed("archive/", "../"), AMBIGUOUS),
    "folder that is here": (lambda: _renamed("archive/", "./"), AMBIGUOUS),
    "no folder": (lambda: _renamed("archive/", "/"), AMBIGUOUS),
    "folder with a drive": (lambda: _renamed("archive/", "C:/"), AMBIGUOUS),
    "folder with a backslash": (lambda: _renamed("archive/", "a\\b/"), AMBIGUOUS),
    "folder of 201 bytes": (lambda: _renamed("archive/", "a" * 201 + "/"), AMBIGUOUS),
    "second folder": (lambda: _with(Part("other/data/9", b"")), AMBIGUOUS),
    "stray member": (lambda: _with(Part("archive/run.sh", b"true")), AMBIGUOUS),
    "member without folder": (lambda: _with(Part("data.pkl", EVIL)), AMBIGUOUS),
    "record key of ten digits": (lambda: _with(Part("archive/data/1234567890", b"")), AMBIGUOUS),
    "record key in other digits": (lambda: _with(Part("archive/data/٣", b"")), AMBIGUOUS),
    "TorchScript code": (lambda: _with(Part("archive/code/__torch__.py", b"")), "lora_unsupported"),
    "TorchScript constants": (
        lambda: _with(Part("archive/constants.pkl", EVIL)),
        "lora_unsupported",
    ),
    "record that nothing refers to": (lambda: _with(Part("archive/data/9", EVIL)), CORRUPT),
    "record missing": (lambda: _without("/data/1"), CORRUPT),
    "data.pkl missing": (lambda: _without("data.pkl"), CORRUPT),
    "version missing": (lambda: _without("/version"), CORRUPT),
    "version of a megabyte": (lambda: archive(_parts(version={"data": bytes(1 << 20)})), CORRUPT),
    "big-endian": (lambda: archive(_parts(byteorder={"data": b"big"})), "lora_unsupported"),
    "bytes behind STOP": (
        lambda: archive(_parts(data_pkl={"data": torch_parts(lora())[0].data + EVIL})),
        CORRUPT,
    ),
    "data.pkl empty": (lambda: archive(_parts(data_pkl={"data": b""})), CORRUPT),
    "data.pkl cut": (
        lambda: archive(_parts(data_pkl={"data": torch_parts(lora())[0].data[:-9]})),
        CORRUPT,
    ),
    "data.pkl of protocol 4": (
        lambda: archive(_parts(data_pkl={"data": b"\x80\4" + EVIL[2:]})),
        "lora_unsupported",
    ),
    "data.pkl of protocol 0": (
        lambda: archive(_parts(data_pkl={"data": EVIL[2:]})),
        "lora_unsupported",
    ),
}
