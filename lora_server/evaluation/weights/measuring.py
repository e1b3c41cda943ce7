"""Every module of a file measured, in bounded memory; spectra are taken in batches."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from lora_server.evaluation.weights.adapted import Adapted, Contents
from lora_server.evaluation.weights.building import composed
from lora_server.evaluation.weights.composing import (
    Composed,
    Halves,
    Kronecker,
    Rows,
    Unmeasured,
    matrix_shape,
)
from lora_server.evaluation.weights.grams import gram
from lora_server.evaluation.weights.matrices import Dense, dense, kronecker
from lora_server.evaluation.weights.quantities import Quantities, quantities
from lora_server.evaluation.weights.reading import Reader
from lora_server.evaluation.weights.spectra import (
    BATCH_ENTRIES,
    MAX_RANK,
    Core,
    Spectrum,
    batch_size,
    precise,
    solve,
)

Progress = Callable[[float, str], None]

DORA = "the DoRA magnitude needs the base's norms; its direction is what is measured"
NONFINITE = "it holds NaN or infinite values"
BEGINNING = "only the beginning of the spectrum is known, and that from below"
OVERFLOW = "the update is beyond what double precision holds"


@dataclass(slots=True)
class Measured:
    """One module's numbers. Without a spectrum only `nonfinite` and `zero` are known."""

    module: Adapted
    spectrum: Spectrum | None = None
    numbers: Quantities | None = None
    bound: float | None = None
    nonfinite: bool = False
    zero: bool = False  # every weight is zero
    broken: bool = False  # its tensors' shapes are at odds
    partial: str = ""


@dataclass(slots=True)
class _Waiting:
    """Modules whose Gram matrices wait for others of their rank."""

    by_rank: dict[int, list[tuple[Measured, Halves, Core]]] = field(default_factory=dict)
    entries: int = 0

    def add(self, measured: Measured, halves: Halves, core: Core) -> None:
        waiting = self.by_rank.setdefault(halves.rank, [])
        waiting.append((measured, halves, core))
        self.entries += halves.rank**2
        if len(waiting) >= batch_size(halves.rank):
            self._solve(halves.rank)
        elif self.entries > BATCH_ENTRIES:
            self.finish()

    def finish(self) -> None:
        """Solve all that still wait."""
        for rank in tuple(self.by_rank):
            self._solve(rank)

    def _solve(self, rank: int) -> None:
        waiting = self.by_rank.pop(rank)
        self.entries -= len(waiting) * rank**2
        solved = solve([core for _, _, core in waiting])
        for (measured, halves, core), (spectrum, reliable) in zip(waiting, solved, strict=True):
            settle(
                measured,
                spectrum if reliable else precise(halves.down, halves.up, core),
                core.bound,
            )


def measure(reader: Reader, contents: Contents, progress: Progress) -> list[Measured]:
    """Return the numbers of every module, in file order.

    Raises FileRefused where the file ends early, or is too scattered to be read.
    """
    waiting = _Waiting()
    total = len(contents.modules)
    done = []
    for number, module in enumerate(contents.modules):
        if number % 64 == 0:
            progress(number / total, f"module {number + 1} of {total}")
        done.append(_measured(reader, module, waiting))
    waiting.finish()
    return done


def settle(measured: Measured, spectrum: Spectrum, bound: float) -> None:
    """Enter a spectrum and what follows from it."""
    shape = matrix_shape(measured.module)
    if shape is not None and min(shape) < spectrum.values.size:
        # Of a rank above both widths the rest is rounding.
        spectrum = replace(spectrum, values=spectrum.values[: min(shape)])
    numbers = quantities(spectrum)
    if not math.isfinite(numbers.frobenius) or not math.isfinite(bound):
        measured.nonfinite = True
        measured.partial = OVERFLOW
        return
    measured.spectrum = shortened(spectrum)
    measured.numbers = numbers
    measured.bound = bound
    measured.zero = numbers.spectral == 0


def _measured(reader: Reader, module: Adapted, waiting: _Waiting) -> Measured:
    measured = Measured(module, partial=DORA if module.is_dora else "")
    how = composed(reader, module)
    measured.nonfinite = not math.isfinite(module.scale) or not _rest_finite(reader, module, how)
    if isinstance(how, Unmeasured):
        measured.partial = how.reason
        measured.broken = how.broken
        measured.zero = how.zero_is_nothing and _all_zero(reader, module)
    elif not measured.nonfinite:
        _from_composed(measured, how, waiting)
    if measured.nonfinite:
        measured.partial = measured.partial or NONFINITE
    return measured


def _from_composed(measured: Measured, how: Composed, waiting: _Waiting) -> None:
    if isinstance(how, Halves):
        core = _core(how, abs(measured.module.scale))
        if core is None:
            measured.nonfinite = True
        else:
            waiting.add(measured, how, core)
        return
    found = _at_once(how, abs(measured.module.scale))
    if found is None:
        measured.nonfinite = True
        return
    if found.spectrum.cut:
        measured.partial = "; ".join(filter(None, (measured.partial, BEGINNING)))
    settle(measured, found.spectrum, found.largest)


def _core(halves: Halves, scale: float) -> Core | None:
    """Return both Gram matrices; None where a half is not finite."""
    down = gram(halves.down)
    up = None if down is None else gram(halves.up)
    return None if down is None or up is None else Core(down, up, scale, halves.exponent)


def _at_once(how: Composed, scale: float) -> Dense | None:
    """Return the spectrum of what waits for no others; None where it is not finite."""
    if isinstance(how, Kronecker):
        left, right = _at_once(how.left, scale), _at_once(how.right, 1.0)
        return None if left is None or right is None else kronecker(left, right)
    if isinstance(how, Rows):
        return dense(how.rows, how.width, scale, how.exponent)
    if isinstance(how, Halves):
        core = _core(how, scale)
        return None if core is None else Dense(_spectrum(how, core), core.bound)
    return None


def _spectrum(halves: Halves, core: Core) -> Spectrum:
    spectrum, reliable = solve([core])[0]
    return spectrum if reliable else precise(halves.down, halves.up, core)


def shortened(spectrum: Spectrum) -> Spectrum:
    """Return the part of a spectrum that is kept, free of the array it was taken from."""
    values = spectrum.values[:MAX_RANK].copy()
    return replace(spectrum, values=values, cut=spectrum.cut or values.size < spectrum.values.size)


def loose_nonfinite(reader: Reader, contents: Contents) -> tuple[str, ...]:
    """Return the names of tensors outside of modules that hold NaN or infinite values."""
    return tuple(
        tensor.name
        for tensor in contents.plain
        if not all(bool(np.isfinite(run).all()) for run in reader.runs(tensor))
    )


def _rest_finite(reader: Reader, module: Adapted, how: Composed) -> bool:
    """Whether the parts that no spectrum is taken of hold finite numbers only."""
    used = frozenset() if isinstance(how, Unmeasured) else how.used
    rest = [tensor for part, tensor in module.parts.items() if part not in used]
    return all(
        bool(np.isfinite(run).all())
        for tensor in rest
        if tensor is not module.parts.get("alpha")
        for run in reader.runs(tensor)
    )


def _all_zero(reader: Reader, module: Adapted) -> bool:
    """Whether all weights of a module are zero."""
    return not any(np.any(run) for tensor in module.weights for run in reader.runs(tensor))
