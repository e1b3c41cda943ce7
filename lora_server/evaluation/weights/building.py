"""Each family's update as the cheapest thing that can be measured.

Most are a product of two halves. LoHa (B₁ A₁) ∘ (B₂ A₂) is one, too: row i of its `up` is
kron(b1ᵢ, b2ᵢ) and column j of its `down` kron(a1ⱼ, a2ⱼ), of rank r₁ r₂. LoKr is kron(C, W), whose
singular values are all products of theirs. Where a factorisation costs more than the matrix, rows
of the matrix are made a few at a time.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

from lora_server.evaluation.weights.adapted import Adapted
from lora_server.evaluation.weights.composing import Composed, Halves, Kronecker, Rows, Unmeasured
from lora_server.evaluation.weights.factors import (
    Factor,
    contracted,
    contracted_size,
    fits,
    stored,
)
from lora_server.evaluation.weights.numbers import Floats
from lora_server.evaluation.weights.reading import Reader
from lora_server.evaluation.weights.spectra import MAX_RANK
from lora_server.formats.tensors import Tensor
from lora_server.inspection.families import Family

# Factors of a LoHa of a larger rank cost more than its matrix.
MAX_PRODUCT_RANK = 256
_STRIPE = 1024 * 1024  # elements made at once
_MATRIX_DIMS = 2

_TURNS = "it turns the base's weights, which are not known"
_REASONS: Mapping[Family, str] = {
    Family.GLORA: "GLoRA multiplies the base's weights, which are not known",
    Family.DIAG_OFT: _TURNS,
    Family.BOFT: _TURNS,
    Family.PEFT_OFT: _TURNS,
    Family.PEFT_BOFT: _TURNS,
    Family.IA3: "IA3 scales the base's weights, which are not known",
    Family.NORM: "the scales of a norm are no update of a matrix",
    Family.UNKNOWN: "the family is not known",
}
_ZERO_IS_NOTHING = frozenset(
    {Family.GLORA, Family.DIAG_OFT, Family.BOFT, Family.PEFT_OFT, Family.NORM}
)
_TOO_LARGE = Unmeasured("it is too large to be measured in bounded memory")
_AT_ODDS = Unmeasured("its tensors do not go together", broken=True)


def composed(reader: Reader, module: Adapted) -> Composed:
    """Return how a module's update is put together; its scale is not in it yet."""
    build = _BUILDERS.get(module.rule.family)
    if build is None:
        reason = _REASONS.get(module.family, _REASONS[Family.UNKNOWN])
        return Unmeasured(reason, zero_is_nothing=module.family in _ZERO_IS_NOTHING)
    return build(reader, module)


def _product(reader: Reader, up: Tensor, down: Tensor, used: frozenset[str]) -> Halves | Unmeasured:
    """Return up @ down, where up is (m, r, 1…) and down (r, …)."""
    rank = down.shape[0]
    if up.numel != up.shape[0] * rank:
        return Unmeasured("the up half has a kernel of its own")
    if rank > MAX_RANK:
        return Unmeasured(f"rank {rank} is over the {MAX_RANK} that are measured")
    return Halves(partial(reader.rows, up), partial(reader.columns, down), rank, used)


def _lora(reader: Reader, module: Adapted) -> Composed:
    up, down = module.parts[module.rule.up], module.parts[module.rule.down]
    used = frozenset({module.rule.up, module.rule.down})
    if "lora_mid" not in module.parts:
        return _product(reader, up, down, used)
    parts = _Tucker(up, down, module.parts["lora_mid"], rank_first=False)
    return _tucker(reader, parts, used | {"lora_mid"})


class _Tucker(NamedTuple):
    """Outer and inner factor and core; the outer one is (r, out) where `rank_first`."""

    outer: Tensor
    inner: Tensor
    core: Tensor
    rank_first: bool


def _tucker(reader: Reader, parts: _Tucker, used: frozenset[str]) -> Halves | Unmeasured:
    outer, inner, core, rank_first = parts
    rank = core.shape[0]
    if core.shape[1] != inner.shape[0] or outer.numel != rank * outer.shape[int(rank_first)]:
        return _AT_ODDS
    if inner.numel != inner.shape[0] * inner.shape[1] or rank > MAX_RANK:
        return Unmeasured("a core and a kernel in both halves are not measured")
    if not fits(contracted_size(core, inner), core.numel, inner.numel):
        return _TOO_LARGE
    up = partial(reader.columns if rank_first else reader.rows, outer)
    exponent = contracted(reader, core, inner).exponent
    return Halves(up, partial(_transposed, reader, core, inner), rank, used, exponent)


def _transposed(reader: Reader, core: Tensor, inner: Tensor) -> Iterator[Floats]:
    yield contracted(reader, core, inner).array.T


