"""Claims about the header reader, on the bytes alone."""

import json

import pytest

from lora_server.errors import FileRefused
from lora_server.formats.safetensors import (
    LENGTH_BYTES,
    header_size,
    read_table,
    refuse_wrong_size,
)
from lora_server.formats.tensors import Container, Tensor, TensorTable
from tests.formats.safetensors_files import encoded, entry, many


def table(*entries: tuple[str, object]) -> TensorTable:
    """Read a header of these entries."""
    return read_table(encoded(dict(entries)))


def code_of(header: bytes, **limits: int) -> str:
    """Return the code that `header` is refused with."""
    with pytest.raises(FileRefused) as refusal:
        read_table(header, **limits)
    return refusal.value.code


def test_a_table_says_where_each_tensor_lies() -> None:
    """Tensors come in file order, with offsets in the file and strides in elements."""
    header = encoded(
        {
            "up": entry((3, 2, 1), 4, 28, "F32"),
            "__metadata__": {"format": "pt"},
            "down": entry((), 0, 4, "F32"),
        }
    )
    begin = LENGTH_BYTES + len(header)

    assert read_table(header) == TensorTable(
        container=Container.SAFETENSORS,
        tensors=(
            Tensor("down", "F32", (), (), begin),
            Tensor("up", "F32", (3, 2, 1), (2, 1, 1), begin + 4),
        ),
        metadata={"format": "pt"},
        data_begin=begin,
        expected_size=begin + 28,
    )


def test_empty_tensors_share_a_place() -> None:
    """An empty tensor may lie before, between and after others."""
    read = table(
        ("after", entry((0,), 4, 4)),
        ("full", entry((2,), 0, 4)),
        ("before", entry((0,), 0, 0)),
    )

    assert [tensor.name for tensor in read.tensors] == ["before", "full", "after"]


@pytest.mark.parametrize(("size", "code"), [(9, "lora_truncated"), (11, "lora_trailing_bytes")])
def test_the_size_has_to_be_exact(size: int, code: str) -> None:
    """One byte less or more than the header says is refused, and which it was is told."""
    read = TensorTable(Container.SAFETENSORS, (), {}, 8, 10)
    refuse_wrong_size(read, 10)

    with pytest.raises(FileRefused) as refusal:
        refuse_wrong_size(read, size)
    assert refusal.value.code == code


def test_the_header_cap_is_exact() -> None:
    """A header as long as the cap passes; one byte more does not."""
    assert header_size((1000).to_bytes(8, "little"), max_header_size=1000) == 1000

    with pytest.raises(FileRefused, match="claims 1001 bytes") as refusal:
        header_size((1001).to_bytes(8, "little"), max_header_size=1000)
    assert refusal.value.code == "lora_header_too_large"


@pytest.mark.parametrize(("size", "code"), [(0, "lora_empty"), (7, "lora_truncated")])
def test_a_length_takes_eight_bytes(size: int, code: str) -> None:
    """A file without its first eight bytes is refused before anything is read."""
    with pytest.raises(FileRefused) as refusal:
        header_size(bytes(size))

    assert refusal.value.code == code


def test_the_tensor_cap_is_exact() -> None:
    """As many tensors as the cap pass, with metadata besides; one more does not."""
    fields = {str(at): entry((0,), 0, 0) for at in range(5)}
    header = encoded({"__metadata__": {"a": "b"}, **fields})

    assert len(read_table(header, max_tensors=5).tensors) == 5
    assert code_of(header, max_tensors=4) == "lora_too_many_tensors"


@pytest.mark.parametrize("offset", ["999999999999998", "1000000000000000"])
def test_numbers_have_fifteen_digits(offset: str) -> None:
    """Fifteen digits are read as a number; sixteen are refused unread."""
    fields = f'{{"dtype":"U8","shape":[{offset}],"data_offsets":[0,{offset}]}}'
    header = f'{{"a":{fields}}}'.encode()

    if len(offset) > 15:
        assert code_of(header) == "lora_corrupt"
    else:
        assert read_table(header).tensors[0].nbytes == int(offset)


@pytest.mark.parametrize("zeroless", [(2**40, 2**19, 0), (2**40, 2**20, 0)])
def test_a_zero_hides_no_overflow(zeroless: tuple[int, ...]) -> None:
    """An empty tensor's other dimensions still have to multiply, as bits, within 63 bits."""
    header = encoded({"a": entry(zeroless, 0, 0, "U8")})

    if 2**20 in zeroless:
        assert code_of(header) == "lora_corrupt"
    else:
        assert read_table(header).tensors[0].nbytes == 0


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(encoded({"\x1b]0;" + "é" * 5000: {}}), id="long hostile name"),
        pytest.param(encoded({"a": entry(dtype="\U0001f999" * 5000)}), id="long hostile dtype"),
        pytest.param(b'{"a":' + b"9" * 5000 + b"}", id="long number"),
        pytest.param(json.dumps({"a": "b"}).encode() * 900, id="much after the end"),
        pytest.param(b'{"' + b"k" * 5000 + b'":1,"' + b"k" * 5000 + b'":1}', id="duplicate"),
    ],
)
def test_a_refusal_quotes_little_and_safely(header: bytes) -> None:
    """A message is short printable ASCII, whatever the file holds."""
    with pytest.raises(FileRefused) as refusal:
        read_table(header)

    assert len(refusal.value.reason) < 250
    assert refusal.value.reason.isascii()
    assert refusal.value.reason.isprintable()


def test_many_tensors_are_read() -> None:
    """A header of 50,000 tensors is an ordinary one."""
    file = many(50_000)
    size = header_size(file)

    assert len(read_table(file[LENGTH_BYTES : LENGTH_BYTES + size]).tensors) == 50_000
