"""Claims checked against torch itself: its files, its values, its readings."""

import io
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from lora_server.errors import FileRefused
from lora_server.formats.convert import convert
from lora_server.formats.tensors import DTYPE_BITS
from lora_server.formats.torch_file import read_checkpoint, read_table
from tests.formats.torch_bytes import (
    element_bytes,
    lora,
    reader,
    tensor_v3,
    torch_legacy,
    torch_zip,
)

torch: Any = pytest.importorskip(
    "torch",
    reason="torch is not installed: values are compared with torch's own only where it is",
)

ZIP = pytest.param(True, id="zip")
LEGACY = pytest.param(False, id="legacy")
BOTH = pytest.mark.parametrize("as_zip", [ZIP, LEGACY])


def saved(value: object, *, as_zip: bool, protocol: int = 2) -> bytes:
    """Return what torch.save writes."""
    out = io.BytesIO()
    torch.save(value, out, pickle_protocol=protocol, _use_new_zipfile_serialization=as_zip)
    return out.getvalue()


def packed(value: Any) -> bytes:
    """Return torch's own bytes of a tensor, in logical order."""
    flat = value.detach().contiguous().flatten()
    return bytes(flat.view(torch.uint8).tolist()) if flat.numel() else b""


def state() -> Mapping[str, Any]:
    """Return tensors of every kind that a LoRA file has been seen to hold."""
    torch.manual_seed(0)
    base = torch.randn(5, 6, 7)
    dtypes = "float64 float16 bfloat16 int64 int32 int16 int8 uint8 bool uint16 uint32 uint64"
    fp8 = "float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz"
    kinds = {name: getattr(torch, name) for name in f"{dtypes} {fp8}".split()}
    return {
        **{name: torch.randn(3, 4).abs().to(kind) for name, kind in kinds.items()},
        "plain": base,
        "transposed": base.permute(2, 0, 1),
        "sliced": base[1::2, :, ::3],
        "diagonal": base[0].diagonal(),
        "row twice": base[0, 0].expand(2, 7),
        "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "scalar": torch.tensor(4.0),
        "empty": torch.zeros(0, 3),
        "empty slice": base[5:, 6:],
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "größe.层": torch.ones(2),
    }


@BOTH
def test_tables_have_the_values_of_torch(*, as_zip: bool) -> None:
    """Every tensor's bytes, gathered by its strides, are torch's own."""
    expected = state()
    data = saved(expected, as_zip=as_zip)

    tensors = read_table(reader(data), len(data)).tensors

    assert [found.name for found in tensors] == list(expected)
    for found in tensors:
        itemsize = DTYPE_BITS[found.dtype] // 8
        assert b"".join(element_bytes(data, found, itemsize)) == packed(expected[found.name])
        assert found.shape == tuple(expected[found.name].shape)


@BOTH
def test_conversion_has_the_values_of_torch(*, as_zip: bool) -> None:
    """The official library gives back, from the converted file, what was saved."""
    load: Callable[[bytes], Mapping[str, Any]] = pytest.importorskip("safetensors.torch").load
    expected = state()
    data = saved(expected, as_zip=as_zip)
    out = bytearray()

    convert(reader(data), read_table(reader(data), len(data)), out.extend)

    found = load(bytes(out))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert packed(found[name]) == packed(value)


@BOTH
def test_modules_give_their_state_dict(*, as_zip: bool) -> None:
    """A module's own state dict, with its version metadata, comes in."""
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    root = {
        "state_dict": module.state_dict(),
        "optimizer": torch.optim.AdamW(module.parameters()).state_dict(),
    }
    data = saved(root, as_zip=as_zip)

    found = read_checkpoint(reader(data), len(data)).table

    assert [item.name for item in found.tensors] == list(module.state_dict())


@BOTH
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_other_protocols_are_refused(protocol: int, *, as_zip: bool) -> None:
    """Of torch.save's protocols only its default is read, and the reason says so."""
    data = saved({"x": torch.ones(2)}, as_zip=as_zip, protocol=protocol)

    with pytest.raises(FileRefused, match="protocol 2"):
        read_table(reader(data), len(data))


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        pytest.param(lambda: torch.ones(2, dtype=torch.complex64), "Complex", id="complex"),
        pytest.param(lambda: torch.eye(3).to_sparse(), "sparse", id="sparse"),
        pytest.param(
            lambda: torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8),
            "QInt8Storage|qtensor",
            id="quantised",
            marks=pytest.mark.filterwarnings("ignore"),
        ),
        pytest.param(lambda: torch.nn.Linear(1, 1), "Linear|NEWOBJ|_reconstructor", id="module"),
    ],
)
def test_honest_files_beyond_the_rules(value: Callable[[], object], hint: str) -> None:
    """What is honest but not readable here is refused by the name of what stands in the way."""
    data = saved({"x": value()}, as_zip=True)

    with pytest.raises(FileRefused, match=hint) as refusal:
        read_table(reader(data), len(data))
    assert refusal.value.code == "lora_unsafe_pickle"


@pytest.mark.parametrize("write", [torch_zip, torch_legacy], ids=["zip", "legacy"])
def test_torch_reads_what_the_tests_write(write: Callable[[object], bytes]) -> None:
    """The files that the other tests are made of are files of torch."""
    root = lora() | {"rank": 4}
    if (
        write is torch_zip
    ):  # torch writes untyped storages in its legacy format but cannot read them
        root["f8"] = tensor_v3(b"abc", (3,), "float8_e4m3fn", "9")
    data = write(root)

    found = torch.load(io.BytesIO(data), weights_only=True)

    assert list(found) == list(root)
    assert found["unet.q.lora_down.weight"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert found["rank"] == 4


def test_bare_pickles_of_tensors_are_refused() -> None:
    """A pickle outside torch's containers is refused however harmless."""
    data = pickle.dumps(torch.ones(2), protocol=2)

    with pytest.raises(FileRefused, match="bare pickle"):
        read_table(reader(data), len(data))
