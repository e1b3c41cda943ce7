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
    Unmeasured,
    matrix_shape,
)
from lora_server.evaluation.weights.quantities import Quantities, quantities
from lora_server.evaluation.weights.reading import Reader
from lora_server.evaluation.weights.sketches import Projection, Sketcher
from lora_server.evaluation.weights.solving import at_once, core_of
from lora_server.evaluation.weights.spectra import (
    BATCH_ENTRIES,
    MAX_RANK,
    Core,
    Spectrum,
    batch_size,
    precise,
    solve,
    unit,
)
from lora_server.evaluation.weights.updates import update_of

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


def shortened(spectrum: Spectrum) -> Spectrum:
    """Return the part of a spectrum that is kept, free of the array it was taken from."""
    values = spectrum.values[:MAX_RANK].copy()
    return replace(spectrum, values=values, cut=spectrum.cut or values.size < spectrum.values.size)


def measure(
    reader: Reader, contents: Contents, sketcher: Sketcher, progress: Progress
) -> list[Measured]:
    """Return the numbers of every module, in file order, and sketch each in the same pass.

    Raises FileRefused where the file ends early, or is too scattered to be read.
    """
    waiting = _Waiting()
    total = len(contents.modules)
    done = []
    for number, module in enumerate(contents.modules):
        if number % 64 == 0:
            progress(number / total, f"module {number + 1} of {total}")
        done.append(_measured(reader, module, waiting, sketcher))
    waiting.finish()
    return done


def _measured(reader: Reader, module: Adapted, waiting: _Waiting, sketcher: Sketcher) -> Measured:
    measured = Measured(module, partial=DORA if module.is_dora else "")
    how = composed(reader, module)
    measured.nonfinite = not (_finite_scale(module) and _rest_finite(reader, module, how))
    if isinstance(how, Unmeasured):
        measured.partial = how.reason
        measured.broken = how.broken
        measured.zero = how.zero_is_nothing and _all_zero(reader, module)
    elif not measured.nonfinite:
        sketched = _from_composed(measured, how, waiting, sketcher)
        if not sketched and not measured.nonfinite:
            update = update_of(reader, module)
            if update is not None:
                sketcher.add(update)
    if measured.nonfinite:
        measured.partial = measured.partial or NONFINITE
    return measured


def _from_composed(
    measured: Measured, how: Composed, waiting: _Waiting, sketcher: Sketcher
) -> bool:
    """Measure a module, or have it wait for others; return whether it was sketched."""
    module = measured.module
    shape = matrix_shape(module)
    short = isinstance(how, Halves) and shape is not None and min(shape) < how.rank
    if isinstance(how, Halves) and shape is not None and not short:
        projection = Projection(module.path, shape)
        core = core_of(how, abs(module.scale), projection.add_up, projection.add_down)
        if core is None:
            measured.nonfinite = True
            return False
        waiting.add(measured, how, core)
        careful = core.up.careful or core.down.careful
        if not careful:
            sketcher.join(projection, unit(module.scale, how.exponent))
        return not careful
    found = at_once(how, abs(module.scale), short=short)
    if found is None:
        measured.nonfinite = True
        return False
    if found.spectrum.cut:
        measured.partial = "; ".join(filter(None, (measured.partial, BEGINNING)))
    settle(measured, found.spectrum, found.largest)
    return False


def _finite_scale(module: Adapted) -> bool:
    """Whether the scale and a stored alpha, used or not, are finite."""
    return math.isfinite(module.scale) and math.isfinite(module.alpha or 0.0)


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
