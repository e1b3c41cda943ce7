"""Claims about the safetensors files that conversion writes."""

import json
import struct
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load

from lora_server.errors import FileRefused
from lora_server.formats.convert import Conversion, convert
from lora_server.formats.tensor_bytes import Packer
from lora_server.formats.tensors import Tensor
from lora_server.formats.torch_file import read_table
from tests.formats.torch_bytes import (
    element_bytes,
    floats,
    held,
    lora,
    reader,
    tensor,
    tensor_v3,
    torch_legacy,
    torch_zip,
)

SIX = held(floats(0, 1, 2, 3, 4, 5))


def converted(data: bytes) -> tuple[bytes, Conversion]:
    """Return a torch file as safetensors bytes, and the report."""
    out = bytearray()
    report = convert(reader(data), read_table(reader(data), len(data)), out.extend)
    return bytes(out), report


def _header(data: bytes) -> dict[str, dict[str, str]]:
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    assert isinstance(header, dict)
    return header


def _metadata(data: bytes) -> Mapping[str, str]:
    return _header(data)["__metadata__"]


@pytest.mark.parametrize("write", [torch_zip, torch_legacy], ids=["zip", "legacy"])
def test_values_survive(write: Callable[[object], bytes]) -> None:
    """The official library reads the values that were saved."""
    out, report = converted(write(lora(rank=2, width=4)))

    found = load(out)

    assert report.size == len(out)
    assert np.array_equal(found["unet.q.lora_down.weight"], np.arange(8.0).reshape(2, 4))
    assert np.array_equal(found["unet.q.lora_up.weight"], np.arange(100.0, 108).reshape(4, 2))
    assert found["unet.q.alpha"] == 2


def test_views_are_packed_in_logical_order() -> None:
    """Transposed, sliced, repeated, scalar and empty views have their own order's values."""
    root = {
        "transposed": tensor(SIX, (3, 2), (1, 3)),
        "sliced": tensor(SIX, (2,), (3,), offset=1),
        "repeated": tensor(SIX, (2, 3), (0, 1)),
        "scalar": tensor(SIX, (), offset=5),
        "empty": tensor(SIX, (0, 4)),
    }

    out, report = converted(torch_zip(root))

    found = load(out)
    assert found["transposed"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert found["sliced"].tolist() == [1, 4]
    assert found["repeated"].tolist() == [[0, 1, 2], [0, 1, 2]]
    assert found["scalar"] == 5
    assert found["empty"].shape == (0, 4)
    assert report.unshared == ("repeated", "scalar", "sliced", "transposed")


def test_dtypes_without_numpy_are_copied_bytewise() -> None:
    """BF16 and FP8 keep their bytes and their dtype."""
    root = {
        "bf": tensor(held(b"abcdefgh", "BFloat16", "0"), (4,)),
        "f8": tensor_v3(b"xyz", (3,), "float8_e4m3fn", "1"),
    }

    out, _ = converted(torch_zip(root))

    assert {name: entry["dtype"] for name, entry in _header(out).items() if "dtype" in entry} == {
        "bf": "BF16",
        "f8": "F8_E4M3",
    }
    assert out.endswith(b"abcdefghxyz")


def test_number_alphas_become_tensors() -> None:
    """An alpha that was a Python number is an F32 scalar; other metadata stays as strings."""
    root = {
        "m.lora_up.weight": tensor(SIX, (6,)),
        "m.alpha": 16.0,
        "other.alpha": 8.0,
        "m": {"rank": 4},
        "alpha": 1,
    }

    out, report = converted(torch_zip(root))

    found = load(out)
    assert sorted(found) == ["m.alpha", "m.lora_up.weight"]
    assert (found["m.alpha"].shape, found["m.alpha"].tolist()) == ((), 16)
    assert found["m.alpha"].dtype == np.float32
    assert report.numbers == ("m.alpha",)
    assert _metadata(out) == {"alpha": "1", "format": "pt", "m.rank": "4", "other.alpha": "8.0"}


@pytest.mark.parametrize("alpha", [float("inf"), float("nan"), 1e300, "sixteen", "1_6"])
def test_alphas_that_are_no_f32_stay_strings(alpha: object) -> None:
    """What no F32 can hold is not forced into one."""
    out, report = converted(torch_zip({"m.up": tensor(SIX, (6,)), "m.alpha": alpha}))

    assert report.numbers == ()
    assert _metadata(out)["m.alpha"] == str(alpha)


def test_header_is_aligned_and_repeatable() -> None:
    """The data begins at a multiple of 8, and the same file converts to the same bytes."""
    first, _ = converted(torch_zip(lora() | {"x": "y" * 3}))
    second, _ = converted(torch_zip(lora() | {"x": "y" * 3}))

    assert first == second
    assert struct.unpack_from("<Q", first)[0] % 8 == 0


def test_growth_is_bounded() -> None:
    """Views that share a storage may double a file, and no more."""
    storage = held(bytes(8000))
    two, three = ([tensor(storage, (2000,)) for _ in range(count)] for count in (2, 3))

    assert converted(torch_zip(two))[1].size > 16_000
    with pytest.raises(FileRefused, match="2 times its size"):
        converted(torch_zip(three))


def test_scattered_tensors_cost_a_bounded_effort() -> None:
    """Packing stops where reading element by element would never end."""
    scattered = Tensor("x", "U8", (90_000,), (5000,), 0)
    packer = Packer(lambda _, nbytes: bytes(nbytes), 1 << 40, max_runs=89_999)

    with pytest.raises(FileRefused, match="too scattered"):
        sum(len(chunk) for chunk in packer.packed(scattered))


def test_overlapping_rows_cost_a_bounded_effort() -> None:
    """Packing stops where the same bytes would be fetched again and again."""
    overlapping = Tensor("x", "U8", (3000, 3000), (1000, 1001), 0)
    packer = Packer(lambda _, nbytes: bytes(nbytes), 1000, band_bytes=4096)

    with pytest.raises(FileRefused, match="too scattered"):
        sum(len(chunk) for chunk in packer.packed(overlapping))


@settings(max_examples=150, deadline=2000)
@given(
    axes=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 30)), max_size=4),
    itemsize=st.sampled_from([1, 2, 4, 8]),
    band_bytes=st.sampled_from([8, 64, 1024]),
)
def test_packing_follows_the_strides(
    axes: list[tuple[int, int]], itemsize: int, band_bytes: int
) -> None:
    """Whatever the strides and the size of a band, elements come out in logical order."""
    dtype = {1: "U8", 2: "I16", 4: "F32", 8: "F64"}[itemsize]
    shape, stride = tuple(size for size, _ in axes), tuple(step for _, step in axes)
    data = bytes(index * 7 % 251 for index in range(500 * itemsize))
    strided = Tensor("x", dtype, shape, stride, begin=itemsize)

    packed = b"".join(Packer(reader(data), 500, band_bytes=band_bytes).packed(strided))

    assert packed == b"".join(element_bytes(data, strided, itemsize))