def _loha(reader: Reader, module: Adapted) -> Composed:
    parts = module.parts
    pairs = [
        (parts[f"hada_w{n}_a"], parts[f"hada_w{n}_b"], parts.get(f"hada_t{n}")) for n in (1, 2)
    ]
    used = frozenset(part for part in parts if part.startswith("hada_"))
    if not _go_together(pairs):
        return _AT_ODDS
    sizes = [contracted_size(core, b) for _, b, core in pairs if core is not None]
    if not fits(*sizes, *(tensor.numel for pair in pairs for tensor in pair if tensor)):
        return _TOO_LARGE
    rank = math.prod(b.shape[0] for _, b, _ in pairs)
    exponent = sum(_outer(reader, p).exponent + _inner(reader, p).exponent for p in pairs)
    if rank <= MAX_PRODUCT_RANK:
        return Halves(
            partial(_kron_rows, reader, pairs, _outer),
            partial(_kron_rows, reader, pairs, _inner),
            rank,
            used,
            exponent,
        )
    height, width = _outer(reader, pairs[0]).array.shape[0], _inner(reader, pairs[0]).array.shape[0]
    transposed = height < width
    rows = partial(_hadamard_rows, reader, pairs, transposed=transposed)
    return Rows(rows, min(height, width), transposed, used, exponent)


_Pair = tuple[Tensor, Tensor, Tensor | None]


def _go_together(pairs: list[_Pair]) -> bool:
    """Whether both products of a LoHa have one shape."""
    shapes = set()
    for a, b, core in pairs:
        if core is not None and core.shape[:2] != (a.shape[0], b.shape[0]):
            return False
        kernel = () if core is None else core.shape[2:]
        shapes.add((a.shape[1 if core is not None else 0], b.shape[1], kernel))
    return len(shapes) == 1


def _outer(reader: Reader, pair: _Pair) -> Factor:
    """Return the outer factor as (m, r)."""
    factor = stored(reader, pair[0])
    return factor if pair[2] is None else Factor(factor.array.T, factor.exponent)


def _inner(reader: Reader, pair: _Pair) -> Factor:
    """Return the transpose of the inner factor, (n, r)."""
    _, b, core = pair
    factor = stored(reader, b) if core is None else contracted(reader, core, b)
    return Factor(factor.array.T, factor.exponent)


def _kron_rows(
    reader: Reader, pairs: list[_Pair], side: Callable[[Reader, _Pair], Factor]
) -> Iterator[Floats]:
    """Yield rows whose i-th is the Kronecker product of both factors' i-th rows."""
    first, second = (side(reader, pair).array for pair in pairs)
    rank = first.shape[1] * second.shape[1]
    step = max(1, _STRIPE // rank)
    for begin in range(0, first.shape[0], step):
        stripe = slice(begin, begin + step)
        yield (first[stripe, :, None] * second[stripe, None, :]).reshape(-1, rank)


def _hadamard_rows(reader: Reader, pairs: list[_Pair], *, transposed: bool) -> Iterator[Floats]:
    """Yield rows of (B₁ A₁) ∘ (B₂ A₂), or of its transpose."""
    sides = [(_outer(reader, pair).array, _inner(reader, pair).array) for pair in pairs]
    (b1, a1), (b2, a2) = [(a, b) if transposed else (b, a) for b, a in sides]
    step = max(1, _STRIPE // max(a1.shape[0], 1))
    for begin in range(0, b1.shape[0], step):
        stripe = slice(begin, begin + step)
        yield (b1[stripe] @ a1.T) * (b2[stripe] @ a2.T)


def _lokr(reader: Reader, module: Adapted) -> Composed:
    left = _kronecker_factor(reader, module, "lokr_w1")
    right = _kronecker_factor(reader, module, "lokr_w2")
    if isinstance(left, Unmeasured):
        return left
    if isinstance(right, Unmeasured):
        return right
    return Kronecker(left, right, left.used | right.used)


def _kronecker_factor(reader: Reader, module: Adapted, name: str) -> Halves | Rows | Unmeasured:
    parts = module.parts
    if name in parts:
        return matrix_rows(reader, parts[name], frozenset({name}))
    outer, inner = f"{name}_a", f"{name}_b"
    used = frozenset({outer, inner})
    if name == "lokr_w2" and "lokr_t2" in parts:
        tucker = _Tucker(parts[outer], parts[inner], parts["lokr_t2"], rank_first=True)
        return _tucker(reader, tucker, used | {"lokr_t2"})
    return _product(reader, parts[outer], parts[inner], used)


def _full(reader: Reader, module: Adapted) -> Composed:
    tensor = module.parts.get("diff")
    if tensor is None and "diff_b" in module.parts:
        return Unmeasured("a vector is no update of a matrix", zero_is_nothing=True)
    if tensor is None:
        return Unmeasured("whole weights take the place of the base's, which are not known")
    if len(tensor.shape) < _MATRIX_DIMS:
        return Unmeasured("a vector is no update of a matrix", zero_is_nothing=True)
    return matrix_rows(reader, tensor, frozenset({"diff"}))


def matrix_rows(reader: Reader, tensor: Tensor, used: frozenset[str]) -> Rows:
    """Return a whole matrix, kernels flattened into its width."""
    height = tensor.shape[0]
    width = tensor.numel // max(height, 1)
    if height < width:
        return Rows(partial(reader.columns, tensor), height, True, used)  # noqa: FBT003
    return Rows(partial(reader.rows, tensor), width, False, used)  # noqa: FBT003


_BUILDERS: Mapping[Family, Callable[[Reader, Adapted], Composed]] = {
    Family.LORA: _lora,
    Family.LOHA: _loha,
    Family.LOKR: _lokr,
    Family.FULL: _full,
}
