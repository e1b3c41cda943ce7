"""Claims about unusual files that are honest and must come in."""

import struct
from collections.abc import Callable

import pytest

from lora_server.formats.tensors import Container
from lora_server.formats.torch_file import read_checkpoint, read_table
from tests.formats.pickle_bytes import Built, Call, Held, Name, Raw, ordered
from tests.formats.torch_bytes import (
    REBUILD_PARAMETER,
    REBUILD_V3,
    UNTYPED,
    element_bytes,
    floats,
    held,
    lora,
    reader,
    tensor,
    tensor_v3,
    torch_legacy,
    torch_parts,
    torch_zip,
)
from tests.formats.zip_bytes import End, Part, archive

BOTH = pytest.mark.parametrize("write", [torch_zip, torch_legacy], ids=["zip", "legacy"])
Write = Callable[[object], bytes]

SIX = held(floats(0, 1, 2, 3, 4, 5))


def _names(data: bytes) -> list[str]:
    return [found.name for found in read_table(reader(data), len(data)).tensors]


def test_containers_are_told_apart() -> None:
    """A table says which of the two formats it came from, and the size of the file."""
    found = read_table(reader(torch_zip(lora())), len(torch_zip(lora())))
    legacy = read_table(reader(torch_legacy(lora())), len(torch_legacy(lora())))

    assert (found.container, legacy.container) == (Container.TORCH_ZIP, Container.TORCH_LEGACY)
    assert (found.expected_size, found.data_begin) == (len(torch_zip(lora())), 0)


@BOTH
def test_values_lie_where_the_table_says(write: Write) -> None:
    """Each element's bytes are found by begin and stride alone."""
    data = write(lora(rank=2, width=4))

    down, up, alpha = read_table(reader(data), len(data)).tensors

    assert b"".join(element_bytes(data, down, 4)) == floats(*range(8))
    assert b"".join(element_bytes(data, up, 4)) == floats(*range(100, 108))
    assert b"".join(element_bytes(data, alpha, 4)) == floats(2)
    assert (down.shape, up.shape, alpha.shape) == ((2, 4), (4, 2), ())


@BOTH
@pytest.mark.parametrize(
    ("kind", "dtype", "itemsize"),
    [
        ("Float", "F32", 4),
        ("Half", "F16", 2),
        ("BFloat16", "BF16", 2),
        ("Double", "F64", 8),
        ("Long", "I64", 8),
        ("Int", "I32", 4),
        ("Short", "I16", 2),
        ("Char", "I8", 1),
        ("Byte", "U8", 1),
        ("Bool", "BOOL", 1),
    ],
)
def test_storage_classes_give_the_dtype(write: Write, kind: str, dtype: str, itemsize: int) -> None:
    """Every typed storage has its safetensors dtype."""
    data = write({"x": tensor(held(bytes(3 * itemsize), kind), (3,))})

    (found,) = read_table(reader(data), len(data)).tensors

    assert (found.dtype, found.nbytes) == (dtype, 3 * itemsize)


@BOTH
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("float8_e4m3fn", "F8_E4M3"),
        ("float8_e5m2", "F8_E5M2"),
        ("float8_e4m3fnuz", "F8_E4M3FNUZ"),
        ("float8_e5m2fnuz", "F8_E5M2FNUZ"),
        ("uint16", "U16"),
        ("uint32", "U32"),
        ("uint64", "U64"),
        ("bfloat16", "BF16"),
    ],
)
def test_untyped_storages_take_the_dtype_of_the_call(write: Write, name: str, dtype: str) -> None:
    """A v3 rebuild names its dtype itself, as torch writes fp8 and unsigned integers."""
    data = write({"x": tensor_v3(bytes(8), (1,), name)})

    (found,) = read_table(reader(data), len(data)).tensors

    assert found.dtype == dtype


@BOTH
def test_shapes_at_the_edges(write: Write) -> None:
    """Scalars, empty tensors, slices, transposes, offsets and repeats of a row are kept."""
    root = {
        "scalar": tensor(SIX, (), offset=5),
        "empty": tensor(held(b"", key="1"), (0, 3)),
        "empty slice": tensor(SIX, (0, 3), offset=9),
        "transposed": tensor(SIX, (3, 2), (1, 3)),
        "sliced": tensor(SIX, (2,), (3,), offset=1),
        "repeated": tensor(SIX, (3, 2), (0, 1)),
    }
    data = write(root)

    found = {item.name: item for item in read_table(reader(data), len(data)).tensors}

    values = {name: element_bytes(data, item, 4) for name, item in found.items()}
    assert list(found) == list(root)
    assert b"".join(values["scalar"]) == floats(5)
    assert values["empty"] == values["empty slice"] == []
    assert b"".join(values["transposed"]) == floats(0, 3, 1, 4, 2, 5)
    assert b"".join(values["sliced"]) == floats(1, 4)
    assert b"".join(values["repeated"]) == floats(0, 1, 0, 1, 0, 1)


