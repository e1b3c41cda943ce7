"""Claims about damaged files: they are read or refused, and nothing else."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_server.errors import FileRefused
from lora_server.formats.convert import convert
from lora_server.formats.tensors import TensorTable
from lora_server.formats.torch_file import read_table
from tests.formats.pickle_bytes import Built, ordered
from tests.formats.torch_bytes import held, lora, reader, tensor, tensor_v3, torch_legacy, torch_zip

ROOT = {
    "epoch": 3,
    "state_dict": Built(ordered(lora()), {"_metadata": ordered()}),
    "list": [1.5, "x", tensor(held(bytes(24), "Int", "8"), (3, 2), (1, 3))],
    "fp8": tensor_v3(b"abc", (3,), "float8_e5m2", "9"),
}
FILES = {"zip": torch_zip(ROOT), "legacy": torch_legacy(ROOT)}


def _judge(data: bytes) -> TensorTable | None:
    """Read and convert; a refusal is an answer, anything else raised is not."""
    with contextlib.suppress(FileRefused):
        table = read_table(reader(data), len(data))
        convert(reader(data), table, lambda _: None)
        return table
    return None


@pytest.mark.parametrize("name", FILES)
def test_every_byte_may_be_damaged(name: str) -> None:
    """Whichever single byte is inverted or zeroed, the answer is a table or a refusal."""
    whole = FILES[name]

    for at, byte in enumerate(whole):
        for new in {byte ^ 0xFF, byte ^ 1, 0} - {byte}:
            _judge(whole[:at] + bytes([new]) + whole[at + 1 :])


@pytest.mark.parametrize("name", FILES)
def test_every_prefix_is_refused(name: str) -> None:
    """A file cut anywhere is refused."""
    whole = FILES[name]

    assert _judge(whole)
    assert not any(_judge(whole[:length]) for length in range(len(whole)))


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=400, deadline=2000)
@given(
    edits=st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 8), st.binary(max_size=8)), min_size=1, max_size=6
    )
)
def test_random_edits(name: str, edits: list[tuple[float, int, bytes]]) -> None:
    """Bytes cut out and put in anywhere raise nothing but a refusal, soon."""
    data = FILES[name]
    for where, cut, new in edits:
        at = int(where * len(data))
        data = data[:at] + new + data[at + cut :]

    _judge(data)


@settings(max_examples=1000, deadline=2000)
@given(
    code=st.lists(
        st.sampled_from(
            [bytes([opcode]) for opcode in b"().]}tNQRbaesu\x85\x86\x87\x88"]
            + [b"K\1", b"h\0", b"h\1", b"q\0", b"q\1", b"X\1\0\0\0a", b"U\1b", b"J\xff\xff\xff\xff"]
            + [b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n"]
            + [b"ctorch\nFloatStorage\n", b"ctorch\nSize\n", b"X\7\0\0\0storage"]
        ),
        max_size=40,
    )
)
def test_random_programs(code: list[bytes]) -> None:
    """Any sequence of allowed opcodes is read or refused."""
    legacy = torch_legacy(lora(), changes={"object": b"\x80\2" + b"".join(code) + b"."})

    _judge(legacy)
