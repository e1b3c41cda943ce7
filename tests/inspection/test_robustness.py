"""No file makes inspection fail otherwise than by refusing, nor take long."""

import json
import struct
import time
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from lora_server.errors import FileRefused
from lora_server.formats.tensors import DTYPE_BITS, Container, Tensor, TensorTable
from lora_server.inspection import Inspection, inspect
from lora_server.inspection.bases import CUSTOM
from lora_server.inspection.families import RULES
from lora_server.inspection.suffixes import LEAVES, NAMED, PAIRS
from tests.adapters import (
    STYLES,
    Named,
    adapter_tensors,
    held,
    lora_tensors,
    write_safetensors,
)
from tests.inspection.test_bases import CERTAIN
from tests.layouts import layers_of

REFUSALS = {"lora_not_an_adapter", "lora_incomplete", "lora_shape_mismatch"}
SUFFIXES = [
    *LEAVES,
    *(f"{stem}.{last}" for last, stems in PAIRS.items() for stem in stems),
    *(f"{stem}.default.weight" for stem in NAMED),
    *("to_q_lora.down.weight", "lora.up.weight", "weight", "bias", "foo.scale", "vera_lambda_b"),
]
KEYS = [
    *("modelspec.architecture", "modelspec.trigger_phrase", "modelspec.hash_sha256"),
    *("ss_base_model_version", "ss_network_dim", "ss_datasets", "ss_dataset_dirs", "ss_v2"),
    *("ss_tag_frequency", "lora_adapter_metadata", "ot_config", "software", "sshs_model_hash"),
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["10_x", "subsets", "class_tokens", "img_count", "r", "lora_alpha"])
            | st.text(max_size=6),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
any_text = st.text(st.characters(), max_size=30)
metadata = st.dictionaries(
    st.sampled_from(KEYS) | any_text, any_text | json_values.map(json.dumps), max_size=8
)
paths = st.sampled_from(
    [name.rpartition(".")[0] for layout in ("sdxl-te", "flux", "wan-5b", "sd1")
     for name, _, _ in adapter_tensors(layout)[:40]]
) | any_text  # fmt: skip
names = st.builds("{}.{}".format, paths, st.sampled_from(SUFFIXES)) | any_text
shapes = st.lists(
    st.sampled_from([0, 1, 2, 4, 320, 768, 3072]) | st.integers(0, 2**40), max_size=5
).map(tuple)
tensors = st.builds(Tensor, names, st.sampled_from([*DTYPE_BITS]), shapes, st.just(()), st.just(0))
tables = st.builds(
    TensorTable,
    st.sampled_from(Container),
    st.lists(tensors, max_size=12).map(tuple),
    metadata,
    st.just(0),
    st.just(0),
)


def outcome(table: TensorTable, raw: bytes) -> Inspection | FileRefused:
    """Return the inspection or the refusal; nothing else is caught."""
    try:
        return inspect(table, read=lambda _offset, nbytes: raw[:nbytes])
    except FileRefused as refused:
        return refused


@settings(max_examples=400, deadline=None)
@given(table=tables, raw=st.binary(min_size=8, max_size=8))
def test_anything_is_inspected_or_refused(table: TensorTable, raw: bytes) -> None:
    """Arbitrary names, shapes, alphas and metadata end in a refusal or in what JSON can hold."""
    found = outcome(table, raw)

    if isinstance(found, FileRefused):
        assert found.code in REFUSALS
        assert len(found.reason) < 1000
        return
    sent = json.dumps(found.to_json(), allow_nan=False, ensure_ascii=False).encode()
    assert json.loads(sent) == found.to_json()


@settings(max_examples=300, deadline=None)
@given(
    known=st.sampled_from(CERTAIN),
    style=st.sampled_from([*STYLES]),
    first=st.integers(0, 30),
    step=st.integers(1, 40),
)
def test_any_part_of_an_adapter_may_be_its_base(
    known: tuple[str, str, tuple[str, ...]], style: str, first: int, step: int
) -> None:
    """Whatever modules a trainer leaves out, the true base is never excluded."""
    layout, name, _ = known
    layers = layers_of(layout)
    chosen = layers[first % len(layers) :: step]
    table, read = held(lora_tensors(chosen, style=style, rank=2))
    inspection = inspect(table, read=read)

    assert inspection.adapter.module_count == len(chosen)
    assert name in inspection.base_model.candidates or not inspection.base_model.evidence


def names_of(count: int) -> list[Named]:
    """Return an adapter of so many tensors, each module in another block."""
    return [
        (
            f"lora_unet_input_blocks_{number}_1_transformer_blocks_0_attn2_to_k.{suffix}",
            "F16",
            shape,
        )
        for number in range(count // 2)
        for suffix, shape in (("lora_down.weight", (4, 2048)), ("lora_up.weight", (640, 4)))
    ]


def seconds(table_of: list[Named]) -> float:
    """Return the processor time of an inspection, which other programs do not lengthen much."""
    table, read = held(table_of)
    begin = time.process_time()
    inspect(table, read=read)
    return time.process_time() - begin


def test_a_hundred_thousand_tensors_are_quick() -> None:
    """A hostile header buys no time; the bound is generous for a loaded machine."""
    assert seconds(names_of(100_000)) < 2


def test_a_file_of_sdxls_size_is_quick() -> None:
    """Ten thousand files must be read at start; the best of five is what a quiet machine does."""
    whole = adapter_tensors("sdxl")

    assert min(seconds(whole) for _ in range(5)) < 0.02


def test_a_written_file_is_whole(tmp_path: Path) -> None:
    """The builder's files have a header that covers their bytes, finite weights and true alphas."""
    path = write_safetensors(tmp_path / "a.safetensors", adapter_tensors("sd1", rank=4), seed=7)
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    down = next(entry for name, entry in header.items() if name.endswith("lora_down.weight"))
    alpha = next(entry for name, entry in header.items() if name.endswith(".alpha"))
    begin, end = (8 + length + offset for offset in down["data_offsets"])
    weights = struct.unpack(f"<{(end - begin) // 2}e", raw[begin:end])

    assert max(end for *_, end in (entry["data_offsets"] for entry in header.values())) == (
        len(raw) - 8 - length
    )
    assert max(map(abs, weights)) < 1
    assert struct.unpack_from("<e", raw, 8 + length + alpha["data_offsets"][0]) == (8.0,)


def test_every_rule_can_be_met() -> None:
    """A family's needs are among its marks, and custom picks from its own candidates."""
    assert all(need <= rule.marks for rule in RULES for need in rule.needs)
    assert all(base in candidates for candidates, base in CUSTOM.items())
