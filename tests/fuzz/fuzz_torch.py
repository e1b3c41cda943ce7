"""Whatever the bytes, the torch reader refuses them or finds tensors that can be converted.

Run as `python -m tests.fuzz.fuzz_torch` with libFuzzer's arguments. What begins as a bare pickle
is put into a zip, and checksums always match: no search gets past a CRC by itself.
"""

import sys
from contextlib import suppress

import atheris

with atheris.instrument_imports(include=["lora_server.formats"]):
    from lora_server.errors import FileRefused
    from lora_server.formats import torch_zip
    from lora_server.formats.convert import convert
    from lora_server.formats.torch_file import read_table

from tests.formats.torch_bytes import lora, reader, torch_parts, zip_parts
from tests.formats.zip_bytes import archive

PICKLE = b"\x80\2"
LEGACY = b"\x80\2\x8a"  # the magic number, as a long
MAX_CONVERTED_BYTES = 1 << 20  # views may repeat bytes; converting more takes time and no new path
RECORDS = {
    part.name.partition("/data/")[2]: part.data
    for part in torch_parts(lora())
    if "/data/" in part.name
}


def _matches(*_: object) -> None:
    pass


def target(data: bytes) -> None:
    """Fail on anything but a refusal or a table whose tensors lie within the file."""
    if data.startswith(PICKLE) and not data.startswith(LEGACY):
        data = archive(zip_parts(data, RECORDS))
    with suppress(FileRefused):
        table = read_table(reader(data), len(data))
        if sum(tensor.nbytes for tensor in table.tensors) <= MAX_CONVERTED_BYTES:
            convert(reader(data), table, lambda _: None)


if __name__ == "__main__":
    vars(torch_zip)["check_crc"] = _matches
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
