"""Rank and widths of a module from the shapes of its parts; disagreeing halves refused.

The rank of each family comes from the tensor that the loaders take it from.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, NoReturn

from lora_server.errors import FileRefused
from lora_server.formats.tensors import Tensor
from lora_server.inspection.families import Family, Rule
from lora_server.inspection.metadata import text

Parts = Mapping[str, Tensor]
Shape = tuple[int, ...]

CONV_DIMS = 4
MATRIX_DIMS = 2
BOFT_DIMS = 4


class Geometry(NamedTuple):
    """A module's rank, input and output width and kernel; None where shapes cannot tell."""

    rank: int | None
    inner: int | None
    outer: int | None
    dims: int  # of the adapted weight: 4 is a convolution


NOTHING = Geometry(None, None, None, 0)


def _refuse(path: str, *shapes: Shape) -> NoReturn:
    listed = " and ".join(str(list(shape)) for shape in shapes)
    raise FileRefused(
        "lora_shape_mismatch",
        f"{text(path, max_chars=200)}: shapes {listed[:300]} share no rank above 0",
    )


def _lora(path: str, parts: Parts, rule: Rule) -> Geometry:
    down, up = parts[rule.down].shape, parts[rule.up].shape
    if len(down) < MATRIX_DIMS or len(up) < MATRIX_DIMS or down[0] != up[1] or not down[0]:
        _refuse(path, down, up)
    if "lora_mid" in parts:
        return _tucker(path, parts["lora_mid"].shape, down, up)
    return Geometry(down[0], down[1], up[0], len(down))


def _tucker(path: str, mid: Shape, down: Shape, up: Shape) -> Geometry:
    if len(mid) < MATRIX_DIMS or mid[:2] != (down[0], down[0]):
        _refuse(path, down, mid, up)
    return Geometry(down[0], down[1], up[0], len(mid))


def _loha(path: str, parts: Parts, _rule: Rule) -> Geometry:
    first, second = parts["hada_w1_a"].shape, parts["hada_w1_b"].shape
    pairs = ((first, second), (parts["hada_w2_a"].shape, parts["hada_w2_b"].shape))
    core = parts.get("hada_t1")
    # With a core tensor both factors put the rank first, so a is (rank, out).
    axis = 1 if core is None else 0
    for a, b in pairs:
        if len(a) != MATRIX_DIMS or len(b) != MATRIX_DIMS or a[axis] != b[0] or not b[0]:
            _refuse(path, a, b)
    dims = MATRIX_DIMS if core is None else len(core.shape)
    return Geometry(second[0], second[1], first[1 - axis], dims)


def _lokr(path: str, parts: Parts, _rule: Rule) -> Geometry:
    rank1, in1, out1, _ = _factor(path, parts, "lokr_w1")
    rank2, in2, out2, dims = _factor(path, parts, "lokr_w2")
    return Geometry(rank2 or rank1, in1 * in2, out1 * out2, dims)


def _factor(path: str, parts: Parts, name: str) -> tuple[int | None, int, int, int]:
    """Return rank (None for a full factor), input, output and dimensions of one factor."""
    if name in parts:
        shape = parts[name].shape
        if len(shape) < MATRIX_DIMS:
            _refuse(path, shape)
        return None, shape[1], shape[0], len(shape)
    core = parts.get("lokr_t2") if name == "lokr_w2" else None
    axis = 1 if core is None else 0
    a, b = parts[f"{name}_a"].shape, parts[f"{name}_b"].shape
    if len(a) < MATRIX_DIMS or len(b) < MATRIX_DIMS or a[axis] != b[0] or not b[0]:
        _refuse(path, a, b)
    return b[0], b[1], a[1 - axis], MATRIX_DIMS if core is None else len(core.shape)


def _glora(path: str, parts: Parts, _rule: Rule) -> Geometry:
    first, second = parts["glora_b1"].shape, parts["glora_b2"].shape
    if len(first) < MATRIX_DIMS or len(second) < MATRIX_DIMS:
        _refuse(path, first, second)
    # Two layouts exist, and each reads the product the other way round.
    if first[0] == second[1]:
        rank = first[0]
    elif first[1] == second[0]:
        rank = first[1]
    else:
        _refuse(path, first, second)
    if not rank:
        _refuse(path, first, second)
    return Geometry(rank, None, None, len(first))


def _blocks(path: str, parts: Parts, _rule: Rule) -> Geometry:
    shapes = [tensor.shape for part, tensor in parts.items() if part.startswith("oft_blocks")]
    for shape in shapes:
        if len(shape) < MATRIX_DIMS or shape[-1] != shape[-2]:
            _refuse(path, shape)
    if any(len(shape) == MATRIX_DIMS for shape in shapes):
        return NOTHING
    return Geometry(None, None, sum(shape[-1] * shape[-3] for shape in shapes), 0)


def _full(_path: str, parts: Parts, _rule: Rule) -> Geometry:
    tensor = parts.get("diff") or parts.get("set_weight")
    if tensor is None or len(tensor.shape) < MATRIX_DIMS:
        return NOTHING
    return Geometry(None, tensor.shape[1], tensor.shape[0], len(tensor.shape))


def _nothing(_path: str, _parts: Parts, _rule: Rule) -> Geometry:
    return NOTHING


_BY_FAMILY: Mapping[Family, Callable[[str, Parts, Rule], Geometry]] = {
    Family.LORA: _lora,
    Family.LOHA: _loha,
    Family.LOKR: _lokr,
    Family.GLORA: _glora,
    Family.DIAG_OFT: _blocks,
    Family.FULL: _full,
}


def measure(path: str, parts: Parts, rule: Rule) -> Geometry:
    """Return the geometry of a complete module."""
    return _BY_FAMILY.get(rule.family, _nothing)(path, parts, rule)


def refined(rule: Rule, parts: Parts, geometry: Geometry, *, is_dora: bool) -> Family:
    """Return the family that only shapes or a magnitude tell from its plainer sister."""
    if rule.family is Family.LORA:
        if is_dora:
            return Family.DORA
        return Family.LOCON if geometry.dims >= CONV_DIMS else Family.LORA
    blocks = parts.get("oft_blocks")
    if rule.family is Family.DIAG_OFT and blocks and len(blocks.shape) == BOFT_DIMS:
        return Family.BOFT
    return rule.family
