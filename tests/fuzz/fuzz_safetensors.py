"""Whatever the bytes, the safetensors reader refuses them or agrees with the official library.

Run as `python -m tests.fuzz.fuzz_safetensors` with libFuzzer's arguments. What begins as JSON
does is taken for a header, and gets the length before it and the bytes behind it that it needs.
"""

import sys
from contextlib import suppress

import atheris

with atheris.instrument_imports(include=["lora_server.formats"]):
    from lora_server.errors import FileRefused
    from lora_server.formats import polyglot, safetensors
    from lora_server.formats.sniff import SNIFF_BYTES, sniff
    from lora_server.formats.tensors import TensorTable

from safetensors import deserialize

MAX_DATA_BYTES = 1 << 16  # behind a header that gets its bytes made
# They differ from place to place, so that a tensor read elsewhere is seen.
DISTINCT = bytes(at % 251 for at in range(MAX_DATA_BYTES))


def whole(data: bytes) -> bytes:
    """Make a file of what is only a header; raises FileRefused."""
    if not data.startswith(b"{"):
        return data
    table = safetensors.read_table(data)
    behind = min(table.expected_size - table.data_begin, MAX_DATA_BYTES)
    return len(data).to_bytes(safetensors.LENGTH_BYTES, "little") + data + DISTINCT[:behind]


def read(data: bytes) -> TensorTable:
    """Read a whole file, by the same steps as the judge; raises FileRefused."""
    sniff(data[:SNIFF_BYTES])
    size = safetensors.header_size(data[: polyglot.TAR_BLOCK_BYTES])
    header = data[safetensors.LENGTH_BYTES :][:size]
    if len(header) < size:
        raise FileRefused("lora_truncated", "the header is cut")
    table = safetensors.read_table(header)
    safetensors.refuse_wrong_size(table, len(data))
    polyglot.refuse_zip_tail(data[-polyglot.ZIP_TAIL_BYTES :], file_size=len(data))
    return table


def target(data: bytes) -> None:
    """Fail on anything but a refusal, or a table that the official library reads alike."""
    with suppress(FileRefused):
        data = whole(data)
        table = read(data)
        official = {
            name: (view["dtype"], view["shape"], bytes(view["data"]))
            for name, view in deserialize(data)  # type: ignore[no-untyped-call]
        }
        ours = {
            t.name: (t.dtype, list(t.shape), data[t.begin : t.begin + t.nbytes])
            for t in table.tensors
        }
        if ours != official:
            raise AssertionError(f"{ours} is not {official}")


if __name__ == "__main__":
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