@BOTH
def test_lightning_wrapper_gives_its_state_dict(write: Write) -> None:
    """Of a training checkpoint the state dict is read; the rest is named as left out."""
    step = tensor(held(floats(9), key="9"), ())
    root = {
        "epoch": 3,
        "pytorch-lightning_version": "2.1.0",
        "state_dict": Built(ordered(lora()), {"_metadata": ordered()}),
        "optimizer_states": [{"state": {0: {"step": step}}, "param_groups": [{"lr": 0.5}]}],
    }
    data = write(root)

    found = read_checkpoint(reader(data), len(data))

    assert _names(data) == list(lora())
    assert found.left_out == ("optimizer_states.0.state.0.step",)
    assert found.table.metadata == {
        "epoch": "3",
        "pytorch-lightning_version": "2.1.0",
        "optimizer_states.0.param_groups.0.lr": "0.5",
    }


@BOTH
def test_numbers_and_strings_are_kept(write: Write) -> None:
    """Python numbers and strings in dictionaries become metadata under their dotted paths."""
    root = lora() | {
        "a": {"alpha": 16.0, "rank": 1 << 40, "note": "ü", "yes": True, "none": None},
        "list": ["x", 1],
        "size": Call(Name("torch", "Size"), ((1, 2),)),
        "device": Call(Name("torch", "device"), ("cuda", 0)),
        "dtype": Name("torch", "float16"),
        "short": Raw(b"U\x02hi"),
        "less": -5,
    }
    data = write(root)

    found = read_table(reader(data), len(data))

    assert found.metadata == {
        "a.alpha": "16.0",
        "a.rank": str(1 << 40),
        "a.note": "ü",
        "short": "hi",
        "less": "-5",
    }


@BOTH
def test_lists_and_integers_name_tensors(write: Write) -> None:
    """A list's tensors are named by position, an integer key by its digits."""
    one = tensor(SIX, (6,))

    assert _names(write([one, [one], {7: one}])) == ["0", "1.0", "2.7"]


@BOTH
def test_parameters_are_plain_tensors(write: Write) -> None:
    """A Parameter is its tensor."""
    data = write({"p": Call(REBUILD_PARAMETER, (tensor(SIX, (6,)), True, ordered()))})

    assert _names(data) == ["p"]


@BOTH
def test_unicode_names_are_names(write: Write) -> None:
    """Tensor names may be in any script."""
    assert _names(write({"层.größe": tensor(SIX, (6,))})) == ["层.größe"]


@BOTH
def test_one_storage_may_serve_many(write: Write) -> None:
    """Tied weights are one storage with several views, and one value under two names."""
    tied = tensor(SIX, (6,))

    assert _names(write({"a": tied, "b": tied, "c": tensor(SIX, (3,))})) == ["a", "b", "c"]


@pytest.mark.parametrize("folder", ["my lora (1)", "v1.0-rc", "größe", "a" * 200])
def test_folders_follow_file_names(folder: str) -> None:
    """The writer names the top folder after the file, so it may be any plain name."""
    assert len(_names(archive(torch_parts(lora(), folder)))) == 3


def test_archives_without_zip64_records() -> None:
    """Older torch and other writers leave the zip64 end records out."""
    assert len(_names(archive(torch_parts(lora()), End(zip64=False)))) == 3


def test_archives_of_old_torch() -> None:
    """The notes that newer torch adds may be missing."""
    parts = [part for part in torch_parts(lora()) if "byteorder" not in part.name]
    parts = [part for part in parts if "/." not in part.name]

    assert len(_names(archive(parts))) == 3


def test_sizes_before_the_data() -> None:
    """A writer that knows sizes and checksums beforehand needs no descriptor."""
    parts = [
        Part(
            part.name,
            part.data,
            flags=0,
            local_crc=part.real_crc,
            local_sizes=(len(part.data), len(part.data)),
        )
        for part in torch_parts(lora())
    ]

    assert len(_names(archive(parts))) == 3


def test_zip64_sizes_before_small_data() -> None:
    """A local header may give its sizes in a zip64 field, as streaming writers do."""
    extra = b"\1\0\x10\0" + struct.pack("<2Q", 16, 16)
    part = Part("archive/data/0", bytes(16), flags=0, local_extra=extra)
    part = Part(
        part.name,
        part.data,
        flags=0,
        local_extra=extra,
        local_crc=part.real_crc,
        local_sizes=(0xFFFFFFFF, 0xFFFFFFFF),
    )
    parts = torch_parts({"x": tensor(held(bytes(16)), (4,))})
    parts = [part if item.name == part.name else item for item in parts]

    assert _names(archive(parts)) == ["x"]


def test_untyped_storage_shared_by_two_dtypes() -> None:
    """Two v3 views of one untyped storage may differ in dtype."""
    storage = Held(bytes(8), UNTYPED, 8, "0")
    root = {
        dtype: Call(REBUILD_V3, (storage, 0, (1,), (1,), False, ordered(), Name("torch", dtype)))
        for dtype in ("uint64", "uint32")
    }

    assert _names(torch_zip(root)) == ["uint64", "uint32"]
